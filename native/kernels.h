// What the files of the engine offer each other, and, at the end, what they offer Python.
#pragma once

#include "budget.h"
#include "memory.h"
#include "pairs.h"

#include <cstdint>
#include <cstring>
#include <vector>

namespace trackserve {

// Unsigned integers in the order of the floats; NaN at the ends, -0 at 0.
inline uint32_t ordered(float x) {
    uint32_t u;
    x += 0.0f;
    std::memcpy(&u, &x, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

struct DoubletCuts {
    float slope, z0, dphi, dcot;
};

struct NeighbourSettings {
    double squared_radius;  // pairs are nearer than this
    int32_t limit;
    DoubletCuts cuts;
    float radian;  // as much as in the embedding, where hits are put in an order; 0: azimuth doesn't count
};

// Rows of hits [n, columns] by distance from the origin, then by their features.
void canonical_order(const float* features, int64_t n, int columns, const float* distance, int64_t* order);

// The number of consecutive hits in space order that are looked at together.
inline constexpr int LEAF = 32;

// Rows of points [n, dimensions], along principal axes, in an order in which consecutive ones lie close
// together, in azimuth, too, if a radian counts.
void space_order(const float* points, int64_t n, int dimensions, const float* phi, float radian,
                 int32_t* order, int threads);

// Edges between hits, which come in the order from the origin. Hits are named by their places in space
// order, which is written to `order`. Throws OverBudget for more edges than these.
Pairs neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                 const float* z, const NeighbourSettings& settings, const Budget& budget, int32_t* order,
                 int threads);

// The edges whose logits reach the threshold, sorted by their inner hit.
Pairs keep_edges(const float* logits, float threshold, int64_t count, int64_t n, const int32_t* inner,
                 const int32_t* outer, int threads);

struct TripletCuts {
    float kink, off, slope, dphi;
};

// Triplets, in pieces, of edges [count] that are sorted by their inner hit; r, phi, z are [n]. They
// are sorted by their first, then their second edge. Throws OverBudget if more pairs of edges meet.
std::vector<Pairs> join_edges(const float* r, const float* phi, const float* z, int64_t n,
                              const int32_t* inner, const int32_t* outer, int64_t count,
                              const TripletCuts& cuts, const Budget& budget, int threads);

struct Chains {
    Pairs edges, triplets;
};

// In their order, the triplets through which a chain of at least `chain` edges runs, each two of them a
// triplet, and the edges that are in one of those.
Chains keep_chains(int32_t chain, int64_t triplets, const int32_t* first, const int32_t* second,
                   int64_t edges, const int32_t* inner, const int32_t* outer, int threads);

// The scores of logits [count], the logistic function; may be written over them.
void scores_of(const float* logits, int64_t count, float* scores);

// The edges of [count] that tracks are made of: those that pass the cut, or, where hits walk, of them those
// that are the best for both their hits.
List<int32_t> taken_edges(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                          int64_t count, float cut, bool walk);

// Labels the sets of at least min_hits hits that these edges connect; returns how many there are.
int64_t label_connected(int64_t n, const int32_t* inner, const int32_t* outer, const List<int32_t>& edges,
                        int64_t min_hits, int64_t* labels);

// The track of each hit, -1 for none: edges [count] that pass the cut, or, where hits walk, of them
// those that are the best for both their hits; components of at least min_hits hits.
void build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores, int64_t count,
                  float cut, bool walk, int64_t min_hits, int64_t* labels);

}  // namespace trackserve
