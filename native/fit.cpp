#include "fit.h"

#include <algorithm>
#include <cmath>

namespace trackserve {
namespace {

// As in pipeline/fit.py.
constexpr double GEV_PER_T_MM = 0.299792458e-3, SCATTERING = 0.0136, PION_MASS = 0.13957;
constexpr double LEAST_MOMENTUM = 0.05, MOST_CURVATURE = 1.0 / 30, STRAIGHT = 1e-9;
constexpr double LEAST_VARIANCE = 1e-12, LEAST_WEIGHT = 1e-300;

double length(double x, double y) { return std::sqrt(x * x + y * y); }

// The field at z over that at the centre, as numpy.interp.
double field_at(double z, const FitSettings& settings) {
    const double *at = settings.field_z, *field = settings.field, centre = field[0];
    z = std::abs(z);
    const int32_t next = int32_t(std::upper_bound(at, at + settings.places, z) - at);
    if (next == 0) return 1;
    if (next == settings.places) return field[next - 1] / centre;
    const double low = field[next - 1] / centre, high = field[next] / centre;
    return (high - low) / (at[next] - at[next - 1]) * (z - at[next - 1]) + low;
}

// The state across: u, its slope, the curvature at the centre; along: z and cot over the line.
struct State {
    double u = 0, slope = 0, k;
    double uu = 1e2, us = 0, uk = 0, ss = 1.0, sk = 0, kk = 1e-4;
    double z = 0, c = 0;
    double zz = 1e4, zc = 0, cc = 1e2;
    double chi2 = 0, certain = 0;  // the second adds up the logarithms of the weights

    // Carry the track by an arc of length h along a circle, in the field between two z (Simpson).
    void move(double h, double curvature, double start, double middle, double end) {
        const double once = h * (start + 4 * middle + end) / 6;
        const double twice = h * h * (start + 2 * middle) / 6;
        const double turn = curvature * h;
        const double a = 1 - 0.5 * turn * turn, b = h * (1 - turn * turn / 6);
        const double e = -turn * curvature * (1 - turn * turn / 6);
        const double u_before = u;
        u = a * u_before + b * slope + twice * k - 0.5 * h * turn;
        slope = e * u_before + a * slope + once * k - turn;
        const double to_uk = a * uk + b * sk + twice * kk, to_sk = e * uk + a * sk + once * kk;
        const double from_u = a * uu + b * us + twice * uk, from_s = a * us + b * ss + twice * sk;
        const double slope_u = e * uu + a * us + once * uk, slope_s = e * us + a * ss + once * sk;
        uu = a * from_u + b * from_s + twice * to_uk;
        us = e * from_u + a * from_s + once * to_uk;
        ss = e * slope_u + a * slope_s + once * to_sk;
        uk = to_uk;
        sk = to_sk;
        z += h * c;
        zz += h * (2 * zc + h * cc);
        zc += h * cc;
    }

    void take_across(double measured, double variance, double kick) {
        const double weight = 1 / (uu + variance), off = measured - u;
        u += uu * (weight * off);
        slope += us * (weight * off);
        k += uk * (weight * off);
        ss = ss - us * us * weight + kick;
        sk -= us * uk * weight;
        kk -= uk * uk * weight;
        uu *= variance * weight;
        us *= variance * weight;
        uk *= variance * weight;
        chi2 += off * off * weight;
        certain += std::log(std::max(weight, LEAST_WEIGHT));
    }

    void take_along(double measured, double variance, double kick) {
        const double weight = 1 / (zz + variance), off = measured - z;
        z += zz * (weight * off);
        c += zc * (weight * off);
        cc = cc - zc * zc * weight + kick;
        zz *= variance * weight;
        zc *= variance * weight;
        chi2 += off * off * weight;
        certain += std::log(std::max(weight, LEAST_WEIGHT));
    }
};

}  // namespace

Circle::Circle(const Point* points, const int32_t* rows, int64_t hits) {
    const Point &a = points[rows[0]], &b = points[rows[(hits - 1) / 2]], &c = points[rows[hits - 1]];
    const double ac = length(c.x - a.x, c.y - a.y);
    const double sides = length(b.x - a.x, b.y - a.y) * length(c.x - b.x, c.y - b.y) * ac;
    const double area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    x = a.x;
    y = a.y;
    curvature = std::clamp(2 * area / std::max(sides, STRAIGHT), -MOST_CURVATURE, MOST_CURVATURE);
    phi = std::atan2(c.y - a.y, c.x - a.x) - std::asin(std::clamp(0.5 * curvature * ac, -1.0, 1.0));
    cos = std::cos(phi);
    sin = std::sin(phi);
}

Circle::Offset Circle::offset(double px, double py) const {
    const double dx = px - x, dy = py - y;
    const double ahead = dx * cos + dy * sin, beside = dy * cos - dx * sin;
    const double d = beside - 0.5 * curvature * (ahead * ahead + beside * beside);
    return {2 * d / (1 + std::sqrt(std::max(1 - 2 * curvature * d, 0.0))), ahead, beside};
}

Circle::Spot Circle::at(double s) const {
    const double half = 0.5 * curvature * s, angle = phi + half;
    const double chord = half != 0 ? s * (std::sin(half) / half) : s;
    return {x + chord * std::cos(angle), y + chord * std::sin(angle)};
}

Circle::Place Circle::project(double px, double py) const {
    const Offset at = offset(px, py);
    const double across = 1 - curvature * at.beside, along = curvature * at.ahead;
    const double turn = std::atan2(along, across);
    const double size = std::max(length(along, across), STRAIGHT);
    return {std::abs(curvature) > STRAIGHT ? turn / curvature : at.ahead, at.left, turn,
            (cos * across - sin * along) / size, (sin * across + cos * along) / size};
}

List<Point> points_of(int64_t n, const float* r, const float* phi, const float* z,
                      const FitSettings& settings) {
    List<Point> points(n);
    for (int64_t i = 0; i < n; ++i) {
        const Region* region = settings.regions;
        const Region* last = region + settings.many_regions - 1;
        while (region != last && r[i] > region->r) ++region;
        const double radius = r[i], angle = phi[i], height = z[i];
        const bool disc = std::abs(height) > region->z;
        points[i] = {radius * std::cos(angle),
                     radius * std::sin(angle),
                     height,
                     field_at(height, settings),
                     disc ? region->disc : region->barrel,
                     disc};
    }
    return points;
}

Fit fit_track(const Point* points, const int32_t* rows, int64_t hits, const FitSettings& settings,
              double most_chi2) {
    const Circle circle(points, rows, hits);
    const Point &first = points[rows[0]], &last = points[rows[hits - 1]];
    const Point& middle = points[rows[(hits - 1) / 2]];
    const double run = circle.project(last.x, last.y).s - circle.project(first.x, first.y).s;
    const double cot = (last.z - first.z) / (std::abs(run) > 1e-6 ? run : 1e-6);
    const double slant = std::sqrt(1 + cot * cot), steepness = 1 + cot * cot;
    const double mean = std::abs(first.field + middle.field + last.field) / 3;
    const double pt = GEV_PER_T_MM * std::abs(settings.field[0]) * std::max(mean, 0.05) /
                      std::max(std::abs(circle.curvature), STRAIGHT);
    const double p = std::max(pt * slant, LEAST_MOMENTUM);
    const double scattering = SCATTERING / p * (SCATTERING / p) * (1 + PION_MASS / p * (PION_MASS / p));

    State state{.k = circle.curvature};
    double s = 0;
    for (int64_t i = hits - 1; i >= 0 && state.chi2 <= most_chi2; --i) {
        const Point& hit = points[rows[i]];
        const Circle::Place at = circle.project(hit.x, hit.y);
        if (i < hits - 1) {
            const Point& before = points[rows[i + 1]];
            state.move(at.s - s, circle.curvature, before.field, field_at(0.5 * (before.z + hit.z), settings),
                       hit.field);
        }
        s = at.s;
        // Of the angle between the track and the radius, in the transverse plane.
        const double r = std::max(length(hit.x, hit.y), STRAIGHT);
        const double cosine = (hit.x * at.cos + hit.y * at.sin) / r;
        const double sine = (hit.y * at.cos - hit.x * at.sin) / r;
        const auto [sigma_across, sigma_along, thickness] = hit.resolution;
        const double across = sigma_across * sigma_across, along = sigma_along * sigma_along;
        const double cos = cosine * cosine, sin = sine * sine;
        const double steep = std::max(std::abs(hit.disc ? cot : cosine), hit.disc ? 0.1 : 0.2);
        const double kick = scattering * thickness * slant / steep;
        // A disc measures r where a barrel measures z.
        const double u_variance = across * cos + (hit.disc ? along * sin : 0);
        const double v_variance =
            hit.disc ? cot * cot * (along * cos + across * sin) : along + cot * cot * across * sin;
        state.take_across(at.u, std::max(u_variance, LEAST_VARIANCE), kick * steepness);
        state.take_along(hit.z - first.z - cot * at.s, std::max(v_variance, LEAST_VARIANCE),
                         kick * steepness * steepness);
    }
    const Circle::Place perigee = circle.project(0, 0);
    const double z = first.z + cot * perigee.s;
    state.move(perigee.s, circle.curvature, first.field, field_at(0.5 * (first.z + z), settings),
               field_at(z, settings));
    const double phi = circle.phi + perigee.turn + state.slope;
    return {.curvature = state.k,
            .phi = std::atan2(std::sin(phi), std::cos(phi)),
            .d0 = state.u - perigee.u,
            .z0 = z + state.z,
            .cot = cot + state.c,
            .variance = {state.kk, state.ss, state.uu, state.zz, state.cc},
            .chi2 = state.chi2,
            .deviance = state.chi2 - state.certain,
            .hits = hits};
}

}  // namespace trackserve
