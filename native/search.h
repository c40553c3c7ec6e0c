// Hits within a radius: leaves whose boxes are near each other, then hits of such leaves.
#pragma once

#include "detector.h"
#include "space.h"

#include <vector>

namespace trackserve {

struct Search {
    Space& space;
    Detector& detector;
    Radius radius;

    Search(Space& space, Detector& detector, double squared_radius)
        : space(space), detector(detector), radius(squared_radius, space.dimensions, space.error) {}

    // Append the leaves from `first` on whose boxes are at most `far` (squared) from a box, and hits of
    // which may pass the doublet cuts with those of a leaf.
    template <class Box>
    void leaves_near(const Box& box, int64_t leaf, int64_t first, float far,
                     std::vector<int32_t>& near) const {
        const auto here = detector.box(leaf);
        for (int64_t there = first / LANES * LANES; there < space.leaves; there += LANES) {
            uint32_t set = space.near(box, there, far);
            if (!set) continue;
            if (there < first) set &= ~0u << (first - there);
            if (there + LANES > space.leaves) set &= ~(~0u << (space.leaves - there));
            if (set) set &= bits(detector.may_pass(here, detector.several_boxes(there)));
            for (; set; set &= set - 1) near.push_back(there + __builtin_ctz(set));
        }
    }

    // One bit for each hit of leaf a that may have neighbours in leaf b.
    uint32_t near_leaf(int64_t a, int64_t b) const {
        const float* leaf = space.coordinate(a * LEAF, 0);
        Vec distance[PARTS]{};
        for (int k = 0; k < space.dimensions; ++k) {
            const Interval<Vec> box = space.axes[k].one(b);
#pragma GCC unroll 8
            for (int part = 0; part < PARTS; ++part) {
                const Vec x = load(leaf + k * LEAF + part * LANES);
                const Vec between = gap({x, x}, box);
                distance[part] = fma(between, between, distance[part]);
            }
        }
        uint32_t near = 0;
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; ++part) {
            const int64_t row = a * LEAF + part * LANES;
            const VecInt possible = distance[part] <= broadcast(radius.possible);
            near |= bits(possible & detector.may_pass(detector.points(row), detector.box(b)))
                    << (part * LANES);
        }
        return near;
    }

    // One bit for each hit of leaf b that is within this radius of hit a and passes the cuts with it.
    // D is the padded number of dimensions, or 0 for any: a width that the compiler knows stays in registers.
    template <int D>
    uint32_t linked(int64_t a, int64_t b, const Radius& limit) const {
        const float *from = space.coordinate(a, 0), *leaf = space.coordinate(b * LEAF, 0);
        const int d = D ? D : space.padded;
        Vec distance[PARTS]{};
#pragma GCC unroll 16
        for (int k = 0; k < d; ++k) {
            const Vec x = broadcast(from[k * LEAF]);
#pragma GCC unroll 8
            for (int part = 0; part < PARTS; ++part) {
                const Vec step = x - load(leaf + k * LEAF + part * LANES);
                distance[part] = fma(step, step, distance[part]);
            }
        }
        const Detector::Doublets doublets(detector, a);
        uint32_t found = 0;
        VecInt doubt{};
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; ++part) {
            VecInt good = doublets.pass(b * LEAF + part * LANES);
            good &= distance[part] <= broadcast(limit.possible);
            found |= bits(good) << (part * LANES);
            doubt |= good & ~(distance[part] <= broadcast(limit.sure));
        }
        if (!bits(doubt)) return found;
        for (uint32_t left = found; left; left &= left - 1) {
            const int place = __builtin_ctz(left);
            if (distance[place / LANES][place % LANES] <= limit.sure) continue;
            if (!(space.squared_distance(a, b * LEAF + place) < limit.squared)) found ^= 1u << place;
        }
        return found;
    }
};

}  // namespace trackserve
