// What edges and triplets are kept, and algorithm 2 between: keep_edges of pipeline/filter.py,
// join_edges and keep_chains of pipeline/triplets.py.

#include "join.h"
#include "grouping.h"

#include <array>

namespace trackserve {

std::vector<int32_t> begins(const int32_t* hit, int64_t edges, int64_t n) {
    std::vector<int32_t> begin(n + 1);
    for (int64_t e = 0; e < edges; ++e) ++begin[hit[e] + 1];
    for (int64_t i = 0; i < n; ++i) begin[i + 1] += begin[i];
    return begin;
}

int64_t keep_edges(const float* logits, float threshold, int64_t count, int64_t n,
                   const int32_t* inner, const int32_t* outer, int32_t* kept_inner,
                   int32_t* kept_outer, int threads) {
    constexpr int64_t edges_at_once = 65536;
    const int64_t chunks = (count + edges_at_once - 1) / edges_at_once;
    std::vector<Pairs> pieces(chunks);
    parallel_for(threads, chunks, [&](int64_t chunk, int) {
        Pairs& kept = pieces[chunk];
        const int64_t begin = chunk * edges_at_once, end = std::min(count, begin + edges_at_once);
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
    Pairs all = joined(std::move(pieces), threads);
    const Grouping sorted = group(all.first(), all.size(), n, threads);
    parallel_for(threads, (all.size() + edges_at_once - 1) / edges_at_once, [&](int64_t chunk, int) {
        const int64_t end = std::min<int64_t>(all.size(), (chunk + 1) * edges_at_once);
        for (int64_t e = chunk * edges_at_once; e < end; ++e) {
            kept_inner[e] = all.first()[sorted.rows[e]];
            kept_outer[e] = all.second()[sorted.rows[e]];
        }
    });
    return all.size();
}

std::vector<Pairs> join_edges(const float* r, const float* phi, const float* z, int64_t n,
                              const int32_t* inner, const int32_t* outer, int64_t count,
                              const TripletCuts& cuts, int threads) {
    constexpr int64_t edges_at_once = 4096;
    const std::vector<int32_t> begin = begins(inner, count, n);
    Steps steps;
    steps.resize(count);
    const int64_t chunks = (count + edges_at_once - 1) / edges_at_once;
    const auto for_edges = [&](const auto& work) {
        parallel_for(threads, chunks, [&](int64_t chunk, int) {
            const int64_t end = std::min(count, (chunk + 1) * edges_at_once);
            for (int64_t e = chunk * edges_at_once; e < end; ++e) work(chunk, e);
        });
    };
    for_edges([&](int64_t, int64_t e) { steps.set(e, {r, phi, z}, inner[e], outer[e]); });
    std::vector<Pairs> triplets(chunks);
    for_edges([&](int64_t chunk, int64_t one) {
        Pairs& found = triplets[chunk];
        const int32_t end = begin[outer[one] + 1];
        for (int32_t other = begin[outer[one]]; other < end; other += LANES) {
            uint32_t set = passing(steps, one, steps, other, cuts);
            if (end - other < LANES) set &= ~(~0u << (end - other));
            if (set) found.add_several(broadcast(int32_t(one)), broadcast(other) + lanes(), set);
        }
    });
    return triplets;
}

Kept keep_chains(int32_t chain, int64_t triplets, const int32_t* first, const int32_t* second,
                 int64_t edges, const int32_t* inner, const int32_t* outer, int32_t* kept_first,
                 int32_t* kept_second, int32_t* kept_inner, int32_t* kept_outer, int threads) {
    // The edges of the longest chain that ends with an edge, and of that which begins with it. Each round
    // tells all chains that have one edge more.
    std::vector<uint8_t> before(edges, 1), after(edges, 1);
    const auto lengthen = [&](std::vector<uint8_t>& length, const int32_t* from, const int32_t* to) {
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
    std::vector<int32_t> place(edges);
    Kept kept{0, 0};
    for (int64_t t = 0; t < triplets; ++t) {
        kept_first[kept.triplets] = first[t];
        kept_second[kept.triplets] = second[t];
        const bool wanted = before[first[t]] + after[second[t]] >= chain;
        place[first[t]] |= wanted;
        place[second[t]] |= wanted;
        kept.triplets += wanted;
    }
    for (int64_t e = 0; e < edges; ++e) {
        const bool wanted = place[e];
        place[e] = kept.edges;
        kept_inner[kept.edges] = inner[e];
        kept_outer[kept.edges] = outer[e];
        kept.edges += wanted;
    }
    constexpr int64_t at_once = 65536;
    parallel_for(threads, (kept.triplets + at_once - 1) / at_once, [&](int64_t chunk, int) {
        const int64_t end = std::min(kept.triplets, (chunk + 1) * at_once);
        for (int64_t t = chunk * at_once; t < end; ++t) {
            kept_first[t] = place[kept_first[t]];
            kept_second[t] = place[kept_second[t]];
        }
    });
    return kept;
}

}  // namespace trackserve
