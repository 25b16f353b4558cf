#include "data/phantom_field.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace ermoe {
namespace {

/// A linear map along one axis: (rows, columns), row by row.
struct AxisMap {
  int64_t rows = 0, columns = 0;
  std::vector<float> weights;

  AxisMap(int64_t r, int64_t c) : rows(r), columns(c), weights(static_cast<size_t>(r * c), 0.0f) {}
  float& at(int64_t r, int64_t c) { return weights[static_cast<size_t>(r * columns + c)]; }
  float at(int64_t r, int64_t c) const { return weights[static_cast<size_t>(r * columns + c)]; }
};

/// The columns of a row from its first to its last that is not 0.
std::pair<int64_t, int64_t> columns_used(const AxisMap& map, int64_t r) {
  int64_t first = 0, end = map.columns;
  while (first < end && map.at(r, first) == 0) ++first;
  while (end > first && map.at(r, end - 1) == 0) --end;
  return {first, end};
}

/// Applies `map` to every line of `values` along `axis`; `size` changes with it.
std::vector<float> apply(const AxisMap& map, size_t axis, std::array<int64_t, 3>& size, const std::vector<float>& values) {
  check(size[axis] == map.columns, "[phantom] axis {} has {} points, the map takes {}", axis, size[axis], map.columns);
  int64_t stride = 1, outer = 1;
  for (size_t a = 0; a < axis; ++a) stride *= size[a];
  for (size_t a = axis + 1; a < 3; ++a) outer *= size[a];
  std::vector<float> out(static_cast<size_t>(outer * map.rows * stride), 0.0f);
  for (int64_t r = 0; r < map.rows; ++r) {
    const auto [first, end] = columns_used(map, r);
    for (int64_t o = 0; o < outer; ++o) {
      float* to = &out[static_cast<size_t>((o * map.rows + r) * stride)];
      for (int64_t c = first; c < end; ++c) {
        const float w = map.at(r, c);
        const float* from = &values[static_cast<size_t>((o * map.columns + c) * stride)];
        for (int64_t i = 0; i < stride; ++i) to[i] += w * from[i];
      }
    }
  }
  size[axis] = map.rows;
  return out;
}

/// The orthonormal cosines (DCT-II), one a row: the eigenvectors of the second difference with mirrored ends.
AxisMap cosines(int64_t n) {
  AxisMap map(n, n);
  for (int64_t k = 0; k < n; ++k) {
    const double scale = std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n));
    for (int64_t i = 0; i < n; ++i)
      map.at(k, i) =
          static_cast<float>(scale * std::cos(std::numbers::pi * static_cast<double>(k * (2 * i + 1)) / static_cast<double>(2 * n)));
  }
  return map;
}

AxisMap transposed(const AxisMap& map) {
  AxisMap t(map.columns, map.rows);
  for (int64_t r = 0; r < map.rows; ++r)
    for (int64_t c = 0; c < map.columns; ++c) t.at(c, r) = map.at(r, c);
  return t;
}

double cubic_spline(double x) {
  x = std::abs(x);
  if (x < 1) return 2.0 / 3 - x * x + x * x * x / 2;
  return x < 2 ? (2 - x) * (2 - x) * (2 - x) / 6 : 0;
}

/// From knots to `n` points; each row's squares sum to 1, so that normal numbers at the knots give ones of deviation 1.
AxisMap splines(int64_t n, double points_per_knot) {
  const auto knots = static_cast<int64_t>(std::ceil(static_cast<double>(n - 1) / points_per_knot)) + 3;
  AxisMap map(n, knots);
  for (int64_t i = 0; i < n; ++i) {
    double squares = 0;
    for (int64_t k = 0; k < knots; ++k) {
      const double w = cubic_spline(static_cast<double>(i) / points_per_knot - static_cast<double>(k - 1));
      map.at(i, k) = static_cast<float>(w);
      squares += w * w;
    }
    for (int64_t k = 0; k < knots; ++k) map.at(i, k) /= static_cast<float>(std::sqrt(squares));
  }
  return map;
}

/// The eight points' offsets from the lowest of a cell, x fastest.
std::array<int64_t, 8> corners(const Lattice& l) {
  const int64_t y = l.size[0], z = l.size[0] * l.size[1];
  return {0, 1, y, y + 1, z, z + 1, z + y, z + y + 1};
}

std::array<float, 8> corner_weights(const std::array<float, 3>& t) {
  const float x0 = 1 - t[0], y0 = 1 - t[1], z0 = 1 - t[2];
  return {x0 * y0 * z0,   t[0] * y0 * z0,   x0 * t[1] * z0,   t[0] * t[1] * z0,
          x0 * y0 * t[2], t[0] * y0 * t[2], x0 * t[1] * t[2], t[0] * t[1] * t[2]};
}

/// The derivatives of x + field(x) inside a cell, whose interpolation is linear along each axis; no shift.
Affine derivative_in(const VectorField& field, const Cell& cell, const std::array<int64_t, 8>& offsets) {
  Affine derivative;
  auto& m = derivative.rows;  // d(component) / d(axis)
  for (size_t d = 0; d < 3; ++d) m[d][d] = 0;
  for (size_t axis = 0; axis < 3; ++axis) {
    const size_t bit = size_t{1} << axis;
    const size_t b = (axis + 1) % 3, c = (axis + 2) % 3;
    for (size_t corner = 0; corner < 8; ++corner) {
      if ((corner & bit) != 0) continue;
      const float w = ((corner >> b & 1) != 0 ? cell.t[b] : 1 - cell.t[b]) * ((corner >> c & 1) != 0 ? cell.t[c] : 1 - cell.t[c]);
      const float* low = &field.mm[static_cast<size_t>(4 * (cell.base + offsets[corner]))];
      const float* high = &field.mm[static_cast<size_t>(4 * (cell.base + offsets[corner | bit]))];
      for (size_t d = 0; d < 3; ++d) m[d][axis] += static_cast<double>(w * (high[d] - low[d]));
    }
    for (size_t d = 0; d < 3; ++d) m[d][axis] /= field.lattice.step;
    m[axis][axis] += 1;
  }
  return derivative;
}

}  // namespace

float interpolate(const Lattice& lattice, const std::vector<float>& values, const Cell& cell) {
  const std::array<int64_t, 8> offsets = corners(lattice);
  const std::array<float, 8> weights = corner_weights(cell.t);
  float sum = 0;
  for (size_t c = 0; c < 8; ++c) sum += weights[c] * values[static_cast<size_t>(cell.base + offsets[c])];
  return sum;
}

Point3 VectorField::at(const Point3& place) const {
  const Cell cell = cell_of(lattice, place);
  const std::array<int64_t, 8> offsets = corners(lattice);
  const std::array<float, 8> weights = corner_weights(cell.t);
  std::array<float, 4> sum{};
  for (size_t c = 0; c < 8; ++c) {
    const float* v = &mm[static_cast<size_t>(4 * (cell.base + offsets[c]))];
    for (size_t d = 0; d < 4; ++d) sum[d] += weights[c] * v[d];
  }
  return {sum[0], sum[1], sum[2]};
}

void VectorField::add(const VectorField& other, double scale) {
  check(mm.size() == other.mm.size(), "[phantom] fields of {} and {} numbers", mm.size(), other.mm.size());
  const auto s = static_cast<float>(scale);
  for (size_t i = 0; i < mm.size(); ++i) mm[i] += s * other.mm[i];
}

VectorField flow(const VectorField& velocity, double scale) {
  constexpr int doublings = 5;  // the first step moves by a tenth of a millimetre or two
  const Lattice& l = velocity.lattice;
  VectorField now(l);
  now.add(velocity, std::ldexp(scale, -doublings));
  VectorField next(l);
  for (int s = 0; s < doublings; ++s) {
    size_t p = 0;
    for (int64_t k = 0; k < l.size[2]; ++k)
      for (int64_t j = 0; j < l.size[1]; ++j)
        for (int64_t i = 0; i < l.size[0]; ++i, p += 4) {
          const Point3 there = now.at({static_cast<double>(i) * l.step + now.mm[p], static_cast<double>(j) * l.step + now.mm[p + 1],
                                       static_cast<double>(k) * l.step + now.mm[p + 2]});
          for (size_t d = 0; d < 3; ++d) next.mm[p + d] = now.mm[p + d] + static_cast<float>(there[d]);
        }
    std::swap(now, next);
  }
  return now;
}

double jacobian(const VectorField& displacement, const Point3& place) {
  return derivative_in(displacement, cell_of(displacement.lattice, place), corners(displacement.lattice)).determinant();
}

double divergence(const VectorField& field, const Point3& place) {
  const Affine derivative = derivative_in(field, cell_of(field.lattice, place), corners(field.lattice));
  return derivative.rows[0][0] + derivative.rows[1][1] + derivative.rows[2][2] - 3;
}

Point3 preimage(const VectorField& displacement, const Point3& target, const Point3& guess, int steps) {
  const std::array<int64_t, 8> offsets = corners(displacement.lattice);
  const double longest = displacement.lattice.step;  // the derivative says little of what is further
  Point3 x = guess;
  for (int s = 0; s < steps; ++s) {
    const Affine derivative = derivative_in(displacement, cell_of(displacement.lattice, x), offsets);
    if (derivative.determinant() < 1e-3) break;
    const Point3 u = displacement.at(x);
    const Point3 step = derivative.inverse()({target[0] - x[0] - u[0], target[1] - x[1] - u[1], target[2] - x[2] - u[2]});
    for (size_t d = 0; d < 3; ++d) x[d] += std::clamp(step[d], -longest, longest);
  }
  return x;
}

double least_jacobian(const VectorField& displacement) {
  const Lattice& l = displacement.lattice;
  const std::array<int64_t, 8> offsets = corners(l);
  double least = 1;
  for (int64_t k = 0; k + 1 < l.size[2]; ++k)
    for (int64_t j = 0; j + 1 < l.size[1]; ++j)
      for (int64_t i = 0; i + 1 < l.size[0]; ++i)
        for (int c = 0; c < 8; ++c) {
          const Cell cell{l.index(i, j, k), {static_cast<float>(c & 1), static_cast<float>(c >> 1 & 1), static_cast<float>(c >> 2)}};
          least = std::min(least, derivative_in(displacement, cell, offsets).determinant());
        }
  return least;
}

VectorField field_of_divergence(const Lattice& lattice, const std::vector<float>& divergence) {
  std::array<int64_t, 3> size = lattice.size;
  std::vector<float> potential = divergence;
  for (size_t axis = 0; axis < 3; ++axis) potential = apply(cosines(size[axis]), axis, size, potential);
  const auto eigenvalue = [&](size_t axis, int64_t k) {
    return 2 * std::cos(std::numbers::pi * static_cast<double>(k) / static_cast<double>(size[axis])) - 2;
  };
  for (int64_t k = 0; k < size[2]; ++k)
    for (int64_t j = 0; j < size[1]; ++j)
      for (int64_t i = 0; i < size[0]; ++i) {
        const double sum = eigenvalue(0, i) + eigenvalue(1, j) + eigenvalue(2, k);
        float& p = potential[static_cast<size_t>(lattice.index(i, j, k))];
        p = i + j + k == 0 ? 0.0f : static_cast<float>(p * lattice.step * lattice.step / sum);
      }
  for (size_t axis = 0; axis < 3; ++axis) potential = apply(transposed(cosines(size[axis])), axis, size, potential);
  VectorField field(lattice);
  const std::array<int64_t, 3> stride{1, size[0], size[0] * size[1]};
  for (int64_t p = 0; p < lattice.points(); ++p) {
    const std::array<int64_t, 3> at{p % size[0], p / size[0] % size[1], p / stride[2]};
    for (size_t d = 0; d < 3; ++d) {
      const int64_t low = at[d] > 0 ? p - stride[d] : p, high = at[d] + 1 < size[d] ? p + stride[d] : p;
      field.mm[static_cast<size_t>(4 * p) + d] =
          (potential[static_cast<size_t>(high)] - potential[static_cast<size_t>(low)]) / static_cast<float>(2 * lattice.step);
    }
  }
  return field;
}

std::vector<float> random_scalar(const Lattice& lattice, double knot_mm, double rms, RngKey key) {
  std::array<int64_t, 3> size{};
  std::vector<AxisMap> maps;
  for (size_t axis = 0; axis < 3; ++axis) {
    maps.push_back(splines(lattice.size[axis], knot_mm / lattice.step));
    size[axis] = maps[axis].columns;
  }
  std::vector<float> values(static_cast<size_t>(size[0] * size[1] * size[2]));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(rms * normal(key, i));
  for (size_t axis = 0; axis < 3; ++axis) values = apply(maps[axis], axis, size, values);
  return values;
}

VectorField random_field(const Lattice& lattice, double knot_mm, double rms_mm, RngKey key) {
  VectorField field(lattice);
  for (size_t d = 0; d < 3; ++d) {
    const std::vector<float> one = random_scalar(lattice, knot_mm, rms_mm, key.fold(d));
    for (size_t p = 0; p < one.size(); ++p) field.mm[4 * p + d] = one[p];
  }
  return field;
}

}  // namespace ermoe
