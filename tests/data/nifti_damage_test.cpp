// NIfTI files that are cut off, lie, or were changed at random: refused in one sentence, or read; never a crash or memory for nothing.
#include "core/error.h"
#include "data/gzip.h"
#include "data/nifti.h"
#include "data/tar.h"
#include "tests/data/nifti_files.h"
#include "tests/data/test_data.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <ctime>
#include <map>
#include <set>
#include <sstream>

namespace ermoe::testing {
namespace {

/// Why a file is refused; empty where it is read.
std::string refusal(const std::string& bytes, const std::string& name = "made") {
  try {
    const Volume volume = read_nifti(bytes, name);
    EXPECT_EQ(static_cast<int64_t>(volume.values.size()), volume.grid.voxels());
    EXPECT_NE(volume.grid.to_world.determinant(), 0);
    return {};
  } catch (const InputError& e) {
    const std::string what = e.what();
    EXPECT_EQ(what.find(name + ": "), 0u) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    EXPECT_LT(what.size(), name.size() + 200) << what;
    return what;
  }
}

std::string made(NiftiFields fields, int type = 3) {
  std::mt19937 random(1);
  return make_nifti(fields, stored_types()[static_cast<size_t>(type)], random).bytes;
}

TEST(NiftiDamage, IsRefusedAtEveryLength) {
  for (const int version : {1, 2}) {
    const std::string plain = made({.version = version}), packed = gzipped(plain);
    for (const std::string& whole : {plain, packed}) {
      EXPECT_EQ(refusal(whole), "");
      for (size_t length = 0; length < whole.size(); ++length) EXPECT_NE(refusal(whole.substr(0, length)), "") << length;
    }
    EXPECT_EQ(refusal(plain + "more"), "");
    EXPECT_EQ(refusal(gzipped(plain + "more")), "");
    EXPECT_EQ(refusal(packed + packed), "");
    EXPECT_NE(refusal(packed + "more"), "");
    EXPECT_NE(refusal(gzipped(packed)), "");
  }
}

TEST(NiftiDamage, SurvivesChangedBytes) {
  std::mt19937 random(2);
  int read = 0, refused = 0;
  for (int n = 0; n < 6000; ++n) {
    std::string bytes = made({.version = 1 + n % 2, .order = n / 2 % 2 == 0 ? ByteOrder::little : ByteOrder::big}, n % 10);
    // Mostly in the header, where it matters.
    for (int change = 0; change < 1 + n % 4; ++change) bytes[random() % (n % 8 == 0 ? bytes.size() : 352)] = static_cast<char>(random());
    if (n % 3 == 0) {
      bytes = gzipped(bytes);
      if (n % 9 == 0) bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    }
    ++(refusal(bytes).empty() ? read : refused);
  }
  EXPECT_GT(read, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(NiftiDamage, EveryLieOfAHeaderIsNamed) {
  const std::vector<std::pair<std::string, std::function<void(NiftiFields&)>>> lies = {
      {"claims 0 axes", [](NiftiFields& f) { f.dim[0] = 0; }},
      {"claims -3 axes", [](NiftiFields& f) { f.dim[0] = -3; }},
      {"claims 8 axes", [](NiftiFields& f) { f.dim[0] = 8; }},
      {"has 2 axes", [](NiftiFields& f) { f.dim[0] = 2; }},
      {"claims -2 voxels along axis 2", [](NiftiFields& f) { f.dim[2] = -2; }},
      {"claims 0 voxels along axis 3", [](NiftiFields& f) { f.dim[3] = 0; }},
      {"claims 20000 x 3 x 4 voxels, more than the file holds", [](NiftiFields& f) { f.dim[1] = 20000; }},
      {"claims more than 128 Mi voxels", [](NiftiFields& f) { f.dim = {3, 32767, 32767, 32767, 1, 1, 1, 1}; }},
      {"claims more than 128 Mi frames", [](NiftiFields& f) { f.dim = {7, 1, 1, 1, 32767, 32767, 32767, 32767}; }},
      {"puts the voxels at byte 16", [](NiftiFields& f) { f.vox_offset = 16; }},
      {"more than the file holds", [](NiftiFields& f) { f.vox_offset = 1e6; }},
      {"not begin with a header's size", [](NiftiFields& f) { f.dim[0] = -100; }},
      {"are complex", [](NiftiFields& f) { f.datatype = 32; }},
      {"are colours", [](NiftiFields& f) { f.datatype = 2304; }},
      {"128-bit", [](NiftiFields& f) { f.datatype = 1536; }},
      {"unknown datatype, 999", [](NiftiFields& f) { f.datatype = 999; }},
      {"places its voxels at nan mm",
       [](NiftiFields& f) {
         f.srow[1][3] = std::nan("");
         f.sform_code = 1;
       }},
      {"is singular",
       [](NiftiFields& f) {
         f.srow = {{{1, 1, 0, 0}, {1, 1, 0, 0}, {0, 0, 1, 0}}};
         f.sform_code = 1;
       }},
      {"puts its voxels 0 mm apart", [](NiftiFields& f) { f.pixdim[2] = 0; }},
      {"places its voxels at nan mm", [](NiftiFields& f) { f.pixdim[2] = std::nan(""); }},
      {"none of a rotation",
       [](NiftiFields& f) {
         f.quaternion = {1, 1, 0};
         f.qform_code = 1;
       }},
  };
  for (const int version : {1, 2}) {
    for (const auto& [sentence, lie] : lies) {
      NiftiFields fields{.version = version, .datatype = 4};
      const std::string voxels(48, 'v');
      lie(fields);
      NiftiBytes file(fields);
      if (fields.dim[0] == -100) file.put<int32_t>(0, 347);
      const std::string message = refusal(file.bytes() + voxels);
      EXPECT_NE(message.find(sentence), std::string::npos) << sentence << " | " << message;
    }
    NiftiBytes unmarked({.version = version});
    unmarked.put<uint8_t>(version == 1 ? 344 : 4, 'x');
    EXPECT_NE(refusal(unmarked.bytes() + std::string(96, 'v')).find("lacks the mark"), std::string::npos);
  }
}

/// Files of the corpus that may go either way and that we refuse, with the reason.
const std::set<std::string> ours_to_refuse = {
    "nifti/derived/vox_offset_in_header.nii", "nifti/derived/sizeof_hdr_bad.nii",
    "nifti/derived/sform_singular.nii",       "nifti/derived/sform_nan.nii",
    "nifti/derived/quatern_not_unit.nii",     "nifti/derived/gz_trailing_garbage.nii.gz",
    "nifti/real/nibabel_nifti1.hdr",          "nifti/real/nibabel_nifti2.hdr",
    "nifti/real/nibabel_analyze.hdr",
};

TEST(CorruptNifti, IsReadOrRefusedAsTheManifestSays) {
  ERMOE_REQUIRE_TEST_DATA(path, "corrupt_inputs.tar");
  const TarReader tar(path);
  std::istringstream manifest(tar.read(*tar.find("manifest.tsv")));
  std::map<std::string, int> outcomes;
  for (std::string line; std::getline(manifest, line);) {
    std::istringstream row(line);
    std::string name, bytes, source, licence, expect;
    for (std::string* cell : {&name, &bytes, &source, &licence, &expect}) std::getline(row, *cell, '\t');
    if (!name.starts_with("nifti/")) continue;
    SCOPED_TRACE(name);
    const TarEntry* entry = tar.find(name);
    ASSERT_NE(entry, nullptr);
    const std::clock_t start = std::clock();
    const std::string content = tar.read(*entry), message = refusal(content, name);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 2.0);
    // A series is a sound file and no volume: its header is read, and the refusal says so.
    const bool series = message.find("a series of ") != std::string::npos;
    ++outcomes[series ? "series" : message.empty() ? "read" : "refused"];
    if (expect == "reject") {
      EXPECT_FALSE(message.empty());
    }
    if (expect == "accept") {
      EXPECT_TRUE(message.empty() || series) << message;
    }
    if (expect == "any") {
      EXPECT_EQ(!message.empty(), ours_to_refuse.contains(name)) << message;
    }
  }
  EXPECT_EQ(outcomes, (std::map<std::string, int>{{"read", 16}, {"refused", 26}, {"series", 5}}));
}

}  // namespace
}  // namespace ermoe::testing
