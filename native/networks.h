// The three networks of training/networks.py, with trained numbers.
#pragma once

#include "inputs.h"

#include <memory>

namespace trackserve {

struct Sizes {
    int width, depth;  // of the hidden layers, and how many layers or steps there are
    int dimension;     // of the embedding
};

struct Network {
    virtual ~Network() = default;
    // From features [n, F] of hits and, but for the embedding, edges [count] between them to points
    // [n, dimension] or logits [count]. Hits of an edge that lie far apart in memory cost time.
    virtual void run(const float* features, int64_t n, const int32_t* inner, const int32_t* outer,
                     int64_t count, float* result, int threads) const = 0;
};

template <class Number>
std::unique_ptr<Network> make_embedding(const HitColumns& columns, const Sizes& sizes, Tensors tensors);
template <class Number>
std::unique_ptr<Network> make_filter(const HitColumns& columns, const Sizes& sizes, Tensors tensors);
template <class Number>
std::unique_ptr<Network> make_gnn(const HitColumns& columns, const Sizes& sizes, Tensors tensors);

}  // namespace trackserve
