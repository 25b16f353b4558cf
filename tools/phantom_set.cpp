#include "tools/phantom_set.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "tools/progress.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <exception>
#include <filesystem>
#include <mutex>
#include <set>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t validation_every = 5;  // every fifth subject is for validation

std::string subject_name(int64_t i) { return fmt::format("sub-{:04}", i + 1); }

std::string brain_path(const PhantomSet& set, int64_t i) {
  return fmt::format("{}/{}/anat/{}_T1w.nii.gz", set.folder, subject_name(i), subject_name(i));
}

std::string regions_path(const PhantomSet& set, int64_t i) {
  return fmt::format("{}/derivatives/regions/{}_regions.nii.gz", set.folder, subject_name(i));
}

Volume read_template(const std::string& path) {
  std::error_code error;
  check_input(fs::exists(path, error),
              "{}: is not there; the Colin27 brain and its AAL atlas come with the Debian package mricron-data (sudo apt-get install "
              "mricron-data), or name others with --template and --atlas",
              path);
  return to_ras(read_nifti(path));
}

/// Template and atlas on cubes along the axes of the world.
Phantom read_phantom(const PhantomSet& set) {
  const Volume brain = read_template(set.template_path), atlas = read_template(set.atlas_path);
  require_sound(brain, set.template_path);
  require_sound(atlas, set.atlas_path);
  const Point3 spacing = brain.grid.spacing();
  const double step = *std::min_element(spacing.begin(), spacing.end());
  Grid grid = brain.grid;
  for (size_t a = 0; a < 3; ++a) {
    check_input(brain.grid.to_world.rows[a][a] > 0.99 * spacing[a], "{}: lies askew to the axes of the world", set.template_path);
    for (size_t c = 0; c < 3; ++c) grid.to_world.rows[a][c] = a == c ? step : 0;
    grid.size[a] = static_cast<int64_t>(static_cast<double>(brain.grid.size[a] - 1) * spacing[a] / step + 1e-3) + 1;
  }
  try {
    return Phantom(resample(brain, grid, Interpolation::linear), resample(atlas, grid, Interpolation::nearest), set.settings);
  } catch (const InputError& e) {
    fail_input("{} with {}: {}", set.template_path, set.atlas_path, e.what());
  }
}

/// All that the set depends on and what is planted.
std::string description(const PhantomSet& set, const Phantom& phantom) {
  constexpr int64_t draws = 20000;
  const PhantomSettings& s = set.settings;
  const AgeModel model = age_model(s);
  nlohmann::ordered_json regions = nlohmann::ordered_json::array();
  for (size_t r = 0; r < phantom.regions().size(); ++r) {
    const PhantomRegion& region = phantom.regions()[r];
    regions.push_back({{"label", r + 1},
                       {"name", region.name},
                       {"planted", region.planted()},
                       {"log_volume_per_year", region.slope},
                       {"log_volume_deviation", std::abs(region.slope) * s.deviation_years},
                       {"template_ml", std::round(1000 * phantom.template_ml()[r]) / 1000}});
    if (region.planted() && !is_of_the_map(region)) regions.back()["aal"] = region.aal;
  }
  const nlohmann::ordered_json all = {{"simulated", true},
                                      {"seed", s.seed},
                                      {"subjects", set.subjects},
                                      {"ages", {{"distribution", "uniform"}, {"from", s.age_from}, {"to", s.age_to}}},
                                      {"spacing_mm", s.spacing},
                                      {"shape", s.shape},
                                      {"intensity", s.intensity},
                                      {"deviation_years", s.deviation_years},
                                      {"template",
                                       {{"brain", set.template_path},
                                        {"brain_crc32", file_crc32(set.template_path)},
                                        {"atlas", set.atlas_path},
                                        {"atlas_crc32", file_crc32(set.atlas_path)}}},
                                      {"regions", regions},
                                      {"optimal_predictor",
                                       {{"what", "posterior mean of age given the true volumes of the planted regions"},
                                        {"error_years", model.error_years},
                                        {"mae", model.mean_error()},
                                        {"mae_far_from_the_ends", model.mean_error_inside()},
                                        {"mae_simulated", model.simulated_error(draws, RngKey{s.seed}.fold(~uint64_t{0}))},
                                        {"simulated_draws", draws},
                                        {"mae_of_the_mean_age", model.mean_predictor_error()}}}};
  return all.dump(2) + "\n";
}

constexpr std::string_view readme = R"(These subjects are simulated. Nobody was scanned.

`ermoe-data phantom` deformed one brain (Colin27 of the Debian package mricron-data, unless another was named) at random for each
subject. The regions marked as planted in derivatives/regions/labels.tsv have volumes that follow age:

    log(volume / template's volume) = slope * (age + deviation - middle of the ages)

with the slopes and deviations of phantom.json; truth.tsv has each subject's values, and the best guess of its age that they allow. The
other labelled regions do not follow age. What makes room is brain that no region labels (label white_matter_other) and the
outside, close to the planted regions. Sex, gain, contrast, shading, noise and the remaining shape are random and say nothing of age.
)";

std::string labels_table(const std::vector<PhantomRegion>& regions) {
  std::string text = "label\tname\tplanted\n0\tbackground\t0\n";
  for (size_t r = 0; r < regions.size(); ++r) text += fmt::format("{}\t{}\t{}\n", r + 1, regions[r].name, regions[r].planted() ? 1 : 0);
  return text;
}

std::string participants_table(const PhantomSet& set) {
  std::string text = "participant_id\tage\tsex\tsplit\n";
  for (int64_t i = 0; i < set.subjects; ++i) {
    const PhantomPerson person = draw_person(set.settings, i);
    text += fmt::format("{}\t{:.2f}\t{}\t{}\n", subject_name(i), person.age, person.sex,
                        i % validation_every == validation_every - 1 ? "val" : "train");
  }
  return text;
}

std::string truth_table(const PhantomSet& set) {
  std::string text = "participant_id\tage";
  for (const PhantomRegion& region : set.settings.plant) text += fmt::format("\t{}_log_volume", region.name);
  text += "\tbest_guess\n";
  const AgeModel model = age_model(set.settings);
  for (int64_t i = 0; i < set.subjects; ++i) {
    const PhantomPerson person = draw_person(set.settings, i);
    text += fmt::format("{}\t{:.2f}", subject_name(i), person.age);
    for (const double effect : person.effects) text += fmt::format("\t{:.6f}", effect);
    text += fmt::format("\t{:.3f}\n", model.best_guess(age_seen(set.settings, person)));
  }
  return text;
}

/// Subjects in whom a region's volume is the largest or smallest of all show whether deformations reach what is planted, before anything
/// is written.
void check_extremes(const PhantomSet& set, const Phantom& phantom) {
  std::vector<PhantomPerson> people;
  for (int64_t i = 0; i < set.subjects; ++i) people.push_back(draw_person(set.settings, i));
  std::set<int64_t> extremes;
  for (size_t r = 0; r < set.settings.plant.size(); ++r) {
    const auto [low, high] = std::minmax_element(
        people.begin(), people.end(), [r](const PhantomPerson& a, const PhantomPerson& b) { return a.effects[r] < b.effects[r]; });
    extremes.insert({low - people.begin(), high - people.begin()});
  }
  for (const int64_t i : extremes) phantom.check_reach(i);
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  check_input(!error, "{}: cannot be made: {}", path, error.message());
}

/// Refuses a folder of anything but these subjects, unfinished.
void claim_folder(const PhantomSet& set, const std::string& described) {
  std::error_code error;
  make_folder(set.folder);
  const std::string mark = set.folder + "/phantom.json";
  if (!fs::exists(mark, error)) {
    check_input(fs::is_empty(set.folder, error) && !error, "{}: is not empty", set.folder);
    write_file(mark, described);
    return;
  }
  check_input(read_file(mark, size_t{1} << 20) == described, "{}: holds made-up subjects of other settings; see its phantom.json",
              set.folder);
  check_input(!fs::exists(set.folder + "/participants.tsv", error), "{}: holds these subjects already", set.folder);
}

/// One line that is redrawn on a terminal, elsewhere a line every tenth.
class Telling {
 public:
  Telling(std::FILE* out, int64_t subjects) : progress_(out), subjects_(subjects) {}

  void update(int64_t done) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    const double left = spent.count() / static_cast<double>(done) * static_cast<double>(subjects_ - done);
    if (progress_.live()) {
      ProgressState state;
      state.step = done;
      state.steps = subjects_;
      state.seconds_left = left;
      progress_.update(state);
    } else if (10 * done / subjects_ != 10 * (done - 1) / subjects_) {
      progress_.message(fmt::format("{} of {} subjects | ETA {}", done, subjects_, duration_text(left)));
    }
  }

 private:
  Progress progress_;
  int64_t subjects_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void write_subject(const PhantomSet& set, const Phantom& phantom, int64_t i) {
  const PhantomSubject subject = phantom.make(i);
  make_folder(fs::path(brain_path(set, i)).parent_path());
  NiftiWriting how;
  how.type = VoxelType::u8;
  how.description = "simulated by ermoe-data phantom";
  write_nifti(regions_path(set, i), subject.regions, how);
  write_nifti(brain_path(set, i), subject.brain, how);
}

/// The subjects that are not there yet; files are written atomically, the picture after the map.
std::vector<int64_t> missing_subjects(const PhantomSet& set) {
  std::vector<int64_t> missing;
  std::error_code error;
  for (int64_t i = 0; i < set.subjects; ++i)
    if (!fs::exists(brain_path(set, i), error)) missing.push_back(i);
  return missing;
}

void write_subjects(const PhantomSet& set, const Phantom& phantom, const std::vector<int64_t>& missing, int threads, std::FILE* out) {
  Telling telling(out, static_cast<int64_t>(missing.size()));
  std::exception_ptr fault;
  std::mutex mutex;
  int64_t done = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (size_t n = 0; n < missing.size(); ++n) {
    {
      const std::scoped_lock lock(mutex);
      if (fault) continue;  // a full disk would fail for each
    }
    try {
      write_subject(set, phantom, missing[n]);
      const std::scoped_lock lock(mutex);
      telling.update(++done);
    } catch (...) {
      const std::scoped_lock lock(mutex);
      fault = std::current_exception();
    }
  }
  if (fault) std::rethrow_exception(fault);
}

}  // namespace

void set_ages(PhantomSettings& settings, const std::string& text) {
  const size_t colon = text.find(':');
  const auto number = [&](std::string_view part, double& to) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), to);
    return error == std::errc() && end == part.data() + part.size();
  };
  const std::string_view all = text;
  check_input(colon != std::string::npos && number(all.substr(0, colon), settings.age_from) &&
                  number(all.substr(colon + 1), settings.age_to) && settings.age_from >= 0 && settings.age_to <= 120 &&
                  settings.age_to - settings.age_from >= 1,
              "--ages {}: two ages from 0 to 120 are wanted, such as 20:80", printable(text));
}

void set_plant(PhantomSettings& settings, const std::string& text) {
  try {
    settings.plant = parse_plant(text);
  } catch (const InputError& e) {
    fail_input("--plant: {}", e.what());
  }
}

PhantomSetDone write_phantom_set(const PhantomSet& set, int threads, std::FILE* out) {
  const Phantom phantom = read_phantom(set);
  check_extremes(set, phantom);
  claim_folder(set, description(set, phantom));
  const std::string regions = set.folder + "/derivatives/regions";
  make_folder(regions);
  write_file(regions + "/labels.tsv", labels_table(phantom.regions()));
  write_file(set.folder + "/README", readme);
  write_file(set.folder + "/truth.tsv", truth_table(set));
  write_file(set.folder + "/.bidsignore", "phantom.json\ntruth.tsv\n");
  write_file(set.folder + "/dataset_description.json",
             "{\n  \"Name\": \"Simulated subjects of known age\",\n  \"BIDSVersion\": \"1.8.0\",\n  \"DatasetType\": \"raw\"\n}\n");
  const std::vector<int64_t> missing = missing_subjects(set);
  write_subjects(set, phantom, missing, threads, out);
  write_file(set.folder + "/participants.tsv", participants_table(set));
  const auto made = static_cast<int64_t>(missing.size());
  return {made, set.subjects - made, age_model(set.settings).mean_error()};
}

}  // namespace ermoe
