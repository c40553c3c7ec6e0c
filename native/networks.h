// What the four networks have in common: sizes, what they see, how they are run; each has a file of its own.
#pragma once

#include "inputs.h"
#include "join.h"

#include <memory>

namespace trackserve {

struct Sizes {
    int width, depth;  // of the hidden layers, and how many layers or steps there are
    int dimension;     // of the embedding
};

// What a network sees of an event. What is near in the detector should be near in memory: ends that
// lie far apart cost time.
struct Graph {
    const float* features;  // [hits, F]
    int64_t hits;
    const int32_t *inner, *outer;  // [edges] the hits of each edge
    int64_t edges;
    const int32_t *first, *second;  // [triplets] the edges of each triplet
    int64_t triplets;
};

struct Network {
    virtual ~Network() = default;
    // Gives points [hits, dimension], logits [edges] or, for the filter of triplets, [triplets].
    virtual void run(const Graph& graph, float* result, int threads) const = 0;
};

struct TripletNetwork : Network {
    // The triplets, in pieces, that join_edges and then this network's logits leave; throws OverBudget if
    // more pairs of edges meet in the hits of an event.
    virtual std::vector<Pairs> find(const Graph& graph, const Position& at, const TripletCuts& cuts,
                                    float threshold, const Budgets& budgets, int threads) const = 0;
};

}  // namespace trackserve
