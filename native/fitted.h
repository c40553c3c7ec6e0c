// Tracks that are built with the help of the fit, as pipeline/tracks.py.
#pragma once

#include "fit.h"

namespace trackserve {

inline constexpr int TRACK_COLUMNS = 14, PROPERTIES = 12;

// How candidates become tracks; join, min_quality and extend are left out at 0, and `quality` (weights
// [PROPERTIES]) may be null.
struct Builder {
    float cut;
    bool walk;
    int64_t min_hits;
    double join, min_quality, extend;
    const FitSettings* fit;
    const double* quality;
};

// Labels hits [n], in canonical order, by edges [count] between them; returns how many tracks there are.
// Their parameters [tracks, TRACK_COLUMNS] are written to `table` unless it is null.
int64_t fitted_tracks(int64_t n, const float* r, const float* phi, const float* z, const int32_t* inner,
                      const int32_t* outer, const float* scores, int64_t count, const Builder& builder,
                      int threads, int64_t* labels, float* table);

}  // namespace trackserve
