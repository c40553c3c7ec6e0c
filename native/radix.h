// Sorting by floats and by other 32-bit keys: eleven bits at a time, from the least significant; equal keys
// keep their order.
#pragma once

#include "memory.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace trackserve {

// Unsigned integers in the order of the floats; NaN at the ends, -0 at 0.
inline uint32_t ordered(float x) {
    uint32_t u;
    x += 0.0f;
    std::memcpy(&u, &x, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

struct Keyed {
    uint32_t key;
    int32_t row;
};

inline void sort_by_key(List<Keyed>& items) {
    constexpr int bits = 11, passes = 3;
    std::array<std::array<int64_t, 1 << bits>, passes> begin{};
    const auto digit = [](uint32_t key, int pass) { return key >> (bits * pass) & ((1 << bits) - 1); };
    for (const Keyed& item : items)
        for (int pass = 0; pass < passes; ++pass) ++begin[pass][digit(item.key, pass)];
    List<Keyed> sorted(items.size());
    for (int pass = 0; pass < passes; ++pass) {
        int64_t total = 0;
        for (int64_t& count : begin[pass]) total += std::exchange(count, total);
        for (const Keyed& item : items) sorted[begin[pass][digit(item.key, pass)]++] = item;
        items.swap(sorted);
    }
}

// Call work(first, last) for every range of two items or more with one key.
template <class Work>
void for_ties(const List<Keyed>& items, const Work& work) {
    for (size_t first = 0, last; first < items.size(); first = last) {
        for (last = first + 1; last < items.size() && items[last].key == items[first].key;) ++last;
        if (last - first > 1) work(first, last);
    }
}

}  // namespace trackserve
