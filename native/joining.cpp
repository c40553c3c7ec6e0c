#include "joining.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

namespace trackserve {
namespace {

// As in pipeline/joining.py; lengths in mm.
constexpr int64_t FEWEST_TOGETHER = 5, MOST_NEAR = 300;
constexpr double NEAR_COT = 0.1, NEAR_DIRECTION = 0.54;

bool within(double distance, double gap) { return distance < 10.0 + 0.2 * gap; }

// A piece, and how it goes on from its end.
struct Piece {
    Fit fit;
    Circle circle;
    double cos, sin;  // of its direction at the end
};

struct Join {
    double rise;  // of chi2
    int32_t inner, outer;
    bool operator<(const Join& other) const {
        return std::tie(rise, inner, outer) < std::tie(other.rise, other.inner, other.outer);
    }
};

bool continues(const Piece& inner, const Point& end, const Piece& outer, const Point& start) {
    const double dx = start.x - end.x, dy = start.y - end.y;
    if (!(dx * inner.cos + dy * inner.sin > 0)) return false;
    if (!(outer.circle.cos * inner.cos + outer.circle.sin * inner.sin > NEAR_DIRECTION)) return false;
    const double gap = std::sqrt(dx * dx + dy * dy);
    if (!within(std::abs(end.z + inner.fit.cot * gap - start.z), gap)) return false;
    return within(std::abs(inner.circle.offset(start.x, start.y).left), gap) ||
           within(std::abs(outer.circle.offset(end.x, end.y).left), gap);
}

}  // namespace

Pieces::Pieces(int64_t n, const int64_t* labels, int64_t pieces) : begin(pieces + 1, 0) {
    for (int64_t hit = 0; hit < n; ++hit)
        if (labels[hit] >= 0) ++begin[labels[hit] + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    rows.resize(begin[pieces]);
    List<int32_t> next(begin);
    for (int64_t hit = 0; hit < n; ++hit)
        if (labels[hit] >= 0) rows[next[labels[hit]]++] = int32_t(hit);
}

int64_t join_pieces(const List<Point>& points, double most_chi2, const FitSettings& settings, int64_t count,
                    int64_t* labels) {
    if (count < 2) return count;
    const Pieces pieces(int64_t(points.size()), labels, count);
    std::vector<Piece> all;
    all.reserve(count);
    for (int64_t t = 0; t < count; ++t) {
        const Circle circle(points.data(), pieces.of(t), pieces.hits(t));
        const Point& end = points[pieces.last(t)];
        const Circle::Place at = circle.project(end.x, end.y);
        all.push_back(
            {fit_track(points.data(), pieces.of(t), pieces.hits(t), settings), circle, at.cos, at.sin});
    }
    List<int32_t> by_cot(count);
    std::iota(by_cot.begin(), by_cot.end(), 0);
    std::stable_sort(by_cot.begin(), by_cot.end(),
                     [&](int32_t a, int32_t b) { return all[a].fit.cot < all[b].fit.cot; });

    std::vector<Join> joins;
    List<int32_t> together;
    for (int64_t i = 0; i < count; ++i) {
        const double cot = all[by_cot[i]].fit.cot;
        const double upto = cot + NEAR_COT * std::sqrt(1 + cot * cot);
        for (int64_t j = i + 1; j < std::min(count, i + 1 + MOST_NEAR); ++j) {
            int32_t inner = by_cot[i], outer = by_cot[j];
            if (!(all[outer].fit.cot <= upto)) break;
            if (pieces.first(inner) > pieces.first(outer)) std::swap(inner, outer);
            const int32_t end = pieces.last(inner), start = pieces.first(outer);
            if (end >= start || pieces.hits(inner) + pieces.hits(outer) < FEWEST_TOGETHER) continue;
            if (!continues(all[inner], points[end], all[outer], points[start])) continue;
            together.assign(pieces.of(inner), pieces.of(inner) + pieces.hits(inner));
            together.insert(together.end(), pieces.of(outer), pieces.of(outer) + pieces.hits(outer));
            const double apart = all[inner].fit.chi2 + all[outer].fit.chi2;
            const Fit fit = fit_track(points.data(), together.data(), int64_t(together.size()), settings,
                                      apart + most_chi2 + 1);
            const double rise = fit.chi2 - all[inner].fit.chi2 - all[outer].fit.chi2;
            if (rise < most_chi2) joins.push_back({rise, inner, outer});
        }
    }
    std::sort(joins.begin(), joins.end());
    List<uint8_t> continued(count, 0);
    List<int32_t> before(count, -1), number(count);
    for (const Join& join : joins)
        if (!continued[join.inner] && before[join.outer] < 0) {
            continued[join.inner] = 1;
            before[join.outer] = join.inner;
        }
    int32_t tracks = 0;  // a piece begins further in than what continues it, so it has its number already
    for (int64_t t = 0; t < count; ++t) number[t] = before[t] < 0 ? tracks++ : number[before[t]];
    for (int64_t hit = 0; hit < int64_t(points.size()); ++hit)
        if (labels[hit] >= 0) labels[hit] = number[labels[hit]];
    return tracks;
}

}  // namespace trackserve
