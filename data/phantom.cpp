#include "data/phantom.h"

#include "core/error.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace ermoe {
namespace {

// Streams of random numbers of one subject.
enum class Draw : uint64_t { age, sex, deviations, affine, wide_shape, fine_shape, gain, shading, noise, noise_level };

RngKey stream(RngKey key, Draw draw) { return key.fold(static_cast<uint64_t>(draw)); }

RngKey subject_key(const PhantomSettings& settings, int64_t index) { return RngKey{settings.seed}.fold(static_cast<uint64_t>(index)); }

double middle_age(const PhantomSettings& settings) { return (settings.age_from + settings.age_to) / 2; }

/// A lattice of other step over the same box.
Lattice covering(const Lattice& fine, double step) {
  Lattice coarse{{}, step};
  for (size_t a = 0; a < 3; ++a)
    coarse.size[a] = static_cast<int64_t>(std::ceil(static_cast<double>(fine.size[a] - 1) * fine.step / step - 1e-9)) + 1;
  return coarse;
}

/// By label, the share of the fine points around each coarse one that have it. Points outside of the template are no brain.
std::vector<std::vector<float>> label_shares(const Lattice& fine, const std::vector<float>& labels, const Lattice& coarse) {
  std::vector<std::vector<float>> shares(phantom_regions().size() + 1, std::vector<float>(static_cast<size_t>(coarse.points()), 0.0f));
  std::vector<float> count(static_cast<size_t>(coarse.points()), 0.0f);
  const auto near = [&](int64_t i) { return std::llround(static_cast<double>(i) * fine.step / coarse.step); };
  for (int64_t p = 0; p < fine.points(); ++p) {
    const int64_t i = p % fine.size[0], j = p / fine.size[0] % fine.size[1], k = p / (fine.size[0] * fine.size[1]);
    const auto q = static_cast<size_t>(coarse.index(near(i), near(j), near(k)));
    shares[static_cast<size_t>(labels[static_cast<size_t>(p)])][q] += 1;
    count[q] += 1;
  }
  for (size_t q = 0; q < count.size(); ++q) {
    if (count[q] == 0) shares[0][q] = 1;
    for (std::vector<float>& share : shares) share[q] /= std::max(count[q], 1.0f);
  }
  return shares;
}

/// With a Gaussian window of deviation `sigma` points along each axis.
std::vector<float> blurred(const std::array<int64_t, 3>& size, const std::vector<float>& values, double sigma) {
  return smooth({{size, {}}, values}, {sigma, sigma, sigma}).values;
}

/// Small turns, scalings and shifts about `center`.
Affine random_affine(const Point3& center, double strength, RngKey key) {
  const auto drawn = [&](uint64_t n, double deviation) { return strength * deviation * normal(key, n); };
  const double whole = drawn(0, 0.015);
  Affine turn;
  for (size_t a = 0; a < 3; ++a) {
    const double angle = drawn(1 + a, 2.5 * std::numbers::pi / 180);
    const size_t b = (a + 1) % 3, c = (a + 2) % 3;
    Affine one;
    one.rows[b][b] = one.rows[c][c] = std::cos(angle);
    one.rows[b][c] = -std::sin(angle);
    one.rows[c][b] = std::sin(angle);
    turn = turn.after(one);
  }
  Affine scale, to_center, back;
  for (size_t a = 0; a < 3; ++a) {
    scale.rows[a][a] = std::exp(whole + drawn(4 + a, 0.01));
    to_center.rows[a][3] = -center[a];
    back.rows[a][3] = center[a] + drawn(7 + a, 1.5);
  }
  return back.after(turn).after(scale).after(to_center);
}

}  // namespace

/// A subject's way from the template, in the template's millimetres.
struct Phantom::Shape {
  VectorField backward;  // from the subject, brought to the template's size and place, to the template
  Affine to_template;    // that bringing
  std::array<double, planted_regions> effects{};
};

AgeModel age_model(const PhantomSettings& settings) {
  // Each planted region says its owner's age with an error of deviation_years, independently of the others.
  return {settings.age_from, settings.age_to, settings.deviation_years / std::sqrt(static_cast<double>(planted_regions))};
}

PhantomPerson draw_person(const PhantomSettings& settings, int64_t index) {
  const RngKey key = subject_key(settings, index);
  PhantomPerson person;
  const double share = uniform(stream(key, Draw::age), 0);
  person.age = std::round(100 * (settings.age_from + (settings.age_to - settings.age_from) * share)) / 100;
  person.sex = uniform(stream(key, Draw::sex), 0) < 0.5f ? 'F' : 'M';
  for (size_t r = 0; r < planted_regions; ++r) {
    const double own_age = person.age + settings.deviation_years * normal(stream(key, Draw::deviations), r);
    person.effects[r] = phantom_regions()[r].slope * (own_age - middle_age(settings));
  }
  return person;
}

double age_seen(const PhantomSettings& settings, const PhantomPerson& person) {
  double sum = 0;
  for (size_t r = 0; r < planted_regions; ++r) sum += person.effects[r] / phantom_regions()[r].slope;
  return middle_age(settings) + sum / static_cast<double>(planted_regions);
}

Phantom::Phantom(const Volume& brain, const Volume& atlas, const PhantomSettings& settings) : settings_(settings) {
  const Affine& world = brain.grid.to_world;
  const double step = world.rows[0][0];
  for (size_t a = 0; a < 3; ++a) {
    check_input(brain.grid.size[a] >= 8, "a template of {}x{}x{} voxels is too small", brain.grid.size[0], brain.grid.size[1],
                brain.grid.size[2]);
    origin_[a] = world.rows[a][3];
    for (size_t c = 0; c < 3; ++c)
      check_input(std::abs(world.rows[a][c] - (a == c ? step : 0)) < 1e-4 * std::abs(step) && step > 0,
                  "the template's voxels are not cubes along the axes of the world");
  }
  fine_ = {brain.grid.size, step};
  coarse_ = covering(fine_, std::max(3.0, step));
  labels_ = phantom_region_map(brain, atlas);
  const double voxel_ml = step * step * step / 1000;
  for (const PhantomRegion& region : phantom_regions())
    template_ml_.push_back(voxel_ml *
                           static_cast<double>(std::count(labels_.values.begin(), labels_.values.end(), static_cast<float>(region.label))));
  const std::vector<std::vector<float>> shares = label_shares(fine_, labels_.values, coarse_);
  for (size_t r = 0; r < planted_regions; ++r) {
    plan_growth(r, shares);
    // Thin regions feel less than the divergence on the lattice says; after this the first guess of an amount is nearly right.
    constexpr double probe = 0.1;
    VectorField unit(coarse_);
    Places found = places_;
    unit.add(growth_[r], probe / effects_of(flow(growth_[r], -probe), 1, found)[r]);
    growth_[r] = unit;
  }
  // Voxels of the subjects are larger than the template's: each averages what lies in it.
  const float brightest = *std::max_element(brain.values.begin(), brain.values.end());
  brain_ = settings.spacing > 1.01 * step ? blurred(fine_.size, brain.values, 0.4 * settings.spacing / step) : brain.values;
  for (float& v : brain_) v /= brightest;
}

/// The region grows evenly; what lies in no region gives way, near it, so that no other region changes its volume. Around the cortex
/// that is mostly what is outside the brain: it moves with the brain's surface.
void Phantom::plan_growth(size_t region, const std::vector<std::vector<float>>& shares) {
  constexpr double reach_mm = 9;
  constexpr float tissue = 0.15f;  // gives way this much less than the outside
  const auto label = static_cast<size_t>(phantom_regions()[region].label);
  std::vector<float> yields = blurred(coarse_.size, shares[label], reach_mm / coarse_.step);
  double grown = 0, given = 0;
  for (size_t p = 0; p < yields.size(); ++p) {
    yields[p] *= shares.front()[p] + tissue * shares.back()[p];
    grown += static_cast<double>(shares[label][p]);
    given += static_cast<double>(yields[p]);
  }
  check_input(given > 0, "around the template's {} there is nothing that could give way to it", phantom_regions()[region].name);
  std::vector<float> divergence = shares[label];
  for (size_t p = 0; p < yields.size(); ++p) divergence[p] -= yields[p] * static_cast<float>(grown / given);
  growth_[region] = field_of_divergence(coarse_, divergence);

  place_evenly(region);
}

/// Some 20,000 places in a region: every so manieth voxel's middle of a large one, the middles of voxels' eighths in a small one.
void Phantom::place_evenly(size_t region) {
  constexpr int64_t enough = 20000;
  const auto label = static_cast<float>(phantom_regions()[region].label);
  const auto voxels = std::count(labels_.values.begin(), labels_.values.end(), label);
  const int64_t every = std::max<int64_t>(1, voxels / enough);
  const std::vector<double> offsets = 4 * voxels < enough ? std::vector<double>{-0.25, 0.25} : std::vector<double>{0};
  int64_t seen = 0;
  for (int64_t p = 0; p < fine_.points(); ++p) {
    if (labels_.values[static_cast<size_t>(p)] != label || seen++ % every != 0) continue;
    const std::array<int64_t, 3> at{p % fine_.size[0], p / fine_.size[0] % fine_.size[1], p / (fine_.size[0] * fine_.size[1])};
    const auto mm = [&](size_t axis, double offset) { return (static_cast<double>(at[axis]) + offset) * fine_.step; };
    for (const double x : offsets)
      for (const double y : offsets)
        for (const double z : offsets) places_[region].push_back({mm(0, x), mm(1, y), mm(2, z)});
  }
}

/// Logarithms of the regions' volumes over the template's, where `backward` leads from the subject to the template and is followed by a
/// scaling of volumes by `scale`. `found` are the subject's places that lead to places_, guesses at first.
std::array<double, planted_regions> Phantom::effects_of(const VectorField& backward, double scale, Places& found) const {
  constexpr int newton_steps = 3;
  std::array<double, planted_regions> effects{};
  for (size_t r = 0; r < planted_regions; ++r) {
    double sum = 0;
    for (size_t n = 0; n < places_[r].size(); ++n) {
      found[r][n] = preimage(backward, places_[r][n], found[r][n], newton_steps);
      sum += 1 / std::max(1e-3, jacobian(backward, found[r][n]));
    }
    effects[r] = std::log(scale * sum / static_cast<double>(places_[r].size()));
  }
  return effects;
}

/// Random shape first; then the planted regions are grown until their volumes are what the person's age and deviations ask for.
Phantom::Shape Phantom::shape_of(RngKey key, const PhantomPerson& person) const {
  constexpr int rounds = 8;
  constexpr double close_enough = 0.2;  // years of a region's age
  VectorField base = random_field(coarse_, 50, 2.5 * settings_.shape, stream(key, Draw::wide_shape));
  base.add(random_field(coarse_, 25, 1.2 * settings_.shape, stream(key, Draw::fine_shape)), 1);
  Point3 center{};
  for (size_t a = 0; a < 3; ++a) center[a] = static_cast<double>(fine_.size[a] - 1) * fine_.step / 2;
  const Affine affine = random_affine(center, settings_.shape, stream(key, Draw::affine));

  std::array<double, planted_regions> amount = person.effects, reached{}, step{}, gain{};
  gain.fill(1);
  Places found = places_;
  double worst = 0;
  for (int round = 0; round < rounds; ++round) {
    VectorField velocity = base;
    for (size_t r = 0; r < planted_regions; ++r) velocity.add(growth_[r], amount[r]);
    const std::array<double, planted_regions> before = reached;
    VectorField backward = flow(velocity, -1);
    reached = effects_of(backward, affine.determinant(), found);
    worst = 0;
    for (size_t r = 0; r < planted_regions; ++r)
      worst = std::max(worst, std::abs((person.effects[r] - reached[r]) / phantom_regions()[r].slope));
    if (worst < close_enough) return {std::move(backward), affine.inverse(), reached};
    for (size_t r = 0; r < planted_regions; ++r) {  // the secant method, one region at a time
      if (round > 0 && std::abs(step[r]) > 1e-3) gain[r] = std::clamp((reached[r] - before[r]) / step[r], 0.4, 2.0);
      step[r] = (person.effects[r] - reached[r]) / gain[r];
      amount[r] += step[r];
    }
  }
  fail("the regions' volumes miss what is planted by {:.1f} years: plant less (a smaller deviation or a narrower range of ages)", worst);
}

/// Intensities as a scanner gives them: gain, contrast, shading, and noise of a magnitude (Rician) inside the brain.
void Phantom::paint(PhantomSubject& subject, const Shape& shape, RngKey key) const {
  const double s = settings_.intensity;
  const double gain = 180 * std::exp(s * 0.1 * normal(stream(key, Draw::gain), 0));
  const double gamma = std::exp(s * 0.15 * normal(stream(key, Draw::gain), 1));
  const double noise = s * 180 * (0.015 + 0.025 * static_cast<double>(uniform(stream(key, Draw::noise_level), 0)));
  const std::vector<float> shading = random_scalar(coarse_, 80, s * 0.08, stream(key, Draw::shading));
  const RngKey noise_key = stream(key, Draw::noise);
  const Grid& grid = subject.brain.grid;
  for (int64_t p = 0; p < grid.voxels(); ++p) {
    const std::array<int64_t, 3> at{p % grid.size[0], p / grid.size[0] % grid.size[1], p / (grid.size[0] * grid.size[1])};
    Point3 place = {static_cast<double>(at[0]), static_cast<double>(at[1]), static_cast<double>(at[2])};
    for (double& x : place) x *= settings_.spacing;
    place = shape.to_template(place);
    const Point3 moved = shape.backward.at(place);
    const Cell cell = cell_of(fine_, {place[0] + moved[0], place[1] + moved[1], place[2] + moved[2]});
    const auto nearest = cell.base + (cell.t[0] >= 0.5f ? 1 : 0) +
                         fine_.size[0] * ((cell.t[1] >= 0.5f ? 1 : 0) + fine_.size[1] * (cell.t[2] >= 0.5f ? 1 : 0));
    const float label = labels_.values[static_cast<size_t>(nearest)];
    if (label == 0) continue;
    subject.regions.values[static_cast<size_t>(p)] = label;
    const double tissue = std::pow(std::max(0.0f, interpolate(fine_, brain_, cell)), gamma);
    const double shade = std::exp(static_cast<double>(interpolate(coarse_, shading, cell_of(coarse_, place))));
    const auto n = static_cast<uint64_t>(p);
    const double value = std::hypot(gain * tissue * shade + noise * normal(noise_key, 2 * n), noise * normal(noise_key, 2 * n + 1));
    subject.brain.values[static_cast<size_t>(p)] = static_cast<float>(std::clamp(std::round(value), 1.0, 255.0));
  }
}

PhantomSubject Phantom::make(int64_t index) const { return make(index, draw_person(settings_, index)); }

PhantomSubject Phantom::make(int64_t index, const PhantomPerson& person) const {
  const RngKey key = subject_key(settings_, index);
  Grid grid;
  for (size_t a = 0; a < 3; ++a) {
    grid.size[a] = static_cast<int64_t>(std::floor(static_cast<double>(fine_.size[a] - 1) * fine_.step / settings_.spacing + 1e-9)) + 1;
    grid.to_world.rows[a][a] = settings_.spacing;
    grid.to_world.rows[a][3] = origin_[a];
  }
  const Shape shape = shape_of(key, person);
  const std::vector<float> zeros(static_cast<size_t>(grid.voxels()), 0.0f);
  PhantomSubject subject{{grid, zeros}, {grid, zeros}, shape.effects, least_jacobian(shape.backward)};
  check(subject.least_jacobian > 0, "subject {} folds: plant less, or a smaller shape", index);
  paint(subject, shape, key);
  return subject;
}

}  // namespace ermoe
