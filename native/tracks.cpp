// Algorithm 2, as pipeline/components.py: from scored edges to tracks.

#include "kernels.h"

#include <numeric>

namespace trackserve {
namespace {

// The edges that are both the best way out of their inner hit and into their outer hit. Of equal
// scores the edge to the lower hit wins.
std::vector<int64_t> mutual_best(int64_t n, const int32_t* inner, const int32_t* outer,
                                 const float* scores, const std::vector<int64_t>& passed) {
    std::vector<int64_t> best_out(n, -1), best_in(n, -1);
    const auto compete = [&](int64_t& best, int64_t edge, const int32_t* other) {
        if (best < 0 || scores[edge] > scores[best] ||
            (scores[edge] == scores[best] && other[edge] < other[best]))
            best = edge;
    };
    for (const int64_t edge : passed) {
        compete(best_out[inner[edge]], edge, outer);
        compete(best_in[outer[edge]], edge, inner);
    }
    std::vector<int64_t> kept;
    for (const int64_t edge : passed)
        if (best_out[inner[edge]] == edge && best_in[outer[edge]] == edge) kept.push_back(edge);
    return kept;
}

}  // namespace

void build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                  int64_t count, float cut, bool walk, int64_t min_hits, int64_t* labels) {
    std::vector<int64_t> edges;
    for (int64_t edge = 0; edge < count; ++edge)
        if (scores[edge] >= cut) edges.push_back(edge);
    if (walk) edges = mutual_best(n, inner, outer, scores, edges);

    // Union-find; the root of a set is its lowest hit.
    std::vector<int32_t> parent(n);
    std::iota(parent.begin(), parent.end(), 0);
    const auto root = [&](int32_t hit) {
        while (parent[hit] != hit) hit = parent[hit] = parent[parent[hit]];
        return hit;
    };
    for (const int64_t edge : edges) {
        const int32_t a = root(inner[edge]), b = root(outer[edge]);
        parent[std::max(a, b)] = std::min(a, b);
    }
    std::vector<int32_t> size(n);
    for (int64_t hit = 0; hit < n; ++hit) ++size[root(hit)];
    int64_t tracks = 0;
    for (int64_t hit = 0; hit < n; ++hit) {
        const int32_t first = root(hit);  // at most hit, so it has its label already
        labels[hit] = size[first] < min_hits ? -1 : first == hit ? tracks++ : labels[first];
    }
}

}  // namespace trackserve
