// What the networks see of triplets: TripletInputs of training/networks.py, and a layer on it.
#pragma once

#include "networks.h"

namespace trackserve {

inline constexpr int64_t TRIPLETS_AT_ONCE = 64 * BLOCK;

// The edges at one end of the triplets of a chunk, each once, with what they add to their triplets.
struct TripletEnds {
    std::vector<int32_t> place;                // [edges] -1, but for one that is already below
    std::vector<int32_t> edges, inner, outer;  // the edges and their hits
    std::vector<int32_t> at;                   // of each triplet: the place of its edge
    std::vector<float> chords;                 // [CHORDS, TRIPLETS_AT_ONCE]
    std::vector<float> sums;                   // [TRIPLETS_AT_ONCE, width]
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

        Scratch(const Graph& graph, int width);
    };

    // Make ready for the triplets [begin, end) of a graph, at most TRIPLETS_AT_ONCE.
    void prepare(const Graph& graph, const float* positions, int64_t begin, int64_t end,
                 Scratch& scratch) const;

    // Write what is positive of the layer's outputs [BLOCK, width] for some of these triplets, the
    // first of which is this many after `begin`.
    template <class Number>
    void operator()(Scratch& scratch, int64_t offset, int64_t rows, Number* out) const {
        own_inputs(scratch, offset, rows);
        const float *first = scratch.first.sums.data(), *second = scratch.second.sums.data();
        const int32_t *one = &scratch.first.at[offset], *other = &scratch.second.at[offset];
        const auto of_edges = [=, width = width_](int row, int column) {
            return load(first + one[row] * width + column) +
                   load(second + other[row] * width + column);
        };
        own_({scratch.inputs.data(), 1, BLOCK}, of_edges, true, out);
    }

  private:
    HitColumns columns_;
    int width_;
    Linear<float> own_, first_, second_;

    void prepare(TripletEnds& ends, const Linear<float>& layer, const Graph& graph,
                 const int32_t* edges, int64_t count, const float* positions, float* inputs) const;
    static void own_inputs(Scratch& scratch, int64_t offset, int64_t rows);
};

}  // namespace trackserve
