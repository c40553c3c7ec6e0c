// The most that one thread of this core can do: products added up a second, bytes copied a second.
// Prints JSON; studies.speed compiles it for the processor that it runs on.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

// Sums that don't wait for each other, as many as keep every unit busy.
constexpr int SUMS = 12, REPEATS = 1000;

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
using Vec = float __attribute__((vector_size(4 * LANES)));

// Rounds a second, the best of many.
template <class Work>
double rate(const Work& work) {
    using clock = std::chrono::steady_clock;
    double best = 0;
    for (int trial = 0; trial < 200; ++trial) {
        const auto start = clock::now();
        work();
        best = std::max(best, 1 / std::chrono::duration<double>(clock::now() - start).count());
    }
    return best;
}

template <class Number, class Add>
double products(int each, Number x, const Add& add) {
    Vec sums[SUMS]{};
    const double rounds = rate([&] {
        for (int i = 0; i < REPEATS; ++i) {
#pragma GCC unroll 12
            for (Vec& sum : sums) sum = add(sum, x);
            asm volatile("" : "+v"(x));  // not worked out in advance
        }
    });
    asm volatile("" : : "m"(sums));
    return rounds * REPEATS * SUMS * each;
}

}  // namespace

int main() {
    const double float32 =
        products(LANES, Vec{} + 0.5f, [](Vec sum, Vec x) { return sum + x * x; });
    double bfloat16 = float32;
#if defined(__AVX512BF16__)
    bfloat16 = products(2 * LANES, (__m512bh)_mm512_set1_epi16(0x3f00), [](Vec sum, __m512bh x) {
        return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), x, x));
    });
#endif
    std::vector<char> from(120 << 20, 1), to(from.size());
    const double copies = rate([&] {
        std::memcpy(to.data(), from.data(), from.size());
        asm volatile("" : : "r"(to.data()) : "memory");
    });
    std::printf("{\"float32\": %.4g, \"bfloat16\": %.4g, \"bytes\": %.4g}\n", float32, bfloat16,
                2 * copies * from.size());
}
