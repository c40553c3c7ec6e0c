// Network 3, as Gnn of training/networks.py: an interaction network in two passes a step.
//
// Hits without edges take no part. A pass over hits sums up the states of their edges, updates the
// hits and makes what they add to the first layer of their edges; a pass over edges updates those.
// Edges are sorted by their inner hit, so that its edges lie together; where hits near each other in
// space also have near rows, everything that a pass gathers is in the cache.

#include "networks.h"
#include "parallel.h"

namespace trackserve {
namespace {

constexpr int64_t BLOCKS_AT_ONCE = 16;

// The graph with its hits numbered anew, without those that have no edge.
struct LocalGraph {
    std::vector<int32_t> hits;          // [M] rows of the hits that take part
    std::vector<int32_t> edges;         // [E] the edges in the order in which they are sorted here
    std::vector<int32_t> inner, outer;  // [E] hits of each edge, in that order
    std::vector<int32_t> outgoing;      // [M + 1] where the edges begin of which a hit is the inner
    std::vector<int32_t> incoming;      // [M + 1] and, in the list below, is the outer
    std::vector<int32_t> incoming_edges;

    LocalGraph(int64_t n, const int32_t* from, const int32_t* to, int64_t count)
        : edges(count), inner(count), outer(count), incoming_edges(count) {
        std::vector<int32_t> number(n, -1);
        for (int64_t e = 0; e < count; ++e) number[from[e]] = number[to[e]] = 0;
        for (int64_t hit = 0; hit < n; ++hit)
            if (number[hit] == 0) {
                number[hit] = hits.size();
                hits.push_back(hit);
            }
        const auto places = [&](const int32_t* ends, const std::vector<int32_t>* numbers) {
            std::vector<int32_t> begin(hits.size() + 1);
            for (int64_t e = 0; e < count; ++e)
                ++begin[(numbers ? (*numbers)[ends[e]] : ends[e]) + 1];
            for (size_t i = 1; i < begin.size(); ++i) begin[i] += begin[i - 1];
            return begin;
        };
        outgoing = places(from, &number);
        std::vector<int32_t> next = outgoing;
        for (int64_t e = 0; e < count; ++e) {
            const int32_t at = next[number[from[e]]]++;
            edges[at] = e;
            inner[at] = number[from[e]];
            outer[at] = number[to[e]];
        }
        incoming = next = places(outer.data(), nullptr);
        for (int64_t e = 0; e < count; ++e) incoming_edges[next[outer[e]]++] = e;
    }
};

template <class Number>
struct Step {
    Linear<Number> hit, from_inside, from_outside;
    Normalisation hit_normalisation;
    Linear<Number> hit_last;
    Linear<Number> pair, inner, outer;
    Normalisation pair_normalisation;
    Linear<Number> pair_last;

    Step(Tensors& tensors, int width) {
        std::vector<float> weight = tensors.take(size_t(width) * 3 * width);
        std::vector<float> bias = tensors.take(width);
        centre(weight, 3 * width, width);
        centre(bias, 1, width);
        const auto part = [&](int which) {
            std::vector<float> columns;
            for (int o = 0; o < width; ++o) {
                const float* row = &weight[(o * 3 + which) * width];
                columns.insert(columns.end(), row, row + width);
            }
            return Linear<Number>(columns, which == 0 ? bias.data() : nullptr, width, width);
        };
        hit = part(0);
        from_inside = part(1);
        from_outside = part(2);
        hit_normalisation = {tensors.take(width), tensors.take(width)};
        hit_last = tensors.linear<Number>(width, width);

        const auto centred = [&](bool with_bias) {
            std::vector<float> square = tensors.take(size_t(width) * width);
            std::vector<float> b = with_bias ? tensors.take(width) : std::vector<float>(width);
            centre(square, width, width);
            centre(b, 1, width);
            return Linear<Number>(square, b.data(), width, width);
        };
        pair = centred(true);
        inner = centred(false);
        outer = centred(false);
        pair_normalisation = {tensors.take(width), tensors.take(width)};
        pair_last = tensors.linear<Number>(width, width);
    }
};

template <class Number>
class Gnn final : public Network {
  public:
    Gnn(const HitColumns& columns, const Sizes& sizes, Tensors tensors)
        : columns_(columns), width_(sizes.width) {
        encode_hit_ = tensors.linear<float>(columns.hit_inputs(), width_);
        encode_hit_last_ = tensors.linear<Number>(width_, width_);
        encode_pair_ = tensors.pair_layer(columns, width_);
        encode_pair_last_ = tensors.linear<Number>(width_, width_);
        for (int step = 0; step < sizes.depth; ++step) steps_.emplace_back(tensors, width_);
        score_ = tensors.linear<Number>(width_, width_);
        score_last_ = tensors.dot(width_);
    }

    void run(const float* features, int64_t n, const int32_t* inner, const int32_t* outer,
             int64_t count, float* logits, int threads) const override {
        const LocalGraph graph(n, inner, outer, count);
        State state(*this, graph, features);
        const auto blocks = [&](size_t rows, const auto& work) {
            const int64_t at_once = BLOCK * BLOCKS_AT_ONCE, end = rows;
            parallel_for(threads, (end + at_once - 1) / at_once, [&](int64_t chunk, int) {
                Scratch scratch;
                const int64_t last = std::min(end, (chunk + 1) * at_once);
                for (int64_t row = chunk * at_once; row < last; row += BLOCK)
                    work(scratch, row, std::min<int64_t>(BLOCK, last - row));
            });
        };
        blocks(graph.hits.size(), [&](Scratch& scratch, int64_t first, int64_t rows) {
            encode_hits(state, scratch, first, rows);
        });
        blocks(count, [&](Scratch& scratch, int64_t first, int64_t rows) {
            encode_pairs(state, scratch, first, rows);
            if (steps_.empty()) score(state, scratch, first, rows, logits);
        });
        for (const Step<Number>& step : steps_) {
            blocks(graph.hits.size(), [&](Scratch& scratch, int64_t first, int64_t rows) {
                update_hits(step, state, scratch, first, rows);
            });
            blocks(count, [&](Scratch& scratch, int64_t first, int64_t rows) {
                update_pairs(step, state, scratch, first, rows);
                if (&step == &steps_.back()) score(state, scratch, first, rows, logits);
            });
        }
    }

  private:
    HitColumns columns_;
    int width_;
    Linear<float> encode_hit_, encode_pair_;
    Linear<Number> encode_hit_last_, encode_pair_last_;
    std::vector<Step<Number>> steps_;
    Linear<Number> score_;
    Dot score_last_;

    struct State {
        const LocalGraph& graph;
        std::vector<float> features, positions;  // of the hits that take part
        Array<Number> hits, pairs;                // [M, width], [E, width]
        Array<Number> to_inner, to_outer;         // what a hit adds as inner and as outer hit

        State(const Gnn& gnn, const LocalGraph& graph, const float* all)
            : graph(graph), hits(rows(gnn, graph.hits.size())),
              pairs(rows(gnn, graph.edges.size())), to_inner(rows(gnn, graph.hits.size())),
              to_outer(rows(gnn, graph.hits.size())) {
            const int f = gnn.columns_.features;
            for (const int64_t hit : graph.hits)
                features.insert(features.end(), all + hit * f, all + (hit + 1) * f);
            positions = hit_positions(gnn.columns_, features.data(), graph.hits.size());
        }
        static size_t rows(const Gnn& gnn, size_t count) {  // whole blocks
            return (count + BLOCK - 1) / BLOCK * BLOCK * gnn.width_;
        }
    };

    struct Scratch {
        std::array<float, MAX_INPUTS * BLOCK> inputs{};
        Block<float> totals{};
        Block<Number> active{}, more{};
    };

    void encode_hits(State& state, Scratch& scratch, int64_t first, int64_t rows) const {
        hit_inputs(columns_, &state.features[first * columns_.features],
                   &state.positions[first * 4], rows, scratch.inputs.data());
        encode_hit_({scratch.inputs.data(), 1, BLOCK}, encode_hit_.start(), true,
                    scratch.active.data());
        encode_hit_last_({scratch.active.data(), width_}, encode_hit_last_.start(), false,
                         &state.hits[first * width_]);
    }

    void encode_pairs(State& state, Scratch& scratch, int64_t first, int64_t rows) const {
        pair_inputs(columns_, state.features.data(), state.positions.data(),
                    &state.graph.inner[first], &state.graph.outer[first], rows,
                    scratch.inputs.data());
        encode_pair_({scratch.inputs.data(), 1, BLOCK}, encode_pair_.start(), true,
                     scratch.active.data());
        encode_pair_last_({scratch.active.data(), width_}, encode_pair_last_.start(), false,
                          &state.pairs[first * width_]);
    }

    // Bring these rows of a table into the cache while a block before them is worked on. (Always
    // inline: GCC takes a function that only does this for one that does nothing.)
    [[gnu::always_inline]] void fetch(const Array<Number>& table, const std::vector<int32_t>& rows, int64_t first,
               int64_t last) const {
        for (int64_t i = first; i < std::min<int64_t>(last, rows.size()); ++i)
            for (int k = 0; k < width_; k += 64 / sizeof(Number))
                __builtin_prefetch(&table[int64_t(rows[i]) * width_ + k]);
    }

    void update_hits(const Step<Number>& step, State& state, Scratch& scratch, int64_t first,
                     int64_t rows) const {
        const LocalGraph& graph = state.graph;
        const int32_t *in = graph.incoming.data() + first, *out = graph.outgoing.data() + first;
        const int64_t rows_after = std::min<int64_t>(BLOCK, graph.hits.size() - first - rows);
        fetch(state.pairs, graph.incoming_edges, in[rows], in[rows + rows_after]);
        Number *inside = scratch.active.data(), *outside = scratch.more.data();
        float* totals = scratch.totals.data();
        std::fill_n(totals, BLOCK * width_, 0.0f);
        for (int i = in[0]; i < in[rows]; ++i) {
            const int64_t e = graph.incoming_edges[i];
            add(&state.pairs[e * width_], totals + (graph.outer[e] - first) * width_);
        }
        for (int k = 0; k < BLOCK * width_; k += LANES) narrow(inside + k, load(totals + k));
        std::fill_n(totals, BLOCK * width_, 0.0f);
        for (int64_t e = out[0]; e < out[rows]; ++e)
            add(&state.pairs[e * width_], totals + (graph.inner[e] - first) * width_);
        for (int k = 0; k < BLOCK * width_; k += LANES) narrow(outside + k, load(totals + k));
        Number* hits = &state.hits[first * width_];
        step.hit({hits, width_}, step.hit.start(), false, totals);
        step.from_inside({inside, width_}, {totals, width_}, false, totals);
        step.from_outside({outside, width_}, {totals, width_}, false, totals);
        step.hit_normalisation(totals, scratch.active.data());
        add_bias(step.hit_last, hits, totals);
        step.hit_last({scratch.active.data(), width_}, {totals, width_}, false, hits);
        step.inner({hits, width_}, step.inner.start(), false, &state.to_inner[first * width_]);
        step.outer({hits, width_}, step.outer.start(), false, &state.to_outer[first * width_]);
    }

    void update_pairs(const Step<Number>& step, State& state, Scratch& scratch, int64_t first,
                      int64_t rows) const {
        fetch(state.to_outer, state.graph.outer, first + BLOCK, first + 2 * BLOCK);
        float* totals = scratch.totals.data();
        for (int64_t i = 0; i < rows; ++i) {
            const Number* inner = &state.to_inner[int64_t(state.graph.inner[first + i]) * width_];
            const Number* outer = &state.to_outer[int64_t(state.graph.outer[first + i]) * width_];
            for (int k = 0; k < width_; k += LANES)
                store(totals + i * width_ + k,
                      load(&step.pair.bias[k]) + widen(inner + k) + widen(outer + k));
        }
        Number* pairs = &state.pairs[first * width_];
        step.pair({pairs, width_}, {totals, width_}, false, totals);
        step.pair_normalisation(totals, scratch.active.data());
        add_bias(step.pair_last, pairs, totals);
        step.pair_last({scratch.active.data(), width_}, {totals, width_}, false, pairs);
    }

    void score(State& state, Scratch& scratch, int64_t first, int64_t rows, float* logits) const {
        score_({&state.pairs[first * width_], width_}, score_.start(), true, scratch.active.data());
        for (int64_t i = 0; i < rows; ++i)
            logits[state.graph.edges[first + i]] = score_last_(&scratch.active[i * width_]);
    }

    void add(const Number* row, float* total) const {
        for (int k = 0; k < width_; k += LANES) store(total + k, load(total + k) + widen(row + k));
    }

    // Start a residual layer: its bias on top of the states that it adds to.
    void add_bias(const Linear<Number>& layer, const Number* states, float* totals) const {
        for (int row = 0; row < BLOCK; ++row)
            for (int k = 0; k < width_; k += LANES)
                store(totals + row * width_ + k,
                      widen(states + row * width_ + k) + load(&layer.bias[k]));
    }
};

}  // namespace

template <class Number>
std::unique_ptr<Network> make_gnn(const HitColumns& columns, const Sizes& sizes,
                                      Tensors tensors) {
    return std::make_unique<Gnn<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<Network> make_gnn<float>(const HitColumns&, const Sizes&, Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<Network> make_gnn<bfloat16>(const HitColumns&, const Sizes&, Tensors);
#endif

}  // namespace trackserve
