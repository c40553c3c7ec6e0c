#include "space.h"

#include <algorithm>
#include <array>

namespace trackserve {

Space::Space(const float* embedding, const Turned& turned, const int32_t* order, int64_t n, int d,
             int threads)
    : embedding(embedding),
      order(order),
      hits(n),
      leaves((n + LEAF - 1) / LEAF),
      dimensions(d),
      padded((d + 3) / 4 * 4),
      error(turned.error),
      coordinates(leaves * padded * LEAF),
      axes(d, Intervals(leaves)) {
    for_leaves(threads, [&](int64_t leaf) {
        float* here = &coordinates[leaf * padded * LEAF];
        for (int64_t row = leaf * LEAF; row < (leaf + 1) * LEAF; ++row)
            for (int k = 0; k < d; ++k)
                here[k * LEAF + row % LEAF] =
                    row < n ? turned.coordinates[int64_t(order[row]) * d + k] : NO_NUMBER;
        for (int k = 0; k < d; ++k) axes[k].enclose(leaf, here + k * LEAF);
        std::fill(here + d * LEAF, here + padded * LEAF, 0.0f);
    });
}

double Space::squared_distance(int64_t a, int64_t b) const {
    const float* one = embedding + int64_t(order[a]) * dimensions;
    const float* other = embedding + int64_t(order[b]) * dimensions;
    std::array<double, 4> parts{};
    int k = 0;
    for (; k + 4 <= dimensions; k += 4)
        for (int i = 0; i < 4; ++i) {
            const double step = double(one[k + i]) - double(other[k + i]);
            parts[i] += step * step;
        }
    double total = parts[0] + parts[1] + parts[2] + parts[3];
    for (; k < dimensions; ++k) {
        const double step = double(one[k]) - double(other[k]);
        total += step * step;
    }
    return total;
}

}  // namespace trackserve
