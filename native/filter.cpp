// A block of edges goes from its two hits to logits in one pass. A hit has few inputs, so to multiply them
// again for each edge takes less time than to fetch products made once for each hit.

#include "filter.h"

#include "parallel.h"

namespace trackserve {
namespace {

constexpr int64_t BLOCKS_AT_ONCE = 64;

template <class Number>
class Filter final : public Network {
  public:
    Filter(const HitColumns& columns, const Sizes& sizes, Tensors tensors) : columns_(columns) {
        first_ = tensors.pair_layer(columns, sizes.width);
        for (int layer = 1; layer < sizes.depth; ++layer)
            hidden_.push_back(tensors.linear<Number>(sizes.width, sizes.width));
        last_ = tensors.dot(sizes.width);
    }

    void run(const Graph& graph, float* logits, int threads) const override {
        const List<float> positions = hit_positions(columns_, graph.features, graph.hits, threads);
        std::vector<Scratch> scratches(std::max(threads, 1));
        for_chunks(threads, graph.edges, BLOCK * BLOCKS_AT_ONCE, [&](const Chunk& chunk) {
            auto& [inputs, states, next] = scratches[chunk.thread];
            for (int64_t edge = chunk.begin; edge < chunk.end; edge += BLOCK) {
                const int64_t rows = std::min<int64_t>(BLOCK, chunk.end - edge);
                pair_inputs(columns_, graph.features, positions.data(), graph.inner + edge,
                            graph.outer + edge, rows, inputs.data());
                first_({inputs.data(), 1, BLOCK}, first_.start(), true, states.data());
                Number *here = states.data(), *there = next.data();
                for (const Linear<Number>& layer : hidden_) {
                    layer({here, layer.inputs}, layer.start(), true, there);
                    std::swap(here, there);
                }
                last_(here, rows, logits + edge);
            }
        });
    }

  private:
    // Where one thread works.
    struct Scratch {
        std::array<float, MAX_INPUTS * BLOCK> inputs{};
        Block<Number> states{}, next{};
    };

    HitColumns columns_;
    Linear<float> first_;
    std::vector<Linear<Number>> hidden_;
    Dot last_;
};

}  // namespace

template <class Number>
std::unique_ptr<Network> make_filter(const HitColumns& columns, const Sizes& sizes, Tensors tensors) {
    return std::make_unique<Filter<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<Network> make_filter<float>(const HitColumns&, const Sizes&, Tensors);
template std::unique_ptr<Network> make_filter<uint8_t>(const HitColumns&, const Sizes&, Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<Network> make_filter<bfloat16>(const HitColumns&, const Sizes&, Tensors);
#endif

}  // namespace trackserve
