#include "drive.h"

#include "embedding.h"
#include "filter.h"
#include "gnn.h"
#include "order.h"
#include "pipeline.h"
#include "tracks.h"
#include "triplets.h"

#include <cmath>
#include <random>

namespace trackserve {
namespace {

void append(const std::vector<Pairs>& pieces, std::vector<int32_t>& first, std::vector<int32_t>& second) {
    for (const Pairs& piece : pieces) {
        first.insert(first.end(), piece.first(), piece.first() + piece.size());
        second.insert(second.end(), piece.second(), piece.second() + piece.size());
    }
}

// The whole way of two events, or of one where there are few hits.
template <class Number>
void run_pipeline(const HitColumns& columns, const Sizes& sizes, const Tensors& numbers,
                  const std::vector<float>& features, const Position& at, const NeighbourSettings& settings,
                  const Budget& budget, int threads) {
    const int64_t n = features.size() / columns.features;
    const auto embedding = make_embedding<Number>(columns, sizes, numbers);
    const auto filter = make_filter<Number>(columns, sizes, numbers);
    const auto triplets = make_triplet_filter<Number>(columns, sizes, numbers);
    const auto gnn = make_gnn<Number>(columns, sizes, numbers);
    const double field_z[] = {0, 1500, 3000}, field[] = {2, 1.5, 0.2};
    const Region regions[] = {{200, 500, {0.01, 0.01, 0.02}, {0.01, 0.05, 0.02}},
                              {2000, 1000, {0.1, 1, 0.02}, {0.1, 1, 0.02}}};
    const FitSettings fit{field_z, field, 3, regions, 2};
    const double quality[PROPERTIES] = {1, -0.5, 0.25};
    const Builder plain{.cut = 0.1f, .walk = true, .min_hits = 3, .join = 0, .min_quality = 0, .extend = 0};
    const Builder fitted{0.1f, true, 3, 30, 0.2, 0.01, &fit, quality};
    const int64_t begins[] = {0, n / 3, n / 3, n};
    std::vector<int64_t> labels(n), many(3);
    std::vector<float> table(n * TRACK_COLUMNS);
    const Budget budgets[] = {budget, budget, budget};
    for (const Builder& builder : {plain, fitted}) {
        const Pipeline pipeline{.embedding = embedding.get(),
                                .filter = filter.get(),
                                .triplets = triplets.get(),
                                .gnn = gnn.get(),
                                .features = columns.features,
                                .dimension = sizes.dimension,
                                .neighbours = settings,
                                .filter_threshold = -9,
                                .triplet_cuts = {0.5f, 4.0f, INFINITY, 0.0f},
                                .triplet_threshold = 0,
                                .chain = 2,
                                .builder = builder};
        float* parameters = builder.fit ? table.data() : nullptr;
        find_tracks(pipeline, {features.data(), at, begins, 3}, budgets, threads, labels.data(), parameters,
                    many.data());
        find_tracks(pipeline, {features.data(), at, begins, 1}, budgets, threads, labels.data(), parameters,
                    many.data());
    }
}

template <class Number>
void run_networks(const HitColumns& columns, const Sizes& sizes, const std::vector<float>& features,
                  const NeighbourSettings& settings, const Budget& budget, const std::vector<Pairs>& edges,
                  int threads) {
    const int64_t n = features.size() / columns.features;
    std::mt19937 generator(1);
    std::vector<float> numbers(3 * MAX_WIDTH * MAX_WIDTH);
    for (float& x : numbers) x = std::uniform_real_distribution<float>(-0.1f, 0.1f)(generator);
    const std::vector<const float*> tensors(20 + 20 * sizes.depth, numbers.data());
    std::vector<int32_t> inner, outer;
    append(edges, inner, outer);
    Graph graph{features.data(), n, inner.data(), outer.data(), int64_t(inner.size()), {}, {}, 0};
    const auto run_network = [&](const std::unique_ptr<Network>& network, int64_t outputs) {
        std::vector<float> result(outputs);
        network->run(graph, result.data(), threads);
        return result;
    };
    const Tensors numbered(tensors.data());
    const std::vector<float> ranges(sizes.depth * sizes.width, 0.3f);
    const Tensors in_8_bits(tensors.data(), ranges.data());
    run_network(make_filter<uint8_t>(columns, sizes, in_8_bits), graph.edges);
    run_network(make_embedding<Number>(columns, sizes, numbered), n * sizes.dimension);
    std::vector<float> logits = run_network(make_filter<Number>(columns, sizes, numbered), graph.edges);
    const Pairs kept = keep_edges(logits.data(), -9, graph.edges, n, inner.data(), outer.data(), threads);
    graph.inner = kept.first();
    graph.outer = kept.second();
    graph.edges = kept.size();
    std::vector<float> r(n), phi(n), z(n);
    for (int64_t i = 0; i < n; ++i) {
        r[i] = features[i * columns.features];
        z[i] = features[i * columns.features + 1];
        phi[i] = features[i * columns.features + 2];
    }
    std::vector<int32_t> first, second;
    const Position at{r.data(), phi.data(), z.data()};
    const TripletCuts cuts{0.5f, 4.0f, INFINITY, 0.0f};
    append(join_edges(at.r, at.phi, at.z, n, graph.inner, graph.outer, graph.edges, cuts, budget, threads),
           first, second);
    graph.first = first.data();
    graph.second = second.data();
    graph.triplets = first.size();
    const auto finder = make_triplet_filter<Number>(columns, sizes, numbered);
    std::vector<float> scores(graph.triplets);
    finder->run(graph, scores.data(), threads);
    make_triplet_filter<uint8_t>(columns, sizes, in_8_bits)->run(graph, scores.data(), threads);
    run_network(make_gnn<Number>(columns, sizes, numbered), graph.edges);
    first.clear();
    second.clear();
    const int64_t begins[] = {0, n};
    append(finder->find(graph, at, cuts, 0, {&budget, begins, 1}, threads), first, second);
    const Chains chains = keep_chains(2 + n % 3, first.size(), first.data(), second.data(), graph.edges,
                                      graph.inner, graph.outer, threads);
    graph.first = chains.triplets.first();
    graph.second = chains.triplets.second();
    graph.triplets = chains.triplets.size();
    graph.inner = chains.edges.first();
    graph.outer = chains.edges.second();
    graph.edges = chains.edges.size();
    logits = run_network(make_gnn<Number>(columns, sizes, numbered), graph.edges);
    std::vector<int64_t> labels(n);
    for (const bool walk : {false, true})
        build_tracks(n, graph.inner, graph.outer, logits.data(), graph.edges, 0.0f, walk, 3, labels.data());
    run_pipeline<Number>(columns, sizes, numbered, features, at, settings, budget, threads);
}

}  // namespace

void drive(const HostileEvent& event, const Budget& budget) {
    const int64_t n = event.hits;
    const int dimensions = event.dimensions, limit = event.limit, width = event.width;
    const int threads = event.threads;
    const HitColumns columns{HOSTILE_COLUMNS, 0, 2, 1, 1.0f, 3.1f, 1.0f, {3}};
    const std::vector<float>& features = event.features;
    std::vector<float> distance(n), r(n), phi(n), z(n);
    for (int64_t i = 0; i < n; ++i) {
        r[i] = 1000 * features[i * 4];
        z[i] = 1000 * features[i * 4 + 1];
        phi[i] = features[i * 4 + 2];
        distance[i] = std::abs(features[i * 4]);
    }
    std::vector<int64_t> canonical(n);
    canonical_order(features.data(), n, columns.features, distance.data(), canonical.data());
    std::vector<int32_t> place(n);
    const NeighbourSettings settings{0.3 * 0.3, limit, {1e-3f, 500.0f, 0.5f, 1.0f}, limit == 9 ? 0.0f : 2.0f};
    std::vector<Pairs> edges;
    edges.push_back(neighbours(event.embedding.data(), n, dimensions, r.data(), phi.data(), z.data(),
                               settings, budget, place.data(), threads));
    const Sizes sizes{width, 1 + int(n % 2), dimensions};
    run_networks<float>(columns, sizes, features, settings, budget, edges, threads);
#if defined(__AVX512BF16__)
    run_networks<bfloat16>(columns, sizes, features, settings, budget, edges, threads);
#endif
}

}  // namespace trackserve
