// Algorithm 1, as pipeline/neighbours.py: pairs of hits within a radius in the embedding.
//
// Hits are put in an order in which consecutive ones lie close together (space_order), and every LEAF
// consecutive hits are a leaf with a bounding box, along the embedding's principal axes and in the
// detector. Leaves whose boxes are within the radius, and between which the doublet cuts may be passed,
// are compared hit by hit, each pair of leaves once. Distances are taken in float32, and in float64 with
// the reference's order of summation where float32 can't decide on which side of the radius a pair lies, so
// the pairs are exactly those of scipy's cKDTree.
//
// A hit with more than `limit` neighbours that pass the cuts is crowded. Once both hits of a pair are known
// to be crowded the pair is passed over, which bounds time and memory by the limit however dense the hits
// are; in the end, pairs of two crowded hits come from a search for their nearest neighbours.

#include "axes.h"
#include "kernels.h"
#include "parallel.h"
#include "simd.h"

#include <array>
#include <limits>
#include <numeric>

namespace trackserve {
namespace {

constexpr int PARTS = LEAF / LANES;
constexpr uint32_t WHOLE_LEAF = ~0u >> (32 - LEAF);
constexpr int LEAVES_AT_ONCE = 16;
constexpr int64_t EDGES_A_HIT = 32;  // the room at first
constexpr float INFINITE = std::numeric_limits<float>::infinity();
constexpr float NO_NUMBER = std::numeric_limits<float>::quiet_NaN();
constexpr float FULL_TURN = 2 * M_PI;

// The least and the greatest of what lies in a box; none is what a box of nothing has.
template <class Number>
struct Interval {
    Number low, high;
};

// Intervals of all leaves, side by side; as many more as a vector may reach beyond the last.
struct Intervals {
    List<float> low, high;

    explicit Intervals(int64_t leaves) : low(leaves + LANES, INFINITE), high(leaves + LANES, -INFINITE) {}
    void add(int64_t leaf, float x) {
        low[leaf] = x < low[leaf] ? x : low[leaf];
        high[leaf] = x > high[leaf] ? x : high[leaf];
    }
    // Of LEAF numbers; what is none doesn't count.
    void enclose(int64_t leaf, const float* numbers) {
        Vec least = broadcast(INFINITE), most = -least;
        for (int part = 0; part < PARTS; ++part) {
            least = min(load(numbers + part * LANES), least);
            most = max(load(numbers + part * LANES), most);
        }
        for (int lane = 0; lane < LANES; ++lane) {
            low[leaf] = least[lane] < low[leaf] ? least[lane] : low[leaf];
            high[leaf] = most[lane] > high[leaf] ? most[lane] : high[leaf];
        }
    }
    Interval<Vec> several(int64_t leaf) const { return {load(&low[leaf]), load(&high[leaf])}; }
    Interval<Vec> one(int64_t leaf) const { return {broadcast(low[leaf]), broadcast(high[leaf])}; }
};

Vec gap(const Interval<Vec>& a, const Interval<Vec>& b) {
    return max(max(a.low - b.high, b.low - a.high), Vec{});
}
Vec reach(const Interval<Vec>& a, const Interval<Vec>& b) { return max(a.high - b.low, b.high - a.low); }

// The float32 distances (squared) below which a pair surely is within the radius, and above which
// it surely is not: float32 is off by at most (dimensions + 3) half units in the last place, and by
// what turning the points to their axes did to their distances.
struct Radius {
    double squared;  // a pair is within the radius when its float64 distance is less
    float sure, possible;

    Radius(double squared, int dimensions, double error) : squared(squared) {
        constexpr double largest = std::numeric_limits<float>::max();
        const double margin = (dimensions + 4) * 0x1p-23, radius = std::sqrt(squared);
        const double near = std::max(radius - error, 0.0), far = radius + error;
        sure = std::min(near * near * (1 - margin) - 1e-36, largest);
        const double farthest = far * far * (1 + margin) + 1e-36;
        possible = farthest < largest ? float(farthest) : INFINITE;
    }
};

// What the doublet cuts look at. The cut on z0, divided by both radii, says that the cotangents of two
// hits differ by no more than z0 times the difference of their 1 / r, and dcot.
enum Quantity { PHI, R, COT, INVERSE_R, QUANTITIES };

struct Space {
    const float* embedding;  // [hits, dimensions]
    const int32_t* order;    // [hits] its row for each
    int64_t hits, leaves;
    int dimensions, padded;       // padded to a multiple of 4 with zeros
    double error;                 // of a distance along the principal axes
    List<float> coordinates;      // [leaves, padded, LEAF] along them; NaN beyond the last hit
    std::vector<Intervals> axes;  // [dimensions]
    std::vector<Intervals> cuts;  // [QUANTITIES]

    Space(const float* embedding, const Turned& turned, const int32_t* order, int64_t n, int d, int threads)
        : embedding(embedding),
          order(order),
          hits(n),
          leaves((n + LEAF - 1) / LEAF),
          dimensions(d),
          padded((d + 3) / 4 * 4),
          error(turned.error),
          coordinates(leaves * padded * LEAF),
          axes(d, Intervals(leaves)),
          cuts(QUANTITIES, Intervals(leaves)) {
        for_leaves(threads, [&](int64_t leaf) {
            float* here = &coordinates[leaf * padded * LEAF];
            for (int64_t row = leaf * LEAF; row < (leaf + 1) * LEAF; ++row)
                for (int k = 0; k < d; ++k)
                    here[k * LEAF + row % LEAF] =
                        row < n ? turned.coordinates[int64_t(order[row]) * d + k] : NO_NUMBER;
            for (int k = 0; k < d; ++k) axes[k].enclose(leaf, here + k * LEAF);
            std::fill(here + d * LEAF, here + padded * LEAF, 0.0f);
        });
    }

    template <class Work>
    void for_leaves(int threads, const Work& work) const {
        for_rows(threads, leaves, LEAVES_AT_ONCE, work);
    }

    const float* coordinate(int64_t row, int k) const {
        return &coordinates[(row / LEAF * padded + k) * LEAF + row % LEAF];
    }

    // As scipy's cKDTree adds the squares up.
    double squared_distance(int64_t a, int64_t b) const {
        const float* one = embedding + int64_t(order[a]) * dimensions;
        const float* other = embedding + int64_t(order[b]) * dimensions;
        std::array<double, 4> parts{};
        int k = 0;
        for (; k + 4 <= dimensions; k += 4)
            for (int i = 0; i < 4; ++i) {
                const double step = double(one[k + i]) - double(other[k + i]);
                parts[i] += step * step;
            }
        double total = parts[0] + parts[1] + parts[2] + parts[3];
        for (; k < dimensions; ++k) {
            const double step = double(one[k]) - double(other[k]);
            total += step * step;
        }
        return total;
    }
};

struct Hits {                         // [leaves * LEAF]
    List<float> r, phi, z, distance;  // from the origin, squared
    List<float> cot, inverse_r;
    List<int32_t> rank;  // the place in the order from the origin

    explicit Hits(int64_t size)
        : r(size), phi(size), z(size), distance(size), cot(size), inverse_r(size), rank(size) {}
};

struct Scan {
    Space& space;
    const NeighbourSettings& settings;
    Hits hits;
    Radius radius;
    List<int32_t> lowest_rank;  // of each leaf

    Scan(Space& space, const NeighbourSettings& settings)
        : space(space),
          settings(settings),
          hits(space.leaves * LEAF),
          radius(settings.squared_radius, space.dimensions, space.error),
          lowest_rank(space.leaves) {}

    bool cuts_slope() const { return std::isfinite(settings.cuts.slope); }
    bool cuts_z0() const { return std::isfinite(settings.cuts.z0); }

    // Fill the boxes in the detector, and what they are made of.
    void box_hits(int64_t leaf, const float* r_of, const float* phi_of, const float* z_of) {
        constexpr float least = 1e-15, most = 1e15;
        for (int64_t row = leaf * LEAF; row < (leaf + 1) * LEAF; ++row) {
            const bool some = row < space.hits;
            const int32_t rank = some ? space.order[row] : std::numeric_limits<int32_t>::max();
            const float r = some ? r_of[rank] : 0, z = some ? z_of[rank] : 0;
            hits.r[row] = r;
            hits.phi[row] = some ? phi_of[rank] : 0;
            hits.z[row] = z;
            hits.rank[row] = rank;
            hits.distance[row] = r * r + z * z;
            const bool usual = r > least && r < most && std::abs(z) < most;
            hits.cot[row] = usual ? z / r : NO_NUMBER;
            hits.inverse_r[row] = usual ? 1 / r : NO_NUMBER;
            if (!some) continue;
            space.cuts[PHI].add(leaf, hits.phi[row]);
            space.cuts[R].add(leaf, r);
            for (const float sign : {-1.0f, 1.0f}) {
                space.cuts[COT].add(leaf, usual ? hits.cot[row] : sign * INFINITE);
                space.cuts[INVERSE_R].add(leaf, usual ? hits.inverse_r[row] : sign * INFINITE);
            }
        }
        lowest_rank[leaf] = *std::min_element(&hits.rank[leaf * LEAF], &hits.rank[leaf * LEAF] + LEAF);
    }

    // Whether hits of these boxes may pass the doublet cuts; false only where none does.
    template <class A, class B>
    VecInt may_pass(const A& a, const B& b) const {
        const DoubletCuts& cuts = settings.cuts;
        VecInt possible = broadcast(int32_t(-1));
        if (cuts_slope()) {  // rounded as in `compare`, and rounding keeps the order of numbers
            const Interval<Vec> one = a(PHI), other = b(PHI);
            const Vec widest = broadcast(cuts.slope) * reach(a(R), b(R)) + broadcast(cuts.dphi);
            possible = (gap(one, other) <= widest) | (broadcast(FULL_TURN) - reach(one, other) <= widest);
        }
        if (cuts_z0()) {  // with room for rounding: `compare` multiplies by both radii
            const Interval<Vec> one = a(COT), other = b(COT), inverse = a(INVERSE_R);
            const Interval<Vec> other_inverse = b(INVERSE_R);
            const Vec cots = max(max(abs(one.low), abs(one.high)), max(abs(other.low), abs(other.high)));
            const Vec least = broadcast(1e-6f), more = broadcast(1.00001f);
            const Vec step = reach(inverse, other_inverse) + least * max(inverse.high, other_inverse.high);
            const Vec bound = more * (broadcast(cuts.z0) * step + broadcast(cuts.dcot)) + least * cots;
            // Not a number where a box reaches to infinity: then all is possible.
            possible &= ~(gap(one, other) > bound);
        }
        return possible;
    }

    auto box(int64_t leaf) const {
        return [this, leaf](Quantity q) { return space.cuts[q].one(leaf); };
    }

    // Append the leaves from `first` on whose boxes are at most `far` (squared) from a box.
    template <class Box, class Detector>
    void leaves_near(const Box& box, const Detector& detector, int64_t first, float far,
                     std::vector<int32_t>& near) const {
        for (int64_t leaf = first / LANES * LANES; leaf < space.leaves; leaf += LANES) {
            Vec distance{};
            uint32_t set = 0;
            for (int k = 0; k < space.dimensions; ++k) {
                const Vec between = gap(box(k), space.axes[k].several(leaf));
                distance = fma(between, between, distance);
                if (k % 4 == 3 || k == space.dimensions - 1) {
                    set = bits(distance <= broadcast(far));
                    if (!set) break;
                }
            }
            if (!set) continue;
            if (leaf < first) set &= ~0u << (first - leaf);
            if (leaf + LANES > space.leaves) set &= ~(~0u << (space.leaves - leaf));
            const auto several = [&](Quantity q) { return space.cuts[q].several(leaf); };
            if (set) set &= bits(may_pass(detector, several));
            for (; set; set &= set - 1) near.push_back(leaf + __builtin_ctz(set));
        }
    }

    // One bit for each hit of leaf a that may have neighbours in leaf b.
    uint32_t near_leaf(int64_t a, int64_t b) const {
        const float* leaf = space.coordinate(a * LEAF, 0);
        Vec distance[PARTS]{};
        for (int k = 0; k < space.dimensions; ++k) {
            const Interval<Vec> box = space.axes[k].one(b);
#pragma GCC unroll 8
            for (int part = 0; part < PARTS; ++part) {
                const Vec x = load(leaf + k * LEAF + part * LANES);
                const Vec between = gap({x, x}, box);
                distance[part] = fma(between, between, distance[part]);
            }
        }
        uint32_t near = 0;
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; ++part) {
            const int64_t row = a * LEAF + part * LANES;
            const float* quantities[] = {&hits.phi[row], &hits.r[row], &hits.cot[row], &hits.inverse_r[row]};
            const auto points = [&](Quantity q) {
                const Vec x = load(quantities[q]);
                return Interval<Vec>{x, x};
            };
            const VecInt possible = distance[part] <= broadcast(radius.possible);
            near |= bits(possible & may_pass(points, box(b))) << (part * LANES);
        }
        return near;
    }

    // One bit for each hit of leaf b that is within this radius of hit a and passes the cuts with it.
    template <int D>
    uint32_t linked(int64_t a, int64_t b, const Radius& limit) const {
        const float *from = space.coordinate(a, 0), *leaf = space.coordinate(b * LEAF, 0);
        const int d = D ? D : space.padded;
        Vec distance[PARTS]{};
#pragma GCC unroll 16
        for (int k = 0; k < d; ++k) {
            const Vec x = broadcast(from[k * LEAF]);
#pragma GCC unroll 8
            for (int part = 0; part < PARTS; ++part) {
                const Vec step = x - load(leaf + k * LEAF + part * LANES);
                distance[part] = fma(step, step, distance[part]);
            }
        }
        const DoubletCuts& cuts = settings.cuts;
        const Vec r_a = broadcast(hits.r[a]), z_a = broadcast(hits.z[a]);
        const Vec phi_a = broadcast(hits.phi[a]), distance_a = broadcast(hits.distance[a]);
        uint32_t found = 0;
        VecInt doubt{};
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; ++part) {
            const int64_t row = b * LEAF + part * LANES;
            const Vec r_b = load(&hits.r[row]), z_b = load(&hits.z[row]);
            const Vec distance_b = load(&hits.distance[row]);
            const VecInt outwards = load(&hits.rank[row]) > broadcast(hits.rank[a]);
            VecInt good = outwards ? distance_a < distance_b : distance_b < distance_a;
            const Vec dr = abs(r_b - r_a);
            if (cuts_slope()) {
                const Vec turn = abs(load(&hits.phi[row]) - phi_a);
                const Vec shorter = min(turn, broadcast(FULL_TURN) - turn);
                good &= shorter <= broadcast(cuts.slope) * dr + broadcast(cuts.dphi);
            }
            if (cuts_z0()) {
                const Vec lever = abs(z_a * r_b - z_b * r_a);
                good &= lever <= broadcast(cuts.z0) * dr + broadcast(cuts.dcot) * (r_a * r_b);
            }
            good &= distance[part] <= broadcast(limit.possible);
            found |= bits(good) << (part * LANES);
            doubt |= good & ~(distance[part] <= broadcast(limit.sure));
        }
        if (!bits(doubt)) return found;
        for (uint32_t left = found; left; left &= left - 1) {
            const int place = __builtin_ctz(left);
            if (distance[place / LANES][place % LANES] <= limit.sure) continue;
            if (!(space.squared_distance(a, b * LEAF + place) < limit.squared)) found ^= 1u << place;
        }
        return found;
    }

    uint32_t crowded(int64_t leaf, const List<int32_t>& degree) const {
        uint32_t set = 0;
        for (int part = 0; part < PARTS; ++part)
            set |= bits(load(&degree[leaf * LEAF + part * LANES]) > broadcast(settings.limit))
                   << (part * LANES);
        return set;
    }

    // Append the pairs of a hit with these hits of leaf b, and count them for the latter.
    void append(int64_t hit, int64_t b, uint32_t found, List<int32_t>& degree, Pairs& edges) const {
        const VecInt lane = lanes(), here = broadcast(int32_t(hit));
        const VecInt rank = broadcast(hits.rank[hit]);
        for (int part = 0; part < PARTS; ++part) {
            const uint32_t set = found >> (part * LANES) & (~0u >> (32 - LANES));
            if (!set) continue;
            const int64_t row = b * LEAF + part * LANES;
            const VecInt there = broadcast(int32_t(row)) + lane;
            const VecInt outwards = rank < load(&hits.rank[row]);
            edges.add_several(outwards ? here : there, outwards ? there : here, set);
            store(&degree[row], load(&degree[row]) - lanes_of(set));
        }
    }

    // Append the pairs of hits of leaf `a` with hits of the leaves near it, itself and later ones.
    template <int D>
    void compare(int64_t a, const std::vector<int32_t>& near, List<int32_t>& degree, Pairs& edges) const {
        for (const int64_t b : near) {
            const uint32_t crowded_a = crowded(a, degree), crowded_b = crowded(b, degree);
            for (uint32_t some = near_leaf(a, b); some; some &= some - 1) {
                const int place = __builtin_ctz(some);
                const uint32_t passed_over = crowded_a >> place & 1 ? crowded_b : 0;
                if (passed_over == WHOLE_LEAF) continue;
                uint32_t found = linked<D>(a * LEAF + place, b, radius) & ~passed_over;
                if (b == a) found &= ~1u << place;
                if (!found) continue;
                degree[a * LEAF + place] += __builtin_popcount(found);
                append(a * LEAF + place, b, found, degree, edges);
            }
        }
    }

    void compare(int64_t a, const std::vector<int32_t>& near, List<int32_t>& degree, Pairs& edges) const {
        switch (space.padded) {  // widths known to the compiler stay in registers
            case 4:
                return compare<4>(a, near, degree, edges);
            case 8:
                return compare<8>(a, near, degree, edges);
            case 12:
                return compare<12>(a, near, degree, edges);
            default:
                return compare<0>(a, near, degree, edges);
        }
    }
};

// A neighbour in the order of nearness; of equal distances, the one of lower rank is nearer.
struct Near {
    double squared_distance;
    int32_t rank, row;
    bool operator<(const Near& other) const {
        return squared_distance != other.squared_distance ? squared_distance < other.squared_distance
                                                          : rank < other.rank;
    }
};

// The `limit` nearest neighbours of a hit that has more than that many; the farthest is last.
std::vector<Near> nearest(const Scan& scan, int64_t hit) {
    const Space& space = scan.space;
    const int64_t limit = scan.settings.limit;
    std::vector<Near> found;
    found.reserve(2 * limit + LEAF);
    Near farthest{scan.radius.squared, -1, 0};
    Radius radius = scan.radius;
    const auto shorten = [&] {
        if (int64_t(found.size()) <= limit) return;
        std::nth_element(found.begin(), found.begin() + (limit - 1), found.end());
        found.resize(limit);
        farthest = found.back();
        // Hits as far away as the farthest may still be nearer by their rank.
        const double squared = std::nextafter(farthest.squared_distance, INFINITY);
        radius = Radius(squared, space.dimensions, space.error);
    };
    const auto look_into = [&](int64_t leaf) {
        // Copies of one point are the ties that occur: don't look at all of them.
        if (farthest.squared_distance == 0 && scan.lowest_rank[leaf] > farthest.rank) return;
        for (uint32_t set = scan.linked<0>(hit, leaf, radius); set; set &= set - 1) {
            const int64_t row = leaf * LEAF + __builtin_ctz(set);
            const Near other{space.squared_distance(hit, row), scan.hits.rank[row], int32_t(row)};
            if (other < farthest) found.push_back(other);
        }
        if (int64_t(found.size()) >= 2 * limit) shorten();
    };
    // The leaves before and after its own in the order in space bring the farthest near quickly.
    const int64_t around = limit / LEAF + 1;
    const int64_t first = std::max<int64_t>(0, hit / LEAF - around);
    const int64_t last = std::min(space.leaves, hit / LEAF + around + 1);
    for (int64_t leaf = first; leaf < last; ++leaf) look_into(leaf);
    shorten();

    std::vector<int32_t> leaves;
    const auto point = [&](int k) {
        const Vec x = broadcast(*space.coordinate(hit, k));
        return Interval<Vec>{x, x};
    };
    scan.leaves_near(point, scan.box(hit / LEAF), 0, radius.possible, leaves);
    for (const int32_t leaf : leaves)
        if (leaf < first || leaf >= last) look_into(leaf);
    shorten();
    return found;
}

// Replace the pairs of two crowded hits by those where one is among the nearest of the other.
void limit_crowded(const Scan& scan, const List<int32_t>& degree, Pairs& edges, int threads) {
    std::vector<int32_t> crowded;  // its rows, and for each row its place in this list
    List<int32_t> place(scan.space.hits, -1);
    for (int64_t hit = 0; hit < scan.space.hits; ++hit)
        if (degree[hit] > scan.settings.limit) {
            place[hit] = crowded.size();
            crowded.push_back(hit);
        }
    if (crowded.empty()) return;
    edges.keep([&](int32_t inner, int32_t outer) { return place[inner] < 0 || place[outer] < 0; });

    std::vector<Near> farthest(crowded.size());
    std::vector<std::vector<Near>> near(crowded.size());
    constexpr int64_t at_once = 64;
    for_rows(threads, crowded.size(), at_once, [&](int64_t i) {
        near[i] = nearest(scan, crowded[i]);
        farthest[i] = near[i].back();
        std::erase_if(near[i], [&](const Near& other) { return place[other.row] < 0; });
        near[i].shrink_to_fit();
    });
    for (size_t i = 0; i < crowded.size(); ++i)
        for (const Near& other : near[i]) {
            const Near back{other.squared_distance, scan.hits.rank[crowded[i]], crowded[i]};
            const bool mutual = !(farthest[place[other.row]] < back);
            if (mutual && crowded[i] >= other.row) continue;
            const bool outwards = back.rank < other.rank;
            edges.push_back(outwards ? crowded[i] : other.row, outwards ? other.row : crowded[i]);
        }
}

}  // namespace

Pairs neighbours(const float* embedding, int64_t n, int dimensions, const float* r, const float* phi,
                 const float* z, const NeighbourSettings& settings, const Budget& budget, int32_t* order,
                 int threads) {
    const Turned turned = turn_to_principal_axes(embedding, n, dimensions, threads);
    space_order(turned.coordinates.data(), n, dimensions, phi, settings.radian, order, threads);
    Space space(embedding, turned, order, n, dimensions, threads);
    const int64_t size = space.leaves * LEAF;
    Scan scan(space, settings);
    space.for_leaves(threads, [&](int64_t leaf) { scan.box_hits(leaf, r, phi, z); });

    // Each thread has a list of its own; the edges of all come in the order of the leaves.
    struct Part {
        int thread;
        size_t begin, end;
    };
    std::vector<Part> parts(chunks_of(space.leaves, LEAVES_AT_ONCE));
    std::vector<Pairs> found(std::max(threads, 1));
    for (Pairs& edges : found) edges.reserve(size * EDGES_A_HIT / found.size());
    std::vector<List<int32_t>> degrees(found.size(), List<int32_t>(size, 0));
    // A pair is found by a hit that has at most as many neighbours as the limit, or a leaf more. So with
    // this many pairs the hits together want more than twice the budget, and each edge is wanted twice at
    // most: the limit won't bring them below the budget any more.
    const int64_t far_too_many = budget.edges < std::numeric_limits<int64_t>::max() / 4
                                     ? 2 * budget.edges + LEAF * size
                                     : budget.edges;
    for_chunks(threads, space.leaves, LEAVES_AT_ONCE, [&](const Chunk& chunk) {
        const int thread = chunk.thread;
        std::vector<int32_t> near;
        const size_t begin = found[thread].size();
        for (int64_t leaf = chunk.begin; leaf < chunk.end; ++leaf) {
            const auto box = [&](int k) { return space.axes[k].one(leaf); };
            near.clear();
            scan.leaves_near(box, scan.box(leaf), leaf, scan.radius.possible, near);
            scan.compare(leaf, near, degrees[thread], found[thread]);
            if (int64_t(found[thread].size()) > far_too_many) throw OverBudget{Bound::EDGES};
        }
        parts[chunk.number] = {thread, begin, found[thread].size()};
    });
    Pairs edges;
    if (found.size() == 1) {
        edges = std::move(found[0]);
    } else {
        std::vector<size_t> at{0};
        for (const Part& part : parts) at.push_back(at.back() + part.end - part.begin);
        edges.reserve(at.back());
        parallel_for(threads, parts.size(), [&](int64_t i, int) {
            const auto [thread, begin, end] = parts[i];
            const Pairs& from = found[thread];
            std::copy(from.first() + begin, from.first() + end, edges.first_end() + at[i]);
            std::copy(from.second() + begin, from.second() + end, edges.second_end() + at[i]);
        });
        edges.grow(at.back());
    }
    space.for_leaves(threads, [&](int64_t leaf) {
        for (size_t thread = 1; thread < degrees.size(); ++thread)
            for (int64_t hit = leaf * LEAF; hit < (leaf + 1) * LEAF; ++hit)
                degrees[0][hit] += degrees[thread][hit];
    });
    limit_crowded(scan, degrees[0], edges, threads);
    if (int64_t(edges.size()) > budget.edges) throw OverBudget{Bound::EDGES};
    return edges;
}

}  // namespace trackserve
