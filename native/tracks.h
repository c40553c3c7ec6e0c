// Algorithm 3, as pipeline/components.py: from scored edges to tracks; and scores, as pipeline/gnn.py.
#pragma once

#include "memory.h"

#include <cstdint>

namespace trackserve {

// The scores of logits [count], the logistic function; may be written over them.
void scores_of(const float* logits, int64_t count, float* scores);

// The edges of [count] that tracks are made of: those that pass the cut, or, where hits walk, as many of
// them, taken from the best on, as leave each hit at most one edge inwards and one outwards.
List<int32_t> taken_edges(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores,
                          int64_t count, float cut, bool walk);

// Labels the sets of at least min_hits hits that these edges connect; returns how many there are.
int64_t label_connected(int64_t n, const int32_t* inner, const int32_t* outer, const List<int32_t>& edges,
                        int64_t min_hits, int64_t* labels);

// The track of each hit, -1 for none: sets of at least min_hits hits that the edges taken connect.
void build_tracks(int64_t n, const int32_t* inner, const int32_t* outer, const float* scores, int64_t count,
                  float cut, bool walk, int64_t min_hits, int64_t* labels);

}  // namespace trackserve
