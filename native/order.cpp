#include "order.h"

#include "memory.h"
#include "parallel.h"
#include "radix.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace trackserve {
namespace {

constexpr int64_t SEEN = 32;    // of the points of a range, to find along which axis they are spread
constexpr int64_t SORTED = 64;  // items that are sorted to find a pivot among them

// Points along each axis and, if a radian counts, along the azimuth: [axes][n].
std::vector<List<float>> coordinates(const float* points, int64_t n, int dimensions, const float* phi,
                                     float radian, int threads) {
    std::vector<List<float>> along(dimensions + (radian > 0));
    parallel_for(threads, along.size(), [&](int64_t axis, int) {
        along[axis].resize(n);
        for (int64_t i = 0; i < n; ++i)
            along[axis][i] = axis < dimensions ? points[i * dimensions + axis] : phi[i] * radian;
    });
    return along;
}

// The axis along which a sample of the rows is spread widest.
const List<float>& widest(const std::vector<List<float>>& along, const uint64_t* items, int64_t n) {
    const int64_t step = std::max<int64_t>(1, n / SEEN);
    const List<float>* axis = &along[0];
    float widest = -1;
    for (const List<float>& each : along) {
        float low = std::numeric_limits<float>::infinity(), high = -low;
        for (int64_t i = 0; i < n; i += step) {
            const float x = each[uint32_t(items[i])];
            low = x < low ? x : low;
            high = x > high ? x : high;
        }
        if (high - low > widest) {
            widest = high - low;
            axis = &each;
        }
    }
    return *axis;
}

// Put the `middle` least items first; all are different. std::nth_element's work without its branches,
// which nothing can predict.
void put_least_first(uint64_t* items, int64_t n, int64_t middle, uint64_t* spare) {
    while (n > 2 * SORTED) {
        std::array<uint64_t, SORTED> sample;
        for (int64_t i = 0; i < SORTED; ++i) sample[i] = items[i * n / SORTED];
        std::sort(sample.begin(), sample.end());
        const uint64_t pivot = sample[std::min(SORTED - 1, middle * SORTED / n)];
        int64_t less = 0, others = n - 1;
        for (int64_t i = 0; i < n; ++i) {
            spare[less] = spare[others] = items[i];
            const bool low = items[i] < pivot;
            less += low;
            others -= !low;
        }
        std::copy_n(spare, n, items);
        if (less == middle) return;
        if (less > middle) {
            n = less;
        } else if (less > 0) {
            items += less;
            n -= less;
            middle -= less;
        } else {
            break;  // the pivot was the least of all
        }
    }
    std::nth_element(items, items + middle, items + n);
}

}  // namespace

void canonical_order(const float* features, int64_t n, int columns, const float* distance, int64_t* order) {
    List<Keyed> items(n);
    for (int64_t i = 0; i < n; ++i) items[i] = {ordered(distance[i]), int32_t(i)};
    sort_by_key(items);
    // Hits at one distance: by their features, the last one first.
    const auto before = [&](const Keyed& a, const Keyed& b) {
        for (int k = columns - 1; k >= 0; --k) {
            const float x = features[a.row * int64_t(columns) + k];
            const float y = features[b.row * int64_t(columns) + k];
            if (x != y) return x < y;
        }
        return a.row < b.row;
    };
    for_ties(items, [&](size_t first, size_t last) {
        std::sort(&items[first], &items[first] + (last - first), before);
    });
    for (int64_t i = 0; i < n; ++i) order[i] = items[i].row;
}

void space_order(const float* points, int64_t n, int dimensions, const float* phi, float radian,
                 int32_t* order, int threads) {
    const auto along = coordinates(points, n, dimensions, phi, radian, threads);
    List<uint64_t> items(n), spare(n);  // a coordinate, ordered, above the row
    std::iota(items.begin(), items.end(), 0);
    using Range = std::pair<int64_t, int64_t>;
    std::vector<Range> ranges{{0, n}};
    while (!ranges.empty()) {
        std::vector<std::array<Range, 2>> halves(ranges.size());
        parallel_for(threads, ranges.size(), [&](int64_t i, int) {
            const auto [first, last] = ranges[i];
            const int64_t middle = first + (last - first + LEAF - 1) / LEAF / 2 * LEAF;
            if (middle == first) return;
            const List<float>& axis = widest(along, &items[first], last - first);
            for (int64_t k = first; k < last; ++k) {
                const uint32_t row = items[k];
                items[k] = uint64_t(ordered(axis[row])) << 32 | row;
            }
            put_least_first(&items[first], last - first, middle - first, &spare[first]);
            halves[i] = {Range{first, middle}, Range{middle, last}};
        });
        ranges.clear();
        for (const auto& pair : halves)
            for (const Range& half : pair)
                if (half.second - half.first > LEAF) ranges.push_back(half);
    }
    for (int64_t i = 0; i < n; ++i) order[i] = int32_t(uint32_t(items[i]));
}

}  // namespace trackserve
