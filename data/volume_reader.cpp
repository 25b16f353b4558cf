#include "data/volume_reader.h"

#include "core/error.h"
#include "data/nifti.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr size_t largest_file = size_t{1} << 30;
constexpr const char* id_field = "{participant_id}";

/// What goes wrong with a subject's files is said of the subject.
template <typename Work>
auto about(const Subject& subject, Work&& work) {
  try {
    return work();
  } catch (const InputError& fault) {
    fail_input("subject {}: {}", subject.id, fault.what());
  }
}

bool one_atlas(const std::string& regions) { return !regions.empty() && regions.find('{') == std::string::npos; }

/// In RAS, with voxels of `mm`.
Volume at_spacing(const Volume& volume, double mm) {
  const Volume ras = to_ras(volume);
  const Point3 now = ras.grid.spacing();
  const bool there = std::ranges::all_of(now, [&](double s) { return std::abs(s - mm) < 1e-3 * mm; });
  return there ? ras : resample(ras, grid_with_spacing(ras.grid, mm), Interpolation::linear);
}

}  // namespace

Volume prepare_volume(const Volume& volume, const VolumeFormat& format, const std::string& name) {
  require_sound(volume, name);
  Volume prepared = crop_or_pad(at_spacing(volume, format.spacing), format.size, Middle::box);
  normalize(prepared, format.normalize, name);
  return prepared;
}

void require_labels(const Volume& map, const std::string& name) {
  for (const float v : map.values)
    check_input(v == std::floor(v) && v >= 0 && v <= 32767, "{}: holds {}, which is no label (a whole number from 0 to 32767)", name, v);
}

VolumeReader::VolumeReader(std::shared_ptr<const FileTree> files, VolumeFormat format)
    : files_(std::move(files)), format_(std::move(format)) {
  if (!one_atlas(format_.regions)) {
    check_input(format_.regions.empty() || format_.regions.find(id_field) != std::string::npos,
                "data.regions: {} names no {}, so all subjects would have the same map", format_.regions, id_field);
    return;
  }
  const auto file = find_file(*files_, format_.regions);
  atlas_ = file ? load(*file) : read_nifti(format_.regions);
  require_labels(*atlas_, format_.regions);
}

Volume VolumeReader::load(size_t file) const { return read_nifti(files_->read(file, largest_file), files_->name(file)); }

PreparedVolume VolumeReader::read(const Subject& subject) const {
  return about(subject, [&] {
    const Volume volume = load(subject.file);
    const std::string name = files_->name(subject.file);
    PreparedVolume prepared{.intensities = prepare_volume(volume, format_, name), .labels = {}, .doubt = looks_unstripped(volume, name)};
    if (!format_.regions.empty()) prepared.labels = labels_of(subject, volume.grid, prepared.intensities.grid);
    return prepared;
  });
}

std::vector<float> VolumeReader::labels_of(const Subject& subject, const Grid& own, const Grid& window) const {
  if (atlas_) return resample(*atlas_, window, Interpolation::nearest).values;
  std::string path = format_.regions;
  for (size_t at = path.find(id_field); at != std::string::npos; at = path.find(id_field, at + subject.id.size()))
    path.replace(at, std::string_view(id_field).size(), subject.id);
  const auto file = find_file(*files_, path);
  check_input(file.has_value(), "its map of regions {} is not in {}", path, files_->root());
  const Volume map = load(*file);
  require_labels(map, files_->name(*file));
  check_input(same_grid(map.grid, own), "{} does not lie on the grid of {}", files_->name(*file), files_->name(subject.file));
  return resample(map, window, Interpolation::nearest).values;
}

std::array<int64_t, 3> VolumeReader::brain_size(const Subject& subject) const {
  return about(subject, [&] {
    const Volume whole = load(subject.file);
    require_sound(whole, files_->name(subject.file));
    const Volume volume = at_spacing(whole, format_.spacing);
    std::array<int64_t, 3> low = volume.grid.size, high{-1, -1, -1};
    for (int64_t k = 0; k < volume.grid.size[2]; ++k)
      for (int64_t j = 0; j < volume.grid.size[1]; ++j)
        for (int64_t i = 0; i < volume.grid.size[0]; ++i) {
          if (volume.at(i, j, k) <= 0) continue;
          const int64_t at[] = {i, j, k};
          for (size_t a = 0; a < 3; ++a) {
            low[a] = std::min(low[a], at[a]);
            high[a] = std::max(high[a], at[a]);
          }
        }
    for (size_t a = 0; a < 3; ++a) high[a] = std::max<int64_t>(1, high[a] - low[a] + 1);
    return high;
  });
}

}  // namespace ermoe
