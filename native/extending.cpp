#include "extending.h"

#include "parallel.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>
#include <vector>

namespace trackserve {
namespace {

// As in pipeline/extending.py; lengths in mm.
constexpr double STEP = 20, CELL = 40;
constexpr int STEPS = 30, ROUNDS = 6, MOST_TRIED = 60;
constexpr int64_t MOST_IN_CELLS = 60, FARTHEST_CELL = (1 << 19) - 2;
constexpr int64_t FEWEST_HITS = 3, TRACKS_AT_ONCE = 256;

int64_t cell(double x) {
    if (std::isnan(x)) x = 0;
    const double most = double(FARTHEST_CELL);
    return int64_t(std::clamp(std::floor(x / CELL), -most, most)) + FARTHEST_CELL + 2;
}

int64_t key_of(int64_t x, int64_t y, int64_t z) { return (x << 40) + (y << 20) + z; }

// Where the hits on no track lie: in cubes, found by their keys in a table that is at most half full. Most of
// the cubes that are asked for are empty: a bit per cube shows that before the table is read.
class Cells {
public:
    Cells(const List<Point>& points, const int64_t* labels) {
        std::vector<std::pair<int64_t, int32_t>> hits;
        for (size_t hit = 0; hit < points.size(); ++hit)
            if (labels[hit] < 0) {
                const Point& at = points[hit];
                hits.push_back({key_of(cell(at.x), cell(at.y), cell(at.z)), int32_t(hit)});
                farthest_z_ = std::max(farthest_z_, std::abs(at.z));
            }
        std::sort(hits.begin(), hits.end());
        table_.assign(std::bit_ceil(2 * hits.size() + 2), {-1, 0, 0});
        taken_.assign(BITS * table_.size(), false);
        hits_.reserve(hits.size());
        Cell* here = nullptr;
        for (const auto& [key, hit] : hits) {
            if (!here || here->key != key) {
                here = &table_[place(key)];
                *here = {key, int32_t(hits_.size()), 0};
                taken_[bit(key)] = true;
            }
            hits_.push_back({points[hit].x, points[hit].y, points[hit].z, hit});
            ++here->many;
        }
    }

    // Whether there may be hits within STEP of this z.
    bool reach(double z) const { return std::abs(z) <= farthest_z_ + STEP; }

    // Adds the hits within STEP of this place.
    void around(double x, double y, double z, List<int32_t>& found) const {
        const int64_t x_to = cell(x + STEP), y_to = cell(y + STEP), z_to = cell(z + STEP), z_from = cell(z - STEP);
        for (int64_t i = cell(x - STEP); i <= x_to; ++i)
            for (int64_t j = cell(y - STEP); j <= y_to; ++j) {
                int64_t room = MOST_IN_CELLS;
                for (int64_t k = z_from; k <= z_to && room > 0; ++k) {
                    const int64_t key = key_of(i, j, k);
                    if (!taken_[bit(key)]) continue;
                    const Cell& here = table_[place(key)];
                    const Free *at = &hits_[here.begin], *end = at + std::min(room, int64_t(here.many));
                    for (room -= end - at; at != end; ++at) {
                        const double dx = at->x - x, dy = at->y - y, dz = at->z - z;
                        if (dx * dx + dy * dy + dz * dz < STEP * STEP) found.push_back(at->hit);
                    }
                }
            }
    }

private:
    struct Cell {
        int64_t key;
        int32_t begin, many;
    };
    struct Free {
        double x, y, z;
        int32_t hit;
    };
    static constexpr size_t BITS = 8;  // for each place of the table

    static size_t hash(int64_t key) { return uint64_t(key) * 0x9e3779b97f4a7c15u >> 32; }
    size_t bit(int64_t key) const { return hash(key) & (taken_.size() - 1); }

    // Where a key is, or would be.
    size_t place(int64_t key) const {
        const size_t last = table_.size() - 1;
        size_t at = hash(key) & last;
        while (table_[at].key >= 0 && table_[at].key != key) at = (at + 1) & last;
        return at;
    }

    double farthest_z_ = 0;
    std::vector<Cell> table_;
    std::vector<bool> taken_;
    std::vector<Free> hits_;
};

// A hit that a track may take; the better, the lower.
struct Choice {
    double rise;
    int32_t track, hit;
};

// The end of a track, and how it goes on from there.
class End {
public:
    End(const List<Point>& points, const List<int32_t>& hits, const Fit& fit, const FitSettings& settings,
        bool outwards)
        : points_(points),
          settings_(settings),
          outwards_(outwards),
          circle_(points.data(), hits.data(), int64_t(hits.size())),
          fit_(fit),
          end_(outwards ? hits.back() : hits.front()),
          s_(circle_.project(points[end_].x, points[end_].y).s),
          slant_(std::sqrt(1 + fit_.cot * fit_.cot)),
          with_(hits) {
        with_.insert(outwards ? with_.end() : with_.begin(), end_);
    }

    // The hits within STEP of where the track goes on, each once, those next to its end first.
    void look(const Cells& cells, List<int32_t>& found) const {
        found.clear();
        const double along = (outwards_ ? STEP : -STEP) / slant_;
        const double closest = circle_.project(0, 0).s - s_;  // to the beam line
        for (int step = 1; step <= STEPS; ++step) {
            if (!outwards_ && !(step * along > closest)) break;
            const double z = points_[end_].z + fit_.cot * (step * along);
            if (!cells.reach(z)) continue;
            const Circle::Spot at = circle_.at(s_ + step * along);
            cells.around(at.x, at.y, z, found);
        }
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        if (!outwards_) std::reverse(found.begin(), found.end());
    }

    bool near(int32_t hit) const {
        if (outwards_ ? hit <= end_ : hit >= end_) return false;
        const Point& point = points_[hit];
        const Circle::Place at = circle_.project(point.x, point.y);
        const double gap = at.s - s_, length = std::abs(gap) * slant_;
        return std::abs(at.u) < 3.0 + 0.03 * length &&
               std::abs(points_[end_].z + fit_.cot * gap - point.z) < 10.0 + 0.05 * length;
    }

    // By how much the hit raises the deviance of the track.
    double rise(int32_t hit) {
        (outwards_ ? with_.back() : with_.front()) = hit;
        const Fit fit = fit_track(points_.data(), with_.data(), int64_t(with_.size()), settings_);
        return fit.deviance - fit_.deviance;
    }

private:
    const List<Point>& points_;
    const FitSettings& settings_;
    bool outwards_;
    Circle circle_;
    const Fit& fit_;
    int32_t end_;
    double s_, slant_;
    List<int32_t> with_;  // the track's hits, and the one that is tried
};

// The hit that a track should take at its end, among those on no track; `rise` is 0 where there is none.
Choice best_choice(End&& end, int32_t track, const Cells& cells, const List<Point>& points, const int64_t* labels,
                   double chance, List<int32_t>& found) {
    end.look(cells, found);
    Choice best{0, track, 0};
    int tried = 0;
    for (const int32_t hit : found) {
        if (labels[hit] >= 0 || !end.near(hit)) continue;
        if (++tried > MOST_TRIED) break;
        const double r = std::sqrt(points[hit].x * points[hit].x + points[hit].y * points[hit].y);
        const double rise = end.rise(hit) - (4 * std::log(r) + 2 * std::log(chance));
        if (rise < best.rise || (rise == best.rise && hit < best.hit)) best = {rise, track, hit};
    }
    return best;
}

}  // namespace

void extend_tracks(const List<Point>& points, double chance, const FitSettings& settings, int threads,
                   int64_t* labels, std::vector<Fit>& fits) {
    const Cells cells(points, labels);
    std::vector<List<int32_t>> hits(fits.size());
    for (size_t hit = 0; hit < points.size(); ++hit)
        if (labels[hit] >= 0) hits[labels[hit]].push_back(int32_t(hit));
    std::vector<Choice> choices;
    for (const bool outwards : {true, false}) {
        List<int32_t> going;
        for (size_t track = 0; track < hits.size(); ++track)
            if (int64_t(hits[track].size()) >= FEWEST_HITS) going.push_back(int32_t(track));
        for (int round = 0; round < ROUNDS && !going.empty(); ++round) {
            choices.resize(going.size());
            for_chunks(threads, int64_t(going.size()), TRACKS_AT_ONCE, [&](const Chunk& chunk) {
                List<int32_t> found;
                for (int64_t i = chunk.begin; i < chunk.end; ++i) {
                    const int32_t track = going[i];
                    choices[i] = best_choice({points, hits[track], fits[track], settings, outwards}, track, cells,
                                             points, labels, chance, found);
                }
            });
            std::erase_if(choices, [](const Choice& choice) { return !(choice.rise < 0); });
            going.clear();
            for (const Choice& choice : choices) going.push_back(choice.track);
            std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
                return std::tie(a.rise, a.track) < std::tie(b.rise, b.track);
            });
            for (const auto& [rise, track, hit] : choices) {
                if (labels[hit] >= 0) continue;
                labels[hit] = track;
                List<int32_t>& all = hits[track];
                all.insert(outwards ? all.end() : all.begin(), hit);
                fits[track] = fit_track(points.data(), all.data(), int64_t(all.size()), settings);
            }
        }
    }
}

}  // namespace trackserve
