// Network 3, the triplet classifier, as TripletFilter of training/networks.py; what the networks see of
// triplets, as TripletInputs there, and a layer on it, with which the GNN begins, too.
#pragma once

#include "networks.h"

namespace trackserve {

inline constexpr int64_t TRIPLETS_AT_ONCE = 64 * BLOCK;

// The edges at one end of some triplets, each once, with what they add to their triplets.
struct TripletEnds {
    std::vector<int32_t> inner, outer;  // the hits of each edge
    std::vector<int32_t> at;            // of each triplet: the place of its edge
    int64_t room = 0;                   // in edges
    List<float> chords;                 // [room, CHORD]
    std::vector<float> sums;            // [room, width]

    // Make room for these edges in whole blocks.
    void resize(int64_t edges, int width);
    // Say which edge each triplet has, and the first one for a block more.
    void place(const int32_t* edges, int64_t triplets);
};

// A linear layer on a triplet's own inputs, its two edges and its three hits. The weights of an edge
// and its hits are applied once for all triplets of a chunk that have it.
class TripletLayer {
  public:
    TripletLayer(const HitColumns& columns, Tensors& tensors, int width);

    // Where one thread works.
    struct Scratch {
        TripletEnds first, second;
        std::array<float, MAX_INPUTS * BLOCK> inputs{};
    };

    // Compute what the scratch's first and second edges add to their triplets.
    void prepare(const float* features, const float* positions, int64_t firsts, int64_t seconds,
                 Scratch& scratch) const;

    // Write what is positive of the layer's outputs [BLOCK, width] for some triplets of the scratch, which
    // begin with this one.
    template <class Number>
    void operator()(Scratch& scratch, int64_t offset, int64_t rows, Number* out) const {
        own_inputs(scratch, offset, rows);
        const float *first = scratch.first.sums.data(), *second = scratch.second.sums.data();
        const int32_t *one = &scratch.first.at[offset], *other = &scratch.second.at[offset];
        const auto of_edges = [=, width = width_](int row, int column) {
            return load(first + one[row] * width + column) + load(second + other[row] * width + column);
        };
        own_({scratch.inputs.data(), 1, BLOCK}, of_edges, true, out);
    }

  private:
    HitColumns columns_;
    int width_;
    Linear<float> own_, first_, second_;

    void prepare(TripletEnds& ends, const Linear<float>& layer, bool first, int64_t edges,
                 const float* features, const float* positions, float* inputs) const;
    static void own_inputs(Scratch& scratch, int64_t offset, int64_t rows);
};

// The triplets of a graph in order, some at once, and their edges, each once in such a part.
class TripletParts {
  public:
    TripletParts(const Graph& graph, int width);

    // Prepare the triplets [begin, end) of the graph, at most TRIPLETS_AT_ONCE, for a layer.
    void prepare(const TripletLayer& layer, const Graph& graph, const float* positions, int64_t begin,
                 int64_t end);

    TripletLayer::Scratch scratch;

  private:
    std::vector<int32_t> place_;  // [edges] -1, but for one that is already in the part
    std::vector<int32_t> edges_;

    int64_t find_edges(TripletEnds& ends, const Graph& graph, const int32_t* edges, int64_t count);
};

template <class Number>
std::unique_ptr<TripletNetwork> make_triplet_filter(const HitColumns& columns, const Sizes& sizes,
                                                    Tensors tensors);

}  // namespace trackserve
