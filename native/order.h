// Two orders of hits: the canonical one, as canonical_order in pipeline/features.py, and one in which those
// close together in the embedding are close together in memory.
#pragma once

#include <cstdint>

namespace trackserve {

// Rows of hits [n, columns] by distance from the origin, then by their features.
void canonical_order(const float* features, int64_t n, int columns, const float* distance, int64_t* order);

// The number of consecutive hits in space order that are looked at together.
inline constexpr int LEAF = 32;

// Rows of points [n, dimensions], along principal axes, in an order in which consecutive ones lie close
// together, in azimuth, too, if a radian counts.
void space_order(const float* points, int64_t n, int dimensions, const float* phi, float radian,
                 int32_t* order, int threads);

}  // namespace trackserve
