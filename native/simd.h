// Vectors of floats, as wide as the instruction set that this file is compiled for.
//
// Arithmetic is plain + - * on the compiler's vector types; what those lack is named here. Products
// and sums are contracted into fused multiply-adds only where `fma` says so: the graph algorithms
// must round exactly as their numpy reference does.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace trackserve {

#if defined(__AVX512F__)
inline constexpr int LANES = 16;
#elif defined(__AVX2__)
inline constexpr int LANES = 8;
#else
inline constexpr int LANES = 4;
#endif

using Vec = float __attribute__((vector_size(4 * LANES)));
using VecInt = int32_t __attribute__((vector_size(4 * LANES)));

inline Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline VecInt load(const int32_t* from) {
    VecInt v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
inline void store(int32_t* to, VecInt v) { std::memcpy(to, &v, sizeof v); }
inline Vec broadcast(float x) { return x - Vec{}; }
inline VecInt broadcast(int32_t x) { return x - VecInt{}; }

// The second where one is not a number. (GCC makes two instructions of `a > b ? a : b`.)
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}
inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}
inline Vec abs(Vec a) { return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(a) & 0x7fffffff); }

// a * b + c, rounded once where the processor can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

#if defined(__AVX2__)
// Four rows of four numbers, transposed, in each 128 bits of these vectors.
inline std::array<Vec, 4> transposed(Vec a, Vec b, Vec c, Vec d) {
#if defined(__AVX512F__)
    const Vec ab = _mm512_unpacklo_ps(a, b), ab_last = _mm512_unpackhi_ps(a, b);
    const Vec cd = _mm512_unpacklo_ps(c, d), cd_last = _mm512_unpackhi_ps(c, d);
    return {_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee),
            _mm512_shuffle_ps(ab_last, cd_last, 0x44), _mm512_shuffle_ps(ab_last, cd_last, 0xee)};
#else
    const Vec ab = _mm256_unpacklo_ps(a, b), ab_last = _mm256_unpackhi_ps(a, b);
    const Vec cd = _mm256_unpacklo_ps(c, d), cd_last = _mm256_unpackhi_ps(c, d);
    return {_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee),
            _mm256_shuffle_ps(ab_last, cd_last, 0x44), _mm256_shuffle_ps(ab_last, cd_last, 0xee)};
#endif
}
#endif

// The first four columns of a table [n, width], in LANES of its rows.
inline std::array<Vec, 4> load_columns(const float* table, const int32_t* rows, int width) {
#if defined(__AVX2__)
    const auto row = [&](int i) { return _mm_loadu_ps(table + int64_t(rows[i]) * width); };
    const auto several = [&](int i) -> Vec {
        const __m256 two = _mm256_set_m128(row(i + 4), row(i));
#if defined(__AVX512F__)
        const __m256 others = _mm256_set_m128(row(i + 12), row(i + 8));
        return _mm512_insertf32x8(_mm512_castps256_ps512(two), others, 1);
#else
        return two;
#endif
    };
    return transposed(several(0), several(1), several(2), several(3));
#else
    std::array<Vec, 4> columns;
    for (int lane = 0; lane < LANES; ++lane)
        for (int k = 0; k < 4; ++k) columns[k][lane] = table[int64_t(rows[lane]) * width + k];
    return columns;
#endif
}

// Write the first four columns of LANES rows, one after the other, of a table [n, width].
inline void store_columns(float* table, const std::array<Vec, 4>& columns, int width) {
#if defined(__AVX2__)
    const auto rows = transposed(columns[0], columns[1], columns[2], columns[3]);
    const auto store_two = [&](int row, __m256 two) {
        _mm_storeu_ps(table + row * width, _mm256_castps256_ps128(two));
        _mm_storeu_ps(table + (row + 4) * width, _mm256_extractf128_ps(two, 1));
    };
    for (int i = 0; i < 4; ++i) {
#if defined(__AVX512F__)
        store_two(i, _mm512_castps512_ps256(rows[i]));
        store_two(i + 8, _mm512_extractf32x8_ps(rows[i], 1));
#else
        store_two(i, rows[i]);
#endif
    }
#else
    for (int lane = 0; lane < LANES; ++lane)
        for (int k = 0; k < 4; ++k) table[lane * width + k] = columns[k][lane];
#endif
}

inline Vec sqrt(Vec v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#else
    for (int lane = 0; lane < LANES; ++lane) v[lane] = std::sqrt(v[lane]);
    return v;
#endif
}

// The sum of the lanes of each of these vectors.
inline Vec sums(const Vec (&rows)[LANES]) {
#if defined(__AVX512F__)
    // Halves of two vectors are added at a time, until each lane has the sum of a vector of its own.
    const auto of = [&](int row) { return reinterpret_cast<__m512>(rows[row]); };
    __m512 twos[8], fours[4], eights[2];
    for (int i = 0; i < 8; ++i)
        twos[i] = _mm512_add_ps(_mm512_unpacklo_ps(of(2 * i), of(2 * i + 1)),
                                _mm512_unpackhi_ps(of(2 * i), of(2 * i + 1)));
    for (int i = 0; i < 4; ++i) {
        const __m512d one = _mm512_castps_pd(twos[2 * i]), other = _mm512_castps_pd(twos[2 * i + 1]);
        fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(one, other)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(one, other)));
    }
    const auto quarters = [](__m512 one, __m512 other, auto first, auto second) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(one, other, decltype(first)::value),
                             _mm512_shuffle_f32x4(one, other, decltype(second)::value));
    };
    constexpr std::integral_constant<int, 0x44> low;
    constexpr std::integral_constant<int, 0xee> high;
    constexpr std::integral_constant<int, 0x88> even;
    constexpr std::integral_constant<int, 0xdd> odd;
    for (int i = 0; i < 2; ++i) eights[i] = quarters(fours[2 * i], fours[2 * i + 1], low, high);
    return reinterpret_cast<Vec>(quarters(eights[0], eights[1], even, odd));
#elif defined(__AVX2__)
    const auto twos = [&](int row) { return _mm256_hadd_ps(rows[row], rows[row + 1]); };
    const __m256 one = _mm256_hadd_ps(twos(0), twos(2)), other = _mm256_hadd_ps(twos(4), twos(6));
    return _mm256_permute2f128_ps(one, other, 0x20) + _mm256_permute2f128_ps(one, other, 0x31);
#else
    Vec total;
    for (int row = 0; row < LANES; ++row) {
        float sum = 0;
        for (int lane = 0; lane < LANES; ++lane) sum += rows[row][lane];
        total[row] = sum;
    }
    return total;
#endif
}

// One bit a lane, set where the lane of a comparison's result is true.
inline uint32_t bits(VecInt truth) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(truth));
#elif defined(__AVX2__)
    return _mm256_movemask_ps(reinterpret_cast<__m256>(truth));
#else
    uint32_t set = 0;
    for (int lane = 0; lane < LANES; ++lane) set |= (truth[lane] & 1u) << lane;
    return set;
#endif
}

// 0, 1, 2 ... in the lanes.
inline VecInt lanes() {
    VecInt v;
    for (int lane = 0; lane < LANES; ++lane) v[lane] = lane;
    return v;
}

// The lanes whose bit is set: -1 there, 0 elsewhere.
inline VecInt lanes_of(uint32_t set) {
#if defined(__AVX512F__)
    return reinterpret_cast<VecInt>(_mm512_movm_epi32(set));
#else
    return (broadcast(int32_t(set)) >> lanes() & 1) != 0;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each set of lanes these, a byte each, one after the other.
inline constexpr auto COMPRESSED = [] {
    std::array<uint64_t, 1 << LANES> lanes_of{};
    for (int set = 0; set < 1 << LANES; ++set)
        for (int lane = 0, at = 0; lane < LANES; ++lane)
            if (set >> lane & 1) lanes_of[set] |= uint64_t(lane) << (8 * at++);
    return lanes_of;
}();
#endif

// Write the numbers whose bit is set, one after the other; what follows, up to LANES in all, is written over.
inline void compress(int32_t* to, VecInt v, uint32_t set) {
#if defined(__AVX512F__)
    const __m512i together = _mm512_maskz_compress_epi32(set, reinterpret_cast<__m512i>(v));
    std::memcpy(to, &together, sizeof together);
#elif defined(__AVX2__)
    const __m128i places = _mm_cvtsi64_si128(COMPRESSED[set]);
    const __m256i together =
        _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(v), _mm256_cvtepu8_epi32(places));
    std::memcpy(to, &together, sizeof together);
#else
    for (; set; set &= set - 1) *to++ = v[__builtin_ctz(set)];
#endif
}

}  // namespace trackserve
