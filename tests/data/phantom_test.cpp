// Made-up subjects: what is planted is there, and nothing else is.
#include "data/phantom.h"

#include "core/error.h"
#include "tests/data/phantom_volumes.h"
#include "tests/made_brain.h"
#include "tests/sanitizers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace ermoe {
namespace {

using testing::made_brain;
using testing::MadeBrain;
using testing::sampled_log_volumes;

PhantomSettings at_4mm() {
  PhantomSettings settings;
  settings.spacing = 4;
  return settings;
}

Phantom phantom_of(const PhantomSettings& settings) {
  const MadeBrain made = made_brain(4);
  return Phantom(made.brain, made.atlas, settings);
}

const std::vector<PhantomRegion> all_regions = phantom_regions(usual_plant());
const size_t planted_regions = usual_plant().size();

/// Logarithm of the voxels with each label, from label 1.
std::vector<double> log_volumes(const Volume& regions) {
  std::vector<double> counts(all_regions.size() + 1, 0.0);
  for (const float label : regions.values) counts[static_cast<size_t>(label)] += 1;
  for (double& n : counts) n = std::log(std::max(n, 1.0));
  return {counts.begin() + 1, counts.end()};
}

struct Line {
  double slope = 0, error = 0;  // standard error of the slope
};

Line regress(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, xy = 0, rest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    xy += (x[i] - mx) * (y[i] - my);
  }
  for (size_t i = 0; i < x.size(); ++i) rest += std::pow(y[i] - my - xy / xx * (x[i] - mx), 2);
  return {xy / xx, std::sqrt(rest / (n - 2) / xx)};
}

struct Cohort {
  std::vector<PhantomPerson> people;
  std::vector<double> ages;
  std::vector<std::vector<double>> volumes;  // by region, by subject: logarithms
  std::vector<PhantomSubject> subjects;      // without voxels
};

Cohort cohort_of(const PhantomSettings& settings, int64_t count) {
  const Phantom phantom = phantom_of(settings);
  Cohort cohort;
  cohort.subjects.resize(static_cast<size_t>(count));
  std::vector<std::vector<double>> volumes(static_cast<size_t>(count), std::vector<double>(all_regions.size()));
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) {
    PhantomSubject subject;
    try {
      subject = phantom.make(i);
    } catch (const Error& e) {
      ADD_FAILURE() << "subject " << i << ": " << e.what();
      continue;
    }
    volumes[static_cast<size_t>(i)] = log_volumes(subject.regions);
    subject.brain.values.clear();
    subject.regions.values.clear();
    cohort.subjects[static_cast<size_t>(i)] = std::move(subject);
  }
  cohort.volumes.resize(all_regions.size());
  for (int64_t i = 0; i < count; ++i) {
    cohort.people.push_back(draw_person(settings, i));
    cohort.ages.push_back(cohort.people.back().age);
    for (size_t r = 0; r < cohort.volumes.size(); ++r) cohort.volumes[r].push_back(volumes[static_cast<size_t>(i)][r]);
  }
  return cohort;
}

/// 100 subjects as they come, made once; under sanitizers a few.
const Cohort& usual_cohort() {
  static const Cohort cohort = cohort_of(at_4mm(), testing::sanitized ? 4 : 100);
  return cohort;
}

TEST(Phantom, RegionsAreAalsAndTheVentriclesAreFound) {
  const MadeBrain made = made_brain(3);
  const Volume map = phantom_region_map(made.brain, made.atlas);
  const auto at_mm = [&](double x, double y, double z) {
    const Point3 v = map.grid.to_world.inverse()({x, y, z});
    return map.at(std::llround(v[0]), std::llround(v[1]), std::llround(v[2]));
  };
  EXPECT_EQ(at_mm(0, 0, 12), 1);
  EXPECT_EQ(at_mm(-32, -12, -22), 2);
  EXPECT_EQ(at_mm(32, -12, -22), 2);
  EXPECT_EQ(at_mm(0, 80, 0), 3);
  EXPECT_EQ(at_mm(0, 0, -60), 4);
  EXPECT_EQ(at_mm(-66, 0, 0), 5);
  EXPECT_EQ(at_mm(26, 8, 8), 8);
  EXPECT_EQ(at_mm(0, 40, 0), 10) << "brain that the atlas does not name";
  EXPECT_EQ(at_mm(0, 95, 0), 0);
}

TEST(Phantom, RefusesTemplatesThatItCannotUse) {
  const MadeBrain made = made_brain(4);
  Volume atlas = made.atlas;
  atlas.values[static_cast<size_t>(made.brain.grid.voxels() / 2)] = 117;
  EXPECT_THROW(phantom_region_map(made.brain, atlas), InputError);
  atlas = made.atlas;
  for (float& v : atlas.values) v = v == 37 || v == 38 ? 0 : v;
  EXPECT_THROW(phantom_region_map(made.brain, atlas), InputError) << "no hippocampus";
  atlas = made.atlas;
  atlas.grid.to_world.rows[0][3] += 1;
  EXPECT_THROW(phantom_region_map(made.brain, atlas), InputError);
  Volume bright = made.brain;
  for (float& v : bright.values) v = v > 0 ? 100 : 0;
  EXPECT_THROW(phantom_region_map(bright, made.atlas), InputError) << "no ventricles";
  MadeBrain tilted = made;
  tilted.brain.grid.to_world.rows[0][1] = tilted.atlas.grid.to_world.rows[0][1] = 0.5;
  EXPECT_THROW(Phantom(tilted.brain, tilted.atlas, at_4mm()), InputError);
}

TEST(Phantom, DeformationsHaveTheEffectsAndDoNotFold) {
  const Cohort& cohort = usual_cohort();
  for (size_t i = 0; i < cohort.subjects.size(); ++i) {
    EXPECT_GT(cohort.subjects[i].least_jacobian, 0);
    for (size_t r = 0; r < planted_regions; ++r)
      EXPECT_NEAR(cohort.subjects[i].effects[r], cohort.people[i].effects[r], 0.2 * std::abs(all_regions[r].slope));
  }
}

TEST(Phantom, PlantedVolumesFollowAgeAsPlanted) {
  ERMOE_STATISTICS();
  const Cohort& cohort = usual_cohort();
  for (size_t r = 0; r < planted_regions; ++r) {
    const Line line = regress(cohort.ages, cohort.volumes[r]);
    const double slope = all_regions[r].slope;
    EXPECT_NEAR(line.slope, slope, 3 * line.error + 0.05 * std::abs(slope)) << all_regions[r].name;
    EXPECT_LT(line.error, 0.2 * std::abs(slope)) << "else the test says nothing";
    // And beyond age, each subject's deviation.
    std::vector<double> planted;
    for (const PhantomPerson& person : cohort.people) planted.push_back(person.effects[r]);
    const Line truth = regress(planted, cohort.volumes[r]);
    EXPECT_NEAR(truth.slope, 1, 0.1) << all_regions[r].name;
    EXPECT_LT(truth.error, 0.05);
  }
}

TEST(Phantom, OtherVolumesDoNotFollowAge) {
  ERMOE_STATISTICS();
  const Cohort& cohort = usual_cohort();
  for (size_t r = planted_regions; r + 1 < all_regions.size(); ++r) {
    const Line line = regress(cohort.ages, cohort.volumes[r]);
    EXPECT_LT(std::abs(line.slope), 4 * line.error) << all_regions[r].name;
  }
}

TEST(Phantom, AgeAloneChangesThePlantedVolumesAlone) {
  const MadeBrain made = made_brain(4);
  const Volume map = phantom_region_map(made.brain, made.atlas);
  const Lattice lattice{map.grid.size, 4};
  const PhantomGrowth plan = plan_growth(usual_plant(), lattice, map.values, lattice);
  std::vector<std::vector<double>> volumes;
  for (const double years : {-30, 30}) {
    VectorField velocity(lattice);
    for (size_t r = 0; r < planted_regions; ++r) velocity.add(plan.fields[r], all_regions[r].slope * years);
    volumes.push_back(sampled_log_volumes(lattice, map.values, all_regions.size(), flow(velocity, -1)));
  }
  for (size_t r = 0; r + 1 < all_regions.size(); ++r) {
    const PhantomRegion& region = all_regions[r];
    EXPECT_NEAR((volumes[1][r] - volumes[0][r]) / 60, region.slope, region.planted() ? 0.05 * std::abs(region.slope) : 0.0002)
        << region.name;
  }
}

/// Weights of a ridge regression of y on the columns of x and a constant, by Gaussian elimination; penalty on all but the constant.
std::vector<double> ridge(const std::vector<std::vector<double>>& rows, const std::vector<double>& y, double penalty) {
  const size_t n = rows.front().size() + 1;
  std::vector<std::vector<double>> m(n, std::vector<double>(n + 1, 0.0));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<double> x = rows[i];
    x.push_back(1);
    for (size_t a = 0; a < n; ++a) {
      for (size_t b = 0; b < n; ++b) m[a][b] += x[a] * x[b];
      m[a][n] += x[a] * y[i];
    }
  }
  for (size_t a = 0; a + 1 < n; ++a) m[a][a] += penalty;
  for (size_t a = 0; a < n; ++a)
    for (size_t b = 0; b < n; ++b) {
      if (a == b) continue;
      const double f = m[b][a] / m[a][a];
      for (size_t c = 0; c <= n; ++c) m[b][c] -= f * m[a][c];
    }
  std::vector<double> weights;
  for (size_t a = 0; a < n; ++a) weights.push_back(m[a][n] / m[a][a]);
  return weights;
}

TEST(Phantom, RegressionOnMeasuredVolumesIsNoBetterThanTheBestPredictor) {
  ERMOE_STATISTICS();
  const Cohort& cohort = usual_cohort();
  const AgeModel model = age_model(at_4mm());
  constexpr size_t folds = 10;
  std::vector<double> errors, best;
  for (size_t fold = 0; fold < folds; ++fold) {
    std::vector<std::vector<double>> rows;
    std::vector<double> y;
    const auto row = [&](size_t i) {
      std::vector<double> x;  // of the planted regions
      for (size_t r = 0; r < planted_regions; ++r) x.push_back((cohort.volumes[r][i] - cohort.volumes[r][0]) / all_regions[r].slope);
      return x;
    };
    for (size_t i = 0; i < cohort.ages.size(); ++i)
      if (i % folds != fold) {
        rows.push_back(row(i));
        y.push_back(cohort.ages[i]);
      }
    const std::vector<double> weights = ridge(rows, y, 10);
    for (size_t i = fold; i < cohort.ages.size(); i += folds) {
      const std::vector<double> x = row(i);
      errors.push_back(std::abs(std::inner_product(x.begin(), x.end(), weights.begin(), weights.back()) - cohort.ages[i]));
      best.push_back(std::abs(model.best_guess(age_seen(at_4mm(), cohort.people[i])) - cohort.ages[i]));
    }
  }
  const auto n = static_cast<double>(errors.size());
  const double mae = std::accumulate(errors.begin(), errors.end(), 0.0) / n, floor = std::accumulate(best.begin(), best.end(), 0.0) / n;
  const double noise = model.mean_error() / std::sqrt(n);
  EXPECT_GT(model.mean_error(), 1);
  EXPECT_NEAR(floor, model.mean_error(), 4 * noise);
  EXPECT_GT(mae, model.mean_error() - 3 * noise);
  EXPECT_GT(mae, floor - noise) << "on the same people";
  EXPECT_LT(mae, 1.5 * model.mean_error()) << "the volumes in the maps say what is planted";
}

TEST(Phantom, SubjectsDependOnSeedAndNumberAlone) {
  const Phantom phantom = phantom_of(at_4mm()), again = phantom_of(at_4mm());
  PhantomSettings other = at_4mm();
  other.seed = 2;
  phantom.make(5);
  const PhantomSubject a = phantom.make(7), b = again.make(7), c = phantom.make(8), d = phantom_of(other).make(7);
  EXPECT_EQ(a.brain.values, b.brain.values);
  EXPECT_EQ(a.regions.values, b.regions.values);
  EXPECT_NE(a.brain.values, c.brain.values);
  EXPECT_NE(a.regions.values, d.regions.values);
  EXPECT_EQ(a.brain.grid, a.regions.grid);
  EXPECT_NE(draw_person(at_4mm(), 7).age, draw_person(other, 7).age);
}

TEST(Phantom, PicturesAreZeroOutsideAndWithinAByteInside) {
  const PhantomSubject subject = phantom_of(at_4mm()).make(0);
  std::vector<double> sum(11, 0.0), count(11, 0.0);
  for (size_t p = 0; p < subject.brain.values.size(); ++p) {
    const float value = subject.brain.values[p];
    const auto label = static_cast<size_t>(subject.regions.values[p]);
    EXPECT_EQ(value > 0, label > 0);
    EXPECT_EQ(value, std::round(value));
    EXPECT_LE(value, 255);
    sum[label] += value;
    count[label] += 1;
  }
  EXPECT_LT(sum[1] / count[1], 0.7 * sum[10] / count[10]) << "ventricles are dark";
}

TEST(Phantom, WithoutVariationTheMiddleAgeIsTheTemplate) {
  PhantomSettings plain = at_4mm();
  plain.shape = plain.intensity = 0;
  const MadeBrain made = made_brain(4);
  PhantomPerson middle;
  middle.age = 50;
  middle.effects.assign(planted_regions, 0.0);
  const PhantomSubject subject = Phantom(made.brain, made.atlas, plain).make(0, middle);
  EXPECT_EQ(subject.regions.values, phantom_region_map(made.brain, made.atlas).values);
  EXPECT_EQ(subject.brain.grid, made.brain.grid);
  for (size_t p = 0; p < made.brain.values.size(); ++p) ASSERT_NEAR(subject.brain.values[p], 180 * made.brain.values[p] / 110, 0.51);
}

TEST(Phantom, SaysWhereSettingsAskForTooMuch) {
  const Phantom phantom = phantom_of(at_4mm());
  PhantomPerson absurd;
  absurd.effects = {6, 0, 0, 0};
  EXPECT_THROW(phantom.make(0, absurd), InputError);
}

}  // namespace
}  // namespace ermoe
