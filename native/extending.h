// Extending tracks beyond their ends, as pipeline/extending.py.
#pragma once

#include "fit.h"

#include <vector>

namespace trackserve {

// Gives hits that are on no track to the tracks that go on there, and fits these tracks again; all keep
// their numbers.
void extend_tracks(const List<Point>& points, double chance, const FitSettings& settings, int threads,
                   int64_t* labels, std::vector<Fit>& fits);

}  // namespace trackserve
