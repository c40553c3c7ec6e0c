#include "memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trackserve::memory {
namespace {

constexpr size_t LARGE_PAGE = 2 << 20;
constexpr size_t SMALLEST_KEPT = 64 << 10;
constexpr size_t HUGE_BLOCK = 64 << 20;  // beyond, no block is kept, and one that grows is moved
constexpr size_t MOST_KEPT = 512 << 20;  // bytes, over all events

struct Block {
    void* start;
    size_t bytes;
};

struct Kept {
    std::mutex lock;
    std::vector<Block> blocks;
    size_t bytes = 0;

    ~Kept() {
        for (const Block& block : blocks) std::free(block.start);
    }
};

Kept& kept() {
    static Kept all;
    return all;
}

// Ask for large pages if a block is as large.
void on_large_pages([[maybe_unused]] void* start, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
    // All pages that it touches: the system moves a larger block in one piece only if all are alike.
    constexpr uintptr_t page = 4096;
    const auto first = reinterpret_cast<uintptr_t>(start) / page * page;
    const auto last = (reinterpret_cast<uintptr_t>(start) + bytes + page - 1) / page * page;
    if (bytes >= LARGE_PAGE) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace

void* take(size_t& bytes) {
    if (bytes >= HUGE_BLOCK) {
        void* start = std::malloc(bytes);
        if (!start) throw std::bad_alloc();
        on_large_pages(start, bytes);
        return start;
    }
    const size_t page = bytes < LARGE_PAGE ? 64 : LARGE_PAGE;
    bytes = (bytes + page - 1) / page * page;
    if (bytes >= SMALLEST_KEPT) {
        const std::lock_guard guard(kept().lock);
        auto& blocks = kept().blocks;
        auto best = blocks.end();  // the smallest that is large enough, and not much too large
        for (auto block = blocks.begin(); block != blocks.end(); ++block)
            if (block->bytes >= bytes && block->bytes <= 2 * bytes &&
                (best == blocks.end() || block->bytes < best->bytes))
                best = block;
        if (best != blocks.end()) {
            void* start = best->start;
            bytes = best->bytes;
            kept().bytes -= bytes;
            blocks.erase(best);
            return start;
        }
    }
    void* start = std::aligned_alloc(page, bytes);
    if (bytes && !start) throw std::bad_alloc();
    on_large_pages(start, bytes);
    return start;
}

void* grow(void* block, size_t bytes, size_t used, size_t& wanted) {
    if (wanted >= HUGE_BLOCK && bytes >= HUGE_BLOCK) {  // the system moves its pages, nothing is copied
        void* larger = std::realloc(block, wanted);
        if (!larger) throw std::bad_alloc();
        on_large_pages(larger, wanted);
        return larger;
    }
    void* larger = take(wanted);
    if (used) std::memcpy(larger, block, used);
    give_back(block, bytes);
    return larger;
}

void give_back(void* block, size_t bytes) {
    if (bytes >= SMALLEST_KEPT && bytes < HUGE_BLOCK) {
        const std::lock_guard guard(kept().lock);
        if (kept().bytes + bytes <= MOST_KEPT) {
            kept().blocks.push_back({block, bytes});
            kept().bytes += bytes;
            return;
        }
    }
    std::free(block);
}

}  // namespace trackserve::memory
