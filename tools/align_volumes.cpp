#include "tools/align_volumes.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "core/file_io.h"
#include "data/encode_png.h"
#include "data/intensity.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "data/volume_reader.h"
#include "tools/align_picture.h"
#include "tools/volume_files.h"

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

std::string result_path(const AlignVolumes& work, const VolumeFile& input, std::string_view ending) {
  return (fs::path(work.out) / (input.stem + "_aligned" + std::string(ending))).string();
}

/// No two inputs may be written to one file, and none over itself.
void check_names(const AlignVolumes& work, const std::vector<VolumeFile>& images, const std::vector<VolumeFile>& labels) {
  std::map<std::string, std::string> taken;
  for (const auto* list : {&images, &labels}) {
    for (const VolumeFile& file : *list) {
      const auto [other, fresh] = taken.emplace(file.stem, file.name);
      check_input(fresh, "{}: would be written to the same file as {}: give one of them another name", file.name, other->second);
      std::error_code error;
      check_input(file.tree || !fs::equivalent(file.name, result_path(work, file, ".nii.gz"), error) || error,
                  "{}: would be overwritten by its own result", file.name);
    }
  }
}

Volume read_alignable(const VolumeFile& file) {
  Volume volume = file.read();
  const std::string fault = alignment_fault(volume);
  check_input(fault.empty(), "{}: {}", file.name, fault);
  return volume;
}

Volume read_labels(const VolumeFile& file, const Volume& image, const std::string& image_name) {
  Volume labels = file.read();
  check_input(same_grid(labels.grid, image.grid), "{}: lies on another grid than {}: labels must have the voxels of their image", file.name,
              image_name);
  require_labels(labels, file.name);
  return labels;
}

void write_matrix(const AlignVolumes& work, const VolumeFile& image, const Alignment& found) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& row : found.to_moving.rows) rows.push_back(row);
  rows.push_back({0.0, 0.0, 0.0, 1.0});
  const nlohmann::ordered_json json = {{"image", image.name},
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
  VolumeFile file;
  Volume volume;
  Grid grid;  // of what is written
};

Template read_template(const AlignVolumes& work) {
  const std::vector<VolumeFile> files = volume_files({work.fixed});
  check_input(files.size() == 1, "{}: these are {} volumes, and a template is one", work.fixed, files.size());
  Template t{files[0], read_alignable(files[0]), {}};
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

/// `labels_file`: null where there are none.
void align_one(const AlignVolumes& work, const Template& fixed, const VolumeFile& file, const VolumeFile* labels_file, const Sentence& say,
               const Sentence& warn) {
  const auto start = std::chrono::steady_clock::now();
  const Volume image = read_alignable(file);
  if (const auto warning = looks_unstripped(image, file.name)) warn(*warning);
  const Volume labels = labels_file == nullptr ? Volume{} : read_labels(*labels_file, image, file.name);
  const Alignment found = align(image, fixed.volume, work.options);
  const double volume_change = found.to_moving.determinant();
  if (!(volume_change > 0.4 && volume_change < 2.5))
    warn(fmt::format("{}: would change its volume by a factor of {:.2f}: look at the picture", file.name, 1 / volume_change));
  const Grid placed = aligned_grid(image.grid, found.to_moving);
  const float outside = *std::ranges::min_element(image.values);
  const NiftiWriting as_floats{
      .type = VoxelType::f32, .space = NiftiSpace::aligned, .description = "aligned to " + fixed.file.stem.substr(0, 60)};
  write_nifti(result_path(work, file, ".nii.gz"), resample({placed, image.values}, fixed.grid, Interpolation::linear, outside), as_floats);
  if (labels_file != nullptr) {
    NiftiWriting as_labels = as_floats;
    as_labels.type = *std::ranges::max_element(labels.values) <= 255 ? VoxelType::u8 : VoxelType::i16;
    write_nifti(result_path(work, *labels_file, ".nii.gz"), resample({placed, labels.values}, fixed.grid, Interpolation::nearest),
                as_labels);
  }
  write_matrix(work, file, found);
  write_png(result_path(work, file, ".png"),
            draw_alignment(fixed.volume, image, found.to_moving, fmt::format("{}, {}", file.stem, enum_name(work.options.model))));
  say(fmt::format("{}: {}", file.stem, in_words(found, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count())));
}

}  // namespace

void align_volumes(const AlignVolumes& work, const Sentence& say, const Sentence& warn) {
  const std::vector<VolumeFile> images = volume_files(work.images), labels = volume_files(work.labels);
  check_input(labels.empty() || labels.size() == images.size(),
              "--labels: {} region maps for {} volumes; give one for each, in the same order", labels.size(), images.size());
  check_names(work, images, labels);
  const Template fixed = read_template(work);
  const std::string table = work.table.empty() ? "" : read_file_or_member(work.table);
  std::error_code error;
  fs::create_directories(work.out, error);
  check_input(!error, "{}: cannot be made: {}", work.out, error.message());
  say(kAlignExpectations);
  for (size_t i = 0; i < images.size(); ++i) align_one(work, fixed, images[i], labels.empty() ? nullptr : &labels[i], say, warn);
  if (!work.table.empty()) write_file((fs::path(work.out) / base_name(work.table.substr(work.table.rfind(':') + 1))).string(), table);
  say(fmt::format("{} volumes in {}", images.size(), work.out));
}

}  // namespace ermoe
