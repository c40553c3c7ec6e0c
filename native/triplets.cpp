#include "triplets.h"

#include "grouping.h"

namespace trackserve {
namespace {

constexpr int OWN_INPUTS = 9;

Vec soft(Vec x, float scale) { return x / (abs(x) + broadcast(scale)); }

constexpr int64_t EDGES_AT_ONCE = 512;

// Throw if more pairs of edges meet in the hits of an event than its budget allows.
void check_meeting(const List<int32_t>& in, const List<int32_t>& out, const Budgets& budgets) {
    for (int64_t event = 0; event < budgets.events; ++event) {
        int64_t pairs = 0;
        for (int64_t hit = budgets.begins[event]; hit < budgets.begins[event + 1]; ++hit)
            pairs += int64_t(in[hit + 1] - in[hit]) * (out[hit + 1] - out[hit]);
        if (pairs > budgets.each[event].triplets) throw OverBudget{Bound::TRIPLETS};
    }
}

template <class Number>
class TripletFilter final : public TripletNetwork {
  public:
    TripletFilter(const HitColumns& columns, const Sizes& sizes, Tensors tensors)
        : columns_(columns), width_(sizes.width), first_(columns, tensors, sizes.width) {
        for (int layer = 1; layer < sizes.depth; ++layer)
            hidden_.push_back(tensors.linear<Number>(width_, width_));
        last_ = tensors.dot(width_);
    }

    void run(const Graph& graph, float* logits, int threads) const override {
        const List<float> positions = hit_positions(columns_, graph.features, graph.hits, threads);
        std::vector<TripletParts> parts(std::max(threads, 1), {graph, width_});
        std::vector<States> states(parts.size());
        for_chunks(threads, graph.triplets, TRIPLETS_AT_ONCE, [&](const Chunk& chunk) {
            const auto [number, begin, end, thread] = chunk;
            parts[thread].prepare(first_, graph, positions.data(), begin, end);
            score(parts[thread].scratch, states[thread], end - begin, logits + begin);
        });
    }

    // Edges come sorted by their inner hit; those that end in a hit are listed beside them. What
    // meets in some hits at a time is joined, scored and forgotten but for what is kept.
    std::vector<Pairs> find(const Graph& graph, const Position& at, const TripletCuts& cuts, float threshold,
                            const Budgets& budgets, int threads) const override {
        const List<float> positions = hit_positions(columns_, graph.features, graph.hits, threads);
        const List<int32_t> out = begins(graph.inner, graph.edges, graph.hits, threads);
        const Grouping by_outer = group(graph.outer, graph.edges, graph.hits, threads);
        const List<int32_t>&in = by_outer.begin, &ending = by_outer.rows;
        check_meeting(in, out, budgets);

        std::vector<int64_t> starts{0};  // the hits with which chunks begin
        for (int64_t hit = 0, edges = 0; hit < graph.hits; ++hit) {
            edges += out[hit + 1] - out[hit] + in[hit + 1] - in[hit];
            if (edges < EDGES_AT_ONCE && hit + 1 < graph.hits) continue;
            starts.push_back(hit + 1);
            edges = 0;
        }
        std::vector<Finding> findings(std::max(threads, 1));
        std::vector<Pairs> kept(starts.size() - 1);
        parallel_for(threads, kept.size(), [&](int64_t chunk, int thread) {
            Finding& found = findings[thread];
            const int64_t begin = starts[chunk], end = starts[chunk + 1];
            const int32_t *firsts = ending.data() + in[begin], first_out = out[begin];
            const int64_t count = in[end] - in[begin], others = out[end] - first_out;
            if (!count || !others) return;
            found.load(graph, at, firsts, count, first_out, others, width_);
            for (int64_t hit = begin; hit < end; ++hit) {
                const int32_t last = out[hit + 1] - first_out;
                for (int32_t one = in[hit] - in[begin]; one < in[hit + 1] - in[begin]; ++one)
                    for (int32_t other = out[hit] - first_out; other < last; other += LANES) {
                        uint32_t set = passing(found.firsts, one, found.seconds, other, cuts);
                        if (last - other < LANES) set &= ~(~0u << (last - other));
                        if (set) found.triplets.add_several(broadcast(one), broadcast(other) + lanes(), set);
                    }
            }
            const int64_t triplets = found.triplets.size();
            TripletLayer::Scratch& scratch = found.scratch;
            first_.prepare(graph.features, positions.data(), count, others, scratch);
            scratch.first.place(found.triplets.first(), triplets);
            scratch.second.place(found.triplets.second(), triplets);
            found.logits.assign(triplets + LANES, NAN);  // reaches no threshold
            score(scratch, found.states, triplets, found.logits.data());
            kept[chunk].reserve(std::count_if(found.logits.begin(), found.logits.end(),
                                              [=](float logit) { return logit >= threshold; }));
            for (int64_t t = 0; t < triplets; t += LANES)
                for (uint32_t good = bits(load(&found.logits[t]) >= broadcast(threshold)); good;
                     good &= good - 1) {
                    const int64_t triplet = t + __builtin_ctz(good);
                    kept[chunk].push_back(firsts[scratch.first.at[triplet]],
                                          first_out + scratch.second.at[triplet]);
                }
        });
        return kept;
    }

  private:
    HitColumns columns_;
    int width_;
    TripletLayer first_;
    std::vector<Linear<Number>> hidden_;
    Dot last_;

    // Of a block of triplets, in two layers after each other.
    struct States {
        Block<Number> one{}, other{};
    };

    // Where one thread joins edges.
    struct Finding {
        Steps firsts, seconds;
        Pairs triplets;
        TripletLayer::Scratch scratch;
        States states;
        std::vector<float> logits;

        // Begin with these edges that end in some hits, and the others that begin there.
        void load(const Graph& graph, const Position& at, const int32_t* edges, int64_t count,
                  int64_t first_out, int64_t others, int width) {
            triplets.clear();
            firsts.resize(count);
            seconds.resize(others);
            scratch.first.resize(count, width);
            scratch.second.resize(others, width);
            for (int64_t e = 0; e < count; ++e) {
                scratch.first.inner[e] = graph.inner[edges[e]];
                scratch.first.outer[e] = graph.outer[edges[e]];
                firsts.set(e, at, scratch.first.inner[e], scratch.first.outer[e]);
            }
            for (int64_t e = 0; e < others; ++e) {
                scratch.second.inner[e] = graph.inner[first_out + e];
                scratch.second.outer[e] = graph.outer[first_out + e];
                seconds.set(e, at, scratch.second.inner[e], scratch.second.outer[e]);
            }
        }
    };

    // Give the logits of the triplets of a scratch.
    void score(TripletLayer::Scratch& scratch, States& states, int64_t triplets, float* logits) const {
        for (int64_t triplet = 0; triplet < triplets; triplet += BLOCK) {
            const int64_t rows = std::min<int64_t>(BLOCK, triplets - triplet);
            Number *here = states.one.data(), *there = states.other.data();
            first_(scratch, triplet, rows, here);
            for (const Linear<Number>& layer : hidden_) {
                layer({here, width_}, layer.start(), true, there);
                std::swap(here, there);
            }
            last_(here, rows, logits + triplet);
        }
    }
};

}  // namespace

TripletLayer::TripletLayer(const HitColumns& columns, Tensors& tensors, int width)
    : columns_(columns), width_(width) {
    const int hit = columns.hit_inputs(), edge = columns.pair_inputs();
    const int all = OWN_INPUTS + edge + PAIR_INPUTS + hit;
    const auto [weight, bias] = tensors.layer(all, width);
    std::vector<float> own, first, second;
    for (int o = 0; o < width; ++o) {
        const float* next = &weight[o * all];
        const auto move = [&](std::vector<float>& part, int count) {
            part.insert(part.end(), next, next + count);
            next += count;
        };
        move(own, OWN_INPUTS);
        move(first, edge);
        move(second, PAIR_INPUTS);
        second.insert(second.end(), hit, 0.0f);  // the middle hit is the first edge's, too
        move(second, hit);
    }
    own_ = {own, nullptr, OWN_INPUTS, width};
    first_ = {first, bias.data(), edge, width};
    second_ = {second, nullptr, edge, width};
}

void TripletEnds::resize(int64_t edges, int width) {
    edges = (edges + BLOCK - 1) / BLOCK * BLOCK;
    if (edges <= room) return;
    room = edges;
    inner.resize(room);
    outer.resize(room);
    chords.resize(room * CHORD);
    sums.resize(room * width);
}

void TripletEnds::place(const int32_t* edges, int64_t triplets) {
    at.assign(triplets + BLOCK, 0);
    std::copy_n(edges, triplets, at.begin());
}

void TripletLayer::prepare(const float* features, const float* positions, int64_t firsts, int64_t seconds,
                           Scratch& scratch) const {
    float* inputs = scratch.inputs.data();
    prepare(scratch.first, first_, true, firsts, features, positions, inputs);
    prepare(scratch.second, second_, false, seconds, features, positions, inputs);
}

void TripletLayer::prepare(TripletEnds& ends, const Linear<float>& layer, bool first, int64_t edges,
                           const float* features, const float* positions, float* inputs) const {
    for (int64_t edge = 0; edge < edges; edge += BLOCK) {
        const int64_t rows = std::min<int64_t>(BLOCK, edges - edge);
        pair_inputs(columns_, features, positions, &ends.inner[edge], &ends.outer[edge], rows, inputs);
        layer({inputs, 1, BLOCK}, layer.start(), false, &ends.sums[edge * width_]);
        chords(positions, &ends.inner[edge], &ends.outer[edge], rows, first, &ends.chords[edge * CHORD]);
    }
}

TripletParts::TripletParts(const Graph& graph, int width)
    : place_(graph.edges, -1), edges_(TRIPLETS_AT_ONCE + LANES) {
    for (TripletEnds* ends : {&scratch.first, &scratch.second}) {
        ends->resize(TRIPLETS_AT_ONCE, width);
        ends->at.resize(TRIPLETS_AT_ONCE + BLOCK);
    }
}

void TripletParts::prepare(const TripletLayer& layer, const Graph& graph, const float* positions,
                           int64_t begin, int64_t end) {
    const int64_t firsts = find_edges(scratch.first, graph, graph.first + begin, end - begin);
    const int64_t seconds = find_edges(scratch.second, graph, graph.second + begin, end - begin);
    layer.prepare(graph.features, positions, firsts, seconds, scratch);
}

int64_t TripletParts::find_edges(TripletEnds& ends, const Graph& graph, const int32_t* edges, int64_t count) {
    int32_t different = 0;
    for (int64_t i = 0; i < count; ++i) {  // without branches: they would be hard to predict
        int32_t& place = place_[edges[i]];
        const bool found = place >= 0;
        edges_[different] = edges[i];
        place = found ? place : different;
        ends.at[i] = place;
        different += !found;
    }
    for (int32_t i = 0; i < different; ++i) {
        place_[edges_[i]] = -1;
        ends.inner[i] = graph.inner[edges_[i]];
        ends.outer[i] = graph.outer[edges_[i]];
    }
    return different;
}

void TripletLayer::own_inputs(Scratch& scratch, int64_t offset, int64_t rows) {
    for (int64_t i = 0; i < rows; i += LANES) {
        const float *first = scratch.first.chords.data(), *second = scratch.second.chords.data();
        const int32_t *one = &scratch.first.at[offset + i], *other = &scratch.second.at[offset + i];
        const auto [ux, uy, u, uz] = load_columns(first, one, CHORD);
        const auto [u_length, u_curvature, no_u, none_u] = load_columns(first + 4, one, CHORD);
        const auto [vx, vy, v, vz] = load_columns(second, other, CHORD);
        const auto [v_length, v_curvature, no_v, none_v] = load_columns(second + 4, other, CHORD);
        const Vec turn = (ux * vy - uy * vx) / (u * v);
        const Vec bend = turn - (u_curvature + v_curvature) * (u + v) / broadcast(4.0f);
        const Vec off = bend * u * v / (u + v);
        const Vec area = u * vz - v * uz;
        const Vec kink = area / (u_length * v_length);
        const Vec off_along = area / (u_length + v_length);
        const Vec values[OWN_INPUTS] = {
            soft(kink, 2e-3f),      soft(kink, 5e-2f), soft(off_along, 1e-4f),
            soft(off_along, 2e-3f), soft(bend, 1e-3f), soft(bend, 3e-2f),
            soft(off, 3e-5f),       soft(off, 5e-4f),  soft(u_curvature - v_curvature, 2e-2f)};
        for (int k = 0; k < OWN_INPUTS; ++k) store(&scratch.inputs[k * BLOCK + i], values[k]);
    }
}

template <class Number>
std::unique_ptr<TripletNetwork> make_triplet_filter(const HitColumns& columns, const Sizes& sizes,
                                                    Tensors tensors) {
    return std::make_unique<TripletFilter<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<TripletNetwork> make_triplet_filter<float>(const HitColumns&, const Sizes&, Tensors);
template std::unique_ptr<TripletNetwork> make_triplet_filter<uint8_t>(const HitColumns&, const Sizes&,
                                                                      Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<TripletNetwork> make_triplet_filter<bfloat16>(const HitColumns&, const Sizes&,
                                                                       Tensors);
#endif

}  // namespace trackserve
