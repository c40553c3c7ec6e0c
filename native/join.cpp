#include "join.h"
#include "grouping.h"

#include <array>
#include <atomic>

namespace trackserve {

namespace {

constexpr int64_t AT_ONCE = 65536;  // edges or triplets in a chunk of cheap work

}  // namespace

List<int32_t> begins(const int32_t* hit, int64_t edges, int64_t n, int threads) {
    List<int32_t> begin(n + 1);
    for_rows(threads, edges, AT_ONCE, [&](int64_t e) {
        for (int64_t i = e ? hit[e - 1] + 1 : 0; i <= hit[e]; ++i) begin[i] = e;
    });
    std::fill(begin.begin() + (edges ? hit[edges - 1] + 1 : 0), begin.end(), edges);
    return begin;
}

Pairs keep_edges(const float* logits, float threshold, int64_t count, int64_t n, const int32_t* inner,
                 const int32_t* outer, int threads) {
    std::vector<Pairs> pieces(chunks_of(count, AT_ONCE));
    for_chunks(threads, count, AT_ONCE, [&](const Chunk& chunk) {
        const auto [number, begin, end, thread] = chunk;
        Pairs& kept = pieces[number];
        kept.reserve(end - begin + LANES);
        for (int64_t e = begin; e < end; e += LANES) {
            const int64_t here = std::min<int64_t>(LANES, end - e);
            std::array<float, LANES> last;
            std::array<int32_t, LANES> last_inner, last_outer;
            const float* score = logits + e;
            const int32_t *from = inner + e, *to = outer + e;
            if (here < LANES) {  // nothing is read beyond the end
                std::copy_n(score, here, last.begin());
                std::copy_n(from, here, last_inner.begin());
                std::copy_n(to, here, last_outer.begin());
                score = last.data();
                from = last_inner.data();
                to = last_outer.data();
            }
            uint32_t set = bits(load(score) >= broadcast(threshold));
            if (here < LANES) set &= ~(~0u << here);
            kept.add_several(load(from), load(to), set);
        }
    });
    const Pairs all = joined(std::move(pieces), threads);
    const Grouping by_inner = group(all.first(), all.size(), n, threads);
    Pairs sorted;
    sorted.reserve(all.size());
    for_rows(threads, all.size(), AT_ONCE, [&](int64_t e) {
        sorted.first_end()[e] = all.first()[by_inner.rows[e]];
        sorted.second_end()[e] = all.second()[by_inner.rows[e]];
    });
    sorted.grow(all.size());
    return sorted;
}

std::vector<Pairs> join_edges(const float* r, const float* phi, const float* z, int64_t n,
                              const int32_t* inner, const int32_t* outer, int64_t count,
                              const TripletCuts& cuts, const Budget& budget, int threads) {
    constexpr int64_t edges_at_once = 4096;
    const List<int32_t> begin = begins(inner, count, n, threads);
    int64_t meeting = 0;
    for (int64_t e = 0; e < count; ++e) meeting += begin[outer[e] + 1] - begin[outer[e]];
    if (meeting > budget.triplets) throw OverBudget{Bound::TRIPLETS};
    Steps steps;
    steps.resize(count);
    for_rows(threads, count, edges_at_once,
             [&](int64_t e) { steps.set(e, {r, phi, z}, inner[e], outer[e]); });
    std::vector<Pairs> triplets(chunks_of(count, edges_at_once));
    for_rows(threads, count, edges_at_once, [&](int64_t one) {
        Pairs& found = triplets[one / edges_at_once];
        const int32_t end = begin[outer[one] + 1];
        for (int32_t other = begin[outer[one]]; other < end; other += LANES) {
            uint32_t set = passing(steps, one, steps, other, cuts);
            if (end - other < LANES) set &= ~(~0u << (end - other));
            if (set) found.add_several(broadcast(int32_t(one)), broadcast(other) + lanes(), set);
        }
    });
    return triplets;
}

Chains keep_chains(int32_t chain, int64_t triplets, const int32_t* first, const int32_t* second,
                   int64_t edges, const int32_t* inner, const int32_t* outer, int threads) {
    // The edges of the longest chain that ends with an edge, and of that which begins with it. Each round
    // finds all chains that have one edge more.
    List<uint8_t> before, after;
    const auto lengthen = [&](List<uint8_t>& length, const int32_t* from, const int32_t* to) {
        length.resize(edges, 1);
        bool longer = true;
        for (int round = 2; round < chain && longer; ++round) {
            longer = false;
            for (int64_t t = 0; t < triplets; ++t) {
                const uint8_t one = length[from[t]], other = length[to[t]];
                const uint8_t grown = std::min<int>(one + 1, chain);
                length[to[t]] = std::max(other, grown);
                longer |= grown > other;
            }
        }
    };
    parallel_for(threads, 2, [&](int64_t direction, int) {
        direction ? lengthen(after, second, first) : lengthen(before, first, second);
    });

    const auto runs_through = [&](int64_t t) { return before[first[t]] + after[second[t]] >= chain; };
    List<uint8_t> wanted(edges, false);
    for_rows(threads, triplets, AT_ONCE, [&](int64_t t) {
        if (runs_through(t))
            for (const int32_t edge : {first[t], second[t]})  // other threads may say so, too
                std::atomic_ref(wanted[edge]).store(true, std::memory_order_relaxed);
    });
    std::vector<Pairs> kept(chunks_of(edges, AT_ONCE));
    List<int32_t> place(edges);  // of an edge among those of its chunk
    for_chunks(threads, edges, AT_ONCE, [&](const Chunk& chunk) {
        Pairs& here = kept[chunk.number];
        here.reserve(chunk.end - chunk.begin);
        for (int64_t e = chunk.begin; e < chunk.end; ++e) {
            place[e] = here.size();
            here.push_back_if(wanted[e], inner[e], outer[e]);
        }
    });
    std::vector<int32_t> before_chunk{0};
    for (const Pairs& of_chunk : kept) before_chunk.push_back(before_chunk.back() + of_chunk.size());
    const auto number = [&](int32_t edge) { return before_chunk[edge / AT_ONCE] + place[edge]; };
    std::vector<Pairs> kept_triplets(chunks_of(triplets, AT_ONCE));
    for_chunks(threads, triplets, AT_ONCE, [&](const Chunk& chunk) {
        Pairs& here = kept_triplets[chunk.number];
        here.reserve(chunk.end - chunk.begin);
        for (int64_t t = chunk.begin; t < chunk.end; ++t)
            here.push_back_if(runs_through(t), number(first[t]), number(second[t]));
    });
    return {joined(std::move(kept), threads), joined(std::move(kept_triplets), threads)};
}

}  // namespace trackserve
