// Makes NIfTI files for tests, in every version, byte order and datatype, field by field: independent of the program's own writer.
#pragma once

#include "data/nifti.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace ermoe::testing {

/// The numbers that stand in a header. Affines and rotations are what the file says, not what is meant by it.
struct NiftiFields {
  int version = 1;
  ByteOrder order = ByteOrder::little;
  bool pair = false;
  int datatype = 16;
  std::vector<int64_t> dim{3, 2, 3, 4, 1, 1, 1, 1};
  std::array<double, 8> pixdim{1, 1, 1, 1, 1, 1, 1, 1};
  double vox_offset = -1;  // where negative: right behind the header
  double slope = 0, intercept = 0;
  int units = 2, qform_code = 0, sform_code = 0;
  std::array<double, 3> quaternion{}, qoffset{};
  std::array<std::array<double, 4>, 3> srow{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
};

class NiftiBytes {
 public:
  explicit NiftiBytes(const NiftiFields& f)
      : two_(f.version == 2), swap_((f.order == ByteOrder::big) != (std::endian::native == std::endian::big)) {
    bytes_.assign(two_ ? 544 : 352, '\0');
    put<int32_t>(0, two_ ? 540 : 348);
    const std::string magic =
        two_ ? std::string(f.pair ? "ni2\0\r\n\x1a\n" : "n+2\0\r\n\x1a\n", 8) : std::string(f.pair ? "ni1" : "n+1", 4);
    std::memcpy(bytes_.data() + (two_ ? 4 : 344), magic.data(), magic.size());
    for (size_t i = 0; i < 8; ++i) two_ ? put<int64_t>(16 + 8 * i, f.dim[i]) : put<int16_t>(40 + 2 * i, static_cast<int16_t>(f.dim[i]));
    put<int16_t>(two_ ? 12 : 70, static_cast<int16_t>(f.datatype));
    for (size_t i = 0; i < 8; ++i) real(76, 104, i, f.pixdim[i]);
    const double offset = f.vox_offset >= 0 ? f.vox_offset : f.pair ? 0 : static_cast<double>(bytes_.size());
    two_ ? put<int64_t>(168, static_cast<int64_t>(offset)) : put<float>(108, static_cast<float>(offset));
    real(112, 176, 0, f.slope);
    real(116, 184, 0, f.intercept);
    two_ ? put<int32_t>(500, f.units) : put<uint8_t>(123, static_cast<uint8_t>(f.units));
    two_ ? put<int32_t>(344, f.qform_code) : put<int16_t>(252, static_cast<int16_t>(f.qform_code));
    two_ ? put<int32_t>(348, f.sform_code) : put<int16_t>(254, static_cast<int16_t>(f.sform_code));
    for (size_t i = 0; i < 3; ++i) real(256, 352, i, f.quaternion[i]);
    for (size_t i = 0; i < 3; ++i) real(268, 376, i, f.qoffset[i]);
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 4; ++c) real(280 + 16 * r, 400 + 32 * r, c, f.srow[r][c]);
  }

  template <typename T>
  void put(size_t offset, T value) {
    const std::string raw = in_order(value);
    std::memcpy(bytes_.data() + offset, raw.data(), raw.size());
  }
  template <typename T>
  void append(T value) {
    bytes_ += in_order(value);
  }
  void append_bytes(const std::string& more) { bytes_ += more; }
  const std::string& bytes() const { return bytes_; }

 private:
  template <typename T>
  std::string in_order(T value) const {
    std::string raw(sizeof(T), '\0');
    std::memcpy(raw.data(), &value, sizeof(T));
    if (swap_) std::ranges::reverse(raw);
    return raw;
  }
  void real(size_t one, size_t two, size_t i, double value) {
    two_ ? put<double>(two + 8 * i, value) : put<float>(one + 4 * i, static_cast<float>(value));
  }

  bool two_, swap_;
  std::string bytes_;
};

/// A datatype of NIfTI with its code and a way to append a voxel of it.
struct StoredType {
  VoxelType type;
  int code;
  double low, high;  // of the values that tests store
  void (*append)(NiftiBytes&, double);
};

template <typename T>
void append_as(NiftiBytes& file, double value) {
  file.append(static_cast<T>(value));
}

inline const std::vector<StoredType>& stored_types() {
  static const std::vector<StoredType> types{
      {VoxelType::u8, 2, 0, 255, append_as<uint8_t>},         {VoxelType::i8, 256, -128, 127, append_as<int8_t>},
      {VoxelType::u16, 512, 0, 65535, append_as<uint16_t>},   {VoxelType::i16, 4, -32768, 32767, append_as<int16_t>},
      {VoxelType::u32, 768, 0, 4e9, append_as<uint32_t>},     {VoxelType::i32, 8, -2e9, 2e9, append_as<int32_t>},
      {VoxelType::u64, 1280, 0, 1.8e19, append_as<uint64_t>}, {VoxelType::i64, 1024, -9e18, 9e18, append_as<int64_t>},
      {VoxelType::f32, 16, -1e6, 1e6, append_as<float>},      {VoxelType::f64, 64, -1e6, 1e6, append_as<double>},
  };
  return types;
}

/// A file with voxels drawn at random, and what they are, as stored.
struct MadeNifti {
  std::string bytes;
  std::vector<double> stored;
};

inline MadeNifti make_nifti(NiftiFields fields, const StoredType& type, std::mt19937& random) {
  fields.datatype = type.code;
  NiftiBytes file(fields);
  MadeNifti made;
  std::uniform_real_distribution<double> draw(type.low, type.high);
  for (int64_t n = fields.dim[1] * fields.dim[2] * fields.dim[3]; n > 0; --n) {
    double value = draw(random);
    if (type.type == VoxelType::f32) value = static_cast<float>(value);
    if (type.type != VoxelType::f32 && type.type != VoxelType::f64) value = std::floor(value);
    made.stored.push_back(value);
    type.append(file, value);
  }
  made.bytes = file.bytes();
  return made;
}

/// The quaternion (a >= 0) of a random rotation.
inline std::array<double, 4> random_quaternion(std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::array<double, 4> q{};
  double norm = 0;
  for (double& x : q) x = normal(random);
  for (const double x : q) norm += x * x;
  const double scale = std::copysign(1 / std::sqrt(norm), q[0]);
  for (double& x : q) x *= scale;
  return q;
}

/// An affine map that turns, stretches, and where `shear` is not 0 bends angles, at random.
inline Affine random_affine(std::mt19937& random, double shear) {
  std::uniform_real_distribution<double> spacing(0.5, 3), offset(-100, 100), bend(-shear, shear);
  const auto [a, b, c, d] = random_quaternion(random);
  Affine world{{{{1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c), offset(random)},
                 {2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b), offset(random)},
                 {2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c), offset(random)}}}};
  for (size_t column = 0; column < 3; ++column) {
    const double mm = spacing(random) * (random() % 2 == 0 ? 1 : -1);
    for (auto& row : world.rows) row[column] = row[column] * mm + bend(random);
  }
  return world;
}

}  // namespace ermoe::testing
