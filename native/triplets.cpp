// The network on triplets, as TripletFilter of training/networks.py, and the layer on triplets that
// the GNN begins with, too.

#include "triplets.h"
#include "parallel.h"

namespace trackserve {
namespace {

constexpr int OWN_INPUTS = 9;

Vec soft(Vec x, float scale) { return x / (abs(x) + broadcast(scale)); }

template <class Number>
class TripletFilter final : public Network {
  public:
    TripletFilter(const HitColumns& columns, const Sizes& sizes, Tensors tensors)
        : columns_(columns), width_(sizes.width), first_(columns, tensors, sizes.width) {
        for (int layer = 1; layer < sizes.depth; ++layer)
            hidden_.push_back(tensors.linear<Number>(width_, width_));
        last_ = tensors.dot(width_);
    }

    void run(const Graph& graph, float* logits, int threads) const override {
        const std::vector<float> positions = hit_positions(columns_, graph.features, graph.hits);
        std::vector<TripletLayer::Scratch> scratches(std::max(threads, 1), {graph, width_});
        const int64_t chunks = (graph.triplets + TRIPLETS_AT_ONCE - 1) / TRIPLETS_AT_ONCE;
        parallel_for(threads, chunks, [&](int64_t chunk, int thread) {
            TripletLayer::Scratch& scratch = scratches[thread];
            Block<Number> states{}, next{};
            const int64_t begin = chunk * TRIPLETS_AT_ONCE;
            const int64_t end = std::min(graph.triplets, begin + TRIPLETS_AT_ONCE);
            first_.prepare(graph, positions.data(), begin, end, scratch);
            for (int64_t triplet = begin; triplet < end; triplet += BLOCK) {
                const int64_t rows = std::min<int64_t>(BLOCK, end - triplet);
                Number *here = states.data(), *there = next.data();
                first_(scratch, triplet - begin, rows, here);
                for (const Linear<Number>& layer : hidden_) {
                    layer({here, width_}, layer.start(), true, there);
                    std::swap(here, there);
                }
                for (int64_t i = 0; i < rows; ++i) logits[triplet + i] = last_(here + i * width_);
            }
        });
    }

  private:
    HitColumns columns_;
    int width_;
    TripletLayer first_;
    std::vector<Linear<Number>> hidden_;
    Dot last_;
};

}  // namespace

TripletLayer::TripletLayer(const HitColumns& columns, Tensors& tensors, int width)
    : columns_(columns), width_(width) {
    const int hit = columns.hit_inputs(), edge = columns.pair_inputs();
    const int all = OWN_INPUTS + edge + PAIR_INPUTS + hit;
    const float *weight = tensors.take(), *bias = tensors.take();
    std::vector<float> own, first, second;
    for (int o = 0; o < width; ++o) {
        const float* next = weight + o * all;
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
    first_ = {first, bias, edge, width};
    second_ = {second, nullptr, edge, width};
}

TripletLayer::Scratch::Scratch(const Graph& graph, int width) {
    for (TripletEnds* ends : {&first, &second}) {
        ends->place.assign(graph.edges, -1);
        for (auto* list : {&ends->edges, &ends->inner, &ends->outer, &ends->at})
            list->resize(TRIPLETS_AT_ONCE + LANES);
        ends->chords.resize(CHORDS * TRIPLETS_AT_ONCE);
        ends->sums.resize(TRIPLETS_AT_ONCE * width);
    }
}

void TripletLayer::prepare(const Graph& graph, const float* positions, int64_t begin, int64_t end,
                           Scratch& scratch) const {
    const int64_t count = end - begin;
    float* inputs = scratch.inputs.data();
    prepare(scratch.first, first_, graph, graph.first + begin, count, positions, inputs);
    prepare(scratch.second, second_, graph, graph.second + begin, count, positions, inputs);
}

void TripletLayer::prepare(TripletEnds& ends, const Linear<float>& layer, const Graph& graph,
                           const int32_t* edges, int64_t count, const float* positions,
                           float* inputs) const {
    int32_t different = 0;
    for (int64_t i = 0; i < count; ++i) {  // without branches: they would be hard to predict
        int32_t& place = ends.place[edges[i]];
        const bool found = place >= 0;
        ends.edges[different] = edges[i];
        place = found ? place : different;
        ends.at[i] = place;
        different += !found;
    }
    for (int32_t i = 0; i < different; ++i) {
        ends.place[ends.edges[i]] = -1;
        ends.inner[i] = graph.inner[ends.edges[i]];
        ends.outer[i] = graph.outer[ends.edges[i]];
    }
    for (int64_t edge = 0; edge < different; edge += BLOCK) {
        const int64_t rows = std::min<int64_t>(BLOCK, different - edge);
        pair_inputs(columns_, graph.features, positions, &ends.inner[edge], &ends.outer[edge], rows,
                    inputs);
        layer({inputs, 1, BLOCK}, layer.start(), false, &ends.sums[edge * width_]);
        chords(positions, &ends.inner[edge], &ends.outer[edge], rows, TRIPLETS_AT_ONCE,
               &ends.chords[edge]);
    }
}

void TripletLayer::own_inputs(Scratch& scratch, int64_t offset, int64_t rows) {
    for (int64_t i = 0; i < rows; i += LANES) {
        const VecInt one = load(&scratch.first.at[offset + i]);
        const VecInt other = load(&scratch.second.at[offset + i]);
        const auto of_first = [&](Chord which) {
            return gather(&scratch.first.chords[which * TRIPLETS_AT_ONCE], one);
        };
        const auto of_second = [&](Chord which) {
            return gather(&scratch.second.chords[which * TRIPLETS_AT_ONCE], other);
        };
        const Vec ux = of_first(ALONG_OUTER), uy = of_first(ACROSS_OUTER), u = of_first(LENGTH);
        const Vec uz = of_first(RISE), u_curvature = of_first(CURVATURE);
        const Vec vx = of_second(ALONG_INNER), vy = of_second(ACROSS_INNER), v = of_second(LENGTH);
        const Vec vz = of_second(RISE), v_curvature = of_second(CURVATURE);
        const Vec turn = (ux * vy - uy * vx) / (u * v);
        const Vec bend = turn - (u_curvature + v_curvature) * (u + v) / broadcast(4.0f);
        const Vec off = bend * u * v / (u + v);
        const Vec u_length = sqrt(u * u + uz * uz), v_length = sqrt(v * v + vz * vz);
        const Vec area = u * vz - v * uz;
        const Vec kink = area / (u_length * v_length);
        const Vec off_along = area / (u_length + v_length);
        const Vec values[OWN_INPUTS] = {
            soft(kink, 2e-3f), soft(kink, 5e-2f), soft(off_along, 1e-4f), soft(off_along, 2e-3f),
            soft(bend, 1e-3f), soft(bend, 3e-2f), soft(off, 3e-5f),       soft(off, 5e-4f),
            soft(u_curvature - v_curvature, 2e-2f)};
        for (int k = 0; k < OWN_INPUTS; ++k) store(&scratch.inputs[k * BLOCK + i], values[k]);
    }
}

template <class Number>
std::unique_ptr<Network> make_triplet_filter(const HitColumns& columns, const Sizes& sizes,
                                             Tensors tensors) {
    return std::make_unique<TripletFilter<Number>>(columns, sizes, tensors);
}

template std::unique_ptr<Network> make_triplet_filter<float>(const HitColumns&, const Sizes&,
                                                             Tensors);
#if defined(__AVX512BF16__)
template std::unique_ptr<Network> make_triplet_filter<bfloat16>(const HitColumns&, const Sizes&,
                                                                Tensors);
#endif

}  // namespace trackserve
