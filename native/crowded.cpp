#include "crowded.h"

#include <algorithm>
#include <cmath>

namespace trackserve {
namespace {

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
std::vector<Near> nearest(const Search& search, int64_t limit, int64_t hit) {
    const Space& space = search.space;
    const Detector& detector = search.detector;
    std::vector<Near> found;
    found.reserve(2 * limit + LEAF);
    Near farthest{search.radius.squared, -1, 0};
    Radius radius = search.radius;
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
        if (farthest.squared_distance == 0 && detector.lowest_rank[leaf] > farthest.rank) return;
        for (uint32_t set = search.linked<0>(hit, leaf, radius); set; set &= set - 1) {
            const int64_t row = leaf * LEAF + __builtin_ctz(set);
            const Near other{space.squared_distance(hit, row), detector.rank[row], int32_t(row)};
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
    search.leaves_near(point, hit / LEAF, 0, radius.possible, leaves);
    for (const int32_t leaf : leaves)
        if (leaf < first || leaf >= last) look_into(leaf);
    shorten();
    return found;
}

}  // namespace

void limit_crowded(const Search& search, int32_t limit, const List<int32_t>& degree, Pairs& edges,
                   int threads) {
    std::vector<int32_t> crowded;  // its rows, and for each row its place in this list
    List<int32_t> place(search.space.hits, -1);
    for (int64_t hit = 0; hit < search.space.hits; ++hit)
        if (degree[hit] > limit) {
            place[hit] = crowded.size();
            crowded.push_back(hit);
        }
    if (crowded.empty()) return;
    edges.keep([&](int32_t inner, int32_t outer) { return place[inner] < 0 || place[outer] < 0; });

    std::vector<Near> farthest(crowded.size());
    std::vector<std::vector<Near>> near(crowded.size());
    constexpr int64_t at_once = 64;
    for_rows(threads, crowded.size(), at_once, [&](int64_t i) {
        near[i] = nearest(search, limit, crowded[i]);
        farthest[i] = near[i].back();
        std::erase_if(near[i], [&](const Near& other) { return place[other.row] < 0; });
        near[i].shrink_to_fit();
    });
    for (size_t i = 0; i < crowded.size(); ++i)
        for (const Near& other : near[i]) {
            const Near back{other.squared_distance, search.detector.rank[crowded[i]], crowded[i]};
            const bool mutual = !(farthest[place[other.row]] < back);
            if (mutual && crowded[i] >= other.row) continue;
            const bool outwards = back.rank < other.rank;
            edges.push_back(outwards ? crowded[i] : other.row, outwards ? other.row : crowded[i]);
        }
}

}  // namespace trackserve
