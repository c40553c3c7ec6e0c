// The functions that Python calls: plain C, no exception leaves them.

#include "embedding.h"
#include "filter.h"
#include "gnn.h"
#include "parallel.h"
#include "pipeline.h"
#include "tracks.h"
#include "triplets.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>

namespace {

using trackserve::Pairs;

constexpr int ABI_VERSION = 4;  // raise it, here and in engines/native/library.py, when a function changes

enum Status { DONE = 0, NO_MEMORY = 1, FAILED = 2, OVER_EDGES = 3, OVER_TRIPLETS = 4, OVER_SECONDS = 5 };

template <class Work>
int guarded(const Work& work) {
    try {
        work();
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (const trackserve::OverBudget& over) {
        return OVER_EDGES + int(over.bound);
    } catch (...) {
        return FAILED;
    }
}

// A list of rows that Python has, to be given back by trackserve_give_back.
using Rows = Pairs::Rows;

void give(Pairs&& pairs, Rows* first, Rows* second, int64_t* count) {
    *count = pairs.size();
    std::tie(*first, *second) = pairs.release();
}

}  // namespace

extern "C" {

int trackserve_canonical_order(const float* features, int64_t n, int columns, const float* distance,
                               int64_t* order) {
    return guarded([&] { trackserve::canonical_order(features, n, columns, distance, order); });
}

// Gives edges.
int trackserve_neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                          const float* z, double squared_radius, int32_t limit, const float* cuts,
                          float radian, const trackserve::Budget* budget, int threads, int32_t* order,
                          Rows* first, Rows* second, int64_t* count) {
    return guarded([&] {
        const trackserve::Deadline deadline(budget->seconds);
        const trackserve::NeighbourSettings settings{
            squared_radius, limit, {cuts[0], cuts[1], cuts[2], cuts[3]}, radian};
        give(trackserve::neighbours(embedding, n, dimensions, r, phi, z, settings, *budget, order, threads),
             first, second, count);
    });
}

// Gives memory for a result.
int trackserve_take(int64_t bytes, Rows* memory) {
    return guarded([&] {
        size_t room = bytes;
        memory->start = static_cast<int32_t*>(trackserve::memory::take(room));
        memory->bytes = room;
    });
}

void trackserve_give_back(void* rows, int64_t bytes) {
    if (rows) trackserve::memory::give_back(rows, bytes);
}

// Gives edges.
int trackserve_keep_edges(const float* logits, float threshold, int64_t count, int64_t n,
                          const int32_t* inner, const int32_t* outer, int threads, Rows* first, Rows* second,
                          int64_t* kept) {
    return guarded([&] {
        give(trackserve::keep_edges(logits, threshold, count, n, inner, outer, threads), first, second, kept);
    });
}

// Gives triplets.
int trackserve_join_edges(const float* r, const float* phi, const float* z, int64_t n, const int32_t* inner,
                          const int32_t* outer, int64_t edges, const float* cuts,
                          const trackserve::Budget* budget, int threads, Rows* first, Rows* second,
                          int64_t* count) {
    return guarded([&] {
        const trackserve::Deadline deadline(budget->seconds);
        give(
            trackserve::joined(trackserve::join_edges(r, phi, z, n, inner, outer, edges,
                                                      {cuts[0], cuts[1], cuts[2], cuts[3]}, *budget, threads),
                               threads),
            first, second, count);
    });
}

// Gives edges, and triplets of these.
int trackserve_keep_chains(int32_t chain, int64_t triplets, const int32_t* first, const int32_t* second,
                           int64_t edges, const int32_t* inner, const int32_t* outer, int threads,
                           Rows* kept_inner, Rows* kept_outer, int64_t* kept_edges, Rows* kept_first,
                           Rows* kept_second, int64_t* kept_triplets) {
    return guarded([&] {
        trackserve::Chains kept =
            trackserve::keep_chains(chain, triplets, first, second, edges, inner, outer, threads);
        give(std::move(kept.edges), kept_inner, kept_outer, kept_edges);
        give(std::move(kept.triplets), kept_first, kept_second, kept_triplets);
    });
}

int trackserve_scores_of(const float* logits, int64_t count, float* scores) {
    return guarded([&] { trackserve::scores_of(logits, count, scores); });
}

int trackserve_build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                            int64_t count, float cut, int walk, int64_t min_hits, int64_t* labels) {
    return guarded(
        [&] { trackserve::build_tracks(n, inner, outer, scores, count, cut, walk, min_hits, labels); });
}

// The instruction sets this processor has, of those that variants are compiled for.
int trackserve_processor_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2"))
        return 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return 1;
    if (!__builtin_cpu_supports("avx512vnni")) return 2;
    return __builtin_cpu_supports("avx512bf16") ? 4 : 3;
#else
    return 0;
#endif
}

enum Kind { EMBEDDING = 0, FILTER = 1, TRIPLETS = 2, GNN = 3 };
enum Precision { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

// What is faster than float32 here. Every variant computes INT8, with the same results.
int trackserve_has_precision(int precision) {
#if defined(__AVX512VNNI__)
    if (precision == INT8) return 1;
#endif
#if defined(__AVX512BF16__)
    if (precision == BFLOAT16) return 1;
#endif
    return precision == FLOAT32;
}

struct trackserve_description {
    int32_t kind, precision;
    int32_t width, depth, dimension;
    int32_t features, r, phi, z, further;  // columns in all, these columns, and the number of others
    float r_scale, phi_scale, z_scale;
    const int32_t* further_columns;
    const float* const* tensors;
    const float* ranges;  // [depth, width] for INT8, which the filter and the triplet classifier have
};

// Gives a network, to be freed by trackserve_free_network.
int trackserve_make_network(const trackserve_description* d, void** network) {
    return guarded([&] {
        const trackserve::HitColumns columns{
            d->features, d->r,         d->phi,     d->z,
            d->r_scale,  d->phi_scale, d->z_scale, {d->further_columns, d->further_columns + d->further}};
        const trackserve::Sizes sizes{d->width, d->depth, d->dimension};
        const auto make = [&]<class Number>(Number) -> std::unique_ptr<trackserve::Network> {
            constexpr bool in_8_bits = std::is_same_v<Number, uint8_t>;
            const trackserve::Tensors tensors(d->tensors, in_8_bits ? d->ranges : nullptr);
            if (d->kind == FILTER) return trackserve::make_filter<Number>(columns, sizes, tensors);
            if (d->kind == TRIPLETS) return trackserve::make_triplet_filter<Number>(columns, sizes, tensors);
            if constexpr (in_8_bits)
                throw std::invalid_argument("this network has no 8 bits");
            else if (d->kind == EMBEDDING)
                return trackserve::make_embedding<Number>(columns, sizes, tensors);
            else
                return trackserve::make_gnn<Number>(columns, sizes, tensors);
        };
        if (d->precision == INT8) {
            *network = make(uint8_t{}).release();
            return;
        }
#if defined(__AVX512BF16__)
        if (d->precision == BFLOAT16) {
            *network = make(trackserve::bfloat16{}).release();
            return;
        }
#endif
        *network = make(0.0f).release();
    });
}

int trackserve_run_network(const void* network, const trackserve::Graph* graph, float* result, int threads) {
    return guarded([&] { static_cast<const trackserve::Network*>(network)->run(*graph, result, threads); });
}

// Gives triplets; the network is one on triplets.
int trackserve_find_triplets(const void* network, const trackserve::Graph* graph, const float* r,
                             const float* phi, const float* z, const float* cuts, float threshold,
                             const trackserve::Budget* budget, int threads, Rows* first, Rows* second,
                             int64_t* count) {
    return guarded([&] {
        const trackserve::Deadline deadline(budget->seconds);
        const int64_t begins[] = {0, graph->hits};
        const auto& finder = dynamic_cast<const trackserve::TripletNetwork&>(
            *static_cast<const trackserve::Network*>(network));
        give(trackserve::joined(finder.find(*graph, {r, phi, z}, {cuts[0], cuts[1], cuts[2], cuts[3]},
                                            threshold, {budget, begins, 1}, threads),
                                threads),
             first, second, count);
    });
}

// What building tracks with the help of the fit needs; `quality` may be null.
struct trackserve_fitting {
    const trackserve::FitSettings* fit;
    const double* quality;
    double join, min_quality, extend;
};

// Gives the labels of hits [n], which are in canonical order, and, where there is a table, the parameters
// of the tracks.
int trackserve_fitted_tracks(const trackserve_fitting* fitting, int64_t n, const float* r, const float* phi,
                             const float* z, const int32_t* inner, const int32_t* outer, const float* scores,
                             int64_t count, float cut, int walk, int64_t min_hits, int64_t* labels,
                             float* table, int64_t* tracks) {
    return guarded([&] {
        const trackserve::Builder builder{
            cut,          walk != 0,       min_hits,       fitting->join, fitting->min_quality,
            fitting->extend, fitting->fit, fitting->quality};
        *tracks =
            trackserve::fitted_tracks(n, r, phi, z, inner, outer, scores, count, builder, 1, labels, table);
    });
}

struct trackserve_pipeline {
    const void *embedding, *filter, *triplets, *gnn;
    double squared_radius;
    int64_t min_hits;
    int32_t features, dimension, limit, chain, walk;
    float doublet_cuts[4], radian, filter_threshold, triplet_cuts[4], triplet_threshold, track_cut;
    const trackserve_fitting* fitting;  // may be null
};

// Returns the labels of hits [begins[events]], the seconds of each stage, the edges of each event
// [events, STAGES] and, where there is a table, the parameters of all tracks and how many each event has.
int trackserve_find_tracks(const trackserve_pipeline* p, const float* features, const float* r,
                           const float* phi, const float* z, const int64_t* begins, int64_t events,
                           const trackserve::Budget* budgets, int threads, int64_t* labels, double* seconds,
                           int64_t* edges, float* table, int64_t* tracks) {
    return guarded([&] {
        const auto network = [](const void* given) { return static_cast<const trackserve::Network*>(given); };
        const float *doublet = p->doublet_cuts, *triplet = p->triplet_cuts;
        trackserve::Builder builder{p->track_cut, p->walk != 0, p->min_hits, 0, 0, 0, nullptr, nullptr};
        if (const trackserve_fitting* fitting = p->fitting) {
            builder.join = fitting->join;
            builder.min_quality = fitting->min_quality;
            builder.extend = fitting->extend;
            builder.fit = fitting->fit;
            builder.quality = fitting->quality;
        }
        const trackserve::Pipeline pipeline{
            .embedding = network(p->embedding),
            .filter = network(p->filter),
            .triplets = &dynamic_cast<const trackserve::TripletNetwork&>(*network(p->triplets)),
            .gnn = network(p->gnn),
            .features = p->features,
            .dimension = p->dimension,
            .neighbours = {p->squared_radius,
                           p->limit,
                           {doublet[0], doublet[1], doublet[2], doublet[3]},
                           p->radian},
            .filter_threshold = p->filter_threshold,
            .triplet_cuts = {triplet[0], triplet[1], triplet[2], triplet[3]},
            .triplet_threshold = p->triplet_threshold,
            .chain = p->chain,
            .builder = builder,
        };
        const trackserve::StageTimings timings = trackserve::find_tracks(
            pipeline, {features, {r, phi, z}, begins, events}, budgets, threads, labels, table, tracks);
        std::copy(timings.seconds.begin(), timings.seconds.end(), seconds);
        for (const auto& event : timings.edges) edges = std::copy(event.begin(), event.end(), edges);
    });
}

// What Python checks when it loads the library: the version of these functions, the sizes of the structures
// that it fills, and the order of the stages. See engines/native/library.py.
const char* trackserve_abi() {
    static const std::string text = [] {
        std::string text = "version ";
        text.append(std::to_string(ABI_VERSION)).append(", structures of");
        for (const size_t size :
             {sizeof(trackserve_description), sizeof(trackserve_pipeline), sizeof(trackserve::Graph),
              sizeof(Rows), sizeof(trackserve_fitting), sizeof(trackserve::FitSettings),
              sizeof(trackserve::Region), sizeof(trackserve::Budget)})
            text.append(" ").append(std::to_string(size));
        text += " bytes, stages";
        for (const char* name : trackserve::STAGE_NAMES) text.append(" ").append(name);
        return text;
    }();
    return text.c_str();
}

void trackserve_free_network(void* network) { delete static_cast<trackserve::Network*>(network); }

}  // extern "C"
