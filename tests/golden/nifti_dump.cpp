// For tests/golden/check_nifti.py, which compares with nibabel what is read here.
//   ermoe_nifti_dump make FOLDER   writes a NIfTI file of every version, byte order and datatype, with places of all kinds
//   ermoe_nifti_dump FILE          one line of JSON with the grid and the grid of its RAS form, then the voxels of both as float32;
//                                  where the file is refused the line says why
#include "core/error.h"
#include "core/file_io.h"
#include "data/gzip.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "tests/data/nifti_files.h"

#include <nlohmann/json.hpp>

#include <cstdio>

namespace ermoe::testing {
namespace {

nlohmann::json describe(const Grid& grid) { return {{"size", grid.size}, {"affine", grid.to_world.rows}}; }

void write_voxels(const Volume& volume) { std::fwrite(volume.values.data(), sizeof(float), volume.values.size(), stdout); }

void dump(const std::string& path) {
  try {
    const Volume volume = read_nifti(path), ras = to_ras(volume);
    std::printf("%s\n", nlohmann::json{{"as_stored", describe(volume.grid)}, {"ras", describe(ras.grid)}}.dump().c_str());
    write_voxels(volume);
    write_voxels(ras);
  } catch (const InputError& e) {
    std::printf("%s\n", nlohmann::json{{"refused", e.what()}}.dump().c_str());
  }
}

/// Kind 0: an sform with shears; 1: a qform; 2: one with its third axis reversed; 3: spacing alone; 4: both, in metres.
NiftiFields placed(int version, ByteOrder order, int kind, std::mt19937& random) {
  NiftiFields fields{.version = version, .order = order};
  fields.dim = {kind == 3 ? 4 : 3, 5, 4, 3, 1, 1, 1, 1};
  fields.pixdim = {kind == 2 ? -1.0 : 1.0, 1.25, 2.5, 0.75, 1, 1, 1, 1};
  fields.units = kind == 4 ? 1 : kind == 3 ? 0 : 2;
  fields.sform_code = kind == 0 || kind == 4 ? 1 : 0;
  fields.qform_code = kind == 3 ? 0 : 1;
  fields.srow = random_affine(random, 0.2).rows;
  for (auto& row : fields.srow)
    for (double& x : row) x *= kind == 4 ? 1e-3 : 1;
  const auto [a, b, c, d] = random_quaternion(random);
  fields.quaternion = {b, c, d};
  fields.qoffset = {-10.5, a, 200};
  fields.slope = random() % 3 == 0 ? 0 : 1.0 / 3;
  fields.intercept = -7;
  return fields;
}

void make(const std::string& folder) {
  std::mt19937 random(1);
  for (const int version : {1, 2}) {
    for (const ByteOrder order : {ByteOrder::little, ByteOrder::big}) {
      for (const StoredType& type : stored_types()) {
        for (int kind = 0; kind < 5; ++kind) {
          const std::string bytes = make_nifti(placed(version, order, kind, random), type, random).bytes;
          const std::string name =
              fmt::format("{}/v{}_{}_type{}_place{}.nii", folder, version, order == ByteOrder::big ? "big" : "little", type.code, kind);
          write_file(kind % 2 == 0 ? name : name + ".gz", kind % 2 == 0 ? bytes : gzipped(bytes));
        }
      }
    }
  }
  NiftiFields pair = placed(1, ByteOrder::big, 1, random);
  pair.pair = true;
  const std::string bytes = make_nifti(pair, stored_types()[3], random).bytes;
  write_file(folder + "/pair.hdr", bytes.substr(0, 348));
  write_file(folder + "/pair.img", bytes.substr(352));
  for (const VoxelType type : {VoxelType::u8, VoxelType::i16, VoxelType::f32}) {
    for (const double shear : {0.0, 0.3}) {
      Volume volume{{{4, 5, 6}, random_affine(random, shear)}, {}};
      for (int n = 0; n < 120; ++n) volume.values.push_back(static_cast<float>(random() % 256));
      write_nifti(fmt::format("{}/written_type{}_shear{}.nii.gz", folder, static_cast<int>(type), shear > 0), volume, {.type = type});
    }
  }
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (argc == 3 && first == "make") {
    ermoe::testing::make(argv[2]);
  } else if (argc == 2) {
    ermoe::testing::dump(first);
  } else {
    std::fprintf(stderr, "usage: ermoe_nifti_dump FILE | ermoe_nifti_dump make FOLDER\n");
    return 2;
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
