// Hits in the embedding, along its principal axes, in leaves of LEAF consecutive ones.
#pragma once

#include "axes.h"
#include "boxes.h"
#include "parallel.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace trackserve {

inline constexpr int LEAVES_AT_ONCE = 16;

// The float32 distances (squared) below which a pair surely is within the radius, and above which
// it surely is not: float32 is off by at most (dimensions + 3) half units in the last place, and by
// what turning the points to their axes did to their distances.
struct Radius {
    double squared;  // a pair is within the radius when its float64 distance is less
    float sure, possible;

    Radius(double squared, int dimensions, double error) : squared(squared) {
        constexpr double largest = std::numeric_limits<float>::max();
        const double margin = (dimensions + 4) * 0x1p-23, radius = std::sqrt(squared);
        const double near = std::max(radius - error, 0.0), far = radius + error;
        sure = std::min(near * near * (1 - margin) - 1e-36, largest);
        const double farthest = far * far * (1 + margin) + 1e-36;
        possible = farthest < largest ? float(farthest) : INFINITE;
    }
};

// The hits, in space order, and the boxes of their leaves.
struct Space {
    const float* embedding;  // [hits, dimensions]
    const int32_t* order;    // [hits] its row for each
    int64_t hits, leaves;
    int dimensions, padded;       // padded to a multiple of 4 with zeros
    double error;                 // of a distance along the principal axes
    List<float> coordinates;      // [leaves, padded, LEAF] along them; NaN beyond the last hit
    std::vector<Intervals> axes;  // [dimensions]

    Space(const float* embedding, const Turned& turned, const int32_t* order, int64_t n, int d, int threads);

    template <class Work>
    void for_leaves(int threads, const Work& work) const {
        for_rows(threads, leaves, LEAVES_AT_ONCE, work);
    }

    const float* coordinate(int64_t row, int k) const {
        return &coordinates[(row / LEAF * padded + k) * LEAF + row % LEAF];
    }

    // In float64, with the squares added up as scipy's cKDTree does.
    double squared_distance(int64_t a, int64_t b) const;

    // One bit for each of LANES leaves whose box is at most `far` (squared) from this box.
    template <class Box>
    uint32_t near(const Box& box, int64_t leaf, float far) const {
        Vec distance{};
        uint32_t set = 0;
        for (int k = 0; k < dimensions; ++k) {
            const Vec between = gap(box(k), axes[k].several(leaf));
            distance = fma(between, between, distance);
            if (k % 4 == 3 || k == dimensions - 1) {
                set = bits(distance <= broadcast(far));
                if (!set) break;
            }
        }
        return set;
    }
};

}  // namespace trackserve
