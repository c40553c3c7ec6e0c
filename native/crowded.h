// Hits with more neighbours than the limit: each keeps its nearest ones.
#pragma once

#include "pairs.h"
#include "search.h"

namespace trackserve {

// Replace the pairs of two crowded hits by those where one is among the `limit` nearest of the other.
void limit_crowded(const Search& search, int32_t limit, const List<int32_t>& degree, Pairs& edges,
                   int threads);

}  // namespace trackserve
