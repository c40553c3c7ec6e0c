// Layers of the networks on blocks of rows (hits or edges), small enough to stay in the first-level
// cache from the inputs to the last layer. A row holds the features of one hit or edge.
//
// Number is what activations are stored as: float, or bfloat16 where the processor multiplies it
// (twice as fast), with weights alike and sums of floats; or uint8_t, with weights of 8 bits and sums
// of integers.
#pragma once

#include "memory.h"
#include "simd.h"

#include <array>
#include <cstddef>
#include <vector>

namespace trackserve {

inline constexpr int BLOCK = 48;       // rows of a block
inline constexpr int MAX_WIDTH = 128;  // of a layer
inline constexpr int WIDTH_STEP = 16;  // widths are multiples of this
inline constexpr int MAX_INPUTS = 64;  // of a network's first layer

// Values of a block of rows. The line more keeps blocks that follow each other from lying whole pages apart,
// where a processor takes what is read from one for what was just written to the other.
template <class Number>
struct alignas(64) Block : std::array<Number, BLOCK * MAX_WIDTH> {
    std::array<Number, 64 / sizeof(Number)> apart;
};

// How a Number and its weights are kept, and how vectors of outputs gain a product of both.
template <class Number>
struct Arithmetic;

struct SumsOfFloats {
    using Sum = float;
    using Sums = Vec;
    static float unit(const float*, int, float) { return 1; }
    static float round_bias(float x) { return x; }
    static Vec outputs(Vec sums, const float*) { return sums; }
};

template <>
struct Arithmetic<float> : SumsOfFloats {
    using Weight = float;
    static constexpr int TOGETHER = 1;  // inputs that are multiplied in one instruction
    static float round(float x) { return x; }
    static Vec add_product(Vec total, const float* inputs, const float* weights) {
        return fma(broadcast(*inputs), load(weights), total);
    }
};

inline Vec widen(const float* from) { return load(from); }
inline void narrow(float* to, Vec v) { store(to, v); }

#if defined(__AVX512BF16__)
struct bfloat16 {
    uint16_t upper;  // half of a float
};

template <>
struct Arithmetic<bfloat16> : SumsOfFloats {
    using Weight = bfloat16;
    static constexpr int TOGETHER = 2;
    static bfloat16 round(float x) {
        uint32_t u;
        std::memcpy(&u, &x, sizeof u);
        return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
    }
    static Vec add_product(Vec total, const bfloat16* inputs, const bfloat16* weights) {
        int32_t pair;
        std::memcpy(&pair, inputs, sizeof pair);
        __m512bh w;
        std::memcpy(&w, weights, sizeof w);
        return _mm512_dpbf16_ps(total, (__m512bh)_mm512_set1_epi32(pair), w);
    }
};

inline Vec widen(const bfloat16* from) {
    const __m512i halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    return reinterpret_cast<Vec>(_mm512_slli_epi32(halves, 16));
}
inline void narrow(bfloat16* to, Vec v) {
    const __m256bh halves = _mm512_cvtneps_pbh(v);
    std::memcpy(to, &halves, sizeof halves);
}
#endif

// Activations fill 0..255 (see Tensors), the weights of an output -127..127: its sum counts
// in units of its own. Sums and bias stay below 2^24, where a float holds them exactly.
template <>
struct Arithmetic<uint8_t> {
    using Weight = int8_t;
    using Sum = int32_t;
    using Sums = VecInt;
    static constexpr int TOGETHER = 4;
    static float unit(const float* weights, int inputs, float bias) {
        float unit = std::max(std::abs(bias) * 0x1p-23f, 1e-30f);
        for (int k = 0; k < inputs; ++k) unit = std::max(unit, std::abs(weights[k]) / 127);
        return unit;
    }
    static int8_t round(float x) { return int8_t(std::lrint(x)); }
    static int32_t round_bias(float x) { return int32_t(std::lrint(x)); }
    static Vec outputs(VecInt sums, const float* units) {
        return __builtin_convertvector(sums, Vec) * load(units);
    }
    static VecInt add_product(VecInt total, const uint8_t* inputs, const int8_t* weights) {
        int32_t four;
        std::memcpy(&four, inputs, sizeof four);
        VecInt w;
        std::memcpy(&w, weights, sizeof w);
#if defined(__AVX512VNNI__)
        return reinterpret_cast<VecInt>(_mm512_dpbusd_epi32(
            reinterpret_cast<__m512i>(total), _mm512_set1_epi32(four), reinterpret_cast<__m512i>(w)));
#else  // the same, more slowly than in float: for tests
        for (int t = 0; t < 32; t += 8) total += (four >> t & 255) * (w << (24 - t) >> 24);
        return total;
#endif
    }
};

inline Vec widen(const uint8_t* from) {
    uint8_t __attribute__((vector_size(LANES))) bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes, VecInt), Vec);
}
// What is not in 0..255 becomes the nearer of both.
inline void narrow(uint8_t* to, Vec v) {
    // Adding 2^23 rounds to the nearest integer and leaves it in the lowest bits; bits of floats are
    // in order as integers, too.
    const VecInt least = reinterpret_cast<VecInt>(broadcast(0x1p23f)), most = least + 255;
    VecInt rounded = reinterpret_cast<VecInt>(v + broadcast(0x1p23f));
    rounded = rounded > least ? rounded : least;
    rounded = rounded < most ? rounded : most;
    using Bytes = uint8_t __attribute__((vector_size(LANES)));
    const Bytes bytes = __builtin_convertvector(rounded, Bytes);
    std::memcpy(to, &bytes, sizeof bytes);
}

// Values of a block: element k of a row is at values[row * per_row + k * per_element].
template <class Number>
struct Rows {
    const Number* values;
    ptrdiff_t per_row, per_element = 1;
};

// y = W x + b on the rows of a block; torch's Linear.
template <class Number>
class Linear {
  public:
    using Sum = typename Arithmetic<Number>::Sum;
    int inputs = 0, outputs = 0;  // outputs are padded to a multiple of WIDTH_STEP with zeros
    std::vector<Sum> bias;

    Linear() = default;

    // `weight` is [outputs, inputs], as torch has it; no bias is a bias of zero.
    Linear(const std::vector<float>& weight, const float* b, int in, int out)
        : inputs(in),
          outputs((out + WIDTH_STEP - 1) / WIDTH_STEP * WIDTH_STEP),
          bias(outputs),
          units_(outputs, 1.0f) {
        for (int o = 0; o < out; ++o) {
            units_[o] = Arithmetic<Number>::unit(&weight[o * inputs], inputs, b ? b[o] : 0.0f);
            if (b) bias[o] = Arithmetic<Number>::round_bias(b[o] / units_[o]);
        }
        // [panel of outputs][inputs / TOGETHER][output of the panel][TOGETHER]
        for (int first = 0; first < outputs; first += panel(first))
            for (int k = 0; k < inputs; k += TOGETHER)
                for (int o = first; o < first + panel(first); ++o)
                    for (int t = k; t < k + TOGETHER; ++t)
                        weights_.push_back(Arithmetic<Number>::round(
                            o < out && t < in ? weight[o * in + t] / units_[o] : 0.0f));
    }

    // What the products are added to: the bias, or that on top of states [BLOCK, outputs].
    auto start() const {
        return [b = bias.data()](int, int column) { return load(b + column); };
    }
    auto start(const Number* states) const {
        return [b = bias.data(), states, width = outputs](int row, int column) {
            return load(b + column) + widen(states + row * width + column);
        };
    }

    // Write start(row, first of LANES columns) + W x, or what of it is positive, to rows of
    // `outputs` numbers. Inputs outside [begin, end), an even number each, are taken to be zero.
    template <class Start, class Out>
    void operator()(Rows<Number> in, const Start& start, bool relu, Out* out) const {
        (*this)(in, start, relu, out, 0, inputs);
    }
    template <class Start, class Out>
    void operator()(Rows<Number> in, const Start& start, bool relu, Out* out, int begin, int end) const {
        const Weight* weights = weights_.data();
        for (int first = 0; first < outputs; first += panel(first)) {
            switch (panel(first) / LANES) {
                case 1:
                    multiply<1>(in, start, relu, out, first, weights, begin, end);
                    break;
                case 2:
                    multiply<2>(in, start, relu, out, first, weights, begin, end);
                    break;
                case 3:
                    multiply<3>(in, start, relu, out, first, weights, begin, end);
                    break;
                default:
                    multiply<4>(in, start, relu, out, first, weights, begin, end);
            }
            weights += panel(first) * ((inputs + TOGETHER - 1) / TOGETHER * TOGETHER);
        }
    }

  private:
    using Weight = typename Arithmetic<Number>::Weight;
    static constexpr int TOGETHER = Arithmetic<Number>::TOGETHER;
#if defined(__AVX512F__) || defined(__aarch64__)
    static constexpr int SUMS = 24, VECTORS = 4;  // of the 32 registers
#else
    static constexpr int SUMS = 12, VECTORS = 2;  // of the 16 registers
#endif
    List<Weight> weights_;      // on whole cache lines: a load across two takes twice as long
    std::vector<float> units_;  // [outputs] of weights and sums

    // Outputs that are worked out together.
    int panel(int first) const { return std::min(outputs - first, VECTORS * LANES); }

    // A tile of sums stays in registers while the inputs go by.
    template <int V, class Start, class Out>
    void multiply(Rows<Number> in, const Start& start, bool relu, Out* out, int first, const Weight* weights,
                  int begin, int end) const {
        constexpr int R = std::min(SUMS / V, 12);
        static_assert(BLOCK % R == 0);
        for (int row = 0; row < BLOCK; row += R) {
            typename Arithmetic<Number>::Sums sums[R][V];
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[r][v] = start(row + r, first + v * LANES);
            const Number* x = in.values + row * in.per_row + begin * in.per_element;
            const Weight* w = weights + begin * V * LANES;
            for (int k = begin; k < end; k += TOGETHER) {
#pragma GCC unroll 12
                for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v)
                        sums[r][v] = Arithmetic<Number>::add_product(sums[r][v], x + r * in.per_row,
                                                                     w + v * LANES * TOGETHER);
                x += TOGETHER * in.per_element;
                w += V * LANES * TOGETHER;
            }
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) {
                    const int column = first + v * LANES;
                    const Vec y = Arithmetic<Number>::outputs(sums[r][v], &units_[column]);
                    const bool rectify = relu && !std::is_unsigned_v<Out>;  // these already are
                    narrow(out + (row + r) * outputs + column, rectify ? max(y, Vec{}) : y);
                }
        }
    }
};

// w . x + b for each row of a block: the last layer, with one output.
struct Dot {
    std::vector<float> weight;
    float bias = 0;

    // Write the outputs of some rows [rows, weight.size()] of a block.
    template <class Number>
    void operator()(const Number* x, int64_t rows, float* out) const {
        std::array<float, BLOCK> all;
        const int width = weight.size();
        for (int row = 0; row < rows; row += LANES) {
            Vec products[LANES];
            for (int r = 0; r < LANES; ++r) {
                products[r] = Vec{};
                for (int k = 0; k < width; k += LANES)
                    products[r] = fma(widen(x + (row + r) * width + k), load(&weight[k]), products[r]);
            }
            store(&all[row], sums(products) + broadcast(bias));
        }
        std::copy_n(all.begin(), rows, out);
    }
};

// torch's LayerNorm and ReLU, for rows whose mean is zero: the layer before is centred (below).
struct Normalisation {
    std::vector<float> weight, bias;
    float epsilon = 1e-5f;

    template <class Number>
    void operator()(const float* rows, Number* out) const {
        const int width = weight.size();
        float scales[BLOCK];
        for (int row = 0; row < BLOCK; row += LANES) {
            Vec squares[LANES];
            for (int r = 0; r < LANES; ++r) {
                squares[r] = Vec{};
                for (int k = 0; k < width; k += LANES) {
                    const Vec x = load(rows + (row + r) * width + k);
                    squares[r] = fma(x, x, squares[r]);
                }
            }
            const Vec variance = sums(squares) / broadcast(float(width));
            store(scales + row, broadcast(1.0f) / sqrt(variance + broadcast(epsilon)));
        }
        for (int row = 0; row < BLOCK; ++row)
            for (int k = 0; k < width; k += LANES) {
                const Vec x = load(rows + row * width + k) * broadcast(scales[row]);
                narrow(out + row * width + k, max(fma(x, load(&weight[k]), load(&bias[k])), Vec{}));
            }
    }
};

// Subtract from each column of weights [outputs, inputs] its mean, so that the outputs for any input
// have mean zero: what LayerNorm would subtract from each row is taken away once.
inline void centre(std::vector<float>& weight, int inputs, int outputs) {
    for (int k = 0; k < inputs; ++k) {
        double mean = 0;
        for (int o = 0; o < outputs; ++o) mean += weight[o * inputs + k];
        for (int o = 0; o < outputs; ++o) weight[o * inputs + k] -= float(mean / outputs);
    }
}

}  // namespace trackserve
