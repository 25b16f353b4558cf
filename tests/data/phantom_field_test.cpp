// Deformations of made-up subjects: their divergence, their inverse, their size.
#include "data/phantom_field.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe {
namespace {

const Lattice lattice{{40, 44, 36}, 3};

double square_distance(const Point3& a, const Point3& b) {
  double sum = 0;
  for (size_t d = 0; d < 3; ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
  return sum;
}

Point3 place_of(int64_t p) {
  return {3.0 * static_cast<double>(p % 40), 3.0 * static_cast<double>(p / 40 % 44), 3.0 * static_cast<double>(p / (40 * 44))};
}

TEST(PhantomField, HasTheDivergenceThatWasAskedFor) {
  // A ball that grows, in a wider one that gives way.
  std::vector<float> wanted(static_cast<size_t>(lattice.points()));
  double sums[2] = {0, 0};
  for (int64_t p = 0; p < lattice.points(); ++p) {
    const double r2 = square_distance(place_of(p), {60, 66, 54});
    sums[0] += std::exp(-r2 / (2 * 12 * 12));
    sums[1] += std::exp(-r2 / (2 * 18 * 18));
  }
  for (int64_t p = 0; p < lattice.points(); ++p) {
    const double r2 = square_distance(place_of(p), {60, 66, 54});
    wanted[static_cast<size_t>(p)] = static_cast<float>(std::exp(-r2 / (2 * 12 * 12)) - sums[0] / sums[1] * std::exp(-r2 / (2 * 18 * 18)));
  }
  const VectorField field = field_of_divergence(lattice, wanted);
  for (const Point3& place : {Point3{60, 66, 54}, {75, 66, 54}, {60, 90, 54}, {63, 66, 81}, {90, 90, 60}}) {
    double divergence = 0;
    for (size_t a = 0; a < 3; ++a) {
      Point3 low = place, high = place;
      low[a] -= 3;
      high[a] += 3;
      divergence += (field.at(high)[a] - field.at(low)[a]) / 6;
    }
    EXPECT_NEAR(divergence, static_cast<double>(interpolate(lattice, wanted, cell_of(lattice, place))), 0.03);
  }
  EXPECT_NEAR(field.at({60, 66, 54})[0], 0, 1e-3) << "the middle stays";
  EXPECT_GT(field.at({72, 66, 54})[0], 0.5) << "and what is right of it goes right";
}

TEST(PhantomField, FlowBackwardsIsTheInverse) {
  VectorField velocity = random_field(lattice, 50, 2.5, {7});
  velocity.add(random_field(lattice, 25, 1.2, {8}), 1);
  const VectorField there = flow(velocity, 1), back = flow(velocity, -1);
  double worst = 0, moved = 0;
  for (int64_t p = 0; p < lattice.points(); ++p) {
    const Point3 start = place_of(p);
    if (start[0] < 15 || start[0] > 102 || start[1] < 15 || start[1] > 114 || start[2] < 15 || start[2] > 90) continue;
    const Point3 u = there.at(start);
    const Point3 mid{start[0] + u[0], start[1] + u[1], start[2] + u[2]};
    const Point3 v = back.at(mid);
    if (p % 97 == 0) {
      const Point3 found = preimage(there, mid, mid, 6);
      EXPECT_LT(square_distance(found, start), 1e-6);
    }
    worst = std::max(worst, square_distance(start, {mid[0] + v[0], mid[1] + v[1], mid[2] + v[2]}));
    moved = std::max(moved, square_distance(start, mid));
  }
  EXPECT_GT(std::sqrt(moved), 4) << "something moves at all";
  EXPECT_LT(std::sqrt(worst), 0.15);
  EXPECT_GT(least_jacobian(there), 0);
  // Small volumes: their product is 1.
  const Point3 u = there.at({60, 60, 60});
  EXPECT_NEAR(jacobian(there, {60, 60, 60}) * jacobian(back, {60 + u[0], 60 + u[1], 60 + u[2]}), 1, 0.05);
}

TEST(PhantomField, JacobianOfAScaling) {
  VectorField field(lattice);
  for (int64_t p = 0; p < lattice.points(); ++p)
    for (size_t d = 0; d < 3; ++d) field.mm[static_cast<size_t>(4 * p) + d] = static_cast<float>(0.1 * (d + 1.0) * place_of(p)[d]);
  EXPECT_NEAR(jacobian(field, {31, 47, 22}), 1.1 * 1.2 * 1.3, 1e-4);
  for (float& v : field.mm) v = -2.5f * v;
  EXPECT_NEAR(least_jacobian(field), 0.75 * 0.5 * 0.25, 1e-4);
  for (float& v : field.mm) v *= 1.5f;
  EXPECT_LT(least_jacobian(field), 0) << "the last axis is turned round";
}

TEST(PhantomField, RandomFieldsAreAsLargeAsAskedAndSmooth) {
  const Lattice large{{80, 80, 80}, 3};
  const VectorField field = random_field(large, 20, 2, {3});
  double squares = 0, steps = 0;
  for (int64_t p = 0; p + 1 < large.points(); ++p) {
    squares += std::pow(field.mm[static_cast<size_t>(4 * p)], 2);
    if (p % 80 != 79) steps += std::pow(field.mm[static_cast<size_t>(4 * p + 4)] - field.mm[static_cast<size_t>(4 * p)], 2);
  }
  const double rms = std::sqrt(squares / static_cast<double>(large.points()));
  EXPECT_NEAR(rms, 2, 0.2);
  EXPECT_LT(std::sqrt(steps / static_cast<double>(large.points())), 0.3 * rms);
}

}  // namespace
}  // namespace ermoe
