#include "pipeline.h"

#include "order.h"
#include "parallel.h"
#include "tracks.h"

#include <algorithm>
#include <chrono>

namespace trackserve {
namespace {

// Times consecutive stages, and counts the edges of each event.
class StageClock {
  public:
    explicit StageClock(const Hits& hits) : hits_(hits) { timings.edges.resize(hits.events); }

    void stop(Stage stage) {
        const auto now = std::chrono::steady_clock::now();
        timings.seconds[stage] = std::chrono::duration<double>(now - since_).count();
        since_ = now;
    }
    // Edges sorted by their inner hit, so that those of an event lie together.
    void stop(Stage stage, const Pairs& edges) {
        const int32_t *begin = edges.first(), *end = begin + edges.size();
        for (int64_t event = 0; event < hits_.events; ++event) {
            const int32_t* next = std::lower_bound(begin, end, hits_.begins[event + 1]);
            timings.edges[event][stage] = next - begin;
            begin = next;
        }
        stop(stage);
    }

    StageTimings timings;

  private:
    const Hits& hits_;
    std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

constexpr int64_t HITS_AT_ONCE = 8192;  // in one chunk of cheap work

// Hits in another order: features and where they are. `row_of` gives the row of each.
struct Sorted {
    List<float> features, r, phi, z;

    template <class RowOf>
    Sorted(const Hits& hits, int columns, const RowOf& row_of, int threads)
        : features(size_of(hits) * columns), r(size_of(hits)), phi(size_of(hits)), z(size_of(hits)) {
        for_rows(threads, size_of(hits), HITS_AT_ONCE, [&](int64_t i) {
            const int64_t row = row_of(i);
            std::copy_n(hits.features + row * columns, columns, &features[i * columns]);
            r[i] = hits.at.r[row];
            phi[i] = hits.at.phi[row];
            z[i] = hits.at.z[row];
        });
    }
    static int64_t size_of(const Hits& hits) { return hits.begins[hits.events]; }
    Position position() const { return {r.data(), phi.data(), z.data()}; }
};

// The canonical order of each event's hits.
List<int64_t> in_order(const Hits& hits, int columns) {
    const int64_t n = hits.begins[hits.events];
    List<int64_t> order(n);
    List<float> distance(n);
    for (int64_t i = 0; i < n; ++i) distance[i] = hits.at.r[i] * hits.at.r[i] + hits.at.z[i] * hits.at.z[i];
    for (int64_t event = 0; event < hits.events; ++event) {
        const int64_t begin = hits.begins[event], end = hits.begins[event + 1];
        canonical_order(hits.features + begin * columns, end - begin, columns, distance.data() + begin,
                        order.data() + begin);
        for (int64_t i = begin; i < end; ++i) order[i] += begin;
    }
    return order;
}

// The neighbours of each event, counted. No edge leads from one event to another, so that the next stages
// may take them for one.
Pairs all_neighbours(const Pipeline& pipeline, const Hits& hits, const List<float>& embedding,
                     const Sorted& sorted, const Budget* budgets, List<int32_t>& place, int threads,
                     StageTimings& timings) {
    std::vector<Pairs> pieces;
    for (int64_t event = 0; event < hits.events; ++event) {
        const int64_t begin = hits.begins[event], n = hits.begins[event + 1] - begin;
        pieces.push_back(neighbours(embedding.data() + begin * pipeline.dimension, n, pipeline.dimension,
                                    sorted.r.data() + begin, sorted.phi.data() + begin,
                                    sorted.z.data() + begin, pipeline.neighbours, budgets[event],
                                    place.data() + begin, threads));
        timings.edges[event][NEAR] = pieces.back().size();
        if (!begin) continue;
        for (int64_t i = 0; i < n; ++i) place[begin + i] += begin;
        pieces.back().move(begin);
    }
    if (pieces.size() == 1) return std::move(pieces[0]);
    return joined(std::move(pieces), threads);
}

// Label the hits of each event by its edges, which come event by event, from scores; fit where it is wanted.
void label_hits(const Builder& builder, const Hits& hits, const List<int64_t>& order,
                const List<int32_t>& place, const Graph& graph, const List<float>& scores, int64_t* labels,
                float* table, int64_t* many, int threads) {
    const bool fits = table || builder.join > 0 || builder.min_quality > 0;
    List<int32_t> inner, outer;
    List<int64_t> found;
    List<float> r, phi, z;
    int64_t first = 0;
    for (int64_t event = 0; event < hits.events; ++event) {
        const int64_t begin = hits.begins[event], end = hits.begins[event + 1], n = end - begin;
        inner.clear();
        outer.clear();
        int64_t edge = first;
        for (; edge < graph.edges && graph.inner[edge] < end; ++edge) {
            inner.push_back(int32_t(place[graph.inner[edge]] - begin));
            outer.push_back(int32_t(place[graph.outer[edge]] - begin));
        }
        found.resize(n);
        const auto build = [&] {
            if (!fits) {
                build_tracks(n, inner.data(), outer.data(), scores.data() + first, edge - first, builder.cut,
                             builder.walk, builder.min_hits, found.data());
                return int64_t(0);
            }
            for (auto [to, from] : {std::pair(&r, hits.at.r), {&phi, hits.at.phi}, {&z, hits.at.z}}) {
                to->resize(n);
                for (int64_t i = 0; i < n; ++i) (*to)[i] = from[order[begin + i]];
            }
            return fitted_tracks(n, r.data(), phi.data(), z.data(), inner.data(), outer.data(),
                                 scores.data() + first, edge - first, builder, threads, found.data(), table);
        };
        const int64_t tracks = build();
        if (table) {
            table += tracks * TRACK_COLUMNS;
            many[event] = tracks;
        }
        for (int64_t i = 0; i < n; ++i) labels[order[begin + i]] = found[i];
        first = edge;
    }
}

}  // namespace

StageTimings find_tracks(const Pipeline& pipeline, const Hits& hits, const Budget* budgets, int threads,
                         int64_t* labels, float* table, int64_t* many) {
    StageClock clock(hits);
    double seconds = 0;
    for (int64_t event = 0; event < hits.events; ++event) seconds += budgets[event].seconds;
    const Deadline deadline(seconds);
    const int64_t n = hits.begins[hits.events];
    if (!n) {
        if (table) std::fill_n(many, hits.events, 0);
        return clock.timings;
    }
    const List<int64_t> order = in_order(hits, pipeline.features);
    Graph graph{};
    graph.hits = n;
    List<int32_t> place(n);  // the canonical row of each hit in space order
    Pairs edges;
    {
        const auto row_of = [&](int64_t i) { return order[i]; };
        const Sorted sorted(hits, pipeline.features, row_of, threads);
        clock.stop(ORDER);
        graph.features = sorted.features.data();
        List<float> embedding(n * pipeline.dimension);
        pipeline.embedding->run(graph, embedding.data(), threads);
        clock.stop(EMBED);
        edges = all_neighbours(pipeline, hits, embedding, sorted, budgets, place, threads, clock.timings);
    }
    const auto row_of = [&](int64_t i) { return order[place[i]]; };
    const Sorted local(hits, pipeline.features, row_of, threads);
    clock.stop(NEAR);

    const auto of_edges = [&](const Pairs& pairs) {
        graph.inner = pairs.first();
        graph.outer = pairs.second();
        graph.edges = pairs.size();
    };
    graph.features = local.features.data();
    of_edges(edges);
    {
        List<float> logits(edges.size());
        pipeline.filter->run(graph, logits.data(), threads);
        clock.stop(FILTER_EDGES);
        edges = keep_edges(logits.data(), pipeline.filter_threshold, edges.size(), n, edges.first(),
                           edges.second(), threads);
        clock.stop(CUT, edges);
    }

    of_edges(edges);
    const Pairs triplets = joined(
        pipeline.triplets->find(graph, local.position(), pipeline.triplet_cuts, pipeline.triplet_threshold,
                                {budgets, hits.begins, hits.events}, threads),
        threads);
    const Chains chains = keep_chains(pipeline.chain, triplets.size(), triplets.first(), triplets.second(),
                                      edges.size(), edges.first(), edges.second(), threads);
    clock.stop(JOIN, chains.edges);

    of_edges(chains.edges);
    graph.first = chains.triplets.first();
    graph.second = chains.triplets.second();
    graph.triplets = chains.triplets.size();
    List<float> scores(graph.edges);
    pipeline.gnn->run(graph, scores.data(), threads);
    scores_of(scores.data(), graph.edges, scores.data());
    clock.stop(SCORE);

    label_hits(pipeline.builder, hits, order, place, graph, scores, labels, table, many, threads);
    clock.stop(BUILD);
    return clock.timings;
}

}  // namespace trackserve
