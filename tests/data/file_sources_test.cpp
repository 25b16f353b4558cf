// Class folders, archives, shards and tables: what is accepted, in which order, and what every refusal says.
#include "data/dataset.h"
#include "data/loader.h"
#include "tests/data/fixtures.h"
#include "tests/data/tar_writer.h"
#include "tests/data/test_data.h"

#include <map>

namespace ermoe {
namespace {

using testing::input_error;
using testing::ppm;
using testing::ScratchFolder;
using testing::tar_end;
using testing::tar_member;
using testing::write;

class FileSources : public ::testing::Test {
 protected:
  void image(const std::string& path, uint8_t value) { write(folder.file(path), ppm(3, 3, value)); }
  DatasetSplits open(const std::string& path, double holdout = 0) {
    return open_dataset(path, {holdout, 1, [this](const std::string& text) { warnings += text + "\n"; }});
  }
  std::string refused(const std::string& path) {
    return input_error([&] { open(path); });
  }
  /// "label/first pixel" of each sample, in order.
  static std::string listing(const std::unique_ptr<ImageDataset>& dataset) {
    if (!dataset) return "none";
    std::string text;
    for (int64_t i = 0; i < dataset->size(); ++i) {
      text += std::to_string(dataset->label(i)) + "/" + std::to_string(dataset->read(i).pixels.at(0)) + " ";
    }
    return text;
  }
  bool warned(std::string_view text) const { return warnings.find(text) != std::string::npos; }

  ScratchFolder folder;
  std::string warnings;
};

using Names = std::vector<std::string>;

TEST_F(FileSources, TrainAndValFolders) {
  image("train/dog/b.ppm", 2);
  image("train/dog/a.PPM", 1);
  image("train/cat/sub/c.ppm", 3);
  image("val/dog/d.ppm", 4);
  image("val/cat/e.ppm", 5);
  write(folder.file("train/dog/notes.txt"), "not an image");
  write(folder.file("train/dog/.hidden.ppm"), "not an image");
  write(folder.file("README.md"), "not an image");
  const DatasetSplits splits = open(folder.path());
  EXPECT_EQ(splits.train->class_names(), (Names{"cat", "dog"}));
  EXPECT_EQ(listing(splits.train), "0/3 1/1 1/2 ");
  EXPECT_EQ(listing(splits.test), "0/5 1/4 ");
  EXPECT_EQ(splits.train->name(1), folder.file("train/dog/a.PPM"));
  EXPECT_EQ(warnings, "");
}

TEST_F(FileSources, EveryNameOfTheHeldOutPart) {
  for (const std::string part : {"val", "validation", "valid", "test", "Test", "testing"}) {
    const ScratchFolder here;
    for (const std::string name : {"Train/a/1.ppm", "Train/b/1.ppm"}) write(here.file(name), ppm(2, 2, 1));
    write(here.file(part + "/b/1.ppm"), ppm(2, 2, 9));
    EXPECT_EQ(listing(open(here.path()).test), "1/9 ") << part;
  }
}

TEST_F(FileSources, ValIsPreferredToTest) {
  for (const std::string name : {"train/a/1", "train/b/1"}) image(name + ".ppm", 1);
  image("val/a/1.ppm", 2);
  image("test/a/1.ppm", 3);
  EXPECT_EQ(listing(open(folder.path()).test), "0/2 ");
  EXPECT_TRUE(warned("test part left alone"));
}

TEST_F(FileSources, OnePartAlone) {
  image("test/a/1.ppm", 1);
  image("test/b/1.ppm", 2);
  const DatasetSplits splits = open(folder.path());
  EXPECT_FALSE(splits.train);
  EXPECT_EQ(listing(splits.test), "0/1 1/2 ");
}

TEST_F(FileSources, ClassFoldersAloneAreTrainingImages) {
  for (const std::string name : {"a/1", "a/2", "b/1", "b/2"}) image(name + ".ppm", 1);
  EXPECT_EQ(listing(open(folder.path()).test), "none");
  EXPECT_TRUE(warned("every image counts as a training image"));
  EXPECT_TRUE(warned("no part to evaluate on"));
  const DatasetSplits held = open(folder.path(), 0.5);
  EXPECT_EQ(held.train->size(), 2);
  EXPECT_EQ(held.test->size(), 2);
  EXPECT_NE(held.test->label(0), held.test->label(1));
}

TEST_F(FileSources, ClassesThatAPartLacksKeepTheirNumbers) {
  image("train/a/1.ppm", 1);
  image("train/c/1.ppm", 2);
  image("val/b/1.ppm", 3);
  image("val/c/1.ppm", 4);
  const DatasetSplits splits = open(folder.path());
  EXPECT_EQ(splits.train->class_names(), (Names{"a", "b", "c"}));
  EXPECT_EQ(listing(splits.test), "1/3 2/4 ");
  EXPECT_TRUE(warned("1 of 3 classes have no training image, for example \"b\""));
}

TEST_F(FileSources, StrayImagesAreCountedAndIgnored) {
  for (const std::string name : {"train/a/1", "train/b/1", "train/stray", "extra/x/1"}) image(name + ".ppm", 1);
  EXPECT_EQ(open(folder.path()).train->size(), 2);
  EXPECT_TRUE(warned("1 images outside class folders are ignored"));
  EXPECT_TRUE(warned("1 images outside train and val are ignored"));
}

TEST_F(FileSources, LinksInCirclesEnd) {
  for (const std::string name : {"train/a/1", "train/b/1"}) image(name + ".ppm", 1);
  std::filesystem::create_directory_symlink(folder.path(), folder.file("train/a/up"));
  std::filesystem::create_directory_symlink(folder.file("train/b"), folder.file("train/c"));
  EXPECT_EQ(open(folder.path()).train->class_names(), (Names{"a", "b", "c"}));
}

TEST_F(FileSources, ArchiveReadsAsTheFolderDoes) {
  const std::string content = tar_member({"./set/train/dog/b.ppm", ppm(3, 3, 2)}) + tar_member({"./set/val/cat/e.ppm", ppm(3, 3, 5)}) +
                              tar_member({"./set/train/cat/c.ppm", ppm(3, 3, 3)}) + tar_member({"./set/train/cat/._c.ppm", "leftover"}) +
                              tar_member({"./LICENSE", "text"}) + tar_end();
  write(folder.file("set.tar"), content);
  const DatasetSplits splits = open(folder.file("set.tar"));
  EXPECT_EQ(listing(splits.train), "0/3 1/2 ");
  EXPECT_EQ(listing(splits.test), "0/5 ");
  EXPECT_NE(splits.test->name(0).find("set.tar: set/val/cat/e.ppm"), std::string::npos);
  EXPECT_EQ(warnings, "");
}

TEST_F(FileSources, SeveralArchives) {
  const auto classes = [](const std::string& below, uint8_t value) {
    return tar_member({below + "a/1.ppm", ppm(3, 3, value)}) + tar_member({below + "b/1.ppm", ppm(3, 3, value)}) + tar_end();
  };
  // The part is said by the folder inside, or by the archive's name.
  write(folder.file("x.tar"), classes("train/", 1));
  write(folder.file("y.tar"), classes("test/", 2));
  EXPECT_EQ(listing(open(folder.file("x.tar") + "," + folder.file("y.tar")).test), "0/2 1/2 ");
  write(folder.file("my_train.tar"), classes("some/", 3));
  write(folder.file("my_test.tar"), classes("", 4));
  const DatasetSplits splits = open(folder.file("my_train.tar") + "," + folder.file("my_test.tar"));
  EXPECT_EQ(listing(splits.train), "0/3 1/3 ");
  EXPECT_EQ(listing(splits.test), "0/4 1/4 ");
  EXPECT_NE(refused(folder.file("x.tar") + "," + folder.file("z.tar")).find("z.tar: there is no such file"), std::string::npos);
}

TEST_F(FileSources, WebdatasetShards) {
  const auto shard = [](int n, const std::string& label) {
    const std::string key = "k" + std::to_string(n);
    return tar_member({key + ".ppm", ppm(3, 3, static_cast<uint8_t>(n))}) + tar_member({key + ".cls", label}) +
           tar_member({key + ".json", "{}"}) + tar_end();
  };
  write(folder.file("train-000.tar"), shard(1, "0"));
  write(folder.file("train-001.tar"), shard(2, "12\n"));
  write(folder.file("val-000.tar"), shard(3, "2"));
  const DatasetSplits whole = open(folder.path());
  EXPECT_EQ(whole.train->class_names().size(), 13u);
  EXPECT_EQ(listing(whole.train), "0/1 12/2 ");
  EXPECT_EQ(listing(whole.test), "2/3 ");
  EXPECT_EQ(listing(open(folder.file("train-{000..001}.tar")).train), "0/1 12/2 ");
  EXPECT_EQ(listing(open(folder.file("train-{000..001}.tar") + "," + folder.file("val-{000..000}.tar")).test), "2/3 ");
  EXPECT_NE(refused(folder.file("train-{000..002}.tar")).find("train-002.tar: there is no such file"), std::string::npos);
  EXPECT_NE(refused(folder.file("train-{a..b}.tar")).find("a range of shards is written like"), std::string::npos);
  EXPECT_NE(refused(folder.file("train-{0..9999999999}.tar")).find("a range of shards is written like"), std::string::npos);
}

TEST_F(FileSources, WebdatasetLabels) {
  const auto with = [&](const std::string& label) {
    write(folder.file("s.tar"), tar_member({"d.x/k1.ppm", ppm(3, 3, 1)}) + tar_member({"d.x/k1.cls", label}) +
                                    tar_member({"k2.ppm", ppm(3, 3, 2)}) + tar_member({"k2.cls", "cat"}) +
                                    tar_member({"k3.ppm", ppm(3, 3, 3)}) + tar_end());
    return folder.file("s.tar");
  };
  EXPECT_EQ(listing(open(with(" dog ")).train), "1/1 0/2 ");
  EXPECT_TRUE(warned("1 images without a .cls file"));
  EXPECT_NE(refused(with(" \n")).find("the label is empty"), std::string::npos);
  EXPECT_NE(refused(with(std::string(5000, 'x'))).find("k1.cls"), std::string::npos);
}

TEST_F(FileSources, TableWithAHeader) {
  image("img/a b,c.ppm", 1);
  image("img/two.ppm", 2);
  image("img/three.ppm", 3);
  write(folder.file("t.csv"),
        "\xef\xbb\xbfid,Label,PATH,split\r\n1,\"the \"\"dog\"\"\",\"img/a b,c.ppm\",train\r\n\r\n2,cat,img/two.ppm,train\r\n"
        "3,cat,img/three.ppm,validation");
  const DatasetSplits splits = open(folder.file("t.csv"));
  EXPECT_EQ(splits.train->class_names(), (Names{"cat", "the \"dog\""}));
  EXPECT_EQ(listing(splits.train), "1/1 0/2 ");
  EXPECT_EQ(listing(splits.test), "0/3 ");
}

TEST_F(FileSources, TableWithoutAHeader) {
  image("one.ppm", 1);
  image("two.ppm", 2);
  write(folder.file("t.csv"), "one.ppm,2\ntwo.ppm,0\n");
  EXPECT_EQ(listing(open(folder.file("t.csv")).train), "2/1 0/2 ");
  write(folder.file("t.tsv"), "one.ppm\tb\ttrain\ntwo.ppm\ta\ttest\n");
  EXPECT_EQ(listing(open(folder.file("t.tsv")).test), "0/2 ");
}

TEST_F(FileSources, TableFaultsNameTheLine) {
  const auto with = [&](const std::string& text) {
    write(folder.file("t.csv"), text);
    return refused(folder.file("t.csv"));
  };
  EXPECT_NE(with("a.ppm,0\nb.ppm\n").find("line 2: 1 columns where 2 are needed"), std::string::npos);
  EXPECT_NE(with("path,label,split\n\"a\nb.ppm\",0,train\nb.ppm,1,maybe\n").find("line 4: the split \"maybe\""), std::string::npos);
  EXPECT_NE(with("a.ppm,0\n,1\n").find("line 2: the path or the label is empty"), std::string::npos);
  EXPECT_NE(with("a.ppm,0\n\"b.ppm,1\n").find("line 2: a quote"), std::string::npos);
  EXPECT_NE(with("a.ppm,0\n\"b.ppm\"x,1\n").find("line 2: text follows"), std::string::npos);
  EXPECT_NE(with("a.ppm,0\nb.ppm,-1\n").find("the label -1 is no class number"), std::string::npos);
  EXPECT_NE(with("a.ppm,0\nb.ppm,1000000000\n").find("the label 1000000000 is no class number"), std::string::npos);
  EXPECT_NE(with("a.ppm,0\nb.ppm,0\n").find("of one class"), std::string::npos);
  EXPECT_NE(with("path,label\n").find("no labelled image"), std::string::npos);
  EXPECT_NE(with("").find("no labelled image"), std::string::npos);
}

TEST_F(FileSources, BrokenImagesAreNamedWhenRead) {
  image("train/a/1.ppm", 1);
  write(folder.file("train/b/bad.jpg"), "this is no JPEG");
  const DatasetSplits splits = open(folder.path());
  EXPECT_NE(input_error([&] { splits.train->read(1); }).find("bad.jpg"), std::string::npos);
  std::filesystem::remove(folder.file("train/a/1.ppm"));
  EXPECT_NE(input_error([&] { splits.train->read(0); }).find("1.ppm"), std::string::npos);
}

TEST_F(FileSources, WhatIsNoDataSetIsSaidSo) {
  EXPECT_NE(refused("/nowhere/at/all").find("no such file or folder"), std::string::npos);
  EXPECT_NE(refused("").find("no data set is named"), std::string::npos);
  EXPECT_NE(refused(folder.path()).find("no files"), std::string::npos);
  write(folder.file("a.json"), "{}");
  write(folder.file("b.json"), "{}");
  write(folder.file("c"), "");
  EXPECT_NE(refused(folder.path()).find("2 .json, 1 without an extension"), std::string::npos);
  EXPECT_NE(refused(folder.file("a.json")).find("accepted are"), std::string::npos);
  write(folder.file("t.tar"), tar_member({"x.txt", "text"}) + tar_end());
  EXPECT_NE(refused(folder.file("t.tar")).find("an archive with 1 .txt"), std::string::npos);
  write(folder.file("t.tar"), "no tar at all");
  EXPECT_NE(refused(folder.file("t.tar")).find("t.tar"), std::string::npos);
  const ScratchFolder one_class;
  write(one_class.file("train/only/1.ppm"), ppm(2, 2, 1));
  EXPECT_NE(refused(one_class.path()).find("of one class, \"only\""), std::string::npos);
}

/// Reads a whole epoch of the training part and counts labels.
std::map<int32_t, int64_t> epoch_counts(const ImageDataset& dataset, int threads) {
  CachingAllocator host(make_host_source());
  LoaderOptions options;
  options.threads = threads;
  Loader loader(dataset, Sampler(dataset.size(), {3, 0, 1, 20, Mode::train}), host, options);
  std::map<int32_t, int64_t> counts;
  for (int64_t s = 0; s < loader.steps_per_epoch(); ++s) {
    const Batch batch = loader.next();  // a temporary would end before its labels are read
    for (const int32_t label : batch.labels.span<int32_t>()) ++counts[label];
  }
  EXPECT_EQ(loader.bad_files(), 0);
  return counts;
}

TEST(RealArchives, CifarSmall) {
  ERMOE_REQUIRE_TEST_DATA(path, "cifar10_small.tar.gz");
  const DatasetSplits splits = open_dataset(path);
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->size(), 5000);
  EXPECT_EQ(splits.test->size(), 1000);
  EXPECT_EQ(splits.train->class_names().at(9), "truck");
  const auto counts = epoch_counts(*splits.train, 2);
  EXPECT_EQ(counts.size(), 10u);
  for (const auto& [label, n] : counts) EXPECT_EQ(n, 500) << label;
}

TEST(RealArchives, Caltech) {
  ERMOE_REQUIRE_TEST_DATA(path, "caltech_10.tar");
  const DatasetSplits splits = open_dataset(path);
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->class_names().size(), 10u);
  EXPECT_EQ(splits.train->size(), 300);
  const auto counts = epoch_counts(*splits.train, 2);
  for (const auto& [label, n] : counts) EXPECT_EQ(n, 30) << label;
}

}  // namespace
}  // namespace ermoe
