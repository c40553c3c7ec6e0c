// What the networks see of hits and of pairs of hits: HitInputs and PairInputs of
// training/networks.py.
#pragma once

#include "linear.h"
#include "memory.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace trackserve {

inline constexpr int PAIR_INPUTS = 7;

struct HitColumns {
    int features;                       // columns of the feature matrix
    int r, phi, z;                      // which of them these are
    float r_scale, phi_scale, z_scale;  // to m, rad, m
    std::vector<int> further;           // the others

    int hit_inputs() const { return 3 + int(further.size()); }
    int pair_inputs() const { return PAIR_INPUTS + 2 * hit_inputs(); }
};

// r (m), phi (rad), z (m) and pseudorapidity of each hit, side by side: [n, 4].
List<float> hit_positions(const HitColumns& columns, const float* features, int64_t n, int threads = 1);

// The inputs of a block of hits: r, z / 2, eta / 2, further features; [hit_inputs, BLOCK].
void hit_inputs(const HitColumns& columns, const float* features, const float* positions, int64_t rows,
                float* inputs);

// The inputs of a block of edges: of the pair, of the inner and of the outer hit; [pair_inputs, BLOCK].
void pair_inputs(const HitColumns& columns, const float* features, const float* positions,
                 const int32_t* inner, const int32_t* outer, int64_t rows, float* inputs);

// What a triplet's own inputs are worked out from: of an edge its transverse components along and across
// the radius of the hit where it meets the other one, its transverse length, its length along the beam,
// its whole length (m), and twice its turn about the beam line for its transverse length. Side by side.
inline constexpr int CHORD = 8;  // numbers, of which two are nothing

// The chords of a block of edges that meet others in their outer hits, or in their inner ones: [BLOCK,
// CHORD].
void chords(const float* positions, const int32_t* inner, const int32_t* outer, int64_t rows, bool in_outer,
            float* result);

// The trained numbers in the order in which torch lists them.
//
// For 8 bits there are ranges, too: of each output of the hidden layers in turn, the activation that is
// to become 255. ReLU lets such a scale through, so it is put into the weights before and after it.
class Tensors {
  public:
    explicit Tensors(const float* const* next, const float* ranges = nullptr)
        : next_(next), ranges_(ranges) {}
    const float* take() { return *next_++; }
    std::vector<float> take(size_t size) {
        const float* values = take();
        return {values, values + size};
    }
    // Weight [outputs, inputs] and bias of the next layer, scaled.
    std::pair<std::vector<float>, std::vector<float>> layer(int inputs, int outputs) {
        std::vector<float> weight = take(size_t(inputs) * outputs), bias = take(outputs);
        scale(weight, bias);
        return {std::move(weight), std::move(bias)};
    }
    template <class Number>
    Linear<Number> linear(int inputs, int outputs) {
        const auto [weight, bias] = layer(inputs, outputs);
        return Linear<Number>(weight, bias.data(), inputs, outputs);
    }
    Dot dot(int inputs) {
        std::vector<float> weight = take(inputs);
        for (int i = 0; before_ && i < inputs; ++i) weight[i] *= before_[i] / 255;
        return {std::move(weight), *take()};
    }
    // PairLayer's weights of the pair, the inner and the outer hit, side by side: one product.
    Linear<float> pair_layer(const HitColumns& columns, int outputs);

  private:
    const float* const* next_;
    const float *ranges_, *before_ = nullptr;  // of the next layer's outputs, and of its inputs

    void scale(std::vector<float>& weight, std::vector<float>& bias);
};

}  // namespace trackserve
