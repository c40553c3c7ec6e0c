// Bounding boxes of leaves, an interval along each axis: LANES leaves, or one, at a time.
#pragma once

#include "memory.h"
#include "order.h"
#include "simd.h"

#include <limits>

namespace trackserve {

inline constexpr int PARTS = LEAF / LANES;
inline constexpr float INFINITE = std::numeric_limits<float>::infinity();
inline constexpr float NO_NUMBER = std::numeric_limits<float>::quiet_NaN();

// The least and the greatest of what lies in a box; an empty box has low > high.
template <class Number>
struct Interval {
    Number low, high;
};

// Intervals of all leaves, side by side; as many more as a vector may reach beyond the last.
struct Intervals {
    List<float> low, high;

    explicit Intervals(int64_t leaves) : low(leaves + LANES, INFINITE), high(leaves + LANES, -INFINITE) {}
    void add(int64_t leaf, float x) {
        low[leaf] = x < low[leaf] ? x : low[leaf];
        high[leaf] = x > high[leaf] ? x : high[leaf];
    }
    // Of LEAF numbers; NaN doesn't count.
    void enclose(int64_t leaf, const float* numbers) {
        Vec least = broadcast(INFINITE), most = -least;
        for (int part = 0; part < PARTS; ++part) {
            least = min(load(numbers + part * LANES), least);
            most = max(load(numbers + part * LANES), most);
        }
        for (int lane = 0; lane < LANES; ++lane) {
            low[leaf] = least[lane] < low[leaf] ? least[lane] : low[leaf];
            high[leaf] = most[lane] > high[leaf] ? most[lane] : high[leaf];
        }
    }
    Interval<Vec> several(int64_t leaf) const { return {load(&low[leaf]), load(&high[leaf])}; }
    Interval<Vec> one(int64_t leaf) const { return {broadcast(low[leaf]), broadcast(high[leaf])}; }
};

inline Vec gap(const Interval<Vec>& a, const Interval<Vec>& b) {
    return max(max(a.low - b.high, b.low - a.high), Vec{});
}
inline Vec reach(const Interval<Vec>& a, const Interval<Vec>& b) {
    return max(a.high - b.low, b.high - a.low);
}

}  // namespace trackserve
