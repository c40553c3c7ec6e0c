// What edges and triplets are kept, and algorithm 2 between: keep_edges of pipeline/filter.py,
// join_edges and keep_chains of pipeline/triplets.py.

#include "join.h"
#include "parallel.h"

namespace trackserve {

void Steps::set(int64_t e, const Position& at, int32_t inner, int32_t outer) {
    const float full = 2 * M_PI, half = M_PI;
    dr[e] = at.r[outer] - at.r[inner];
    dz[e] = at.z[outer] - at.z[inner];
    float turn = at.phi[outer] - at.phi[inner];
    if (turn > half) turn -= full;
    if (turn < -half) turn += full;
    dphi[e] = turn;
    length[e] = std::sqrt(dr[e] * dr[e] + dz[e] * dz[e]);
}

uint32_t passing(const Steps& firsts, int64_t first, const Steps& seconds, int64_t second,
                 const TripletCuts& cuts) {
    VecInt passed = broadcast(int32_t(-1));
    const Vec dr = broadcast(firsts.dr[first]), other_dr = load(&seconds.dr[second]);
    if (std::isfinite(cuts.kink)) {
        const Vec length = broadcast(firsts.length[first]);
        const Vec other_length = load(&seconds.length[second]);
        const Vec area = abs(dr * load(&seconds.dz[second]) - other_dr * broadcast(firsts.dz[first]));
        passed &= area <= broadcast(cuts.kink) * (length * other_length) +
                              broadcast(cuts.off) * (length + other_length);
    }
    if (std::isfinite(cuts.slope)) {
        const Vec size = abs(dr), other_size = abs(other_dr);
        const Vec turn =
            abs(broadcast(firsts.dphi[first]) * other_size - load(&seconds.dphi[second]) * size);
        passed &= turn <= broadcast(cuts.slope) * (size * other_size) +
                              broadcast(cuts.dphi) * (size + other_size);
    }
    return bits(passed);
}

std::vector<int32_t> begins(const int32_t* hit, int64_t edges, int64_t n) {
    std::vector<int32_t> begin(n + 1);
    for (int64_t e = 0; e < edges; ++e) ++begin[hit[e] + 1];
    for (int64_t i = 0; i < n; ++i) begin[i + 1] += begin[i];
    return begin;
}

int64_t keep_edges(const float* logits, float threshold, int64_t count, int64_t n,
                   const int32_t* inner, const int32_t* outer, int32_t* kept_inner,
                   int32_t* kept_outer) {
    std::vector<int64_t> next(n + 1);  // where the next edge of an inner hit goes
    for (int64_t e = 0; e < count; ++e) next[inner[e] + 1] += logits[e] >= threshold;
    for (int64_t hit = 0; hit < n; ++hit) next[hit + 1] += next[hit];
    const int64_t kept = next[n];
    for (int64_t e = 0; e < count; ++e) {
        if (!(logits[e] >= threshold)) continue;
        const int64_t at = next[inner[e]]++;
        kept_inner[at] = inner[e];
        kept_outer[at] = outer[e];
    }
    return kept;
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
            found.add_several(int32_t(one), broadcast(other) + lanes(), set);
        }
    });
    return triplets;
}

Kept keep_chains(int32_t chain, int64_t triplets, int32_t* first, int32_t* second, int64_t edges,
                 int32_t* inner, int32_t* outer) {
    // The edges of the longest chain that ends with an edge, and of that which begins with it; no more
    // than the chain that is wanted is counted.
    const uint8_t most = std::clamp(chain, 2, 255);
    std::vector<uint8_t> before(edges, 1), after(edges, 1);
    for (bool longer = true; longer;) {
        longer = false;
        for (int64_t t = 0; t < triplets; ++t) {
            const uint8_t one = before[first[t]], other = before[second[t]];
            const uint8_t grown = one < most ? one + 1 : most;
            before[second[t]] = std::max(other, grown);
            longer |= grown > other;
        }
    }
    for (bool longer = true; longer;) {
        longer = false;
        for (int64_t t = triplets - 1; t >= 0; --t) {
            const uint8_t one = after[first[t]], other = after[second[t]];
            const uint8_t grown = other < most ? other + 1 : most;
            after[first[t]] = std::max(one, grown);
            longer |= grown > one;
        }
    }
    std::vector<int32_t> place(edges);
    Kept kept{0, 0};
    for (int64_t t = 0; t < triplets; ++t) {
        if (before[first[t]] + after[second[t]] < most) continue;
        place[first[t]] = place[second[t]] = 1;
        first[kept.triplets] = first[t];
        second[kept.triplets++] = second[t];
    }
    for (int64_t e = 0; e < edges; ++e) {
        if (!place[e]) continue;
        place[e] = kept.edges;
        inner[kept.edges] = inner[e];
        outer[kept.edges++] = outer[e];
    }
    for (int64_t t = 0; t < kept.triplets; ++t) {
        first[t] = place[first[t]];
        second[t] = place[second[t]];
    }
    return kept;
}

}  // namespace trackserve
