// What edges and triplets are kept, and algorithm 2 between: keep_edges of pipeline/filter.py,
// join_edges and keep_chains of pipeline/triplets.py; and what they share with triplets.cpp.
#pragma once

#include "budget.h"
#include "pairs.h"
#include "simd.h"

#include <cmath>
#include <cstdint>
#include <vector>

namespace trackserve {

struct TripletCuts {
    float kink, off, slope, dphi;
};

struct Position {
    const float *r, *phi, *z;  // [hits] mm, rad, mm
};

// The components of some edges, dr, dz (mm), dphi (rad), and their lengths in r and z (mm); as many
// more as a vector may reach beyond the end.
struct Steps {
    std::vector<float> dr, dz, dphi, length;

    void resize(int64_t edges) {
        for (auto* each : {&dr, &dz, &dphi, &length}) each->resize(edges + LANES);
    }
    void set(int64_t e, const Position& at, int32_t inner, int32_t outer);
};

inline void Steps::set(int64_t e, const Position& at, int32_t inner, int32_t outer) {
    const float full = 2 * M_PI, half = M_PI;
    dr[e] = at.r[outer] - at.r[inner];
    dz[e] = at.z[outer] - at.z[inner];
    float turn = at.phi[outer] - at.phi[inner];
    if (turn > half) turn -= full;
    if (turn < -half) turn += full;
    dphi[e] = turn;
    length[e] = std::sqrt(dr[e] * dr[e] + dz[e] * dz[e]);
}

// One bit for each of LANES edges, from `second` on, that passes the cuts with edge `first`.
inline uint32_t passing(const Steps& firsts, int64_t first, const Steps& seconds, int64_t second,
                        const TripletCuts& cuts) {
    VecInt passed = broadcast(int32_t(-1));
    const Vec dr = broadcast(firsts.dr[first]), other_dr = load(&seconds.dr[second]);
    if (std::isfinite(cuts.kink)) {
        const Vec length = broadcast(firsts.length[first]);
        const Vec other_length = load(&seconds.length[second]);
        const Vec area = abs(dr * load(&seconds.dz[second]) - other_dr * broadcast(firsts.dz[first]));
        passed &= area <= broadcast(cuts.kink) * (length * other_length) +
                              broadcast(cuts.off) * (length + other_length);
    }
    if (std::isfinite(cuts.slope)) {
        const Vec size = abs(dr), other_size = abs(other_dr);
        const Vec turn = abs(broadcast(firsts.dphi[first]) * other_size - load(&seconds.dphi[second]) * size);
        passed &=
            turn <= broadcast(cuts.slope) * (size * other_size) + broadcast(cuts.dphi) * (size + other_size);
    }
    return bits(passed);
}

// Where, in a list of edges that is sorted by a hit of theirs, those of each hit begin: [n + 1].
List<int32_t> begins(const int32_t* hit, int64_t edges, int64_t n, int threads);

// The edges whose logits reach the threshold, sorted by their inner hit.
Pairs keep_edges(const float* logits, float threshold, int64_t count, int64_t n, const int32_t* inner,
                 const int32_t* outer, int threads);

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

}  // namespace trackserve
