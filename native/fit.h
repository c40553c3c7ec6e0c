// A fast fit of each track, as pipeline/fit.py: a Kalman filter along a circle, in the measured field.
#pragma once

#include "memory.h"

#include <cstdint>
#include <limits>

namespace trackserve {

struct Resolution {
    double across, along, thickness;  // mm, mm, radiation lengths
};

// The detector up to a radius: a barrel within z of the centre, discs beyond.
struct Region {
    double r, z;
    Resolution barrel, disc;
};

// What the fit knows of the detector; the field (T) is given at rising z (mm), and the same at -z.
struct FitSettings {
    const double *field_z, *field;
    int32_t places;
    const Region* regions;
    int32_t many_regions;
};

// A hit as the fit sees it; the field is relative to that at the centre.
struct Point {
    double x, y, z, field;
    Resolution resolution;
    bool disc;
};

// What is fitted where a track comes closest to the beam line; the curvature is that at the centre. The
// deviance is minus twice the logarithm of the likelihood, up to a constant for each number measured.
struct Fit {
    double curvature, phi, d0, z0, cot;
    double variance[5];
    double chi2, deviance;
    int64_t hits;
};

// The circle through three hits of a track, from the first on.
struct Circle {
    double x, y, phi, curvature, cos, sin;

    Circle(const Point* points, const int32_t* rows, int64_t hits);

    struct Offset {
        double left, ahead, beside;  // of the circle; of its start, along and across
    };
    Offset offset(double x, double y) const;
    struct Spot {
        double x, y;
    };
    Spot at(double s) const;
    struct Place {
        double s, u, turn;  // arc length, distance to the left of the circle, rad
        double cos, sin;    // of the circle's direction there
    };
    Place project(double x, double y) const;
};

// The hits at r, phi, z [n] (mm, rad) as the fit sees them.
List<Point> points_of(int64_t n, const float* r, const float* phi, const float* z,
                      const FitSettings& settings);

// The fit of a track; its hits are `points[rows[i]]`, outwards. Stops where chi2 exceeds `most_chi2`.
Fit fit_track(const Point* points, const int32_t* rows, int64_t hits, const FitSettings& settings,
              double most_chi2 = std::numeric_limits<double>::infinity());

}  // namespace trackserve
