// What the files of the engine offer each other, and, at the end, what they offer Python.
#pragma once

#include "simd.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace trackserve {

// Where arrays get their memory.
namespace memory {
void* take(size_t& bytes);  // at least as much; gives how much it is
void give_back(void* block, size_t bytes);
// A block of `wanted` bytes or more, gives how many, with what is used of another, which is given back.
void* grow(void* block, size_t bytes, size_t used, size_t& wanted);
// Ask for large pages if a block is as large.
void on_large_pages(void* start, size_t bytes);
}  // namespace memory

// Numbers that are written before they are read: unlike a vector's, not set to zero first. Large ones
// lie on large pages where the system has them, so that finding rows all over them takes less time, and
// their memory is kept for the next event: the system would hand it out again set to zero.
template <class Number>
class Array {
  public:
    explicit Array(size_t size) : bytes_(size * sizeof(Number)), numbers_(memory::take(bytes_)) {}
    ~Array() { memory::give_back(numbers_, bytes_); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    Number& operator[](size_t i) { return static_cast<Number*>(numbers_)[i]; }
    const Number& operator[](size_t i) const { return static_cast<const Number*>(numbers_)[i]; }

  private:
    size_t bytes_;
    void* numbers_;
};

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

    // Have room for so many pairs; then they may be written behind the last one, and counted.
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

// Unsigned integers in the order of the floats; NaN at the ends, -0 at 0.
inline uint32_t ordered(float x) {
    uint32_t u;
    x += 0.0f;
    std::memcpy(&u, &x, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

// All pairs of some pieces, one after the other.
Pairs joined(std::vector<Pairs>&& pieces, int threads);

struct DoubletCuts {
    float slope, z0, dphi, dcot;
};

struct NeighbourSettings {
    double squared_radius;  // pairs are nearer than this
    int32_t limit;
    DoubletCuts cuts;
};

// Rows of hits [n, columns] by distance from the origin, then by their features.
void canonical_order(const float* features, int64_t n, int columns, const float* distance,
                     int64_t* order);

// So many consecutive hits in space order are looked at together.
inline constexpr int LEAF = 32;

// Rows of points [n, dimensions] in an order in which consecutive ones lie close together, in azimuth,
// too, if there is one: a radian then counts as much as `unit` in the embedding.
void space_order(const float* embedding, int64_t n, int dimensions, const float* phi, float unit,
                 int32_t* order, int threads);

// Edges between hits given in such an order; `rank` is a hit's place from the origin.
Pairs neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                 const float* z, const int32_t* rank, const NeighbourSettings& settings, int threads);

// Copies the edges whose logits reach the threshold, sorted by their inner hit; gives how many.
int64_t keep_edges(const float* logits, float threshold, int64_t count, int64_t n,
                   const int32_t* inner, const int32_t* outer, int32_t* kept_inner,
                   int32_t* kept_outer, int threads);

struct TripletCuts {
    float kink, off, slope, dphi;
};

// Triplets, in pieces, of edges [count] that are sorted by their inner hit; r, phi, z are [n]. They
// are sorted by their first, then their second edge.
std::vector<Pairs> join_edges(const float* r, const float* phi, const float* z, int64_t n,
                              const int32_t* inner, const int32_t* outer, int64_t count,
                              const TripletCuts& cuts, int threads);

struct Kept {
    int64_t triplets, edges;
};

// Copies, in their order, the triplets through which a chain of at least so many edges runs, each two of
// them a triplet, and the edges that are in one of those; gives how many there are.
Kept keep_chains(int32_t chain, int64_t triplets, const int32_t* first, const int32_t* second,
                 int64_t edges, const int32_t* inner, const int32_t* outer, int32_t* kept_first,
                 int32_t* kept_second, int32_t* kept_inner, int32_t* kept_outer, int threads);

// The track of each hit, -1 for none: edges [count] that pass the cut, or, where hits walk, of them
// those that are the best for both their hits; components of at least min_hits hits.
void build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                  int64_t count, float cut, bool walk, int64_t min_hits, int64_t* labels);

}  // namespace trackserve
