// Hits are put in an order in which consecutive ones lie close together (space_order), and every LEAF
// consecutive hits are a leaf with a bounding box, along the embedding's principal axes and in the
// detector. Leaves whose boxes are within the radius, and between which the doublet cuts may be passed,
// are compared hit by hit, each pair of leaves once. Distances are taken in float32, and in float64 with
// the reference's order of summation where float32 can't decide on which side of the radius a pair lies, so
// the pairs are exactly those of scipy's cKDTree.
//
// A hit with more than `limit` neighbours that pass the cuts is crowded. Once both hits of a pair are known
// to be crowded the pair is passed over, which bounds time and memory by the limit however dense the hits
// are; in the end, pairs of two crowded hits come from a search for their nearest neighbours (crowded.cpp).

#include "neighbours.h"

#include "crowded.h"
#include "parallel.h"

#include <algorithm>
#include <limits>

namespace trackserve {
namespace {

constexpr uint32_t WHOLE_LEAF = ~0u >> (32 - LEAF);
constexpr int64_t EDGES_A_HIT = 32;  // the room at first

// The pairs that one thread finds, leaf by leaf, and how many of them each hit has.
class alignas(64) Finder {  // each thread writes into its own cache lines
  public:
    List<int32_t> degree;  // [leaves * LEAF]
    Pairs edges;

    Finder(const Search& search, int32_t limit, size_t room)
        : degree(search.space.leaves * LEAF, 0), search_(search), limit_(limit) {
        edges.reserve(room);
    }

    // Find the pairs of hits of this leaf with hits of the leaves near it, itself and later ones.
    void find(int64_t leaf) {
        const auto box = [&](int k) { return search_.space.axes[k].one(leaf); };
        near_.clear();
        search_.leaves_near(box, leaf, leaf, search_.radius.possible, near_);
        switch (search_.space.padded) {  // widths known to the compiler stay in registers
            case 4:
                return compare<4>(leaf);
            case 8:
                return compare<8>(leaf);
            case 12:
                return compare<12>(leaf);
            default:
                return compare<0>(leaf);
        }
    }

  private:
    const Search& search_;
    int32_t limit_;
    std::vector<int32_t> near_;

    template <int D>
    void compare(int64_t a) {
        for (const int64_t b : near_) {
            const uint32_t crowded_a = crowded(a), crowded_b = crowded(b);
            for (uint32_t some = search_.near_leaf(a, b); some; some &= some - 1) {
                const int place = __builtin_ctz(some);
                const uint32_t passed_over = crowded_a >> place & 1 ? crowded_b : 0;
                if (passed_over == WHOLE_LEAF) continue;
                uint32_t found = search_.linked<D>(a * LEAF + place, b, search_.radius) & ~passed_over;
                if (b == a) found &= ~1u << place;
                if (!found) continue;
                degree[a * LEAF + place] += __builtin_popcount(found);
                append(a * LEAF + place, b, found);
            }
        }
    }

    // One bit for each hit of a leaf that has more neighbours than the limit so far.
    uint32_t crowded(int64_t leaf) const {
        uint32_t set = 0;
        for (int part = 0; part < PARTS; ++part)
            set |= bits(load(&degree[leaf * LEAF + part * LANES]) > broadcast(limit_)) << (part * LANES);
        return set;
    }

    // Append the pairs of a hit with these hits of leaf b, and count them for the latter.
    void append(int64_t hit, int64_t b, uint32_t found) {
        const List<int32_t>& ranks = search_.detector.rank;
        const VecInt lane = lanes(), here = broadcast(int32_t(hit)), rank = broadcast(ranks[hit]);
        for (int part = 0; part < PARTS; ++part) {
            const uint32_t set = found >> (part * LANES) & (~0u >> (32 - LANES));
            if (!set) continue;
            const int64_t row = b * LEAF + part * LANES;
            const VecInt there = broadcast(int32_t(row)) + lane;
            const VecInt outwards = rank < load(&ranks[row]);
            edges.add_several(outwards ? here : there, outwards ? there : here, set);
            store(&degree[row], load(&degree[row]) - lanes_of(set));
        }
    }
};

// Where the edges of a chunk of leaves lie: in the list of a thread.
struct Part {
    int thread;
    size_t begin, end;
};

// The number of pairs from which on an event is sure to exceed its budget of edges. A pair is found by a hit
// that has at most as many neighbours as the limit, or a leaf more. So with this many pairs the hits together
// want more than twice the budget, and each edge is wanted twice at most: the limit won't bring them below
// the budget any more.
int64_t far_too_many(const Budget& budget, const Space& space) {
    return budget.edges < std::numeric_limits<int64_t>::max() / 4
               ? 2 * budget.edges + LEAF * (space.leaves * LEAF)
               : budget.edges;
}

// Find all pairs, each thread into a list of its own.
std::vector<Part> find_all(const Space& space, std::vector<Finder>& finders, int64_t most, int threads) {
    std::vector<Part> parts(chunks_of(space.leaves, LEAVES_AT_ONCE));
    for_chunks(threads, space.leaves, LEAVES_AT_ONCE, [&](const Chunk& chunk) {
        Finder& finder = finders[chunk.thread];
        const size_t begin = finder.edges.size();
        for (int64_t leaf = chunk.begin; leaf < chunk.end; ++leaf) {
            finder.find(leaf);
            if (int64_t(finder.edges.size()) > most) throw OverBudget{Bound::EDGES};
        }
        parts[chunk.number] = {chunk.thread, begin, finder.edges.size()};
    });
    return parts;
}

// The edges of all threads in the order of the leaves.
Pairs in_order(std::vector<Finder>& finders, const std::vector<Part>& parts, int threads) {
    if (finders.size() == 1) return std::move(finders[0].edges);
    std::vector<size_t> at{0};
    for (const Part& part : parts) at.push_back(at.back() + part.end - part.begin);
    Pairs edges;
    edges.reserve(at.back());
    parallel_for(threads, parts.size(), [&](int64_t i, int) {
        const auto [thread, begin, end] = parts[i];
        const Pairs& from = finders[thread].edges;
        std::copy(from.first() + begin, from.first() + end, edges.first_end() + at[i]);
        std::copy(from.second() + begin, from.second() + end, edges.second_end() + at[i]);
    });
    edges.grow(at.back());
    return edges;
}

// Add the degrees of the other threads to those of the first.
const List<int32_t>& degrees(const Space& space, std::vector<Finder>& finders, int threads) {
    List<int32_t>& sum = finders[0].degree;
    space.for_leaves(threads, [&](int64_t leaf) {
        for (size_t thread = 1; thread < finders.size(); ++thread)
            for (int64_t hit = leaf * LEAF; hit < (leaf + 1) * LEAF; ++hit)
                sum[hit] += finders[thread].degree[hit];
    });
    return sum;
}

}  // namespace

Pairs neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                 const float* z, const NeighbourSettings& settings, const Budget& budget, int32_t* order,
                 int threads) {
    const Turned turned = turn_to_principal_axes(embedding, n, dimensions, threads);
    space_order(turned.coordinates.data(), n, dimensions, phi, settings.radian, order, threads);
    Space space(embedding, turned, order, n, dimensions, threads);
    Detector detector(settings.cuts, space.leaves);
    space.for_leaves(threads, [&](int64_t leaf) { detector.fill(leaf, order, n, r, phi, z); });
    const Search search(space, detector, settings.squared_radius);

    std::vector<Finder> finders;
    const size_t lists = std::max(threads, 1);
    finders.reserve(lists);
    for (size_t i = 0; i < lists; ++i)
        finders.emplace_back(search, settings.limit, space.leaves * LEAF * EDGES_A_HIT / lists);
    const std::vector<Part> parts = find_all(space, finders, far_too_many(budget, space), threads);
    Pairs edges = in_order(finders, parts, threads);
    limit_crowded(search, settings.limit, degrees(space, finders, threads), edges, threads);
    if (int64_t(edges.size()) > budget.edges) throw OverBudget{Bound::EDGES};
    return edges;
}

}  // namespace trackserve
