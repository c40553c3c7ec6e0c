#include "fitted.h"

#include "extending.h"
#include "joining.h"
#include "parallel.h"
#include "tracks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace trackserve {
namespace {

// As in pipeline/fit.py and pipeline/quality.py.
constexpr int64_t FEWEST_HITS = 3, TRACKS_AT_ONCE = 256;
constexpr double GEV_PER_T_MM = 0.299792458e-3, STRAIGHT = 1e-9;
constexpr double FARTHEST_START = 400, LOG_PT = 2, LARGEST = 30;

double pt_of(const Fit& fit, const FitSettings& settings) {
    return GEV_PER_T_MM * std::abs(settings.field[0]) / std::max(std::abs(fit.curvature), STRAIGHT);
}

double reduced_chi2(const Fit& fit) { return fit.chi2 / double(2 * fit.hits - 5); }

double quality_of(const Fit& fit, double score, double first_r, double last_r, const Builder& builder) {
    if (fit.hits < FEWEST_HITS) return 0;
    if (!builder.quality) return std::numeric_limits<double>::quiet_NaN();
    const double hits = double(fit.hits);
    const std::array<double, PROPERTIES> properties{
        1,
        score,
        std::log(reduced_chi2(fit) + 0.1),
        std::log(hits),
        1 / hits,
        std::log(std::abs(fit.d0) + 0.05),
        std::log(1 + fit.d0 * fit.d0 / fit.variance[2]),
        std::log(std::abs(fit.z0) + 5),
        std::min(first_r, FARTHEST_START) / 100,
        std::clamp(std::log(pt_of(fit, *builder.fit)), -LOG_PT, LOG_PT),
        std::abs(std::asinh(fit.cot)),
        last_r / 1000,
    };
    double logit = 0;
    for (int i = 0; i < PROPERTIES; ++i) logit += builder.quality[i] * properties[i];
    return 1 / (1 + std::exp(-std::clamp(logit, -LARGEST, LARGEST)));
}

void write(const Fit& fit, double quality, const FitSettings& settings, float* row) {
    const double pt = pt_of(fit, settings);
    const double curvature = std::max(std::abs(fit.curvature), STRAIGHT);
    const auto error = [&](int i) { return std::sqrt(fit.variance[i]); };
    const std::array<double, TRACK_COLUMNS> columns{
        pt,
        std::asinh(fit.cot),
        fit.phi,
        fit.d0,
        fit.z0,
        fit.curvature * settings.field[0] < 0 ? 1.0 : -1.0,
        reduced_chi2(fit),
        double(fit.hits),
        quality,
        pt * error(0) / curvature,
        error(4) / std::sqrt(1 + fit.cot * fit.cot),
        error(1),
        error(2),
        error(3),
    };
    for (int i = 0; i < TRACK_COLUMNS; ++i) {
        const bool known = fit.hits >= FEWEST_HITS || i == 7 || i == 8;  // hits and quality
        row[i] = known ? float(columns[i]) : std::numeric_limits<float>::quiet_NaN();
    }
}

// Leaves out the tracks [count] that are not kept, and numbers the others again; returns how many they are.
int64_t keep(int64_t n, const List<uint8_t>& kept, int64_t* labels) {
    List<int64_t> number(kept.size());
    int64_t tracks = 0;
    for (size_t t = 0; t < kept.size(); ++t) number[t] = kept[t] ? tracks++ : -1;
    for (int64_t hit = 0; hit < n; ++hit)
        if (labels[hit] >= 0) labels[hit] = number[labels[hit]];
    return tracks;
}

// Numbers tracks by their innermost hits; their fits and qualities follow.
void number_by_innermost(int64_t n, int64_t* labels, std::vector<Fit>& fits, std::vector<double>& qualities) {
    List<int64_t> number(fits.size(), -1);
    std::vector<Fit> fits_then;
    std::vector<double> qualities_then;
    for (int64_t hit = 0; hit < n; ++hit)
        if (labels[hit] >= 0) {
            int64_t& then = number[labels[hit]];
            if (then < 0) {
                then = int64_t(fits_then.size());
                fits_then.push_back(fits[labels[hit]]);
                qualities_then.push_back(qualities[labels[hit]]);
            }
            labels[hit] = then;
        }
    fits.swap(fits_then);
    qualities.swap(qualities_then);
}

}  // namespace

int64_t fitted_tracks(int64_t n, const float* r, const float* phi, const float* z, const int32_t* inner,
                      const int32_t* outer, const float* scores, int64_t count, const Builder& builder,
                      int threads, int64_t* labels, float* table) {
    const List<int32_t> taken = taken_edges(n, inner, outer, scores, count, builder.cut, builder.walk);
    const bool joins = builder.join > 0;
    const int64_t least = joins ? std::min(SHORTEST_PIECE, builder.min_hits) : builder.min_hits;
    int64_t tracks = label_connected(n, inner, outer, taken, least, labels);
    const List<Point> points = points_of(n, r, phi, z, *builder.fit);
    if (joins) {
        tracks = join_pieces(points, builder.join, *builder.fit, tracks, labels);
        const Pieces pieces(n, labels, tracks);
        List<uint8_t> long_enough(tracks);
        for (int64_t t = 0; t < tracks; ++t) long_enough[t] = pieces.hits(t) >= builder.min_hits;
        tracks = keep(n, long_enough, labels);
    }
    List<double> score(tracks, 0.0);
    for (const int32_t edge : taken)
        if (labels[inner[edge]] >= 0) score[labels[inner[edge]]] += scores[edge];
    const Pieces found(n, labels, tracks);
    std::vector<Fit> fits(tracks);
    std::vector<double> qualities(tracks);
    for_rows(threads, tracks, TRACKS_AT_ONCE, [&](int64_t t) {
        fits[t] = fit_track(points.data(), found.of(t), found.hits(t), *builder.fit);
        const Point &first = points[found.first(t)], &last = points[found.last(t)];
        qualities[t] = quality_of(fits[t], score[t] / double(std::max<int64_t>(fits[t].hits - 1, 1)),
                                  std::sqrt(first.x * first.x + first.y * first.y),
                                  std::sqrt(last.x * last.x + last.y * last.y), builder);
    });
    List<uint8_t> good(tracks);
    int64_t left = 0;
    for (int64_t t = 0; t < tracks; ++t) {
        good[t] = !(builder.min_quality > 0) || qualities[t] >= builder.min_quality;
        if (!good[t]) continue;
        fits[left] = fits[t];
        qualities[left++] = qualities[t];
    }
    fits.resize(left);
    qualities.resize(left);
    tracks = keep(n, good, labels);
    if (builder.extend > 0) {
        extend_tracks(points, builder.extend, *builder.fit, threads, labels, fits);
        number_by_innermost(n, labels, fits, qualities);
    }
    for (int64_t t = 0; table && t < tracks; ++t)
        write(fits[t], qualities[t], *builder.fit, table + t * TRACK_COLUMNS);
    return tracks;
}

}  // namespace trackserve
