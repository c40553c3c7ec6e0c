#include "detector.h"

#include <algorithm>
#include <limits>

namespace trackserve {

Detector::Detector(const DoubletCuts& cuts, int64_t leaves)
    : cuts(cuts),
      r(leaves * LEAF),
      phi(leaves * LEAF),
      z(leaves * LEAF),
      distance(leaves * LEAF),
      cot(leaves * LEAF),
      inverse_r(leaves * LEAF),
      rank(leaves * LEAF),
      lowest_rank(leaves),
      boxes(QUANTITIES, Intervals(leaves)) {}

void Detector::fill(int64_t leaf, const int32_t* order, int64_t hits, const float* r_of, const float* phi_of,
                    const float* z_of) {
    constexpr float least = 1e-15, most = 1e15;
    for (int64_t row = leaf * LEAF; row < (leaf + 1) * LEAF; ++row) {
        const bool some = row < hits;
        rank[row] = some ? order[row] : std::numeric_limits<int32_t>::max();
        r[row] = some ? r_of[rank[row]] : 0;
        phi[row] = some ? phi_of[rank[row]] : 0;
        z[row] = some ? z_of[rank[row]] : 0;
        distance[row] = r[row] * r[row] + z[row] * z[row];
        const bool usual = r[row] > least && r[row] < most && std::abs(z[row]) < most;
        cot[row] = usual ? z[row] / r[row] : NO_NUMBER;
        inverse_r[row] = usual ? 1 / r[row] : NO_NUMBER;
        if (!some) continue;
        boxes[PHI].add(leaf, phi[row]);
        boxes[R].add(leaf, r[row]);
        for (const float sign : {-1.0f, 1.0f}) {
            boxes[COT].add(leaf, usual ? cot[row] : sign * INFINITE);
            boxes[INVERSE_R].add(leaf, usual ? inverse_r[row] : sign * INFINITE);
        }
    }
    lowest_rank[leaf] = *std::min_element(&rank[leaf * LEAF], &rank[leaf * LEAF] + LEAF);
}

}  // namespace trackserve
