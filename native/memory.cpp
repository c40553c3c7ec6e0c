#include "kernels.h"
#include "parallel.h"

#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trackserve::memory {
namespace {

constexpr size_t LARGE_PAGE = 2 << 20;
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

}  // namespace

void* take(size_t& bytes) {
    const size_t page = bytes < LARGE_PAGE ? 64 : LARGE_PAGE;
    bytes = (bytes + page - 1) / page * page;
    if (page == LARGE_PAGE) {
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
#if defined(MADV_HUGEPAGE)
    if (page == LARGE_PAGE) madvise(start, bytes, MADV_HUGEPAGE);
#endif
    return start;
}

void give_back(void* block, size_t bytes) {
    if (bytes >= LARGE_PAGE) {
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

namespace trackserve {

Pairs joined(std::vector<Pairs>&& pieces, int threads) {
    std::vector<size_t> begin{0};
    for (const Pairs& piece : pieces) begin.push_back(begin.back() + piece.size());
    Pairs all;
    all.reserve(begin.back());
    parallel_for(threads, pieces.size(), [&](int64_t i, int) {
        const Pairs piece = std::move(pieces[i]);
        std::copy_n(piece.first(), piece.size(), all.first_end() + begin[i]);
        std::copy_n(piece.second(), piece.size(), all.second_end() + begin[i]);
    });
    all.grow(begin.back());
    return all;
}

}  // namespace trackserve
