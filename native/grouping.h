// Rows in the order of a key, those of one key in their own order.
#pragma once

#include "memory.h"
#include "parallel.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace trackserve {

struct Grouping {
    List<int32_t> begin;  // [keys + 1] where in `rows` those of each key begin
    List<int32_t> rows;   // [count]
};

// Group rows by their keys, in [0, keys): a counting sort, in which each thread counts and places a part.
inline Grouping group(const int32_t* key, int64_t count, int64_t keys, int threads) {
    const int64_t parts = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, count / 65536));
    Grouping grouping{List<int32_t>(keys + 1), List<int32_t>(count)};
    std::vector<List<int32_t>> next(parts, List<int32_t>(keys, 0));
    const auto for_rows = [&](const auto& work) {
        parallel_for(threads, parts, [&](int64_t part, int) {
            int32_t* places = next[part].data();
            for (int64_t row = count * part / parts; row < count * (part + 1) / parts; ++row)
                work(places[key[row]], row);
        });
    };
    for_rows([](int32_t& place, int64_t) { ++place; });
    int32_t total = 0;
    for (int64_t k = 0; k < keys; ++k) {
        grouping.begin[k] = total;
        for (List<int32_t>& places : next) {
            const int32_t many = places[k];
            places[k] = total;
            total += many;
        }
    }
    grouping.begin[keys] = total;
    for_rows([&](int32_t& place, int64_t row) { grouping.rows[place++] = int32_t(row); });
    return grouping;
}

}  // namespace trackserve
