// The principal axes of points: the directions in which they are spread most, the widest first.
//
// An embedding spreads hits along few directions, askew to its own axes. Along the principal axes
// boxes around hits are small, and the first few coordinates make up most of a distance.
#pragma once

#include "memory.h"

#include <cstdint>

namespace trackserve {

// Points turned to their principal axes, in float32.
struct Turned {
    List<float> coordinates;  // [n, dimensions]; NaN for a point that is not finite
    // How far, at most, the distance of two points may be off by the turn; 0 if they were left as
    // they are: in many dimensions, or where numbers are too large.
    double error = 0;
};

Turned turn_to_principal_axes(const float* points, int64_t n, int dimensions, int threads);

}  // namespace trackserve
