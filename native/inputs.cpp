#include "inputs.h"
#include "parallel.h"

#include <initializer_list>

namespace trackserve {

List<float> hit_positions(const HitColumns& columns, const float* features, int64_t n, int threads) {
    constexpr int64_t at_once = 8192;
    List<float> positions(n * 4);
    for_rows(threads, n, at_once, [&](int64_t i) {
        const float* row = features + i * columns.features;
        const float r = row[columns.r] * columns.r_scale, z = row[columns.z] * columns.z_scale;
        const float slope = z / std::max(r, 1e-3f);
        const float size = std::log(std::abs(slope) + std::sqrt(slope * slope + 1));
        const float sign = slope > 0 ? 1.0f : slope < 0 ? -1.0f : 0.0f;
        float* position = &positions[i * 4];
        position[0] = r;
        position[1] = row[columns.phi] * columns.phi_scale;
        position[2] = z;
        position[3] = sign * size;
    });
    return positions;
}

void hit_inputs(const HitColumns& columns, const float* features, const float* positions, int64_t rows,
                float* inputs) {
    for (int64_t i = 0; i < rows; ++i) {
        const float* position = positions + i * 4;
        inputs[0 * BLOCK + i] = position[0];
        inputs[1 * BLOCK + i] = position[2] / 2;
        inputs[2 * BLOCK + i] = position[3] / 2;
        for (size_t k = 0; k < columns.further.size(); ++k)
            inputs[(3 + k) * BLOCK + i] = features[i * columns.features + columns.further[k]];
    }
}

namespace {

// The rows of a block of edges' hits; where there are fewer edges, the first one's again.
class BlockRows {
  public:
    BlockRows(const int32_t* rows, int64_t count) : rows_(rows) {
        if (count == BLOCK) return;
        few_.fill(rows[0]);
        std::copy_n(rows, count, few_.begin());
        rows_ = few_.data();
    }
    BlockRows(const BlockRows&) = delete;
    BlockRows& operator=(const BlockRows&) = delete;
    const int32_t* from(int i) const { return rows_ + i; }

  private:
    const int32_t* rows_;
    std::array<int32_t, BLOCK> few_;
};

// Where the hits of LANES edges are.
struct Ends {
    std::array<Vec, 4> inner, outer;  // r, phi, z and pseudorapidity

    Ends(const float* positions, const int32_t* inner_rows, const int32_t* outer_rows)
        : inner(load_columns(positions, inner_rows, 4)), outer(load_columns(positions, outer_rows, 4)) {}

    // The turn about the beam line, in [-pi, pi].
    Vec dphi() const {
        const Vec turn = broadcast(float(2 * M_PI)), dphi = outer[1] - inner[1];
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const Vec turns = (dphi / turn + broadcast(0x1.8p23f)) - broadcast(0x1.8p23f);
        return dphi - turn * turns;
    }
};

}  // namespace

void pair_inputs(const HitColumns& columns, const float* features, const float* positions,
                 const int32_t* inner, const int32_t* outer, int64_t rows, float* inputs) {
    const int per_hit = columns.hit_inputs();
    for (int64_t i = 0; i < rows; ++i)
        for (size_t k = 0; k < columns.further.size(); ++k) {
            float* further = inputs + (PAIR_INPUTS + 3 + k) * BLOCK + i;
            further[0] = features[int64_t(inner[i]) * columns.features + columns.further[k]];
            further[per_hit * BLOCK] = features[int64_t(outer[i]) * columns.features + columns.further[k]];
        }
    const BlockRows inner_rows(inner, rows), outer_rows(outer, rows);
    const Vec least = broadcast(1e-3f), most = broadcast(5.0f), half = broadcast(0.5f);
    for (int i = 0; i < BLOCK; i += LANES) {
        const Ends ends(positions, inner_rows.from(i), outer_rows.from(i));
        const auto [r, phi, z, eta] = ends.inner;
        const auto [outer_r, outer_phi, outer_z, outer_eta] = ends.outer;
        const Vec dr = outer_r - r, dz = outer_z - z, dphi = ends.dphi();
        const Vec size = max(abs(dr), least);
        const Vec lever = dr < 0 ? -size : size;
        const Vec curvature = broadcast(3.0f) * (dphi / lever);
        const Vec z0 = broadcast(10.0f) * (z - r * dz / lever);
        const auto write = [&](int first, std::initializer_list<Vec> values) {
            float* to = inputs + first * BLOCK + i;
            for (const Vec& value : values) {
                store(to, value);
                to += BLOCK;
            }
        };
        write(0, {broadcast(10.0f) * dr, broadcast(5.0f) * dz, broadcast(30.0f) * dphi,
                  broadcast(20.0f) * (outer_eta - eta), max(min(curvature, most), -most),
                  max(min(z0, most), -most), broadcast(5.0f) * sqrt(dr * dr + dz * dz)});
        write(PAIR_INPUTS, {r, z * half, eta * half});
        write(PAIR_INPUTS + per_hit, {outer_r, outer_z * half, outer_eta * half});
    }
}

void chords(const float* positions, const int32_t* inner, const int32_t* outer, int64_t rows, bool in_outer,
            float* result) {
    const BlockRows inner_rows(inner, rows), outer_rows(outer, rows);
    const Vec one = broadcast(1.0f), half = broadcast(0.5f), sixth = broadcast(float(1.0 / 6));
    const Vec small = broadcast(float(1.0 / 24));
    for (int i = 0; i < BLOCK; i += LANES) {
        const Ends ends(positions, inner_rows.from(i), outer_rows.from(i));
        const Vec r = ends.inner[0], r_outer = ends.outer[0], dr = r_outer - r;
        const Vec rise = ends.outer[2] - ends.inner[2];
        const Vec dphi = ends.dphi(), square = dphi * dphi;
        const Vec sin = dphi * (one - square * (sixth - square / broadcast(120.0f)));
        const Vec less = square * (half - square * (small - square / broadcast(720.0f)));  // 1 - cos
        const Vec along = dr - r_outer * less, across = r_outer * sin;
        const Vec length = sqrt(along * along + across * across) + broadcast(1e-6f);
        float* here = result + i * CHORD;
        if (in_outer)
            store_columns(here, {dr + r * less, r * sin, length, rise}, CHORD);
        else
            store_columns(here, {along, across, length, rise}, CHORD);
        const Vec whole = sqrt(length * length + rise * rise);
        store_columns(here + 4, {whole, broadcast(2.0f) * sin / length, Vec{}, Vec{}}, CHORD);
    }
}

void Tensors::scale(std::vector<float>& weight, std::vector<float>& bias) {
    if (!ranges_) return;
    const size_t outputs = bias.size(), inputs = weight.size() / outputs;
    for (size_t o = 0; o < outputs; ++o) {
        const float factor = 255 / ranges_[o];
        bias[o] *= factor;
        for (size_t i = 0; i < inputs; ++i)
            weight[o * inputs + i] *= before_ ? factor * (before_[i] / 255) : factor;
    }
    before_ = ranges_;
    ranges_ += outputs;
}

Linear<float> Tensors::pair_layer(const HitColumns& columns, int outputs) {
    const int hit = columns.hit_inputs(), all = columns.pair_inputs();
    const float* pair = take();
    std::vector<float> weight(size_t(outputs) * all), bias = take(outputs);
    const float *inner = take(), *outer = take();
    for (int o = 0; o < outputs; ++o) {
        float* row = &weight[o * all];
        std::copy(pair + o * PAIR_INPUTS, pair + (o + 1) * PAIR_INPUTS, row);
        std::copy(inner + o * hit, inner + (o + 1) * hit, row + PAIR_INPUTS);
        std::copy(outer + o * hit, outer + (o + 1) * hit, row + PAIR_INPUTS + hit);
    }
    scale(weight, bias);
    return Linear<float>(weight, bias.data(), all, outputs);
}

}  // namespace trackserve
