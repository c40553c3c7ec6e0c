#include "compact.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

// Symbols: N hits in B blocks of 32, C columns.

namespace trackserve {

namespace {

constexpr std::size_t kBlock = 32;
constexpr std::size_t kPairs = kBlock / 2;
constexpr std::size_t kAxes = 3;
constexpr std::size_t kWordBits = 64;
constexpr std::size_t kHalfBytes = kWordBits / 4;
constexpr std::uint64_t kReach = 1U << 23;  // steps
// What is added to it is rounded to a whole number, halves to even ones, which then stands in the
// lowest bits: no call for each hit.
constexpr double kToWhole = 6755399441055744.0;  // 1.5 * 2^52
constexpr auto kWhole = std::bit_cast<std::uint64_t>(kToWhole);
// Steps from this one (mm) up are worked out in float32, as in Python: the same bytes.
constexpr double kFloat32Step = 0.0078125;
constexpr std::size_t kHead = 16;

struct Block {
  std::array<std::int32_t, kAxes> lowest;
  std::array<std::uint8_t, kAxes> bits;
  std::uint8_t half_bytes;  // of a hit
};

template <typename Number>
void append(std::string& data, Number number, std::size_t size = sizeof(Number)) {
  data.append(reinterpret_cast<const char*>(&number), size);
}

// Round the positions of the block that begins at row `first` to whole steps: places[axis][hit].
// False if one is not finite or too far away. `kColumns` is 3 or, for any other number, 0.
template <typename Real, std::size_t kColumns>
bool round_block(std::span<const float> values, std::size_t any_columns, std::size_t first,
                 Real per_step, std::int32_t (&places)[kAxes][kBlock], Block& block) {
  const std::size_t columns = kColumns > 0 ? kColumns : any_columns;
  const std::size_t filled = std::min(kBlock, values.size() / columns - first);
  const float* rows = values.data() + first * columns;
  double rounded[kAxes][kBlock];
  for (std::size_t hit = 0; hit < filled; ++hit) {
    for (std::size_t axis = 0; axis < kAxes; ++axis) {
      rounded[axis][hit] = static_cast<Real>(rows[hit * columns + axis]) * per_step;
    }
  }
  for (std::size_t axis = 0; axis < kAxes; ++axis) {
    double(&steps)[kBlock] = rounded[axis];
    for (std::size_t hit = filled; hit < kBlock; ++hit) steps[hit] = steps[filled - 1];
    std::uint64_t outside = 0;
    for (std::size_t hit = 0; hit < kBlock; ++hit) {
      const auto place = std::bit_cast<std::uint64_t>(steps[hit] + kToWhole) - kWhole;
      outside |= (place + kReach) / (2 * kReach);  // NaN's bits are far away, too
      places[axis][hit] = static_cast<std::int32_t>(place);
    }
    if (outside != 0) return false;
    std::int32_t low = places[axis][0];
    std::int32_t high = low;
    for (std::size_t hit = 0; hit < kBlock; ++hit) {
      low = std::min(low, places[axis][hit]);
      high = std::max(high, places[axis][hit]);
    }
    for (std::int32_t& place : places[axis]) place -= low;
    block.lowest[axis] = low;
    block.bits[axis] =
        static_cast<std::uint8_t>(std::bit_width(static_cast<std::uint32_t>(high - low)));
  }
  return true;
}

// Write the hits k and k + 16 of a block side by side; returns the end. Up to 16 bytes behind it are
// written over: whole words are faster than as many bytes as are needed.
char* pack(const std::int32_t (&places)[kAxes][kBlock], const Block& block, char* out) {
  // Distances without bits are 0, wherever they are shifted to.
  const unsigned second = block.bits[0];
  const unsigned third = (second + block.bits[1]) % kWordBits;
  std::uint64_t words[kBlock];
  for (std::size_t hit = 0; hit < kBlock; ++hit) {
    words[hit] = static_cast<std::uint64_t>(places[0][hit]) |
                 static_cast<std::uint64_t>(places[1][hit]) << second |
                 static_cast<std::uint64_t>(places[2][hit]) << third;
  }
  const unsigned width = 4U * block.half_bytes;
  if (width == 0) return out;
  for (std::size_t pair = 0; pair < kPairs; ++pair, out += block.half_bytes) {
    const std::uint64_t low = words[pair];
    const std::uint64_t high = words[pair + kPairs];
    const std::uint64_t both[2] = {width == kWordBits ? low : low | (high << width),
                                   high >> (kWordBits - width)};
    std::memcpy(out, both, sizeof both);
  }
  return out;
}

// Round all blocks, and pack each behind the others with as many half-bytes a hit.
template <typename Real, std::size_t kColumns>
bool encode_blocks(std::span<const float> values, std::size_t columns, double step,
                   std::vector<Block>& blocks, std::array<std::string, kHalfBytes + 1>& packed) {
  const auto per_step = static_cast<Real>(1.0 / step);
  std::int32_t places[kAxes][kBlock];
  std::array<char, kPairs * kHalfBytes + 16> bytes;
  for (std::size_t number = 0; number < blocks.size(); ++number) {
    Block& block = blocks[number];
    const std::size_t first = number * kBlock;
    if (!round_block<Real, kColumns>(values, columns, first, per_step, places, block)) return false;
    const std::size_t bits = std::size_t{block.bits[0]} + block.bits[1] + block.bits[2];
    if (bits > kWordBits) return false;
    block.half_bytes = static_cast<std::uint8_t>((bits + 3) / 4);
    packed[block.half_bytes].append(bytes.data(), pack(places, block, bytes.data()));
  }
  return true;
}

template <typename Real>
bool encode_any(std::span<const float> values, std::size_t columns, double step,
                std::vector<Block>& blocks, std::array<std::string, kHalfBytes + 1>& packed) {
  return columns == kAxes ? encode_blocks<Real, kAxes>(values, columns, step, blocks, packed)
                          : encode_blocks<Real, 0>(values, columns, step, blocks, packed);
}

}  // namespace

std::optional<std::string> encode_hits(std::span<const float> values, std::size_t columns,
                                       double step) {
  const std::size_t hits = values.size() / columns;
  if (columns < kAxes || columns > 255 || hits > UINT32_MAX) return std::nullopt;
  std::vector<Block> blocks((hits + kBlock - 1) / kBlock);
  std::array<std::string, kHalfBytes + 1> packed;
  const bool room = step >= kFloat32Step
                        ? encode_any<float>(values, columns, step, blocks, packed)
                        : encode_any<double>(values, columns, step, blocks, packed);
  if (!room) return std::nullopt;
  std::string data;
  std::size_t size = kHead + 12 * blocks.size() + 4 * hits * (columns - kAxes);
  for (const std::string& each : packed) size += each.size();
  data.reserve(size);
  append(data, static_cast<std::uint8_t>(kCompactVersion));
  append(data, static_cast<std::uint8_t>(columns));
  append(data, static_cast<std::uint16_t>(kBlock));
  append(data, static_cast<std::uint32_t>(hits));
  append(data, step);
  for (std::size_t axis = 0; axis < kAxes; ++axis) {
    for (const Block& block : blocks) append(data, block.lowest[axis], 3);
  }
  for (std::size_t axis = 0; axis < kAxes; ++axis) {
    for (const Block& block : blocks) append(data, block.bits[axis]);
  }
  for (const std::string& each : packed) data += each;
  for (std::size_t column = kAxes; column < columns; ++column) {
    for (std::size_t hit = 0; hit < hits; ++hit) append(data, values[hit * columns + column]);
  }
  return data;
}

std::optional<std::vector<std::int64_t>> decode_labels(std::string_view data, std::size_t hits) {
  const std::size_t flags = (hits + 7) / 8;
  if (data.size() < flags) return std::nullopt;
  const auto on_track = [&](std::size_t hit) -> std::size_t {
    return (static_cast<unsigned char>(data[hit / 8]) >> (7 - hit % 8)) & 1U;
  };
  std::size_t found = 0;
  for (std::size_t hit = 0; hit < hits; ++hit) found += on_track(hit);
  const std::size_t bytes = data.size() - flags;
  const std::size_t size = found == 0 ? 2 : bytes / found;
  if (bytes != size * found || (size != 2 && size != 4)) return std::nullopt;
  std::vector<std::int64_t> labels(hits, -1);
  if (found == 0) return labels;
  const char* const numbers = data.data() + flags;
  std::size_t next = 0;
  for (std::size_t hit = 0; hit < hits; ++hit) {  // without a branch, which would be guessed wrong
    const char* number = numbers + size * std::min(next, found - 1);
    std::uint16_t low = 0;
    std::uint16_t high = 0;
    std::memcpy(&low, number, sizeof low);
    std::memcpy(&high, number + size - sizeof high, sizeof high);
    const std::int64_t label = size == 2 ? low : low + (std::int64_t{high} << 16);
    const auto on = static_cast<std::int64_t>(on_track(hit));
    labels[hit] = on * (label + 1) - 1;
    next += static_cast<std::size_t>(on);
  }
  return labels;
}

}  // namespace trackserve
