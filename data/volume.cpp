#include "data/volume.h"

#include "core/error.h"

#include <cmath>

namespace ermoe {

Point3 Affine::operator()(const Point3& x) const {
  Point3 y{};
  for (size_t r = 0; r < 3; ++r) y[r] = rows[r][0] * x[0] + rows[r][1] * x[1] + rows[r][2] * x[2] + rows[r][3];
  return y;
}

Affine Affine::after(const Affine& first) const {
  Affine both;
  for (size_t r = 0; r < 3; ++r) {
    for (size_t c = 0; c < 4; ++c) {
      both.rows[r][c] = c == 3 ? rows[r][3] : 0;
      for (size_t i = 0; i < 3; ++i) both.rows[r][c] += rows[r][i] * first.rows[i][c];
    }
  }
  return both;
}

namespace {

/// Of A without row r and column c, with its sign.
double cofactor(const Affine& a, size_t r, size_t c) {
  const size_t r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
  return a.rows[r1][c1] * a.rows[r2][c2] - a.rows[r1][c2] * a.rows[r2][c1];
}

}  // namespace

double Affine::determinant() const {
  double sum = 0;
  for (size_t c = 0; c < 3; ++c) sum += rows[0][c] * cofactor(*this, 0, c);
  return sum;
}

Affine Affine::inverse() const {
  const double det = determinant();
  check(std::isfinite(det) && std::abs(det) > 1e-30, "[affine] no inverse: the determinant is {}", det);
  Affine inv;
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c) inv.rows[r][c] = cofactor(*this, c, r) / det;
  for (size_t r = 0; r < 3; ++r)
    inv.rows[r][3] = -(inv.rows[r][0] * rows[0][3] + inv.rows[r][1] * rows[1][3] + inv.rows[r][2] * rows[2][3]);
  return inv;
}

Point3 Grid::spacing() const {
  Point3 mm{};
  for (size_t c = 0; c < 3; ++c) mm[c] = std::hypot(to_world.rows[0][c], to_world.rows[1][c], to_world.rows[2][c]);
  return mm;
}

}  // namespace ermoe
