// What edges and triplets are kept, and algorithm 2 between: keep_edges of pipeline/filter.py,
// join_edges and keep_triplets of pipeline/triplets.py.

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace trackserve {
namespace {

constexpr int64_t EDGES_AT_ONCE = 4096;

// The components of each edge, dr, dz (mm), dphi (rad), and its length in r and z (mm); as many more
// as a vector may reach beyond the end.
struct Steps {
    std::vector<float> dr, dz, dphi, length;

    explicit Steps(int64_t edges)
        : dr(edges + LANES), dz(edges + LANES), dphi(edges + LANES), length(edges + LANES) {}
};

// One bit for each of LANES edges, from `other` on, that passes the cuts with edge `one`.
uint32_t passing(const Steps& steps, int64_t one, int64_t other, const TripletCuts& cuts) {
    VecInt passed = broadcast(int32_t(-1));
    const Vec dr = broadcast(steps.dr[one]), other_dr = load(&steps.dr[other]);
    if (std::isfinite(cuts.kink)) {
        const Vec length = broadcast(steps.length[one]), other_length = load(&steps.length[other]);
        const Vec area = abs(dr * load(&steps.dz[other]) - other_dr * broadcast(steps.dz[one]));
        passed &= area <= broadcast(cuts.kink) * (length * other_length) +
                              broadcast(cuts.off) * (length + other_length);
    }
    if (std::isfinite(cuts.slope)) {
        const Vec size = abs(dr), other_size = abs(other_dr);
        const Vec turn =
            abs(broadcast(steps.dphi[one]) * other_size - load(&steps.dphi[other]) * size);
        passed &= turn <= broadcast(cuts.slope) * (size * other_size) +
                              broadcast(cuts.dphi) * (size + other_size);
    }
    return bits(passed);
}

}  // namespace

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
    std::vector<int32_t> begin(n + 1);  // where the edges begin of which a hit is the inner
    for (int64_t e = 0; e < count; ++e) ++begin[inner[e] + 1];
    for (int64_t hit = 0; hit < n; ++hit) begin[hit + 1] += begin[hit];

    Steps steps(count);
    const int64_t chunks = (count + EDGES_AT_ONCE - 1) / EDGES_AT_ONCE;
    const auto for_edges = [&](const auto& work) {
        parallel_for(threads, chunks, [&](int64_t chunk, int) {
            const int64_t end = std::min(count, (chunk + 1) * EDGES_AT_ONCE);
            for (int64_t e = chunk * EDGES_AT_ONCE; e < end; ++e) work(chunk, e);
        });
    };
    for_edges([&](int64_t, int64_t e) {
        const int32_t i = inner[e], j = outer[e];
        const float dr = r[j] - r[i], dz = z[j] - z[i], full = 2 * M_PI, half = M_PI;
        float dphi = phi[j] - phi[i];
        if (dphi > half) dphi -= full;
        if (dphi < -half) dphi += full;
        steps.dr[e] = dr;
        steps.dz[e] = dz;
        steps.dphi[e] = dphi;
        steps.length[e] = std::sqrt(dr * dr + dz * dz);
    });
    std::vector<Pairs> triplets(chunks);
    for_edges([&](int64_t chunk, int64_t one) {
        Pairs& found = triplets[chunk];
        const int32_t end = begin[outer[one] + 1];
        for (int32_t other = begin[outer[one]]; other < end; other += LANES) {
            uint32_t set = passing(steps, one, other, cuts);
            if (end - other < LANES) set &= ~(~0u << (end - other));
            if (!set) continue;
            found.reserve(found.size() + LANES);  // what `compress` may write
            std::fill_n(found.first_end(), __builtin_popcount(set), int32_t(one));
            compress(found.second_end(), broadcast(other) + lanes(), set);
            found.grow(__builtin_popcount(set));
        }
    });
    return triplets;
}

TripletCounts keep_triplets(const float* logits, float threshold, int64_t triplets, int32_t* first,
                            int32_t* second, int64_t edges, int32_t* inner, int32_t* outer) {
    std::vector<int32_t> place(edges);
    TripletCounts kept{0, 0};
    for (int64_t t = 0; t < triplets; ++t) {
        if (!(logits[t] >= threshold)) continue;
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
