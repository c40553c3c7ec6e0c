// All stages of some events, from features to tracks, in one call; NativePipeline of engines/native/engine.py
// runs them one by one.
#pragma once

#include "fitted.h"
#include "join.h"
#include "neighbours.h"
#include "networks.h"

#include <array>

namespace trackserve {

struct Pipeline {
    const Network* embedding;
    const Network* filter;
    const TripletNetwork* triplets;
    const Network* gnn;
    int features, dimension;  // columns of a hit, and of its embedding
    NeighbourSettings neighbours;
    float filter_threshold;  // of logits
    TripletCuts triplet_cuts;
    float triplet_threshold;
    int32_t chain;  // edges
    Builder builder;
};

// Hits of events one behind the other.
struct Hits {
    const float* features;  // [hits, F]
    Position at;
    const int64_t* begins;  // [events + 1] where the hits of each event begin
    int64_t events;
};

// As trackserve.contract.tensors names them; the names are checked when the library is loaded.
enum Stage { ORDER, EMBED, NEAR, FILTER_EDGES, CUT, JOIN, SCORE, BUILD, STAGES };
inline constexpr const char* STAGE_NAMES[STAGES] = {"order", "embedding", "neighbours", "filter",
                                                    "cut",   "triplets",  "gnn",        "tracks"};

// Seconds of each stage, and the edges of each event [events, STAGES] after the stages that leave edges.
struct StageTimings {
    std::array<double, STAGES> seconds{};
    std::vector<std::array<int64_t, STAGES>> edges;
};

// The track of each hit, numbered in each event from 0; -1 for none. If there is a table, each track's
// parameters are written to it, event after event, and how many each event has to `many` [events]. Throws
// OverBudget if an event exceeds its budget [events], or all of them their time.
StageTimings find_tracks(const Pipeline& pipeline, const Hits& hits, const Budget* budgets, int threads,
                         int64_t* labels, float* table, int64_t* many);

}  // namespace trackserve
