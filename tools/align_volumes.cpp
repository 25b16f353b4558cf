#include "tools/align_volumes.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "core/file_io.h"
#include "data/encode_png.h"
#include "data/file_tree.h"
#include "data/intensity.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "tools/align_picture.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <numbers>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

/// Folders replaced by the volumes in them, sorted.
std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    const size_t before = files.size();
    const auto tree = open_folder(path);
    for (size_t i = 0; i < tree->paths().size(); ++i)
      if (is_volume_name(tree->paths()[i]) && !lower(tree->paths()[i]).ends_with(".img")) files.push_back(tree->name(i));
    check_input(files.size() > before, "{}: holds no .nii, .nii.gz or .hdr files", path);
  }
  return files;
}

/// The file's name without folders and endings.
std::string stem_of(const std::string& path) {
  std::string stem(base_name(path));
  for (const std::string_view ending : {".gz", ".nii", ".hdr", ".img"})
    if (lower(stem).ends_with(ending)) stem.resize(stem.size() - ending.size());
  return stem;
}

std::string result_path(const AlignVolumes& work, const std::string& input, std::string_view ending) {
  return (fs::path(work.out) / (stem_of(input) + "_aligned" + std::string(ending))).string();
}

/// No two inputs may be written to one file, and none over itself.
void check_names(const AlignVolumes& work, const std::vector<std::string>& images, const std::vector<std::string>& labels) {
  std::map<std::string, std::string> taken;
  for (const auto* list : {&images, &labels}) {
    for (const std::string& path : *list) {
      const auto [other, fresh] = taken.emplace(stem_of(path), path);
      check_input(fresh, "{}: would be written to the same file as {}: give one of them another name", path, other->second);
      std::error_code error;
      check_input(!fs::equivalent(path, result_path(work, path, ".nii.gz"), error) || error, "{}: would be overwritten by its own result",
                  path);
    }
  }
}

Volume read_alignable(const std::string& path) {
  Volume volume = read_nifti(path);
  const std::string fault = alignment_fault(volume);
  check_input(fault.empty(), "{}: {}", path, fault);
  return volume;
}

Volume read_labels(const std::string& path, const Volume& image, const std::string& image_path) {
  Volume labels = read_nifti(path);
  check_input(same_grid(labels.grid, image.grid), "{}: lies on another grid than {}: labels must have the voxels of their image", path,
              image_path);
  for (const float v : labels.values)
    check_input(v == std::floor(v) && v >= 0 && v <= 32767, "{}: holds {}, which is no label (a whole number from 0 to 32767)", path, v);
  return labels;
}

void write_matrix(const AlignVolumes& work, const std::string& image, const Alignment& found) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& row : found.to_moving.rows) rows.push_back(row);
  rows.push_back({0.0, 0.0, 0.0, 1.0});
  const nlohmann::ordered_json json = {{"image", image},
                                       {"template", work.fixed},
                                       {"model", enum_name(work.options.model)},
                                       {"measure", enum_name(work.options.measure)},
                                       {"value", found.value},
                                       {"steps", found.steps},
                                       {"direction", "mm in the template's world (RAS) -> mm in the image's world"},
                                       {"matrix", rows}};
  write_file(result_path(work, image, ".json"), json.dump(2) + "\n");
}

struct Template {
  Volume volume;
  Grid grid;  // of what is written
};

Template read_template(const AlignVolumes& work) {
  Template t{read_alignable(work.fixed), {}};
  const Grid ras = to_ras(t.volume.grid);
  t.grid = work.spacing > 0 ? grid_with_spacing(ras, work.spacing) : ras;
  check_input(t.grid.voxels() <= int64_t{128} << 20, "--spacing {}: would make {} voxels; at most 134217728 are written", work.spacing,
              t.grid.voxels());
  return t;
}

/// The rotation in a transform: Newton's iteration to the orthogonal factor of the polar decomposition (Higham, "Computing the polar
/// decomposition", 1986).
double degrees_of(Affine a) {
  for (int round = 0; round < 20; ++round) {
    const Affine inverse = a.inverse();
    Affine next;
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 3; ++c) next.rows[r][c] = (a.rows[r][c] + inverse.rows[c][r]) / 2;
    a = next;
  }
  const double cosine = (a.rows[0][0] + a.rows[1][1] + a.rows[2][2] - 1) / 2;
  return std::acos(std::clamp(cosine, -1.0, 1.0)) * 180 / std::numbers::pi;
}

/// How the volume turns and grows on its way to the template.
std::string in_words(const Alignment& found, double seconds) {
  return fmt::format("turned by {:.1f} degrees, scaled by {:.3f}, fit {:.3f} after {} steps, {:.1f} s", degrees_of(found.to_moving),
                     1 / std::cbrt(found.to_moving.determinant()), found.value, found.steps, seconds);
}

using Sentence = std::function<void(const std::string&)>;

void align_one(const AlignVolumes& work, const Template& fixed, const std::string& path, const std::string& labels_path,
               const Sentence& say, const Sentence& warn) {
  const auto start = std::chrono::steady_clock::now();
  const Volume image = read_alignable(path);
  if (const auto warning = looks_unstripped(image, path)) warn(*warning);
  const Volume labels = labels_path.empty() ? Volume{} : read_labels(labels_path, image, path);
  const Alignment found = align(image, fixed.volume, work.options);
  const double volume_change = found.to_moving.determinant();
  if (!(volume_change > 0.4 && volume_change < 2.5))
    warn(fmt::format("{}: would change its volume by a factor of {:.2f}: look at the picture", path, 1 / volume_change));
  const Grid placed = aligned_grid(image.grid, found.to_moving);
  const float outside = *std::ranges::min_element(image.values);
  const NiftiWriting as_floats{
      .type = VoxelType::f32, .space = NiftiSpace::aligned, .description = "aligned to " + stem_of(work.fixed).substr(0, 60)};
  write_nifti(result_path(work, path, ".nii.gz"), resample({placed, image.values}, fixed.grid, Interpolation::linear, outside), as_floats);
  if (!labels_path.empty()) {
    NiftiWriting as_labels = as_floats;
    as_labels.type = *std::ranges::max_element(labels.values) <= 255 ? VoxelType::u8 : VoxelType::i16;
    write_nifti(result_path(work, labels_path, ".nii.gz"), resample({placed, labels.values}, fixed.grid, Interpolation::nearest),
                as_labels);
  }
  write_matrix(work, path, found);
  write_png(result_path(work, path, ".png"),
            draw_alignment(fixed.volume, image, found.to_moving, fmt::format("{}, {}", stem_of(path), enum_name(work.options.model))));
  say(fmt::format("{}: {}", stem_of(path),
                  in_words(found, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count())));
}

}  // namespace

void align_volumes(const AlignVolumes& work, const Sentence& say, const Sentence& warn) {
  const std::vector<std::string> images = files_of(work.images), labels = files_of(work.labels);
  check_input(labels.empty() || labels.size() == images.size(),
              "--labels: {} region maps for {} volumes; give one for each, in the same order", labels.size(), images.size());
  check_names(work, images, labels);
  const Template fixed = read_template(work);
  std::error_code error;
  fs::create_directories(work.out, error);
  check_input(!error, "{}: cannot be made: {}", work.out, error.message());
  say(kAlignExpectations);
  for (size_t i = 0; i < images.size(); ++i) align_one(work, fixed, images[i], labels.empty() ? "" : labels[i], say, warn);
  say(fmt::format("{} volumes in {}", images.size(), work.out));
}

}  // namespace ermoe
