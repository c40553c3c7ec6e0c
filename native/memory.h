// Memory for large lists, kept from one event to the next.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace trackserve {

// Where lists get their memory.
namespace memory {
void* take(size_t& bytes);  // at least as much; gives how much it is
void give_back(void* block, size_t bytes);
// A block of `wanted` bytes or more, gives how many, with what is used of another, which is given back.
void* grow(void* block, size_t bytes, size_t used, size_t& wanted);

// A vector's memory, on whole cache lines below 64 MiB. How much it is stands in the line before.
template <class Number>
struct Allocator {
    using value_type = Number;
    static constexpr size_t LINE = 64;

    Allocator() = default;
    template <class Other>
    Allocator(const Allocator<Other>&) {}
    Number* allocate(size_t n) {
        size_t bytes = n * sizeof(Number) + LINE;
        char* block = static_cast<char*>(take(bytes));
        *new (block) size_t(0) = bytes;
        return reinterpret_cast<Number*>(block + LINE);
    }
    void deallocate(Number* numbers, size_t) {
        char* block = reinterpret_cast<char*>(numbers) - LINE;
        give_back(block, *reinterpret_cast<size_t*>(block));
    }
    template <class Other, class... Arguments>
    void construct(Other* place, Arguments&&... arguments) {
        if constexpr (sizeof...(Arguments))
            new (place) Other(std::forward<Arguments>(arguments)...);
        else
            new (place) Other;
    }
    bool operator==(const Allocator&) const { return true; }
};
}  // namespace memory

// A vector whose numbers are written before they are read: they are not set to zero first. A large one's
// memory is kept for the next event, since the system would hand it out again set to zero, and lies on
// large pages where the system has them, so that finding rows all over it takes less time.
template <class Number>
using List = std::vector<Number, memory::Allocator<Number>>;

}  // namespace trackserve
