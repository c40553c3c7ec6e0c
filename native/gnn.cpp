// An interaction network whose nodes are the edges between hits, and whose links are the triplets, in two
// passes a step.
//
// A pass over nodes sums up the states of their links, updates the nodes and makes what they add to
// the first layer of their links; a pass over links updates those. Links are sorted by their first
// node, so that its links lie together; where nodes near each other in space also have near rows,
// everything that a pass gathers is in the cache. Half of the nodes have links on one side only;
// they are put into blocks of their own, where what the other side would add is left out.

#include "gnn.h"

#include "grouping.h"
#include "triplets.h"

namespace trackserve {
namespace {

constexpr int64_t BLOCKS_AT_ONCE = 16;
constexpr int64_t LINKS_AT_ONCE = 16384;
constexpr int64_t SORTED_AT_ONCE = 64 * BLOCK;  // nodes near each other stay so

// The edges as nodes, of some at once those that are no triplet's second first and those that are no
// triplet's first last, and the triplets as links.
struct Links {
    List<int32_t> nodes;          // [E] the edges in this order
    List<int32_t> inner, outer;   // [E] and their hits
    List<int32_t> first, second;  // [T] nodes of each link, sorted, and a block of zeros
    List<int32_t> outgoing;       // [E + 1] where the links begin of which a node is the first
    List<int32_t> incoming;       // [E + 1] and, in the list below, is the second
    List<int32_t> incoming_links;

    Links(const Graph& graph, int threads)
        : nodes(graph.edges),
          inner(graph.edges),
          outer(graph.edges),
          first(graph.triplets + BLOCK),
          second(first.size()) {
        std::fill_n(&first[graph.triplets], BLOCK, 0);
        std::fill_n(&second[graph.triplets], BLOCK, 0);
        enum { ALONE, FIRST, SECOND, BOTH };
        std::array<List<uint8_t>, 2> roles;
        parallel_for(threads, 2, [&](int64_t side, int) {
            roles[side].resize(graph.edges, ALONE);
            const int32_t* edges = side ? graph.second : graph.first;
            for (int64_t t = 0; t < graph.triplets; ++t) roles[side][edges[t]] = side ? SECOND : FIRST;
        });
        List<int32_t> number(graph.edges);
        for_chunks(threads, graph.edges, SORTED_AT_ONCE, [&](const Chunk& chunk) {
            int64_t next = chunk.begin;
            for (const int wanted : {FIRST, BOTH, SECOND, ALONE})
                for (int64_t e = chunk.begin; e < chunk.end; ++e) {
                    if ((roles[0][e] | roles[1][e]) != wanted) continue;
                    nodes[next] = e;
                    inner[next] = graph.inner[e];
                    outer[next] = graph.outer[e];
                    number[e] = next++;
                }
        });
        // On either side a node has its links in the order of the triplets: sums are the same in any batch.
        List<int32_t> one(graph.triplets), other(graph.triplets), link(graph.triplets);
        for_rows(threads, graph.triplets, LINKS_AT_ONCE, [&](int64_t t) {
            one[t] = number[graph.first[t]];
            other[t] = number[graph.second[t]];
        });
        Grouping sorted = group(one.data(), graph.triplets, graph.edges, threads);
        outgoing = std::move(sorted.begin);
        for_rows(threads, graph.triplets, LINKS_AT_ONCE, [&](int64_t t) {
            const int32_t triplet = sorted.rows[t];
            first[t] = one[triplet];
            second[t] = other[triplet];
            link[triplet] = t;
        });
        sorted = group(other.data(), graph.triplets, graph.edges, threads);
        incoming = std::move(sorted.begin);
        incoming_links = std::move(sorted.rows);
        for_rows(threads, graph.triplets, LINKS_AT_ONCE,
                 [&](int64_t i) { incoming_links[i] = link[incoming_links[i]]; });
    }
};

// A layer whose outputs, for any input, have mean zero.
template <class Number>
Linear<Number> centred(std::vector<float> weight, Tensors& tensors, int width, bool with_bias) {
    const int inputs = weight.size() / width;
    std::vector<float> bias = with_bias ? tensors.take(width) : std::vector<float>(width);
    centre(weight, inputs, width);
    centre(bias, 1, width);
    return Linear<Number>(weight, bias.data(), inputs, width);
}

template <class Number>
struct NodeStep {
    Linear<Number> node;  // on the sum of links from inside, the node's state, and that from outside
    Normalisation normalisation;
    Linear<Number> last;

    NodeStep(Tensors& tensors, int width) {
        std::vector<float> weight = tensors.take(size_t(width) * 3 * width);
        for (int o = 0; o < width; ++o) {  // torch has the node's own state first
            float* row = &weight[o * 3 * width];
            std::swap_ranges(row, row + width, row + width);
        }
        node = centred<Number>(weight, tensors, width, true);
        normalisation = {tensors.take(width), tensors.take(width)};
        last = tensors.linear<Number>(width, width);
    }
};

template <class Number>
struct LinkStep {
    Linear<Number> link, first, second;
    Normalisation normalisation;
    Linear<Number> last;

    LinkStep(Tensors& tensors, int width) {
        const size_t square = size_t(width) * width;
        link = centred<Number>(tensors.take(square), tensors, width, true);
        first = centred<Number>(tensors.take(square), tensors, width, false);
        second = centred<Number>(tensors.take(square), tensors, width, false);
        normalisation = {tensors.take(width), tensors.take(width)};
        last = tensors.linear<Number>(width, width);
    }
};

template <class Number>
class Gnn final : public Network {
  public:
    Gnn(const HitColumns& columns, const Sizes& sizes, Tensors tensors)
        : columns_(columns),
          width_(sizes.width),
          encode_node_(tensors.linear<float>(columns.pair_inputs(), width_)),
          encode_node_last_(tensors.linear<Number>(width_, width_)),
          encode_link_(columns, tensors, width_),
          encode_link_last_(tensors.linear<Number>(width_, width_)) {
        for (int step = 0; step < sizes.depth; ++step) {
            node_steps_.emplace_back(tensors, width_);
            if (step + 1 < sizes.depth) link_steps_.emplace_back(tensors, width_);
        }
        score_ = tensors.linear<Number>(width_, width_);
        score_last_ = tensors.dot(width_);
    }

    void run(const Graph& graph, float* logits, int threads) const override {
        const Links links(graph, threads);
        State state(*this, graph, links, threads);
        std::vector<Scratch> scratches(std::max(threads, 1));
        const auto blocks = [&](int64_t end, const auto& work) {
            for_chunks(threads, end, BLOCK * BLOCKS_AT_ONCE, [&](const Chunk& chunk) {
                for (int64_t row = chunk.begin; row < chunk.end; row += BLOCK)
                    work(scratches[chunk.thread], row, std::min<int64_t>(BLOCK, chunk.end - row));
            });
        };
        encode_links(state, threads);
        blocks(graph.edges, [&](Scratch& scratch, int64_t first, int64_t rows) {
            encode_nodes(state, scratch, first, rows);
        });
        for (size_t step = 0; step < node_steps_.size(); ++step) {
            const LinkStep<Number>* link_step = step < link_steps_.size() ? &link_steps_[step] : nullptr;
            blocks(graph.edges, [&](Scratch& scratch, int64_t first, int64_t rows) {
                update_nodes(node_steps_[step], state, scratch, first, rows);
                if (link_step)
                    tell_links(*link_step, state, first, rows);
                else
                    score(state, scratch, first, rows, logits);
            });
            if (link_step)
                blocks(graph.triplets, [&](Scratch& scratch, int64_t first, int64_t) {
                    update_links(*link_step, state, scratch, first);
                });
        }
    }

  private:
    HitColumns columns_;
    int width_;
    Linear<float> encode_node_;
    Linear<Number> encode_node_last_;
    TripletLayer encode_link_;
    Linear<Number> encode_link_last_;
    std::vector<NodeStep<Number>> node_steps_;
    std::vector<LinkStep<Number>> link_steps_;  // one less: the scores need no links of the last step
    Linear<Number> score_;
    Dot score_last_;

    struct State {
        const Links& links_of;
        Graph graph;  // of these nodes and links
        List<float> positions;
        List<Number> nodes, links;         // [E, width], [T, width]
        List<Number> to_first, to_second;  // what a node adds as first and as second of a link

        State(const Gnn& gnn, const Graph& given, const Links& sorted, int threads)
            : links_of(sorted),
              graph(given),
              positions(hit_positions(gnn.columns_, given.features, given.hits, threads)),
              nodes(rows(gnn, given.edges)),
              links(rows(gnn, given.triplets)),
              to_first(rows(gnn, given.edges)),
              to_second(rows(gnn, given.edges)) {
            graph.inner = sorted.inner.data();
            graph.outer = sorted.outer.data();
            graph.first = sorted.first.data();
            graph.second = sorted.second.data();
        }
        static size_t rows(const Gnn& gnn, size_t count) {  // whole blocks
            return (count + BLOCK - 1) / BLOCK * BLOCK * gnn.width_;
        }
    };

    // Where one thread works.
    struct Scratch {
        std::array<float, MAX_INPUTS * BLOCK> inputs{};
        Block<float> totals{};
        Block<Number> active{};
        std::array<Number, 3 * BLOCK * MAX_WIDTH> joint{};
    };

    void encode_links(State& state, int threads) const {
        const Graph& graph = state.graph;
        std::vector<TripletParts> parts(std::max(threads, 1), {graph, width_});
        for_chunks(threads, graph.triplets, TRIPLETS_AT_ONCE, [&](const Chunk& chunk) {
            const auto [number, begin, end, thread] = chunk;
            TripletParts& part = parts[thread];
            Block<Number> active{};
            part.prepare(encode_link_, graph, state.positions.data(), begin, end);
            for (int64_t link = begin; link < end; link += BLOCK) {
                encode_link_(part.scratch, link - begin, std::min<int64_t>(BLOCK, end - link), active.data());
                encode_link_last_({active.data(), width_}, encode_link_last_.start(), false,
                                  &state.links[link * width_]);
            }
        });
    }

    void encode_nodes(State& state, Scratch& scratch, int64_t first, int64_t rows) const {
        const Graph& graph = state.graph;
        pair_inputs(columns_, graph.features, state.positions.data(), graph.inner + first,
                    graph.outer + first, rows, scratch.inputs.data());
        encode_node_({scratch.inputs.data(), 1, BLOCK}, encode_node_.start(), true, scratch.active.data());
        encode_node_last_({scratch.active.data(), width_}, encode_node_last_.start(), false,
                          &state.nodes[first * width_]);
    }

    // Bring these rows of a table into the cache while a block before them is worked on. (Always
    // inline: GCC takes a function that only does this for one that does nothing.)
    [[gnu::always_inline]] void fetch(const List<Number>& table, const List<int32_t>& rows, int64_t first,
                                      int64_t last) const {
        for (int64_t i = first; i < std::min<int64_t>(last, rows.size()); ++i)
            for (int k = 0; k < width_; k += 64 / sizeof(Number))
                __builtin_prefetch(&table[int64_t(rows[i]) * width_ + k]);
    }

    void update_nodes(const NodeStep<Number>& step, State& state, Scratch& scratch, int64_t first,
                      int64_t rows) const {
        const Links& links = state.links_of;
        const int32_t *in = links.incoming.data() + first, *out = links.outgoing.data() + first;
        const int64_t rows_after = std::min<int64_t>(BLOCK, state.graph.edges - first - rows);
        fetch(state.links, links.incoming_links, in[rows], in[rows + rows_after]);
        Number* nodes = &state.nodes[first * width_];
        for (int64_t i = 0; i < rows; ++i) {
            Number* joint = &scratch.joint[i * 3 * width_];
            std::copy_n(nodes + i * width_, width_, joint + width_);
            for (int k = 0; k < width_; k += 2 * LANES) {  // two vectors at once, or one twice
                const int next = k + LANES < width_ ? k + LANES : k;
                Vec inside[2]{}, outside[2]{};
                const auto add = [&](int64_t link, Vec* total) {
                    total[0] += widen(&state.links[link * width_ + k]);
                    total[1] += widen(&state.links[link * width_ + next]);
                };
                for (int at = in[i]; at < in[i + 1]; ++at) add(links.incoming_links[at], inside);
                for (int link = out[i]; link < out[i + 1]; ++link) add(link, outside);
                narrow(joint + k, inside[0]);
                narrow(joint + next, inside[1]);
                narrow(joint + 2 * width_ + k, outside[0]);
                narrow(joint + 2 * width_ + next, outside[1]);
            }
        }
        const int begin = in[0] < in[rows] ? 0 : width_;
        const int end = out[0] < out[rows] ? 3 * width_ : 2 * width_;
        step.node({scratch.joint.data(), 3 * width_}, step.node.start(), false, scratch.totals.data(), begin,
                  end);
        step.normalisation(scratch.totals.data(), scratch.active.data());
        step.last({scratch.active.data(), width_}, step.last.start(nodes), false, nodes);
    }

    void tell_links(const LinkStep<Number>& step, State& state, int64_t first, int64_t rows) const {
        const Links& links = state.links_of;
        const int64_t at = first * width_;
        const Rows<Number> nodes{&state.nodes[at], width_};
        if (links.outgoing[first] < links.outgoing[first + rows])
            step.first(nodes, step.first.start(), false, &state.to_first[at]);
        if (links.incoming[first] < links.incoming[first + rows])
            step.second(nodes, step.second.start(), false, &state.to_second[at]);
    }

    void update_links(const LinkStep<Number>& step, State& state, Scratch& scratch, int64_t first) const {
        fetch(state.to_second, state.links_of.second, first + BLOCK, first + 2 * BLOCK);
        const Number *to_first = &state.to_first[0], *to_second = &state.to_second[0];
        const int32_t *one = &state.graph.first[first], *other = &state.graph.second[first];
        const auto from_nodes = [=, bias = step.link.bias.data(), width = int64_t(width_)](int row,
                                                                                           int column) {
            return load(bias + column) + widen(to_first + one[row] * width + column) +
                   widen(to_second + other[row] * width + column);
        };
        Number* links = &state.links[first * width_];
        step.link({links, width_}, from_nodes, false, scratch.totals.data());
        step.normalisation(scratch.totals.data(), scratch.active.data());
        step.last({scratch.active.data(), width_}, step.last.start(links), false, links);
    }

    void score(State& state, Scratch& scratch, int64_t first, int64_t rows, float* logits) const {
        score_({&state.nodes[first * width_], width_}, score_.start(), true, scratch.active.data());
        std::array<float, BLOCK> scores;
        score_last_(scratch.active.data(), rows, scores.data());
        for (int64_t i = 0; i < rows; ++i) logits[state.links_of.nodes[first + i]] = scores[i];
    }
};

}  // namespace

template <class Number>
std::unique_ptr<Network> make_gnn(const HitColumns& columns, const Sizes& sizes, Tensors tensors) {
    return std::make_unique<Gnn<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<Network> make_gnn<float>(const HitColumns&, const Sizes&, Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<Network> make_gnn<bfloat16>(const HitColumns&, const Sizes&, Tensors);
#endif

}  // namespace trackserve
