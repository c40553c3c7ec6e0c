#include "axes.h"
#include "parallel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace trackserve {
namespace {

constexpr int MOST = 16;          // dimensions: the turn is worth it, and the axes found quickly
constexpr int TOGETHER = 8;       // axes, which stay in registers
constexpr int64_t SAMPLE = 4096;  // points that the axes are found from
constexpr double LARGEST = 1e15;  // of a coordinate: its square is far from overflow

using Matrix = std::array<std::array<double, MOST>, MOST>;

bool usable(const float* point, int dimensions) {
    bool all = true;
    for (int k = 0; k < dimensions; ++k) all &= std::abs(point[k]) < LARGEST;
    return all;
}

// Jacobi's method: turn the symmetric matrix by each pair of axes until it is diagonal. The columns
// of what is returned are its eigenvectors, that of the largest eigenvalue first.
Matrix eigenvectors(Matrix a, int dimensions) {
    Matrix v{};
    for (int k = 0; k < dimensions; ++k) v[k][k] = 1;
    for (int sweep = 0; sweep < 30; ++sweep)
        for (int p = 0; p < dimensions; ++p)
            for (int q = p + 1; q < dimensions; ++q) {
                if (std::abs(a[p][q]) <= 1e-12 * std::sqrt(std::abs(a[p][p] * a[q][q]))) continue;
                const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                // By square roots: hypot would tie the library to glibc 2.35.
                const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
                const double cos = 1 / std::sqrt(t * t + 1), sin = t * cos;
                const auto mix = [&](double& x, double& y) {
                    const double old = x;
                    x = cos * old - sin * y;
                    y = sin * old + cos * y;
                };
                for (int k = 0; k < dimensions; ++k) mix(a[k][p], a[k][q]);
                for (int k = 0; k < dimensions; ++k) mix(a[p][k], a[q][k]);
                for (int k = 0; k < dimensions; ++k) mix(v[k][p], v[k][q]);
            }
    std::array<int, MOST> widest{};
    std::iota(widest.begin(), widest.begin() + dimensions, 0);
    std::stable_sort(widest.begin(), widest.begin() + dimensions,
                     [&](int p, int q) { return a[p][p] > a[q][q]; });
    Matrix sorted{};
    for (int k = 0; k < dimensions; ++k)
        for (int axis = 0; axis < dimensions; ++axis) sorted[k][axis] = v[k][widest[axis]];
    return sorted;
}

}  // namespace

Turned turn_to_principal_axes(const float* points, int64_t n, int dimensions, int threads) {
    const auto as_they_are = [&] { return Turned{{points, points + n * dimensions}}; };
    if (dimensions > MOST) return as_they_are();
    std::array<double, MOST> mean{};
    Matrix spread{};
    int64_t used = 0;
    const int64_t step = std::max<int64_t>(1, n / SAMPLE);
    for (const bool second : {false, true}) {
        for (int64_t i = 0; i < n; i += step) {
            const float* point = points + i * dimensions;
            if (!usable(point, dimensions)) continue;
            used += !second;
            for (int k = 0; k < dimensions; ++k) {
                if (!second) mean[k] += point[k];
                for (int l = 0; second && l < dimensions; ++l)
                    spread[k][l] += (point[k] - mean[k]) * (point[l] - mean[l]);
            }
        }
        if (!used) return as_they_are();
        for (int k = 0; !second && k < dimensions; ++k) mean[k] /= used;
    }
    const Matrix axes = eigenvectors(spread, dimensions);

    constexpr int64_t at_once = 4096;
    Turned turned{List<float>(n * dimensions)};
    std::vector<double> largest(chunks_of(n, at_once));
    for_chunks(threads, n, at_once, [&](const Chunk& chunk) {
        std::array<double, TOGETHER> most{};
        for (int64_t i = chunk.begin; i < chunk.end; ++i) {
            const float* point = points + i * dimensions;
            float* to = &turned.coordinates[i * dimensions];
            if (!usable(point, dimensions)) {
                const bool finite =
                    std::all_of(point, point + dimensions, [](float x) { return std::isfinite(x); });
                if (finite) largest[chunk.number] = INFINITY;
                std::fill_n(to, dimensions, NAN);
                continue;
            }
            for (int first = 0; first < dimensions; first += TOGETHER) {
                std::array<double, TOGETHER> sum{};
                for (int k = 0; k < dimensions; ++k) {
                    const double x = point[k] - mean[k];
                    for (int axis = 0; axis < TOGETHER; ++axis) sum[axis] += x * axes[k][first + axis];
                }
                for (int axis = 0; axis < TOGETHER; ++axis)
                    most[axis] = std::max(most[axis], std::abs(sum[axis]));
                for (int axis = first; axis < std::min(dimensions, first + TOGETHER); ++axis)
                    to[axis] = float(sum[axis - first]);
            }
        }
        double& here = largest[chunk.number];
        here = std::max(here, *std::max_element(most.begin(), most.end()));
    });
    const double most = n ? *std::max_element(largest.begin(), largest.end()) : 0;
    if (!std::isfinite(most)) return as_they_are();
    // Each coordinate is rounded by at most half a unit in the last place; the axes, in float64, are
    // at right angles to many more places than that.
    turned.error = 1.001 * 0x1p-23 * most * std::sqrt(double(dimensions));
    return turned;
}

}  // namespace trackserve
