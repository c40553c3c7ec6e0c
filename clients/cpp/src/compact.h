// Hits and labels in fewer bytes: HITS_COMPACT and LABELS_COMPACT, as trackserve/contract/compact.py
// lays them out. A test compares the bytes with Python's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trackserve {

// The version of the compact form that this client writes.
constexpr std::int64_t kCompactVersion = 1;
// The longest step, mm.
constexpr double kLongestStep = 1000.0;

// HITS_COMPACT of rows of float32 [N, columns], x, y, z (mm) first, rounded to `step` (mm). Nothing
// for hits that this form has no room for, which then go as they are: positions that are not finite
// or lie beyond 2^23 steps, and neighbours whose three distances need more than 64 bits.
std::optional<std::string> encode_hits(std::span<const float> values, std::size_t columns,
                                       double step);

// The labels [N] of LABELS_COMPACT; nothing for bytes that are none.
std::optional<std::vector<std::int64_t>> decode_labels(std::string_view data, std::size_t hits);

}  // namespace trackserve
