// Hits in the detector, in the leaves of space.h, and the doublet cuts on pairs of them.
#pragma once

#include "boxes.h"

#include <cmath>
#include <vector>

namespace trackserve {

struct DoubletCuts {
    float slope, z0, dphi, dcot;
};

// What the doublet cuts look at. The cut on z0, divided by both radii, says that the cotangents of two
// hits differ by no more than z0 times the difference of their 1 / r, and dcot.
enum Quantity { PHI, R, COT, INVERSE_R, QUANTITIES };

struct Detector {
    DoubletCuts cuts;
    List<float> r, phi, z, distance;  // [leaves * LEAF] mm, rad, mm; from the origin, squared
    List<float> cot, inverse_r;
    List<int32_t> rank;            // the place in the order from the origin
    List<int32_t> lowest_rank;     // [leaves]
    std::vector<Intervals> boxes;  // [QUANTITIES]

    Detector(const DoubletCuts& cuts, int64_t leaves);

    // Fill in the hits of a leaf, those of `order`, and its boxes; positions are in the order from the
    // origin.
    void fill(int64_t leaf, const int32_t* order, int64_t hits, const float* r_of, const float* phi_of,
              const float* z_of);

    auto box(int64_t leaf) const {
        return [this, leaf](Quantity q) { return boxes[q].one(leaf); };
    }
    auto several_boxes(int64_t leaf) const {
        return [this, leaf](Quantity q) { return boxes[q].several(leaf); };
    }
    // LANES hits from this row on, each as a box of itself.
    auto points(int64_t row) const {
        return [this, row](Quantity q) {
            const float* quantities[] = {&phi[row], &r[row], &cot[row], &inverse_r[row]};
            const Vec x = load(quantities[q]);
            return Interval<Vec>{x, x};
        };
    }

    // Whether hits of these boxes may pass the cuts; false only where none does.
    template <class A, class B>
    VecInt may_pass(const A& a, const B& b) const {
        VecInt possible = broadcast(int32_t(-1));
        if (cuts_slope()) {  // rounded as in `Doublets`, and rounding keeps the order of numbers
            const Interval<Vec> one = a(PHI), other = b(PHI);
            const Vec widest = broadcast(cuts.slope) * reach(a(R), b(R)) + broadcast(cuts.dphi);
            possible = (gap(one, other) <= widest) | (broadcast(FULL_TURN) - reach(one, other) <= widest);
        }
        if (cuts_z0()) {  // with room for rounding: `Doublets` multiplies by both radii
            const Interval<Vec> one = a(COT), other = b(COT), inverse = a(INVERSE_R);
            const Interval<Vec> other_inverse = b(INVERSE_R);
            const Vec cots = max(max(abs(one.low), abs(one.high)), max(abs(other.low), abs(other.high)));
            const Vec least = broadcast(1e-6f), more = broadcast(1.00001f);
            const Vec step = reach(inverse, other_inverse) + least * max(inverse.high, other_inverse.high);
            const Vec bound = more * (broadcast(cuts.z0) * step + broadcast(cuts.dcot)) + least * cots;
            // Not a number where a box reaches to infinity: then all is possible.
            possible &= ~(gap(one, other) > bound);
        }
        return possible;
    }

    // The pairs of one hit with others.
    class Doublets {
      public:
        Doublets(const Detector& at, int64_t hit)
            : at_(at),
              r_(broadcast(at.r[hit])),
              z_(broadcast(at.z[hit])),
              phi_(broadcast(at.phi[hit])),
              distance_(broadcast(at.distance[hit])),
              rank_(broadcast(at.rank[hit])) {}

        // Whether the pairs with LANES hits, from this row on, lead outwards and pass the cuts.
        VecInt pass(int64_t row) const {
            const DoubletCuts& cuts = at_.cuts;
            const Vec r = load(&at_.r[row]), z = load(&at_.z[row]);
            const Vec distance = load(&at_.distance[row]);
            const VecInt outwards = load(&at_.rank[row]) > rank_;
            VecInt good = outwards ? distance_ < distance : distance < distance_;
            const Vec dr = abs(r - r_);
            if (at_.cuts_slope()) {
                const Vec turn = abs(load(&at_.phi[row]) - phi_);
                const Vec shorter = min(turn, broadcast(FULL_TURN) - turn);
                good &= shorter <= broadcast(cuts.slope) * dr + broadcast(cuts.dphi);
            }
            if (at_.cuts_z0()) {
                const Vec lever = abs(z_ * r - z * r_);
                good &= lever <= broadcast(cuts.z0) * dr + broadcast(cuts.dcot) * (r_ * r);
            }
            return good;
        }

      private:
        const Detector& at_;
        Vec r_, z_, phi_, distance_;
        VecInt rank_;
    };

  private:
    static constexpr float FULL_TURN = 2 * M_PI;

    bool cuts_slope() const { return std::isfinite(cuts.slope); }
    bool cuts_z0() const { return std::isfinite(cuts.z0); }
};

}  // namespace trackserve
