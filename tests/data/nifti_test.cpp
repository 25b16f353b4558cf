// NIfTI files as they should be: every datatype, byte order and version, every way of placing voxels, pairs, and what the writer makes.
#include "data/nifti.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/gzip.h"
#include "data/volume_grid.h"
#include "tests/data/nifti_files.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <functional>

namespace ermoe::testing {
namespace {

void expect_near(const Affine& found, const Affine& expected, double tolerance) {
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(found.rows[r][c], expected.rows[r][c], tolerance) << "row " << r << ", column " << c;
}

NiftiFields placed(int version, ByteOrder order, const Affine& world) {
  NiftiFields fields{.version = version, .order = order, .sform_code = 1};
  fields.srow = world.rows;
  return fields;
}

/// Calls `body` for both versions in both byte orders.
void in_every_layout(const std::function<void(int, ByteOrder)>& body) {
  for (const int version : {1, 2}) {
    for (const ByteOrder order : {ByteOrder::little, ByteOrder::big}) {
      SCOPED_TRACE(fmt::format("version {}, {} endian", version, order == ByteOrder::big ? "big" : "little"));
      body(version, order);
    }
  }
}

TEST(Nifti, ReadsEveryDatatype) {
  std::mt19937 random(1);
  in_every_layout([&](int version, ByteOrder order) {
    for (const StoredType& type : stored_types()) {
      SCOPED_TRACE(type.code);
      const Affine world = random_affine(random, 0.2);
      NiftiFields fields = placed(version, order, world);
      fields.slope = random() % 2 == 0 ? 0 : 0.5;
      fields.intercept = -3;
      const MadeNifti made = make_nifti(fields, type, random);
      for (const std::string& bytes : {made.bytes, gzipped(made.bytes)}) {
        const Volume volume = read_nifti(bytes, "made");
        EXPECT_EQ(volume.grid.size, (std::array<int64_t, 3>{2, 3, 4}));
        expect_near(volume.grid.to_world, world, version == 1 ? 1e-5 : 0);
        ASSERT_EQ(volume.values.size(), made.stored.size());
        for (size_t i = 0; i < made.stored.size(); ++i) {
          const double value = fields.slope == 0 ? made.stored[i] : made.stored[i] * fields.slope + fields.intercept;
          EXPECT_EQ(volume.values[i], static_cast<float>(value));
        }
      }
      const NiftiHeader header = parse_nifti_header(made.bytes, "made");
      EXPECT_EQ(header.type, type.type);
      EXPECT_EQ(header.version, version);
      EXPECT_EQ(header.order, order);
      EXPECT_EQ(header.scaled(), fields.slope != 0);
    }
  });
}

TEST(Nifti, ASlopeThatIsNoneIsNotApplied) {
  std::mt19937 random(2);
  for (const double slope : {0.0, std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    NiftiFields fields{.slope = slope, .intercept = 7};
    const MadeNifti made = make_nifti(fields, stored_types()[0], random);
    EXPECT_EQ(read_nifti(made.bytes, "made").values[0], static_cast<float>(made.stored[0]));
  }
  NiftiFields fields{.slope = 1, .intercept = std::nan("")};
  EXPECT_THROW(read_nifti(make_nifti(fields, stored_types()[0], random).bytes, "made"), InputError);
}

TEST(Nifti, AQformTurnsByItsQuaternion) {
  std::mt19937 random(3);
  in_every_layout([&](int version, ByteOrder order) {
    for (const double qfac : {1.0, -1.0, 0.0}) {
      const auto [a, b, c, d] = random_quaternion(random);
      NiftiFields fields{.version = version, .order = order, .qform_code = 1};
      fields.pixdim = {qfac, 1, 2, 3, 1, 1, 1, 1};
      fields.quaternion = {b, c, d};
      fields.qoffset = {10, 20, 30};
      const NiftiHeader header = parse_nifti_header(make_nifti(fields, stored_types()[0], random).bytes, "made");
      EXPECT_EQ(header.affine_source, AffineSource::qform);
      // v -> q v q*, written out with vectors: v + 2 a (u x v) + 2 u x (u x v).
      const Point3 u{b, c, d};
      const auto cross = [](const Point3& x, const Point3& y) {
        return Point3{x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]};
      };
      for (size_t axis = 0; axis < 3; ++axis) {
        Point3 v{};
        v[axis] = fields.pixdim[axis + 1] * (axis == 2 && qfac == -1 ? -1 : 1);
        const Point3 once = cross(u, v), twice = cross(u, once);
        for (size_t r = 0; r < 3; ++r)
          EXPECT_NEAR(header.grid.to_world.rows[r][axis], v[r] + 2 * a * once[r] + 2 * twice[r], version == 1 ? 1e-5 : 1e-12);
      }
      for (size_t r = 0; r < 3; ++r) EXPECT_EQ(header.grid.to_world.rows[r][3], fields.qoffset[r]);
    }
  });
}

TEST(Nifti, TheSformComesBeforeTheQformAndThatBeforeTheSpacing) {
  std::mt19937 random(4);
  NiftiFields fields{.qform_code = 1, .sform_code = 2};
  fields.pixdim = {1, 2, 4, 6, 1, 1, 1, 1};
  fields.srow = {{{3, 0, 0, 1}, {0, 3, 0, 2}, {0, 0, 3, 3}}};
  const auto grid = [&] { return parse_nifti_header(make_nifti(fields, stored_types()[0], random).bytes, "made").grid; };
  EXPECT_EQ(grid().to_world, (Affine{{{{3, 0, 0, 1}, {0, 3, 0, 2}, {0, 0, 3, 3}}}}));
  fields.sform_code = 0;
  EXPECT_EQ(grid().to_world, (Affine{{{{2, 0, 0, 0}, {0, 4, 0, 0}, {0, 0, 6, 0}}}}));
  fields.qform_code = 0;
  // Size 2 x 3 x 4: the middle is at the origin, and x runs to the left.
  EXPECT_EQ(grid().to_world, (Affine{{{{-2, 0, 0, 1}, {0, 4, 0, -4}, {0, 0, 6, -9}}}}));
}

TEST(Nifti, UnitsBecomeMillimetres) {
  std::mt19937 random(5);
  // The upper bits are the unit of time.
  for (const auto& [units, mm] : {std::pair{1, 2.0}, {2 | 8, 2e-3}, {3, 2e-6 * 1e3}, {0, 2e-3}}) {
    NiftiFields fields{.units = units, .sform_code = 1};
    const double scale = units == 3 ? 1e3 : 1;
    fields.srow = {{{2e-3 * scale, 0, 0, 0}, {0, 2e-3 * scale, 0, 0}, {0, 0, 2e-3 * scale, 4e-3 * scale}}};
    const NiftiHeader header = parse_nifti_header(make_nifti(fields, stored_types()[0], random).bytes, "made");
    EXPECT_NEAR(header.grid.spacing()[0] / mm, 1, 1e-6) << units;
    EXPECT_NEAR(header.grid.to_world.rows[2][3] / mm, 2, 1e-6) << units;
  }
}

TEST(Nifti, SkipsExtensionsAndTakesOneFrameForAVolume) {
  std::mt19937 random(6);
  NiftiFields fields{.vox_offset = 352 + 32};
  fields.dim = {4, 2, 3, 4, 1, 1, 1, 1};
  MadeNifti made = make_nifti(fields, stored_types()[3], random);
  made.bytes.insert(352, std::string(32, 'x'));
  const Volume volume = read_nifti(made.bytes, "made");
  EXPECT_EQ(volume.values.back(), static_cast<float>(made.stored.back()));
  fields.dim = {5, 2, 3, 4, 5, 2, 1, 1};
  const std::string series = make_nifti(fields, stored_types()[3], random).bytes + std::string(4096, '\0');
  EXPECT_EQ(parse_nifti_header(series, "made").frames, 10);
  try {
    read_nifti(series, "made");
    ADD_FAILURE() << "a series was read";
  } catch (const InputError& e) {
    EXPECT_STREQ(e.what(), "made: a series of 10 frames; one volume is wanted");
  }
}

TEST(Nifti, ReadsPairsByEitherPath) {
  std::mt19937 random(7);
  const ScratchFolder folder;
  NiftiFields fields{.pair = true};
  const MadeNifti made = make_nifti(fields, stored_types()[3], random);
  write_file(folder.file("a.hdr"), made.bytes.substr(0, 348));
  EXPECT_THROW(read_nifti(folder.file("a.hdr")), InputError);
  write_file(folder.file("a.img.gz"), gzipped(made.bytes.substr(352)));
  for (const char* name : {"a.hdr", "a.img.gz"}) {
    EXPECT_TRUE(is_volume_name(name));
    EXPECT_EQ(read_nifti(folder.file(name)).values[5], static_cast<float>(made.stored[5]));
    EXPECT_TRUE(read_nifti_header(folder.file(name)).pair);
  }
  EXPECT_THROW(read_nifti(made.bytes, "from memory"), InputError);
  EXPECT_FALSE(is_volume_name("nii"));
}

Volume random_volume(std::mt19937& random, const std::array<int64_t, 3>& size, const Affine& world) {
  Volume volume{{size, world}, std::vector<float>(static_cast<size_t>(size[0] * size[1] * size[2]))};
  for (float& v : volume.values) v = static_cast<float>(random() % 200);
  return volume;
}

/// What a file says of a place when its sform is taken away.
Affine qform_of(std::string bytes) {
  bytes[254] = 0;
  return parse_nifti_header(bytes, "written").grid.to_world;
}

TEST(NiftiWriter, IsReadBack) {
  std::mt19937 random(8);
  const ScratchFolder folder;
  const std::string path = folder.file("v.nii.gz");
  for (const VoxelType type : {VoxelType::f32, VoxelType::u8, VoxelType::i16}) {
    const Volume volume = random_volume(random, {5, 4, 3}, random_affine(random, 0));
    write_nifti(path, volume, {.type = type, .space = NiftiSpace::mni, .description = std::string(200, 'd')});
    const Volume back = read_nifti(path);
    EXPECT_EQ(back.values, volume.values);
    EXPECT_TRUE(same_grid(back.grid, volume.grid, 1e-4));
    EXPECT_EQ(read_nifti_header(path).type, type);
    EXPECT_EQ(read_nifti_header(path).affine_source, AffineSource::sform);
  }
  EXPECT_TRUE(is_gzip(read_file(path, 1 << 20)));
}

TEST(NiftiWriter, TheQformSaysWhatTheSformSays) {
  std::mt19937 random(9);
  for (int n = 0; n < 100; ++n) {
    const Volume volume = random_volume(random, {2, 2, 2}, random_affine(random, 0));
    const Affine world = qform_of(encode_nifti(volume));
    expect_near(world, volume.grid.to_world, 3e-5);
  }
  // Half turns, where the number that is not stored is 0.
  for (size_t axis = 0; axis < 3; ++axis) {
    Affine world;
    for (size_t r = 0; r < 3; ++r) world.rows[r][r] = r == axis ? 1 : -1;
    expect_near(qform_of(encode_nifti(random_volume(random, {2, 2, 2}, world))), world, 1e-6);
  }
  const std::string bent = encode_nifti(random_volume(random, {2, 2, 2}, random_affine(random, 0.3)));
  EXPECT_EQ(bent[252], 0);
  EXPECT_EQ(bent[254], 2);
}

TEST(NiftiWriter, RefusesWhatDoesNotFit) {
  std::mt19937 random(10);
  Volume volume = random_volume(random, {2, 2, 2}, {});
  for (const float v : {-1.0f, 256.0f, 0.5f, std::nanf("")}) {
    volume.values[3] = v;
    EXPECT_THROW(encode_nifti(volume, {.type = VoxelType::u8}), Error) << v;
  }
  EXPECT_THROW(encode_nifti(volume, {.type = VoxelType::f64}), Error);
  volume.values.pop_back();
  EXPECT_THROW(encode_nifti(volume), Error);
  EXPECT_THROW(encode_nifti(random_volume(random, {40000, 1, 1}, {})), Error);
}

TEST(RequireSound, SaysWhatIsWrong) {
  std::mt19937 random(11);
  Volume volume = random_volume(random, {2, 2, 2}, {});
  EXPECT_NO_THROW(require_sound(volume, "s"));
  const auto fault = [&]() -> std::string {
    try {
      require_sound(volume, "subject 7");
      return "";
    } catch (const InputError& e) {
      return e.what();
    }
  };
  volume.values[1] = std::nanf("");
  volume.values[2] = HUGE_VALF;
  EXPECT_EQ(fault(), "subject 7: 2 of 8 voxels are not finite numbers");
  std::ranges::fill(volume.values, 3.0f);
  EXPECT_EQ(fault(), "subject 7: every voxel has the same value, 3");
}

}  // namespace
}  // namespace ermoe::testing
