// Algorithm 1, as pipeline/neighbours.py: pairs of hits within a radius in the embedding.
#pragma once

#include "budget.h"
#include "detector.h"
#include "pairs.h"

#include <cstdint>

namespace trackserve {

struct NeighbourSettings {
    double squared_radius;  // pairs are nearer than this
    int32_t limit;
    DoubletCuts cuts;
    float radian;  // as much as in the embedding, where hits are put in an order; 0: azimuth doesn't count
};

// Edges between hits, which come in the order from the origin. Hits are named by their places in space
// order, which is written to `order`. Throws OverBudget for more edges than these.
Pairs neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                 const float* z, const NeighbourSettings& settings, const Budget& budget, int32_t* order,
                 int threads);

}  // namespace trackserve
