#include "tools/study_inspection.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/file_tree.h"
#include "data/intensity.h"
#include "data/nifti.h"
#include "data/subject_table.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>

namespace ermoe {
namespace {

constexpr int64_t sampled_volumes = 20;
constexpr size_t largest_file = size_t{1} << 30;

std::string age_lines(const std::vector<Subject>& subjects) {
  double sum = 0, squares = 0, low = HUGE_VAL, high = -HUGE_VAL;
  std::map<int64_t, int64_t> decades;
  std::map<std::string, int64_t> sexes;
  int64_t training = 0, held_out = 0, unsaid = 0;
  for (const Subject& s : subjects) {
    sum += s.age;
    squares += s.age * s.age;
    low = std::min(low, s.age);
    high = std::max(high, s.age);
    ++decades[static_cast<int64_t>(s.age / 10) * 10];
    if (!s.sex.empty()) ++sexes[s.sex];
    ++(!s.split ? unsaid : *s.split == Part::train ? training : held_out);
  }
  const auto n = static_cast<double>(subjects.size());
  std::string text = fmt::format("  study      {} subjects with an age and a volume: {} for training, {} held out, of {} it is not said\n",
                                 subjects.size(), training, held_out, unsaid);
  text += fmt::format("  ages       from {:.1f} to {:.1f} years, mean {:.1f}, deviation {:.1f}\n", low, high, sum / n,
                      std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n))));
  for (const auto& [from, count] : decades) text += fmt::format("             {:>3} to {:<3} {:>5}\n", from, from + 9, count);
  for (const auto& [sex, count] : sexes) text += fmt::format("  sex        {}: {}\n", printable(sex), count);
  return text;
}

/// What the volumes that were looked at are like.
struct VolumeKinds {
  int64_t seen = 0, broken = 0;
  std::map<std::string, int64_t> grids;
  std::string first_fault;              // by subject
  std::vector<std::string> unstripped;  // sentences

  void add(const Volume& volume, const std::string& name) {
    ++seen;
    const auto& size = volume.grid.size;
    const Point3 mm = volume.grid.spacing();
    ++grids[fmt::format("{} x {} x {} voxels of {:.3g} x {:.3g} x {:.3g} mm, axes {}", size[0], size[1], size[2], mm[0], mm[1], mm[2],
                        orientation_text(volume.grid))];
    if (const auto warning = looks_unstripped(volume, name)) unstripped.push_back(*warning);
  }
};

VolumeKinds look_at(const FileTree& files, const std::vector<Subject>& subjects, Look look, int threads) {
  VolumeKinds kinds;
  const auto n = static_cast<int64_t>(subjects.size()), count = look == Look::all ? n : std::min(n, sampled_volumes);
  std::map<int64_t, std::string> faults;
  std::mutex mutex;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    const Subject& subject = subjects[static_cast<size_t>(i * n / count)];
    const std::string name = subject.id + ": " + files.name(subject.file);
    Volume volume;
    std::string fault;
    try {
      volume = read_nifti(files.read(subject.file, largest_file), name);
      if (const std::string useless = fault_of(volume); !useless.empty()) fault = name + ": " + useless;
    } catch (const std::exception& e) {
      fault = e.what();
    }
    const std::lock_guard lock(mutex);
    if (fault.empty())
      kinds.add(volume, name);
    else
      faults.emplace(i, fault);
  }
  kinds.broken = std::ssize(faults);
  if (!faults.empty()) kinds.first_fault = faults.begin()->second;
  return kinds;
}

std::string volume_lines(const VolumeKinds& kinds, int64_t subjects) {
  constexpr size_t most = 5;
  std::string text = fmt::format("  volumes    {} of {} looked at\n", kinds.seen + kinds.broken, subjects);
  std::vector<std::pair<int64_t, std::string>> order;
  for (const auto& [grid, count] : kinds.grids) order.emplace_back(count, grid);
  std::ranges::stable_sort(order, std::greater{}, &std::pair<int64_t, std::string>::first);
  for (size_t i = 0; i < std::min(order.size(), most); ++i) text += fmt::format("             {}: {}\n", order[i].second, order[i].first);
  if (order.size() > most) text += fmt::format("             … and {} other grids\n", order.size() - most);
  if (order.size() > 1) text += "             they differ, so volumes may not lie alike: ermoe-data align\n";
  return text;
}

}  // namespace

std::optional<Inspection> inspect_study(const std::string& path, const StudyPaths& paths, Look look, int threads, const WarnFn& note) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored) && !(is_archive_name(path) && path_exists(path))) return std::nullopt;
  const auto files = open_tree(path);
  const bool said = !paths.table.empty() || !paths.volumes.empty();
  if (!said && std::ranges::none_of(files->paths(), [](const std::string& p) { return base_name(p) == "participants.tsv"; }))
    return std::nullopt;
  const std::vector<Subject> subjects = read_subjects(*files, {.table = paths.table, .path_template = paths.volumes, .warn = note});
  const VolumeKinds kinds = look_at(*files, subjects, look, threads);
  Inspection result{age_lines(subjects) + volume_lines(kinds, std::ssize(subjects)), ""};
  if (!kinds.unstripped.empty())
    note(fmt::format("{} of {} volumes look as if their skulls were still there; for example {}", kinds.unstripped.size(), kinds.seen,
                     kinds.unstripped.front()));
  if (kinds.broken > 0)
    result.fault =
        fmt::format("{} of {} volumes looked at are of no use; for example {}", kinds.broken, kinds.seen + kinds.broken, kinds.first_fault);
  return result;
}

}  // namespace ermoe
