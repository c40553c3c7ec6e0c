// Runs the engine on ordinary and hostile events; compiled with sanitizers, which end the program
// with a report at the first read or write out of bounds and at undefined behaviour.

#include "fuzz/drive.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>

using namespace trackserve;

namespace {

std::mt19937 generator(1);

float uniform(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(generator);
}

std::vector<float> points(const std::string& kind, int64_t n, int dimensions) {
    std::vector<float> values(n * dimensions);
    for (float& x : values) x = kind == "equal" ? 0.5f : uniform(-1, 1);
    if (kind == "dense")
        for (float& x : values) x *= 1e-4f;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const float strange[] = {NAN, infinity, -infinity, 3e38f, -3e38f, 1e-42f};
    if (kind == "strange")
        for (size_t i = 0; i < values.size(); i += 3) values[i] = strange[i / 3 % 6];
    return values;
}

void run(const std::string& kind, int64_t n, int dimensions, int limit, int width, int threads) {
    const HostileEvent event{n,     dimensions, limit, width, threads, points(kind, n, dimensions),
                             points(kind, n, HOSTILE_COLUMNS)};
    drive(event, {});
    try {
        drive(event, {2 * n, 3 * n, 1e-4});
    } catch (const OverBudget&) {
    }
}

}  // namespace

int main() {
    for (const char* kind : {"ordinary", "equal", "dense", "strange"})
        for (const int64_t n : {0, 1, 2, 32, 33, 200})
            for (const int limit : {1, 9, std::numeric_limits<int>::max()}) {
                const int dimensions[] = {1, 4, 8, 13, 21}, widths[] = {16, 48, 80, 128};
                const int width = n < 32 ? 16 : widths[(n + limit) % 4];  // wide networks are slow to make
                // Without a limit triplets grow with the cube of the hits: 50 hits have 1,225 edges and
                // 19,600 triplets, many times what is worked on at once.
                run(kind, limit > 9 && n > 50 ? 50 : n, dimensions[(n + limit) % 5], limit, width,
                    1 + limit % 3);
            }
    std::puts("done");
}
