// Nanoseconds a row of one hidden layer (product, bias, ReLU) of several widths, as the engine computes
// it in float32 and bfloat16, and in 8 bits: products by VNNI, sums scaled, rounded and packed.
// Prints JSON; benchmarks/speed.py compiles it for the processor that it runs on.

#include "linear.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

using namespace trackserve;

namespace {

template <class Work>
double nanoseconds_a_row(const Work& work) {
    using clock = std::chrono::steady_clock;
    constexpr int repeats = 2000;
    double best = 1;
    for (int trial = 0; trial < 50; ++trial) {
        const auto start = clock::now();
        for (int i = 0; i < repeats; ++i) work();
        best = std::min(best, std::chrono::duration<double>(clock::now() - start).count());
    }
    return 1e9 * best / repeats / BLOCK;
}

template <class Number>
double engine(int width) {
    const std::vector<float> weight(width * width, 0.01f), bias(width, 0.1f);
    const Linear<Number> layer(weight, bias.data(), width, width);
    Block<Number> in{}, out{};
    return nanoseconds_a_row([&] {
        layer({in.data(), width}, layer.start(), true, out.data());
        asm volatile("" : : "r"(out.data()) : "memory");
    });
}

#if defined(__AVX512VNNI__)
// Weights [outputs / 16][inputs / 4][16][4], activations [BLOCK, width], a scale an output.
template <int VECTORS>
void in_8_bits(const int8_t* weights, const float* scale, const float* bias, const uint8_t* in,
               uint8_t* out) {
    constexpr int width = 16 * VECTORS, R = std::min(24 / VECTORS, 12);
    for (int row = 0; row < BLOCK; row += R) {
        __m512i sums[R][VECTORS];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = _mm512_setzero_si512();
#pragma GCC unroll 1
        for (int k = 0; k < width; k += 4) {
            __m512i of_k[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                of_k[v] = _mm512_load_si512(weights + (v * width + k) * 16);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                int32_t four;
                std::memcpy(&four, in + (row + r) * width + k, sizeof four);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v)
                    sums[r][v] =
                        _mm512_dpbusd_epi32(sums[r][v], _mm512_set1_epi32(four), of_k[v]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v]),
                                                 _mm512_loadu_ps(scale + 16 * v),
                                                 _mm512_loadu_ps(bias + 16 * v));
                const __m512i rounded =
                    _mm512_cvtps_epi32(_mm512_max_ps(y, _mm512_setzero_ps()));
                _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (row + r) * width + 16 * v),
                                 _mm512_cvtusepi32_epi8(rounded));
            }
    }
}

template <int VECTORS>
double in_8_bits() {
    constexpr int width = 16 * VECTORS;
    const List<int8_t> weights(width * width, 1);
    const std::vector<float> scale(width, 0.1f), bias(width, 1.0f);
    std::vector<uint8_t> in(BLOCK * width, 3), out(BLOCK * width);
    return nanoseconds_a_row([&] {
        in_8_bits<VECTORS>(weights.data(), scale.data(), bias.data(), in.data(), out.data());
        asm volatile("" : : "r"(out.data()) : "memory");
    });
}
#endif

}  // namespace

int main() {
    const char* before = "[";
    for (const int width : {16, 32, 64}) {
        std::printf("%s{\"width\": %d, \"float32\": %.3g", before, width, engine<float>(width));
#if defined(__AVX512BF16__)
        std::printf(", \"bfloat16\": %.3g", engine<bfloat16>(width));
#endif
#if defined(__AVX512VNNI__)
        const double ns = width == 16 ? in_8_bits<1>() : width == 32 ? in_8_bits<2>() : in_8_bits<4>();
        std::printf(", \"8 bits\": %.3g", ns);
#endif
        std::printf("}");
        before = ", ";
    }
    std::puts("]");
}
