#include "tracks.h"

#include "radix.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace trackserve {
namespace {

// The edges that are taken, the best first, when each hit may have one step inwards and one outwards.
// Of equal scores the edge of the lower inner, then of the lower outer hit is first.
List<int32_t> best_steps(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                         const List<int32_t>& edges) {
    List<Keyed> sorted;
    sorted.reserve(edges.size());
    for (const int64_t edge : edges) sorted.push_back({~ordered(scores[edge]), int32_t(edge)});
    sort_by_key(sorted);
    for_ties(sorted, [&](size_t first, size_t last) {
        std::sort(&sorted[first], &sorted[first] + (last - first), [&](Keyed a, Keyed b) {
            return std::tie(inner[a.row], outer[a.row]) < std::tie(inner[b.row], outer[b.row]);
        });
    });
    List<uint8_t> left(n, 0), reached(n, 0);
    List<int32_t> taken(sorted.size());
    int64_t many = 0;
    for (const auto& [key, edge] : sorted) {
        uint8_t &from = left[inner[edge]], &to = reached[outer[edge]];
        const bool free = !(from | to);
        from |= free;
        to |= free;
        taken[many] = edge;
        many += free;
    }
    taken.resize(many);
    return taken;
}

}  // namespace

void scores_of(const float* logits, int64_t count, float* scores) {
    for (int64_t edge = 0; edge < count; ++edge)
        scores[edge] = 1 / (1 + std::exp(-std::clamp(logits[edge], -30.0f, 30.0f)));
}

List<int32_t> taken_edges(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                          int64_t count, float cut, bool walk) {
    List<int32_t> edges(count);
    int64_t many = 0;
    for (int64_t edge = 0; edge < count; ++edge) {
        edges[many] = edge;
        many += scores[edge] >= cut;
    }
    edges.resize(many);
    return walk ? best_steps(n, inner, outer, scores, edges) : std::move(edges);
}

int64_t label_connected(int64_t n, const int32_t* inner, const int32_t* outer, const List<int32_t>& edges,
                        int64_t min_hits, int64_t* labels) {
    // Union-find; the root of a set is its lowest hit.
    List<int32_t> parent(n);
    std::iota(parent.begin(), parent.end(), 0);
    const auto root = [&](int32_t hit) {
        while (parent[hit] != hit) hit = parent[hit] = parent[parent[hit]];
        return hit;
    };
    for (const int64_t edge : edges) {
        const int32_t a = root(inner[edge]), b = root(outer[edge]);
        parent[std::max(a, b)] = std::min(a, b);
    }
    List<int32_t> size(n, 0);
    for (int64_t hit = 0; hit < n; ++hit) ++size[root(hit)];
    int64_t tracks = 0;
    for (int64_t hit = 0; hit < n; ++hit) {
        const int32_t first = root(hit);  // at most hit, so it has its label already
        labels[hit] = size[first] < min_hits ? -1 : first == hit ? tracks++ : labels[first];
    }
    return tracks;
}

void build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores, int64_t count,
                  float cut, bool walk, int64_t min_hits, int64_t* labels) {
    label_connected(n, inner, outer, taken_edges(n, inner, outer, scores, count, cut, walk), min_hits,
                    labels);
}

}  // namespace trackserve
