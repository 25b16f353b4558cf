// Files and folders named one by one.
#include "data/image_files.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/encode_png.h"
#include "tests/data/image_samples.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace ermoe::testing {
namespace {

TEST(ImageFiles, FoldersStandForTheirImages) {
  const ScratchFolder folder;
  std::filesystem::create_directories(folder.file("photos/deep"));
  std::filesystem::create_directories(folder.file("empty"));
  const std::string png = encode_png(gradient(3, 5));
  for (const char* name : {"photos/b.png", "photos/deep/a.PNG", "photos/notes.txt", "single.dat"}) write_file(folder.file(name), png);
  const auto images = open_image_files({folder.file("single.dat"), folder.file("photos"), folder.file("absent.png")});
  ASSERT_EQ(images->size(), 4);
  EXPECT_EQ(images->name(0), folder.file("single.dat"));
  EXPECT_EQ(images->name(1), folder.file("photos/b.png"));
  EXPECT_EQ(images->name(2), folder.file("photos/deep/a.PNG"));
  EXPECT_EQ(images->read(0), gradient(3, 5));
  EXPECT_THROW(images->read(3), InputError);
  EXPECT_THROW(open_image_files({folder.file("empty")}), InputError);
  EXPECT_THROW(open_image_files({}), InputError);
}

}  // namespace
}  // namespace ermoe::testing
