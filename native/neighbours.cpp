// Algorithm 1, as pipeline/neighbours.py: pairs of hits within a radius in the embedding.
//
// Hits are handed over in an order in which consecutive ones lie close together (space_order), and
// every LEAF consecutive hits are a leaf with a bounding box. Leaves whose boxes are within the
// radius are compared hit by hit, each pair of leaves once. Distances are taken in float32, and in
// float64 with the reference's order of summation where float32 can't tell on which side of the
// radius a pair lies, so the pairs are exactly those of scipy's cKDTree.
//
// A hit with more than `limit` neighbours that pass the cuts is crowded. Once both hits of a pair are known to be
// crowded the pair is passed over, which bounds time and memory by the limit however dense the
// hits are; in the end, pairs of two crowded hits come from a search for their nearest neighbours.

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

#include <array>
#include <limits>
#include <numeric>

namespace trackserve {
namespace {

constexpr int LEAF = 32;
constexpr uint32_t WHOLE_LEAF = ~0u >> (32 - LEAF);
constexpr int LEAVES_AT_ONCE = 16;

// The axis along which a sample of the points is spread widest.
int widest(const float* embedding, int dimensions, const uint64_t* items, int64_t n) {
    const int64_t step = std::max<int64_t>(1, n / 128);
    int axis = 0;
    float widest = -1;
    for (int k = 0; k < dimensions; ++k) {
        float low = std::numeric_limits<float>::infinity(), high = -low;
        for (int64_t i = 0; i < n; i += step) {
            const float x = embedding[int64_t(uint32_t(items[i])) * dimensions + k];
            if (x < low) low = x;
            if (x > high) high = x;
        }
        if (high - low > widest) {
            widest = high - low;
            axis = k;
        }
    }
    return axis;
}

struct Space {
    int64_t hits, leaves;
    int dimensions, padded;          // padded to a multiple of 4 with zeros
    std::vector<float> coordinates;  // [leaves, padded, LEAF]; NaN beyond the last hit
    int64_t boxes;                   // leaves, rounded up to a multiple of LANES
    std::vector<float> low, high;    // [dimensions, boxes]

    Space(const float* embedding, int64_t n, int d)
        : hits(n), leaves((n + LEAF - 1) / LEAF), dimensions(d), padded((d + 3) / 4 * 4),
          coordinates(leaves * padded * LEAF, 0.0f), boxes((leaves + LANES - 1) / LANES * LANES),
          low(d * boxes, std::numeric_limits<float>::infinity()),
          high(d * boxes, -std::numeric_limits<float>::infinity()) {
        for (int64_t row = 0; row < leaves * LEAF; ++row) {
            const int64_t leaf = row / LEAF;
            for (int k = 0; k < d; ++k) {
                const float x =
                    row < n ? embedding[row * d + k] : std::numeric_limits<float>::quiet_NaN();
                coordinates[(leaf * padded + k) * LEAF + row % LEAF] = x;
                if (x < low[k * boxes + leaf]) low[k * boxes + leaf] = x;
                if (x > high[k * boxes + leaf]) high[k * boxes + leaf] = x;
            }
        }
    }

    float at(int64_t row, int k) const {
        return coordinates[(row / LEAF * padded + k) * LEAF + row % LEAF];
    }

    // As scipy's cKDTree adds the squares up.
    double squared_distance(int64_t a, int64_t b) const {
        std::array<double, 4> parts{};
        int k = 0;
        for (; k + 4 <= dimensions; k += 4)
            for (int i = 0; i < 4; ++i) {
                const double step = double(at(a, k + i)) - double(at(b, k + i));
                parts[i] += step * step;
            }
        double total = parts[0] + parts[1] + parts[2] + parts[3];
        for (; k < dimensions; ++k) {
            const double step = double(at(a, k)) - double(at(b, k));
            total += step * step;
        }
        return total;
    }

    // Append the leaves from `first` on whose boxes are at most `far` (squared) from a box.
    template <class Box>
    void leaves_near(const Box& box, int64_t first, float far, std::vector<int32_t>& near) const {
        for (int64_t leaf = first / LANES * LANES; leaf < boxes; leaf += LANES) {
            Vec distance{};
            for (int k = 0; k < dimensions; ++k) {
                const auto [lowest, highest] = box(k);
                const Vec below = load(&low[k * boxes + leaf]) - broadcast(highest);
                const Vec above = broadcast(lowest) - load(&high[k * boxes + leaf]);
                const Vec gap = max(max(below, above), Vec{});
                distance = fma(gap, gap, distance);
            }
            uint32_t set = bits(distance <= broadcast(far));
            if (leaf < first) set &= ~0u << (first - leaf);
            if (leaf + LANES > leaves) set &= ~(~0u << (leaves - leaf));
            for (; set; set &= set - 1) near.push_back(leaf + __builtin_ctz(set));
        }
    }
};

// The float32 distances (squared) below which a pair surely is within the radius, and above which
// it surely is not: float32 is off by at most (dimensions + 3) half units in the last place.
struct Radius {
    double squared;  // a pair is within the radius when its float64 distance is less
    float sure, possible;

    Radius(double squared, int dimensions) : squared(squared) {
        constexpr double largest = std::numeric_limits<float>::max();
        const double margin = (dimensions + 4) * 0x1p-23;
        sure = std::min(squared * (1 - margin) - 1e-36, largest);
        const double far = squared * (1 + margin) + 1e-36;
        possible = far < largest ? float(far) : std::numeric_limits<float>::infinity();
    }
};

struct Hits {  // [leaves * LEAF]
    std::vector<float> r, phi, z;
    std::vector<int32_t> rank;
};

struct Scan {
    const Space& space;
    const NeighbourSettings& settings;
    Hits hits;
    Radius radius;
    std::vector<int32_t> lowest_rank;  // of each leaf

    // One bit for each hit of leaf b that is within this radius of hit a.
    template <int D>
    uint32_t within(int64_t a, int64_t b, const Radius& limit) const {
        const float* from = &space.coordinates[a / LEAF * space.padded * LEAF + a % LEAF];
        const float* leaf = &space.coordinates[b * space.padded * LEAF];
        const int d = D ? D : space.padded;
        uint32_t possible = 0, sure = 0;
        for (int part = 0; part < LEAF / LANES; ++part) {
            Vec distance{};
            for (int k = 0; k < d; ++k) {
                const Vec step = load(leaf + k * LEAF + part * LANES) - broadcast(from[k * LEAF]);
                distance = fma(step, step, distance);
            }
            possible |= bits(distance <= broadcast(limit.possible)) << (part * LANES);
            sure |= bits(distance <= broadcast(limit.sure)) << (part * LANES);
        }
        for (uint32_t doubtful = possible & ~sure; doubtful; doubtful &= doubtful - 1) {
            const int lane = __builtin_ctz(doubtful);
            if (!(space.squared_distance(a, b * LEAF + lane) < limit.squared))
                possible ^= 1u << lane;
        }
        return possible;
    }

    // One bit for each hit of leaf b that passes the doublet cuts with hit a.
    uint32_t passing(int64_t a, int64_t b) const {
        const DoubletCuts& cuts = settings.cuts;
        const Vec r_a = broadcast(hits.r[a]), z_a = broadcast(hits.z[a]);
        const Vec phi_a = broadcast(hits.phi[a]);
        uint32_t passed = 0;
        for (int part = 0; part < LEAF / LANES; ++part) {
            const int64_t row = b * LEAF + part * LANES;
            const Vec r_b = load(&hits.r[row]), z_b = load(&hits.z[row]);
            const VecInt outwards = load(&hits.rank[row]) > broadcast(hits.rank[a]);
            const Vec far_a = r_a * r_a + z_a * z_a, far_b = r_b * r_b + z_b * z_b;
            VecInt good = outwards ? far_a < far_b : far_b < far_a;
            const Vec dr = abs(r_b - r_a);
            if (std::isfinite(cuts.slope)) {
                const Vec turn = abs(load(&hits.phi[row]) - phi_a);
                const Vec shorter = min(turn, broadcast(float(2 * M_PI)) - turn);
                good &= shorter <= broadcast(cuts.slope) * dr + broadcast(cuts.dphi);
            }
            if (std::isfinite(cuts.z0)) {
                const Vec lever = abs(z_a * r_b - z_b * r_a);
                good &= lever <= broadcast(cuts.z0) * dr + broadcast(cuts.dcot) * (r_a * r_b);
            }
            passed |= bits(good) << (part * LANES);
        }
        return passed;
    }

    Edge edge(int64_t a, int64_t b) const {
        return hits.rank[a] < hits.rank[b] ? Edge{int32_t(a), int32_t(b)}
                                           : Edge{int32_t(b), int32_t(a)};
    }

    uint32_t crowded(int64_t leaf, const std::vector<int32_t>& degree) const {
        uint32_t set = 0;
        for (int part = 0; part < LEAF / LANES; ++part)
            set |= bits(load(&degree[leaf * LEAF + part * LANES]) > broadcast(settings.limit))
                   << (part * LANES);
        return set;
    }

    // Append the pairs of hits of leaf `a` with hits of the leaves near it, itself and later ones.
    template <int D>
    void compare(int64_t a, const std::vector<int32_t>& near, std::vector<int32_t>& degree,
                 std::vector<Edge>& edges) const {
        const int64_t last = std::min(space.hits, (a + 1) * LEAF);
        for (const int64_t b : near) {
            const uint32_t crowded_a = crowded(a, degree), crowded_b = crowded(b, degree);
            for (int64_t hit = a * LEAF; hit < last; ++hit) {
                const uint32_t passed_over = crowded_a >> hit % LEAF & 1 ? crowded_b : 0;
                if (passed_over == WHOLE_LEAF) continue;
                uint32_t found = within<D>(hit, b, radius) & ~passed_over;
                if (b == a) found &= ~1u << hit % LEAF;
                if (!found) continue;
                found &= passing(hit, b);
                degree[hit] += __builtin_popcount(found);
                for (uint32_t set = found; set; set &= set - 1) {
                    const int64_t other = b * LEAF + __builtin_ctz(set);
                    ++degree[other];
                    edges.push_back(edge(hit, other));
                }
            }
        }
    }

    void compare(int64_t a, const std::vector<int32_t>& near, std::vector<int32_t>& degree,
                 std::vector<Edge>& edges) const {
        switch (space.padded) {  // widths known to the compiler stay in registers
            case 4: return compare<4>(a, near, degree, edges);
            case 8: return compare<8>(a, near, degree, edges);
            case 12: return compare<12>(a, near, degree, edges);
            default: return compare<0>(a, near, degree, edges);
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
        radius = Radius(std::nextafter(farthest.squared_distance, INFINITY), space.dimensions);
    };
    const auto look_into = [&](int64_t leaf) {
        // Copies of one point are the ties that occur: don't look at all of them.
        if (farthest.squared_distance == 0 && scan.lowest_rank[leaf] > farthest.rank) return;
        uint32_t set = scan.within<0>(hit, leaf, radius);
        if (set) set &= scan.passing(hit, leaf);
        for (; set; set &= set - 1) {
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
    const auto point = [&](int k) { return std::pair(space.at(hit, k), space.at(hit, k)); };
    space.leaves_near(point, 0, radius.possible, leaves);
    for (const int32_t leaf : leaves)
        if (leaf < first || leaf >= last) look_into(leaf);
    shorten();
    return found;
}

// Replace the pairs of two crowded hits by those where one is among the nearest of the other.
void limit_crowded(const Scan& scan, const std::vector<int32_t>& degree,
                   std::vector<std::vector<Edge>>& edges, int threads) {
    std::vector<int32_t> crowded;  // its rows, and for each row its place in this list
    std::vector<int32_t> place(scan.space.hits, -1);
    for (int64_t hit = 0; hit < scan.space.hits; ++hit)
        if (degree[hit] > scan.settings.limit) {
            place[hit] = crowded.size();
            crowded.push_back(hit);
        }
    if (crowded.empty()) return;
    for (std::vector<Edge>& chunk : edges)
        std::erase_if(chunk, [&](Edge e) { return place[e.inner] >= 0 && place[e.outer] >= 0; });

    std::vector<Near> farthest(crowded.size());
    std::vector<std::vector<Near>> near(crowded.size());
    constexpr int64_t at_once = 64;
    const int64_t chunks = (crowded.size() + at_once - 1) / at_once;
    parallel_for(threads, chunks, [&](int64_t chunk, int) {
        const int64_t last = std::min<int64_t>(crowded.size(), (chunk + 1) * at_once);
        for (int64_t i = chunk * at_once; i < last; ++i) {
            near[i] = nearest(scan, crowded[i]);
            farthest[i] = near[i].back();
            std::erase_if(near[i], [&](const Near& other) { return place[other.row] < 0; });
            near[i].shrink_to_fit();
        }
    });
    std::vector<Edge>& added = edges.emplace_back();
    for (size_t i = 0; i < crowded.size(); ++i)
        for (const Near& other : near[i]) {
            const Near back{other.squared_distance, scan.hits.rank[crowded[i]], crowded[i]};
            const bool mutual = !(farthest[place[other.row]] < back);
            if (!mutual || crowded[i] < other.row) added.push_back(scan.edge(crowded[i], other.row));
        }
}

std::vector<float> padded(const float* from, int64_t n, int64_t size) {
    std::vector<float> to(size, 0.0f);
    std::copy(from, from + n, to.begin());
    return to;
}

}  // namespace

std::vector<std::vector<Edge>> neighbours(const float* embedding, int64_t n, int dimensions,
                                          const float* r, const float* phi, const float* z,
                                          const int32_t* rank, const NeighbourSettings& settings,
                                          int threads) {
    const Space space(embedding, n, dimensions);
    const int64_t size = space.leaves * LEAF;
    Scan scan{space, settings, {padded(r, n, size), padded(phi, n, size), padded(z, n, size), {}},
              Radius(settings.squared_radius, dimensions), {}};
    scan.hits.rank.assign(rank, rank + n);
    scan.hits.rank.resize(size, std::numeric_limits<int32_t>::max());
    for (int64_t leaf = 0; leaf < space.leaves; ++leaf)
        scan.lowest_rank.push_back(*std::min_element(&scan.hits.rank[leaf * LEAF],
                                                     &scan.hits.rank[leaf * LEAF] + LEAF));

    const int64_t chunks = (space.leaves + LEAVES_AT_ONCE - 1) / LEAVES_AT_ONCE;
    std::vector<std::vector<Edge>> edges(chunks);
    std::vector<std::vector<int32_t>> degrees(std::max(threads, 1), std::vector<int32_t>(size));
    parallel_for(threads, chunks, [&](int64_t chunk, int thread) {
        std::vector<int32_t> near;
        const int64_t last = std::min(space.leaves, (chunk + 1) * LEAVES_AT_ONCE);
        for (int64_t leaf = chunk * LEAVES_AT_ONCE; leaf < last; ++leaf) {
            const auto box = [&](int k) {
                return std::pair(space.low[k * space.boxes + leaf],
                                 space.high[k * space.boxes + leaf]);
            };
            near.clear();
            space.leaves_near(box, leaf, scan.radius.possible, near);
            scan.compare(leaf, near, degrees[thread], edges[chunk]);
        }
    });
    for (size_t thread = 1; thread < degrees.size(); ++thread)
        for (int64_t hit = 0; hit < n; ++hit) degrees[0][hit] += degrees[thread][hit];
    limit_crowded(scan, degrees[0], edges, threads);
    return edges;
}

void space_order(const float* embedding, int64_t n, int dimensions, int32_t* order, int threads) {
    std::vector<uint64_t> items(n);  // a coordinate, ordered, above the row
    std::iota(items.begin(), items.end(), 0);
    using Range = std::pair<int64_t, int64_t>;
    std::vector<Range> ranges{{0, n}};
    while (!ranges.empty()) {
        std::vector<std::array<Range, 2>> halves(ranges.size());
        parallel_for(threads, ranges.size(), [&](int64_t i, int) {
            const auto [first, last] = ranges[i];
            const int64_t middle = first + (last - first + LEAF - 1) / LEAF / 2 * LEAF;
            if (middle == first) return;
            const int axis = widest(embedding, dimensions, &items[first], last - first);
            for (int64_t k = first; k < last; ++k) {
                const uint32_t row = items[k];
                items[k] = uint64_t(ordered(embedding[int64_t(row) * dimensions + axis])) << 32 | row;
            }
            std::nth_element(&items[first], &items[middle], &items[first] + (last - first));
            halves[i] = {Range{first, middle}, Range{middle, last}};
        });
        ranges.clear();
        for (const auto& pair : halves)
            for (const Range& half : pair)
                if (half.second - half.first > LEAF) ranges.push_back(half);
    }
    for (int64_t i = 0; i < n; ++i) order[i] = int32_t(uint32_t(items[i]));
}

}  // namespace trackserve
