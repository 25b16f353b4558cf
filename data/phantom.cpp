#include "data/phantom.h"

#include "core/error.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
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

size_t largest_of(const std::vector<double>& effects) {
  const auto less = [](double a, double b) { return std::abs(a) < std::abs(b); };
  return static_cast<size_t>(std::max_element(effects.begin(), effects.end(), less) - effects.begin());
}

[[noreturn]] void fail_reach(const PhantomSettings& settings, int64_t index, size_t region, const PhantomPerson& person,
                             const std::string& fault) {
  fail_input(
      "{}: subject {} would have {:.2f} times the template's volume, but its deformation {}: plant less (smaller slopes, deviation or "
      "range of ages), or a smaller shape",
      settings.plant[region].name, index + 1, std::exp(person.effects[region]), fault);
}

}  // namespace

/// A subject's way from the template, in the template's millimetres.
struct Phantom::Shape {
  VectorField backward;  // from the subject, brought to the template's size and place, to the template
  Affine to_template;    // that bringing
  std::vector<double> effects;
  double least_jacobian = 0;
};

AgeModel age_model(const PhantomSettings& settings) {
  // Each planted region says its owner's age with an error of deviation_years, independently of the others.
  return {settings.age_from, settings.age_to, settings.deviation_years / std::sqrt(static_cast<double>(settings.plant.size()))};
}

PhantomPerson draw_person(const PhantomSettings& settings, int64_t index) {
  const RngKey key = subject_key(settings, index);
  PhantomPerson person;
  const double share = uniform(stream(key, Draw::age), 0);
  person.age = std::round(100 * (settings.age_from + (settings.age_to - settings.age_from) * share)) / 100;
  person.sex = uniform(stream(key, Draw::sex), 0) < 0.5f ? 'F' : 'M';
  for (size_t r = 0; r < settings.plant.size(); ++r) {
    const double own_age = person.age + settings.deviation_years * normal(stream(key, Draw::deviations), r);
    person.effects.push_back(settings.plant[r].slope * (own_age - middle_age(settings)));
  }
  return person;
}

double age_seen(const PhantomSettings& settings, const PhantomPerson& person) {
  double sum = 0;
  for (size_t r = 0; r < settings.plant.size(); ++r) sum += person.effects[r] / settings.plant[r].slope;
  return middle_age(settings) + sum / static_cast<double>(settings.plant.size());
}

Phantom::Phantom(const Volume& brain, const Volume& atlas, const PhantomSettings& settings)
    : settings_(settings), regions_(phantom_regions(settings.plant)) {
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
  labels_ = phantom_region_map(brain, atlas, settings.plant);
  const double voxel_ml = step * step * step / 1000;
  for (size_t r = 0; r < regions_.size(); ++r)
    template_ml_.push_back(voxel_ml *
                           static_cast<double>(std::count(labels_.values.begin(), labels_.values.end(), static_cast<float>(r + 1))));
  plan_ = plan_growth(settings.plant, fine_, labels_.values, coarse_);
  // Voxels of the subjects are larger than the template's: each averages what lies in it.
  const float brightest = *std::max_element(brain.values.begin(), brain.values.end());
  brain_ = settings.spacing > 1.01 * step ? blurred(fine_.size, brain.values, 0.4 * settings.spacing / step) : brain.values;
  for (float& v : brain_) v /= brightest;
}

/// Logarithms of the regions' volumes over the template's, where `backward` leads from the subject to the template and is followed by a
/// scaling of volumes by `scale`. `found` are the subject's places that lead to the plan's places, guesses at first.
std::vector<double> Phantom::effects_of(const VectorField& backward, double scale, std::vector<std::vector<Point3>>& found) const {
  constexpr int newton_steps = 3;
  std::vector<double> effects(found.size(), 0.0);
  for (size_t r = 0; r < found.size(); ++r) {
    double sum = 0;
    for (size_t n = 0; n < plan_.places[r].size(); ++n) {
      found[r][n] = preimage(backward, plan_.places[r][n], found[r][n], newton_steps);
      sum += 1 / std::max(1e-3, jacobian(backward, found[r][n]));
    }
    effects[r] = std::log(scale * sum / static_cast<double>(plan_.places[r].size()));
  }
  return effects;
}

/// Random shape first; then the planted regions are grown until their volumes are what the person's age and deviations ask for.
Phantom::Shape Phantom::shape_of(int64_t index, const PhantomPerson& person) const {
  constexpr int rounds = 8;
  constexpr double close_enough = 0.2;  // years of a region's age
  const RngKey key = subject_key(settings_, index);
  VectorField base = random_field(coarse_, 50, 2.5 * settings_.shape, stream(key, Draw::wide_shape));
  base.add(random_field(coarse_, 25, 1.2 * settings_.shape, stream(key, Draw::fine_shape)), 1);
  Point3 center{};
  for (size_t a = 0; a < 3; ++a) center[a] = static_cast<double>(fine_.size[a] - 1) * fine_.step / 2;
  const Affine affine = random_affine(center, settings_.shape, stream(key, Draw::affine));

  const size_t planted = settings_.plant.size();
  check(person.effects.size() == planted, "[phantom] a person of {} effects, {} regions are planted", person.effects.size(), planted);
  std::vector<double> amount = person.effects, reached(planted, 0.0), step(planted, 0.0), gain(planted, 1.0);
  std::vector<std::vector<Point3>> found = plan_.places;
  double worst = 0;
  size_t worst_region = 0;
  for (int round = 0; round < rounds; ++round) {
    VectorField velocity = base;
    for (size_t r = 0; r < planted; ++r) velocity.add(plan_.fields[r], amount[r]);
    const std::vector<double> before = reached;
    VectorField backward = flow(velocity, -1);
    reached = effects_of(backward, affine.determinant(), found);
    worst = 0;
    for (size_t r = 0; r < planted; ++r) {
      const double missed = std::abs((person.effects[r] - reached[r]) / settings_.plant[r].slope);
      if (missed > worst) worst_region = r;
      worst = std::max(worst, missed);
    }
    if (worst < close_enough) {
      const double least = least_jacobian(backward);
      if (!(least > 0)) fail_reach(settings_, index, largest_of(person.effects), person, "folds");
      return {std::move(backward), affine.inverse(), reached, least};
    }
    for (size_t r = 0; r < planted; ++r) {  // the secant method, one region at a time
      if (round > 0 && std::abs(step[r]) > 1e-3) gain[r] = std::clamp((reached[r] - before[r]) / step[r], 0.4, 2.0);
      step[r] = (person.effects[r] - reached[r]) / gain[r];
      amount[r] += step[r];
    }
  }
  fail_reach(settings_, index, worst_region, person, fmt::format("misses that by {:.1f} years", worst));
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

void Phantom::check_reach(int64_t index) const { shape_of(index, draw_person(settings_, index)); }

PhantomSubject Phantom::make(int64_t index) const { return make(index, draw_person(settings_, index)); }

PhantomSubject Phantom::make(int64_t index, const PhantomPerson& person) const {
  const RngKey key = subject_key(settings_, index);
  Grid grid;
  for (size_t a = 0; a < 3; ++a) {
    grid.size[a] = static_cast<int64_t>(std::floor(static_cast<double>(fine_.size[a] - 1) * fine_.step / settings_.spacing + 1e-9)) + 1;
    grid.to_world.rows[a][a] = settings_.spacing;
    grid.to_world.rows[a][3] = origin_[a];
  }
  const Shape shape = shape_of(index, person);
  const std::vector<float> zeros(static_cast<size_t>(grid.voxels()), 0.0f);
  PhantomSubject subject{{grid, zeros}, {grid, zeros}, shape.effects, shape.least_jacobian};
  paint(subject, shape, key);
  return subject;
}

}  // namespace ermoe
