// Smooth deformations for made-up subjects: velocity fields on a coarse lattice, the maps that one gets by flowing along them,
// and their Jacobians. A flow along a smooth field never folds and has an inverse: the flow backwards (Arsigny et al., "A
// log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006). Read next: data/phantom.h.
#pragma once

#include "core/rng.h"
#include "data/volume.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace ermoe {

/// Points `step` mm apart; the first is the origin of the millimetres that places are given in. x runs fastest.
struct Lattice {
  std::array<int64_t, 3> size{};
  double step = 1;

  int64_t points() const { return size[0] * size[1] * size[2]; }
  int64_t index(int64_t i, int64_t j, int64_t k) const { return i + size[0] * (j + size[1] * k); }
};

/// Where a place lies among the lattice's points: the lowest of the eight around it, and how far along each axis, 0 to 1.
/// Places outside are moved to the border.
struct Cell {
  int64_t base = 0;
  std::array<float, 3> t{};
};

inline Cell cell_of(const Lattice& lattice, const Point3& mm) {
  std::array<int64_t, 3> low{};
  Cell cell;
  for (size_t a = 0; a < 3; ++a) {
    const double last = static_cast<double>(lattice.size[a] - 1);
    const double x = std::min(std::max(mm[a] / lattice.step, 0.0), last);
    low[a] = std::min(static_cast<int64_t>(x), lattice.size[a] - 2);
    cell.t[a] = static_cast<float>(x - static_cast<double>(low[a]));
  }
  cell.base = lattice.index(low[0], low[1], low[2]);
  return cell;
}

/// Linear between the eight points of a cell; `values` are (points).
float interpolate(const Lattice& lattice, const std::vector<float>& values, const Cell& cell);

/// A velocity, or a displacement: places x go to x + field(x).
struct VectorField {
  Lattice lattice;
  std::vector<float> mm;  // (points, 4): x, y, z and a 0, which lets one instruction take all

  explicit VectorField(const Lattice& l = {}) : lattice(l), mm(static_cast<size_t>(4 * l.points()), 0.0f) {}
  Point3 at(const Point3& place) const;
  /// Adds `scale` times another field on the same lattice.
  void add(const VectorField& other, double scale);
};

/// Flow for a unit of time along a velocity field (for minus one with `scale` -1): the displacement, by scaling and squaring.
VectorField flow(const VectorField& velocity, double scale);

/// How much the map x -> x + field(x) enlarges the volume at a place.
double jacobian(const VectorField& displacement, const Point3& place);

/// The field's divergence at a place.
double divergence(const VectorField& field, const Point3& place);

/// The place x with x + field(x) = `target`, by Newton's method from `guess`.
Point3 preimage(const VectorField& displacement, const Point3& target, const Point3& guess, int steps);

/// The least Jacobian over the corners of all cells: the map does not fold where it is positive.
double least_jacobian(const VectorField& displacement);

/// A velocity without rotation whose divergence is `divergence` (points; its sum is taken to be 0), and which does not cross the
/// border: the gradient of the solution of Poisson's equation, by cosine transforms.
VectorField field_of_divergence(const Lattice& lattice, const std::vector<float>& divergence);

/// Independent normal numbers at knots `knot_mm` apart, joined by cubic B-splines; three components with a deviation of `rms_mm`.
VectorField random_field(const Lattice& lattice, double knot_mm, double rms_mm, RngKey key);

/// The same as one number a point, with a deviation of `rms`.
std::vector<float> random_scalar(const Lattice& lattice, double knot_mm, double rms, RngKey key);

}  // namespace ermoe
