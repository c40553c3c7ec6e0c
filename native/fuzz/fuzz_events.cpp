// libFuzzer's entry: bytes become an event and settings, and every kernel runs on it, within a budget.

#include "drive.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

using namespace trackserve;

namespace {

constexpr int64_t MOST_HITS = 300;

// Reads numbers off the input; zeros beyond its end.
class Bytes {
  public:
    Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
    bool empty() const { return !left_; }
    uint8_t byte() {
        if (!left_) return 0;
        --left_;
        return *data_++;
    }
    // Mostly numbers of the size of features, two bytes each; a quarter of them strange, or one of few, so
    // that hits coincide.
    float number() {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        constexpr float strange[] = {NAN,  infinity, -infinity, 3e38f, -3e38f, 1e-42f, 0.0f, -0.0f,
                                     1.0f, -1.0f,    0.5f,      1e-6f, 1e15f,  -1e15f, 2e9f, 3.1415927f};
        const uint8_t high = byte();
        if (high < 32) return strange[high % 16];
        if (high < 64) return float(high - 48) / 8;
        return (float(high) * 256 + byte() - 40960) / 20480;
    }

  private:
    const uint8_t* data_;
    size_t left_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    constexpr int limits[] = {1, 2, 9, 40, std::numeric_limits<int>::max()};
    constexpr int widths[] = {16, 16, 16, 16, 16, 16, 48, 128};  // wide networks are slow to make
    HostileEvent event{};
    event.dimensions = 1 + bytes.byte() % 21;
    event.limit = limits[bytes.byte() % 5];
    event.width = widths[bytes.byte() % 8];
    event.threads = 1 + bytes.byte() % 3;
    const int64_t most = bytes.byte() * MOST_HITS / 255, repeated = 1 + bytes.byte() % 4;
    const Budget budget{bytes.byte() * int64_t(200), bytes.byte() * int64_t(2000), 5};
    while (event.hits < most && !bytes.empty()) {
        std::vector<float> point(event.dimensions), hit(HOSTILE_COLUMNS);
        for (float& x : point) x = bytes.number();
        for (float& x : hit) x = bytes.number();
        for (int64_t i = 0; i < repeated && event.hits < most; ++i, ++event.hits) {
            event.embedding.insert(event.embedding.end(), point.begin(), point.end());
            event.features.insert(event.features.end(), hit.begin(), hit.end());
        }
    }
    try {
        drive(event, budget);
    } catch (const OverBudget&) {
    }
    return 0;
}
