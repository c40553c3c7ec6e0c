// Nanoseconds a row of one hidden layer (product, bias, ReLU) of several widths, as the engine computes
// it in float32, in bfloat16 and in 8 bits.
// Prints JSON; studies.speed compiles it for the processor that it runs on.

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

}  // namespace

int main() {
    const char* before = "[";
    for (const int width : {16, 32, 64}) {
        std::printf("%s{\"width\": %d, \"float32\": %.3g", before, width, engine<float>(width));
#if defined(__AVX512BF16__)
        std::printf(", \"bfloat16\": %.3g", engine<bfloat16>(width));
#endif
#if defined(__AVX512VNNI__)
        std::printf(", \"8 bits\": %.3g", engine<uint8_t>(width));
#endif
        std::printf("}");
        before = ", ";
    }
    std::puts("]");
}
