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

}  // namespace trackserve
