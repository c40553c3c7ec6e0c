// A block of hits goes through all layers at once.

#include "embedding.h"

#include "parallel.h"

namespace trackserve {
namespace {

constexpr int64_t BLOCKS_AT_ONCE = 64;

template <class Number>
class Embedding final : public Network {
  public:
    Embedding(const HitColumns& columns, const Sizes& sizes, Tensors tensors)
        : columns_(columns), dimension_(sizes.dimension) {
        first_ = tensors.linear<float>(7 + columns.further.size(), sizes.width);
        for (int layer = 1; layer < sizes.depth; ++layer)
            hidden_.push_back(tensors.linear<Number>(sizes.width, sizes.width));
        last_ = tensors.linear<Number>(sizes.width, sizes.dimension);
    }

    void run(const Graph& graph, float* embedding, int threads) const override {
        std::vector<Scratch> scratches(std::max(threads, 1));
        for_chunks(threads, graph.hits, BLOCK * BLOCKS_AT_ONCE, [&](const Chunk& chunk) {
            auto& [inputs, states, next, points] = scratches[chunk.thread];
            for (int64_t hit = chunk.begin; hit < chunk.end; hit += BLOCK) {
                const int64_t rows = std::min<int64_t>(BLOCK, chunk.end - hit);
                embedding_inputs(graph.features + hit * columns_.features, rows, inputs.data());
                Number *here = states.data(), *there = next.data();
                first_({inputs.data(), 1, BLOCK}, first_.start(), true, here);
                for (const Linear<Number>& layer : hidden_) {
                    layer({here, layer.inputs}, layer.start(), true, there);
                    std::swap(here, there);
                }
                last_({here, last_.inputs}, last_.start(), false, points.data());
                for (int64_t i = 0; i < rows; ++i)
                    std::copy_n(&points[i * last_.outputs], dimension_, embedding + (hit + i) * dimension_);
            }
        });
    }

  private:
    // Where one thread works.
    struct Scratch {
        std::array<float, MAX_INPUTS * BLOCK> inputs{};
        Block<Number> states{}, next{};
        Block<float> points{};
    };

    HitColumns columns_;
    int dimension_;
    Linear<float> first_;
    std::vector<Linear<Number>> hidden_;
    Linear<Number> last_;

    void embedding_inputs(const float* features, int64_t rows, float* inputs) const {
        const List<float> positions = hit_positions(columns_, features, rows);
        for (int64_t i = 0; i < rows; ++i) {
            const float r = positions[i * 4], phi = positions[i * 4 + 1];
            const float cos = std::cos(phi), sin = std::sin(phi);
            const float seen[] = {r,      positions[i * 4 + 2], positions[i * 4 + 3] / 4, cos, sin, r * cos,
                                  r * sin};
            for (int k = 0; k < 7; ++k) inputs[k * BLOCK + i] = seen[k];
            for (size_t k = 0; k < columns_.further.size(); ++k)
                inputs[(7 + k) * BLOCK + i] = features[i * columns_.features + columns_.further[k]];
        }
    }
};

}  // namespace

template <class Number>
std::unique_ptr<Network> make_embedding(const HitColumns& columns, const Sizes& sizes, Tensors tensors) {
    return std::make_unique<Embedding<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<Network> make_embedding<float>(const HitColumns&, const Sizes&, Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<Network> make_embedding<bfloat16>(const HitColumns&, const Sizes&, Tensors);
#endif

}  // namespace trackserve
