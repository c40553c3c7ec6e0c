// Lists of edges and of triplets.
#pragma once

#include "memory.h"
#include "simd.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace trackserve {

// Pairs of rows that are found one after the other: edges, as rows of inner and outer hits, or triplets,
// as rows of first and second edges.
class Pairs {
  public:
    Pairs() = default;
    Pairs(Pairs&& other) noexcept { swap(other); }
    Pairs& operator=(Pairs&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Pairs() {
        for (const Rows& rows : {first_, second_})
            if (rows.start) memory::give_back(rows.start, rows.bytes);
    }

    void swap(Pairs& other) {
        std::swap(first_, other.first_);
        std::swap(second_, other.second_);
        std::swap(size_, other.size_);
        std::swap(room_, other.room_);
    }
    size_t size() const { return size_; }
    void clear() { size_ = 0; }
    const int32_t* first() const { return first_.start; }
    const int32_t* second() const { return second_.start; }

    // Make room for this number of pairs; then they may be written behind the last one, and counted.
    void reserve(size_t pairs) {
        if (pairs > room_) make_room(std::max(pairs, 2 * room_));
    }
    int32_t* first_end() { return first_.start + size_; }
    int32_t* second_end() { return second_.start + size_; }
    void grow(size_t pairs) { size_ += pairs; }

    void push_back(int32_t first, int32_t second) {
        reserve(size_ + 1);
        *first_end() = first;
        *second_end() = second;
        ++size_;
    }

    // The same if it is true, without a branch, where there is room.
    void push_back_if(bool wanted, int32_t first, int32_t second) {
        *first_end() = first;
        *second_end() = second;
        size_ += wanted;
    }

    // Append pairs of LANES whose bit is set.
    void add_several(VecInt first, VecInt second, uint32_t set) {
        reserve(size_ + LANES);  // what `compress` may write
        compress(first_end(), first, set);
        compress(second_end(), second, set);
        size_ += __builtin_popcount(set);
    }

    // The memory of a list of rows.
    struct Rows {
        int32_t* start = nullptr;
        size_t bytes = 0;
    };

    // Give the rows away, to be given back to the memory by whoever has them; nothing is left.
    std::pair<Rows, Rows> release() {
        size_ = room_ = 0;
        return {std::exchange(first_, {}), std::exchange(second_, {})};
    }

    // Add `by` to all rows.
    void move(int32_t by) {
        for (const Rows& rows : {first_, second_})
            for (size_t i = 0; i < size_; ++i) rows.start[i] += by;
    }

    // Drop the pairs for which `wanted` is not true.
    template <class Wanted>
    void keep(const Wanted& wanted) {
        size_t kept = 0;
        for (size_t i = 0; i < size_; ++i) {
            if (!wanted(first_.start[i], second_.start[i])) continue;
            first_.start[kept] = first_.start[i];
            second_.start[kept++] = second_.start[i];
        }
        size_ = kept;
    }

  private:
    Rows first_, second_;
    size_t size_ = 0, room_ = 0;

    void make_room(size_t pairs);
};

// All pairs of some pieces, one after the other.
Pairs joined(std::vector<Pairs>&& pieces, int threads);

}  // namespace trackserve
