#include "tools/inspection.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "core/file_io.h"
#include "data/file_tree.h"
#include "data/intensity.h"
#include "data/nifti.h"
#include "data/probe.h"
#include "data/volume_grid.h"
#include "models/checkpoint_store.h"
#include "tools/caption_inspection.h"
#include "tools/image_looks.h"
#include "tools/study_inspection.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_class_lines = 200;

std::vector<int64_t> class_counts(const ImageDataset* split, size_t classes) {
  std::vector<int64_t> counts(classes);
  for (int64_t i = 0; split != nullptr && i < split->size(); ++i) ++counts.at(static_cast<size_t>(split->label(i)));
  return counts;
}

std::string class_lines(const DatasetSplits& splits, const std::vector<std::string>& names) {
  const auto train = class_counts(splits.train.get(), names.size()), test = class_counts(splits.test.get(), names.size());
  std::string text = fmt::format("  {:<34} {:>9} {:>10}\n", "class", "training", "evaluation");
  for (size_t y = 0; y < std::min(names.size(), most_class_lines); ++y)
    text += fmt::format("  {:<34} {:>9} {:>10}\n", printable(names[y]), train[y], test[y]);
  if (names.size() > most_class_lines) text += fmt::format("  … and {} more\n", names.size() - most_class_lines);
  return text;
}

Inspection describe_dataset(const DatasetSplits& splits, Look look, int threads) {
  const std::vector<std::string>& names = (splits.train ? *splits.train : *splits.test).class_names();
  const int64_t train = splits.train ? splits.train->size() : 0, test = splits.test ? splits.test->size() : 0;
  ImageSizes sizes;
  for (const auto* split : {&splits.train, &splits.test})
    if (*split) look_at_images(**split, look, threads, sizes);
  Inspection result;
  result.text = fmt::format("  data set   {} training and {} evaluation images of {} classes\n", train, test, names.size());
  result.text += sizes.line(train + test);
  result.text += class_lines(splits, names);
  result.fault = sizes.fault();
  return result;
}

Inspection inspect_checkpoint(const std::string& folder) {
  const CheckpointManifest manifest = verify_checkpoint(folder);
  uint64_t bytes = 0;
  for (const CheckpointFile& file : manifest.files) bytes += file.bytes;
  return {fmt::format("  checkpoint of step {}, {} files of {} bytes\n", manifest.step, manifest.files.size(), bytes), ""};
}

Inspection inspect_run(const std::string& folder, const WarnFn& note) {
  const FoundCheckpoint found = find_checkpoint(folder, "latest");
  if (!found.note.empty()) note(found.note);
  return {fmt::format("  run        {} checkpoints, the last whole one of step {}\n", checkpoint_steps(folder).size(), found.step), ""};
}

std::string describe_values(const std::vector<float>& values) {
  double low = HUGE_VAL, high = -HUGE_VAL, sum = 0;
  int64_t finite = 0, zeros = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    ++finite;
    zeros += v == 0 ? 1 : 0;
    low = std::min(low, double{v});
    high = std::max(high, double{v});
    sum += v;
  }
  if (finite == 0) return "  values     none that is finite\n";
  return fmt::format("  values     from {:.6g} to {:.6g}, mean {:.6g}; {:.1f} % are 0\n", low, high, sum / static_cast<double>(finite),
                     100.0 * static_cast<double>(zeros) / static_cast<double>(values.size()));
}

Inspection inspect_volume(const std::string& path, const WarnFn& note) {
  const NiftiHeader header = read_nifti_header(path);
  const Volume volume = read_nifti(path);
  const auto& size = volume.grid.size;
  const Point3 mm = volume.grid.spacing();
  Inspection result;
  result.text =
      fmt::format("  file       NIfTI-{} volume, {}, {} endian\n", header.version, enum_name(header.type), enum_name(header.order));
  result.text +=
      fmt::format("  size       {} x {} x {} voxels of {:.4g} x {:.4g} x {:.4g} mm\n", size[0], size[1], size[2], mm[0], mm[1], mm[2]);
  result.text += fmt::format("  axes       {}, by its {}\n", orientation_text(volume.grid), enum_name(header.affine_source));
  if (header.scaled())
    result.text += fmt::format("  scale      {:.6g} times what is stored, plus {:.6g}\n", header.slope, header.intercept);
  result.text += describe_values(volume.values);
  // The file is sound; what is in it may be of no use.
  if (const std::string fault = fault_of(volume); !fault.empty())
    note(fmt::format("{}: {}: no model learns from it", path, fault));
  else if (const auto warning = looks_unstripped(volume, path))
    note(*warning);
  return result;
}

/// An archive or a table may be sound without being a data set.
Inspection inspect_one_file(const std::string& path, Look look, int threads, const WarnFn& note) {
  const std::string ending = extension(path);
  if (ending == "csv" || ending == "tsv") return describe_dataset(open_dataset(path, {.warn = note}), look, threads);
  if (is_volume_name(path)) return inspect_volume(path, note);
  const FileReport report = inspect_file(path);
  const std::string line = fmt::format("  file       {}\n", report.description);
  if (!is_archive_name(path) && ending != "bin") return {line, ""};
  DatasetSplits splits;
  try {
    splits = open_dataset(path, {.warn = note});
  } catch (const InputError& e) {
    return {line + fmt::format("  data set   none: {}\n", e.what()), ""};
  }
  Inspection result = describe_dataset(splits, look, threads);
  result.text = line + result.text;
  return result;
}

}  // namespace

Inspection inspect_path(const std::string& path, Look look, int threads, const WarnFn& note, const StudyPaths& study) {
  std::error_code ignored;
  Inspection result;
  if (path_exists(path + "/manifest.json"))
    result = inspect_checkpoint(path);
  else if (path_exists(path + "/config.json") && path_exists(path + "/checkpoints"))
    result = inspect_run(path, note);
  else if (auto found = inspect_study(path, study, look, threads, note))
    result = std::move(*found);
  else if (auto captions = inspect_captions(path, look, threads, note))
    result = std::move(*captions);
  else if (fs::is_directory(path, ignored) || !path_exists(path))
    result = describe_dataset(open_dataset(path, {.warn = note}), look, threads);
  else
    result = inspect_one_file(path, look, threads, note);
  result.text = path + "\n" + result.text;
  return result;
}

}  // namespace ermoe
