// What labels of regions are called.
#include "tools/region_names.h"

#include "core/error.h"
#include "tests/tools/temp_folder.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

using testing::TempFolder;

TEST(RegionNames, AreReadWithWhatWasPlanted) {
  const TempFolder temp;
  const std::string path = temp.file("labels.tsv", "label\tname\tplanted\n0\tbackground\t0\n7\tpons\t1\n2\tinsula\t1\n");
  const RegionNames names(path, temp.path());
  EXPECT_EQ(names.name(7), "pons");
  EXPECT_EQ(names.name(9), "9");
  EXPECT_EQ(names.planted(), (std::vector<int64_t>{2, 7}));
  EXPECT_EQ(RegionNames().name(0), "background");
}

TEST(RegionNames, MayLieInTheDataSet) {
  const TempFolder temp;
  temp.file("study/regions/labels.csv", "name,label\n\"a, b\",3\n");
  const RegionNames names("regions/labels.csv", temp / "study");
  EXPECT_EQ(names.name(3), "a, b");
  EXPECT_TRUE(names.planted().empty());
}

TEST(RegionNames, ATableThatIsNoneIsRefused) {
  const TempFolder temp;
  const auto refusal = [&](const std::string& text) -> std::string {
    const std::string path = temp.file("t.tsv", text);
    try {
      const RegionNames names(path, temp.path());
    } catch (const InputError& e) {
      return std::string(e.what()).substr(path.size());
    }
    return "accepted";
  };
  EXPECT_EQ(refusal("label\tname\n1\ta\n"), "accepted");
  EXPECT_EQ(refusal("number\tname\n1\ta\n"), ": a table of regions has columns label and name");
  EXPECT_EQ(refusal("label\tname\n1x\ta\n"), ": line 2: '1x' is no label");
  EXPECT_EQ(refusal("label\tname\n1\ta\n1\tb\n"), ": line 3: label 1 stands there twice");
  EXPECT_EQ(refusal("label\tname\n1\n"), ": line 2 has 1 fields, and its head 2");
  EXPECT_THROW(RegionNames("nowhere.tsv", temp.path()), InputError);
}

}  // namespace
}  // namespace ermoe
