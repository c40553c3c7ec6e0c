// Memory for large arrays, kept from one event to the next.
#pragma once

#include <cstddef>

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

}  // namespace trackserve
