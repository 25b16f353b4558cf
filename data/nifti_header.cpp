// The header of a NIfTI file, version 1 (348 bytes) or 2 (540 bytes): https://nifti.nimh.nih.gov. See data/nifti.h.
#include "core/error.h"
#include "data/file_tree.h"
#include "data/nifti.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

namespace ermoe {
namespace {

constexpr size_t header_bytes_1 = 348, header_bytes_2 = 540;
// Behind the header of a single file come four bytes that tell of extensions.
constexpr size_t extension_flag_bytes = 4;
constexpr int64_t max_voxels = int64_t{128} << 20;
// Shortest and longest believable distance between voxels, in mm.
constexpr double min_spacing = 1e-4, max_spacing = 1e4;
constexpr int last_known_code = 5;

/// The fields of a header: each lies at one offset in version 1 and at another, mostly in a wider type, in version 2.
class Fields {
 public:
  Fields(std::string_view bytes, int version, ByteOrder order) : bytes_(bytes), version_(version), order_(order) {}
  int version() const { return version_; }
  ByteOrder order() const { return order_; }

  template <typename T>
  T at(size_t offset) const {
    char raw[sizeof(T)];
    std::memcpy(raw, bytes_.data() + offset, sizeof(T));
    if ((order_ == ByteOrder::big) != (std::endian::native == std::endian::big)) std::reverse(raw, raw + sizeof(T));
    T value;
    std::memcpy(&value, raw, sizeof(T));
    return value;
  }
  /// Element i of an array of floats in version 1, doubles in version 2.
  double real(size_t one, size_t two, size_t i = 0) const {
    return version_ == 1 ? double{at<float>(one + 4 * i)} : at<double>(two + 8 * i);
  }
  /// Element i of the sizes.
  int64_t dim(size_t i) const { return version_ == 1 ? at<int16_t>(40 + 2 * i) : at<int64_t>(16 + 8 * i); }
  double pixdim(size_t i) const { return real(76, 104, i); }
  int code(size_t one, size_t two) const { return version_ == 1 ? at<int16_t>(one) : at<int32_t>(two); }
  int datatype() const { return at<int16_t>(version_ == 1 ? 70 : 12); }
  int units() const { return version_ == 1 ? at<uint8_t>(123) : at<int32_t>(500); }
  std::string_view magic() const { return version_ == 1 ? bytes_.substr(344, 4) : bytes_.substr(4, 8); }

 private:
  std::string_view bytes_;
  int version_;
  ByteOrder order_;
};

/// Version and byte order, by the size that a header claims to have. None where it is neither version's.
std::optional<Fields> recognise(std::string_view head) {
  if (head.size() < sizeof(int32_t)) return {};
  for (const ByteOrder order : {ByteOrder::little, ByteOrder::big}) {
    const auto claimed = Fields(head, 1, order).at<int32_t>(0);
    if (claimed == int32_t{header_bytes_1}) return Fields(head, 1, order);
    if (claimed == int32_t{header_bytes_2}) return Fields(head, 2, order);
  }
  return {};
}

enum class Container { single, pair, none };

Container container(const Fields& fields) {
  using namespace std::string_view_literals;
  const std::string_view magic = fields.magic();
  if (magic == (fields.version() == 1 ? "n+1\0"sv : "n+2\0\r\n\x1a\n"sv)) return Container::single;
  if (magic == (fields.version() == 1 ? "ni1\0"sv : "ni2\0\r\n\x1a\n"sv)) return Container::pair;
  return Container::none;
}

VoxelType voxel_type(int code, const std::string& name) {
  switch (code) {
    case 2: return VoxelType::u8;
    case 4: return VoxelType::i16;
    case 8: return VoxelType::i32;
    case 16: return VoxelType::f32;
    case 64: return VoxelType::f64;
    case 256: return VoxelType::i8;
    case 512: return VoxelType::u16;
    case 768: return VoxelType::u32;
    case 1024: return VoxelType::i64;
    case 1280: return VoxelType::u64;
    case 32:
    case 1792:
    case 2048: fail_input("{}: its voxels are complex numbers, which are not read here", name);
    case 128:
    case 2304: fail_input("{}: its voxels are colours (RGB), which are not read here", name);
    case 1536: fail_input("{}: its voxels are 128-bit floats, which are not read here", name);
    case 1: fail_input("{}: its voxels are single bits, which are not read here", name);
    default: fail_input("{}: the NIfTI header has an unknown datatype, {}", name, code);
  }
}

void read_size(const Fields& fields, NiftiHeader& header, const std::string& name) {
  const int64_t axes = fields.dim(0);
  check_input(axes >= 1 && axes <= 7, "{}: the NIfTI header claims {} axes", name, axes);
  check_input(axes >= 3, "{}: has {} axes, a volume has 3", name, axes);
  int64_t voxels = 1;
  for (size_t a = 0; a < static_cast<size_t>(axes); ++a) {
    const int64_t length = fields.dim(a + 1);
    check_input(length >= 1, "{}: the NIfTI header claims {} voxels along axis {}", name, length, a + 1);
    // Frames are only counted, for the message that refuses them; voxels are what memory is taken for.
    int64_t& product = a < 3 ? voxels : header.frames;
    check_input(length <= max_voxels / product, "{}: the NIfTI header claims more than {} Mi {}", name, max_voxels >> 20,
                a < 3 ? "voxels" : "frames");
    product *= length;
    if (a < 3) header.grid.size[a] = length;
  }
}

double mm_per_unit(int units) {
  switch (units & 7) {
    case 1: return 1e3;   // metres
    case 3: return 1e-3;  // microns
    default: return 1;    // millimetres, or not said
  }
}

/// A rotation by the quaternion (a, b, c, d) whose last three are stored, then the offset: "method 2" of the standard.
Affine qform(const Fields& fields, const std::string& name) {
  const double b = fields.real(256, 352), c = fields.real(260, 360), d = fields.real(264, 368);
  const double rest = 1 - (b * b + c * c + d * d);
  // A little above 1 is the rounding of single precision; nibabel draws the line here too.
  constexpr double rounding = 3 * 1.1920929e-07;
  check_input(rest >= -rounding, "{}: the quaternion of its qform is none of a rotation", name);
  const double a = std::sqrt(std::max(0.0, rest)), s = 2 / (a * a + b * b + c * c + d * d);
  Affine world{{{{1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c), fields.real(268, 376)},
                 {s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b), fields.real(272, 384)},
                 {s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c), fields.real(276, 392)}}}};
  const double handedness = fields.pixdim(0) == -1 ? -1 : 1;
  for (auto& row : world.rows)
    for (size_t i = 0; i < 3; ++i) row[i] *= std::abs(fields.pixdim(i + 1)) * (i == 2 ? handedness : 1);
  return world;
}

Affine sform(const Fields& fields) {
  Affine world;
  for (size_t r = 0; r < 3; ++r)
    for (size_t i = 0; i < 4; ++i) world.rows[r][i] = fields.real(280 + 16 * r, 400 + 32 * r, i);
  return world;
}

Affine from_spacing(const Fields& fields, const Grid& grid) {
  Affine world;
  for (size_t i = 0; i < 3; ++i) {
    world.rows[i][i] = std::abs(fields.pixdim(i + 1)) * (i == 0 ? -1 : 1);
    world.rows[i][3] = -world.rows[i][i] * static_cast<double>(grid.size[i] - 1) / 2;
  }
  return world;
}

void check_affine(const Grid& grid, const std::string& name) {
  for (const auto& row : grid.to_world.rows)
    for (const double x : row)
      check_input(std::isfinite(x) && std::abs(x) < 1e9, "{}: the NIfTI header places its voxels at {} mm", name, x);
  const Point3 mm = grid.spacing();
  for (const double s : mm) check_input(s >= min_spacing && s <= max_spacing, "{}: the NIfTI header puts its voxels {} mm apart", name, s);
  check_input(std::abs(grid.to_world.determinant()) > 1e-6 * mm[0] * mm[1] * mm[2],
              "{}: by the NIfTI header its axes do not span space (the affine is singular)", name);
}

void read_affine(const Fields& fields, NiftiHeader& header, const std::string& name) {
  const auto known = [](int code) { return code > 0 && code <= last_known_code; };
  Affine& world = header.grid.to_world;
  if (known(fields.code(254, 348))) {
    header.affine_source = AffineSource::sform;
    world = sform(fields);
  } else if (known(fields.code(252, 344))) {
    header.affine_source = AffineSource::qform;
    world = qform(fields, name);
  } else {
    header.affine_source = AffineSource::pixdim;
    world = from_spacing(fields, header.grid);
  }
  const double mm = mm_per_unit(fields.units());
  for (auto& row : world.rows)
    for (double& x : row) x *= mm;
  check_affine(header.grid, name);
}

void read_scale(const Fields& fields, NiftiHeader& header, const std::string& name) {
  const double slope = fields.real(112, 176), intercept = fields.real(116, 184);
  if (slope == 0 || !std::isfinite(slope)) return;
  check_input(std::isfinite(intercept), "{}: the NIfTI header scales by {} and adds {}", name, slope, intercept);
  header.slope = slope;
  header.intercept = intercept;
}

void read_offset(const Fields& fields, NiftiHeader& header, const std::string& name) {
  constexpr double most = 1e12;
  const double offset = fields.version() == 1 ? double{fields.at<float>(108)} : static_cast<double>(fields.at<int64_t>(168));
  const size_t least = header.pair ? 0 : (fields.version() == 1 ? header_bytes_1 : header_bytes_2) + extension_flag_bytes;
  check_input(offset >= static_cast<double>(least) && offset <= most && offset == std::floor(offset),
              "{}: the NIfTI header puts the voxels at byte {}", name, offset);
  header.data_offset = static_cast<uint64_t>(offset);
}

}  // namespace

size_t voxel_bytes(VoxelType type) {
  switch (type) {
    case VoxelType::u8:
    case VoxelType::i8: return 1;
    case VoxelType::u16:
    case VoxelType::i16: return 2;
    case VoxelType::u32:
    case VoxelType::i32:
    case VoxelType::f32: return 4;
    default: return 8;
  }
}

bool is_nifti(std::string_view head) {
  const std::optional<Fields> fields = recognise(head);
  return fields && head.size() >= (fields->version() == 1 ? header_bytes_1 : 12) && container(*fields) != Container::none;
}

bool is_volume_name(std::string_view path) {
  std::string name = lower(base_name(path));
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  return name.ends_with(".nii") || name.ends_with(".hdr") || name.ends_with(".img");
}

NiftiHeader parse_nifti_header(std::string_view head, const std::string& name) {
  check_input(!head.empty(), "{}: the file is empty", name);
  const std::optional<Fields> fields = recognise(head);
  check_input(fields.has_value(), "{}: no NIfTI file: it does not begin with a header's size, 348 or 540", name);
  const size_t needed = fields->version() == 1 ? header_bytes_1 : header_bytes_2;
  check_input(head.size() >= needed, "{}: ends after {} bytes, within its NIfTI header", name, head.size());
  check_input(container(*fields) != Container::none, "{}: no NIfTI file: its header lacks the mark of one (an older format is Analyze 7.5)",
              name);
  NiftiHeader header;
  header.version = fields->version();
  header.order = fields->order();
  header.pair = container(*fields) == Container::pair;
  read_size(*fields, header, name);
  header.type = voxel_type(fields->datatype(), name);
  read_offset(*fields, header, name);
  read_scale(*fields, header, name);
  read_affine(*fields, header, name);
  return header;
}

}  // namespace ermoe
