// Joining the pieces of one track by what their fits say, as pipeline/joining.py.
#pragma once

#include "fit.h"

namespace trackserve {

inline constexpr int64_t SHORTEST_PIECE = 2;  // hits of a piece that may be joined to another

// Pieces as lists of hits: piece t has the hits rows[begin[t]] to rows[begin[t + 1]], outwards.
struct Pieces {
    List<int32_t> rows;
    List<int32_t> begin;

    Pieces(int64_t n, const int64_t* labels, int64_t pieces);
    int64_t size() const { return int64_t(begin.size()) - 1; }
    int64_t hits(int64_t piece) const { return begin[piece + 1] - begin[piece]; }
    const int32_t* of(int64_t piece) const { return rows.data() + begin[piece]; }
    int32_t first(int64_t piece) const { return rows[begin[piece]]; }
    int32_t last(int64_t piece) const { return rows[begin[piece + 1] - 1]; }
};

// Joins pieces [count] that the labels [n] number by their innermost hits, and numbers them again; returns
// how many are left.
int64_t join_pieces(const List<Point>& points, double most_chi2, const FitSettings& settings, int64_t count,
                    int64_t* labels);

}  // namespace trackserve
