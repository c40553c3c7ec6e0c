#include "pairs.h"
#include "parallel.h"

namespace trackserve {

void Pairs::make_room(size_t pairs) {
    for (Rows* rows : {&first_, &second_}) {
        size_t bytes = pairs * sizeof(int32_t);
        void* larger = memory::grow(rows->start, rows->bytes, size_ * sizeof(int32_t), bytes);
        rows->start = static_cast<int32_t*>(larger);
        rows->bytes = bytes;
    }
    room_ = pairs;
}

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
