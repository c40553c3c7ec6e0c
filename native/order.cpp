// The canonical order of hits, as canonical_order in pipeline/features.py.

#include "kernels.h"

#include <algorithm>
#include <array>
#include <utility>

namespace trackserve {

void canonical_order(const float* features, int64_t n, int columns, const float* distance,
                     int64_t* order) {
    // Eleven bits at a time, from the least significant.
    struct Item {
        uint32_t key;
        int32_t row;
    };
    constexpr int bits = 11, passes = 3;
    std::vector<Item> items(n), sorted(n);
    std::array<std::array<int64_t, 1 << bits>, passes> begin{};
    const auto digit = [](uint32_t key, int pass) { return key >> (bits * pass) & ((1 << bits) - 1); };
    for (int64_t i = 0; i < n; ++i) {
        items[i] = {ordered(distance[i]), int32_t(i)};
        for (int pass = 0; pass < passes; ++pass) ++begin[pass][digit(items[i].key, pass)];
    }
    for (int pass = 0; pass < passes; ++pass) {
        int64_t total = 0;
        for (int64_t& count : begin[pass]) total += std::exchange(count, total);
        for (const Item& item : items) sorted[begin[pass][digit(item.key, pass)]++] = item;
        items.swap(sorted);
    }
    // Hits at one distance: by their features, the last one first.
    const auto before = [&](const Item& a, const Item& b) {
        for (int k = columns - 1; k >= 0; --k) {
            const float x = features[a.row * int64_t(columns) + k];
            const float y = features[b.row * int64_t(columns) + k];
            if (x != y) return x < y;
        }
        return a.row < b.row;
    };
    for (int64_t first = 0, last; first < n; first = last) {
        for (last = first + 1; last < n && items[last].key == items[first].key;) ++last;
        if (last - first > 1) std::sort(&items[first], &items[first] + (last - first), before);
    }
    for (int64_t i = 0; i < n; ++i) order[i] = items[i].row;
}

}  // namespace trackserve
