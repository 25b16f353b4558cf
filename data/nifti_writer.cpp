// Writing NIfTI-1 files. See data/nifti.h.
#include "core/error.h"
#include "core/file_io.h"
#include "data/file_tree.h"
#include "data/gzip.h"
#include "data/nifti.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

namespace ermoe {
namespace {

constexpr size_t header_bytes = 348, voxels_at = 352;
static_assert(std::endian::native == std::endian::little, "files are written in the machine's byte order, which the header calls little");

template <typename T>
void put(std::string& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

/// The qform's numbers: b, c, d of the rotation's quaternion, and whether the third axis is reversed (then qfac is -1).
struct Rotation {
  std::array<double, 3> bcd{};
  double qfac = 1;
};

/// None where the axes are not at right angles: a qform cannot say that.
std::optional<Rotation> rotation_of(const Grid& grid) {
  const Point3 mm = grid.spacing();
  std::array<std::array<double, 3>, 3> r{};
  Rotation found;
  found.qfac = grid.to_world.determinant() < 0 ? -1 : 1;
  for (size_t i = 0; i < 3; ++i)
    for (size_t c = 0; c < 3; ++c) r[i][c] = grid.to_world.rows[i][c] / mm[c] * (c == 2 ? found.qfac : 1);
  for (size_t c = 0; c < 3; ++c) {
    const size_t next = (c + 1) % 3;
    if (std::abs(r[0][c] * r[0][next] + r[1][c] * r[1][next] + r[2][c] * r[2][next]) > 1e-5) return {};
  }
  // Each of the four numbers of a quaternion from the diagonal; the largest is trusted and gives the signs of the others.
  const std::array<double, 4> squares{1 + r[0][0] + r[1][1] + r[2][2], 1 + r[0][0] - r[1][1] - r[2][2], 1 - r[0][0] + r[1][1] - r[2][2],
                                      1 - r[0][0] - r[1][1] + r[2][2]};
  const auto largest = static_cast<size_t>(std::ranges::max_element(squares) - squares.begin());
  const double x = std::sqrt(squares[largest]) / 2, s = 1 / (4 * x);
  const double a_b = r[2][1] - r[1][2], a_c = r[0][2] - r[2][0], a_d = r[1][0] - r[0][1];  // 4 a b, 4 a c, 4 a d
  const double b_c = r[0][1] + r[1][0], b_d = r[0][2] + r[2][0], c_d = r[1][2] + r[2][1];
  std::array<double, 4> q{};
  if (largest == 0) q = {x, a_b * s, a_c * s, a_d * s};
  if (largest == 1) q = {a_b * s, x, b_c * s, b_d * s};
  if (largest == 2) q = {a_c * s, b_c * s, x, c_d * s};
  if (largest == 3) q = {a_d * s, b_d * s, c_d * s, x};
  // The first is not stored and taken as positive.
  for (size_t i = 0; i < 3; ++i) found.bcd[i] = q[0] < 0 ? -q[i + 1] : q[i + 1];
  return found;
}

int datatype_code(VoxelType type) {
  switch (type) {
    case VoxelType::u8: return 2;
    case VoxelType::i16: return 4;
    case VoxelType::f32: return 16;
    default: fail("[nifti] volumes are written as f32, u8 or i16");
  }
}

void put_place(std::string& bytes, const Grid& grid, NiftiSpace space) {
  const Point3 mm = grid.spacing();
  const std::optional<Rotation> rotation = rotation_of(grid);
  put(bytes, 76, static_cast<float>(rotation ? rotation->qfac : 1));
  // Spacing, then 1 for the axes that are not there.
  for (size_t i = 0; i < 7; ++i) put(bytes, 80 + 4 * i, i < 3 ? static_cast<float>(mm[i]) : 1.0f);
  put(bytes, 123, uint8_t{2});  // millimetres
  put(bytes, 254, static_cast<int16_t>(space));
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c) put(bytes, 280 + 16 * r + 4 * c, static_cast<float>(grid.to_world.rows[r][c]));
  if (!rotation) return;
  put(bytes, 252, static_cast<int16_t>(space));
  for (size_t i = 0; i < 3; ++i) {
    put(bytes, 256 + 4 * i, static_cast<float>(rotation->bcd[i]));
    put(bytes, 268 + 4 * i, static_cast<float>(grid.to_world.rows[i][3]));
  }
}

std::string header(const Grid& grid, const NiftiWriting& how) {
  std::string bytes(voxels_at, '\0');
  put(bytes, 0, static_cast<int32_t>(header_bytes));
  bytes[38] = 'r';  // "regular", which old readers ask for
  put(bytes, 40, int16_t{3});
  for (size_t i = 0; i < 7; ++i) {
    const int64_t length = i < 3 ? grid.size[i] : 1;
    check(length >= 1 && length <= std::numeric_limits<int16_t>::max(), "[nifti] {} voxels along an axis", length);
    put(bytes, 42 + 2 * i, static_cast<int16_t>(length));
  }
  put(bytes, 70, static_cast<int16_t>(datatype_code(how.type)));
  put(bytes, 72, static_cast<int16_t>(8 * voxel_bytes(how.type)));
  put(bytes, 108, static_cast<float>(voxels_at));
  put(bytes, 112, 1.0f);
  std::memcpy(bytes.data() + 148, how.description.data(), std::min<size_t>(how.description.size(), 79));
  put_place(bytes, grid, how.space);
  std::memcpy(bytes.data() + 344, "n+1", 4);
  return bytes;
}

template <typename T>
void append_voxels(std::string& bytes, const std::vector<float>& values) {
  const size_t from = bytes.size();
  bytes.resize(from + values.size() * sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = values[i];
    if constexpr (!std::is_same_v<T, float>)
      check(v == std::floor(v) && v >= float{std::numeric_limits<T>::min()} && v <= float{std::numeric_limits<T>::max()},
            "[nifti] {} cannot be written as a whole number of {} bits", v, 8 * sizeof(T));
    const T stored = static_cast<T>(v);
    std::memcpy(bytes.data() + from + i * sizeof(T), &stored, sizeof(T));
  }
}

}  // namespace

std::string encode_nifti(const Volume& volume, const NiftiWriting& how) {
  check(static_cast<int64_t>(volume.values.size()) == volume.grid.voxels(), "[nifti] {} values for {} voxels", volume.values.size(),
        volume.grid.voxels());
  std::string bytes = header(volume.grid, how);
  if (how.type == VoxelType::u8) append_voxels<uint8_t>(bytes, volume.values);
  if (how.type == VoxelType::i16) append_voxels<int16_t>(bytes, volume.values);
  if (how.type == VoxelType::f32) append_voxels<float>(bytes, volume.values);
  return bytes;
}

void write_nifti(const std::string& path, const Volume& volume, const NiftiWriting& how) {
  const std::string bytes = encode_nifti(volume, how);
  write_file(path, lower(path).ends_with(".gz") ? gzipped(bytes) : bytes);
}

}  // namespace ermoe
