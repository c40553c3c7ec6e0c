// Which edges meet in a hit in one direction: the cuts on triplets, and edges by their outer hit.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace trackserve {

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

// One bit for each of LANES edges, from `second` on, that passes the cuts with edge `first`.
uint32_t passing(const Steps& firsts, int64_t first, const Steps& seconds, int64_t second,
                 const TripletCuts& cuts);

// Where, in a list of edges that is sorted by a hit of theirs, those of each hit begin: [n + 1].
std::vector<int32_t> begins(const int32_t* hit, int64_t edges, int64_t n);

}  // namespace trackserve
