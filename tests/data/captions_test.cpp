// Each layout of images with captions, in a folder and in an archive, and which part is which.
#include "data/captions.h"

#include "core/file_io.h"
#include "data/loader.h"
#include "tests/data/caption_fixtures.h"
#include "tests/data/gzip_writer.h"
#include "tests/data/test_data.h"

namespace ermoe {
namespace {

using testing::ppm;
using testing::write;

class Captions : public testing::CaptionTest {
 protected:
  /// From a folder, a tar, and a compressed tar.
  void expect_both(const std::string& train, const std::string& test) {
    for (const std::string& path : {folder_path(), archive_path(), compressed()}) {
      const CaptionSplits splits = open(path);
      EXPECT_EQ(told(splits.train.get()), train) << path;
      EXPECT_EQ(told(splits.test.get()), test) << path;
      EXPECT_TRUE(holds_captions(path)) << path;
    }
  }
  std::string compressed() {
    const std::string plain = archive_path();
    write(plain + ".gz", testing::gzip(read_file(plain, 1 << 24)));
    return plain + ".gz";
  }
};

constexpr const char* coco_train = R"({"info": {"images": 3}, "licenses": [{"id": 1}], "images": [
  {"license": 1, "file_name": "COCO_1.ppm", "coco_url": "http://x", "id": 7}, {"file_name": "COCO_2.ppm", "id": 9}],
  "annotations": [{"image_id": 9, "id": 1, "caption": "two"}, {"image_id": 7, "id": 2, "caption": " one, first "},
                  {"image_id": 7, "id": 3, "caption": "one again\n"}]})";
constexpr const char* coco_val =
    R"({"annotations": [{"image_id": 3, "id": 1, "caption": "drei \u00e4"}], "images": [{"id": 3, "file_name": "COCO_3.ppm"}]})";

TEST_F(Captions, CocoWithFoldersOfImages) {
  put("annotations/captions_train2014.json", coco_train);
  put("annotations/captions_val2014.json", coco_val);
  put("annotations/instances_val2014.json", R"({"images": [], "annotations": []})");
  put_images({"train2014/COCO_1.ppm", "train2014/COCO_2.ppm", "val2014/COCO_3.ppm"});
  expect_both("COCO_1.ppm: one, first | one again; COCO_2.ppm: two", "COCO_3.ppm: drei ä");
  EXPECT_EQ(warnings, (std::vector<std::string>{}));
}

TEST_F(Captions, CocoWithImagesBesideAndAFileNamed) {
  put("captions_train2017.json", coco_train);
  put_images({"COCO_1.ppm", "COCO_2.ppm"});
  const std::string folder = folder_path();
  EXPECT_EQ(told(open(folder + "/captions_train2017.json").train.get()), "COCO_1.ppm: one, first | one again; COCO_2.ppm: two");
  clear();
  put("annotations/captions_train2017.json", coco_train);
  put_images({"train2017/COCO_1.ppm", "train2017/COCO_2.ppm"});
  const std::string other = folder_path("other");
  EXPECT_EQ(told(open(other + "/annotations/captions_train2017.json").train.get()), "COCO_1.ppm: one, first | one again; COCO_2.ppm: two");
  EXPECT_TRUE(holds_captions(other + "/annotations/captions_train2017.json"));
  write(other + "/annotations/few.json", R"([{"filename": "../train2017/COCO_2.ppm", "captions": ["from here"]}])");
  EXPECT_EQ(told(open(other + "/annotations/few.json").train.get()), "COCO_2.ppm: from here");
}

TEST_F(Captions, ImagesOfOneNameAreToldApartByTheirPart) {
  put("annotations/captions_train2014.json",
      R"({"images": [{"id": 1, "file_name": "1.ppm"}], "annotations": [{"image_id": 1, "caption": "t"}]})");
  put("annotations/captions_val2014.json",
      R"({"images": [{"id": 1, "file_name": "1.ppm"}], "annotations": [{"image_id": 1, "caption": "v"}]})");
  put_images({"train2014/1.ppm", "val2014/1.ppm"});
  const CaptionSplits splits = open(folder_path());
  EXPECT_TRUE(splits.train->name(0).ends_with("train2014/1.ppm")) << splits.train->name(0);
  EXPECT_TRUE(splits.test->name(0).ends_with("val2014/1.ppm")) << splits.test->name(0);
  EXPECT_EQ(splits.test->captions(0)[0], "v");
}

constexpr const char* karpathy = R"({"dataset": "coco", "images": [
  {"filepath": "val2014", "filename": "a.ppm", "sentids": [1, 2], "cocoid": 5, "split": "test", "sentences": [
     {"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 1}, {"tokens": [], "raw": "Dogs", "imgid": 0, "sentid": 2}]},
  {"filepath": "train2014", "filename": "b.ppm", "split": "train", "sentences": [{"raw": "b"}]},
  {"filepath": "val2014", "filename": "c.ppm", "split": "restval", "sentences": [{"raw": "c"}]},
  {"filepath": "val2014", "filename": "d.ppm", "split": "val", "sentences": [{"raw": "d"}]}]})";

TEST_F(Captions, KarpathyOfCoco) {
  put("dataset_coco.json", karpathy);
  put_images({"train2014/b.ppm", "val2014/a.ppm", "val2014/c.ppm", "val2014/d.ppm"});
  expect_both("b.ppm: b; c.ppm: c", "d.ppm: d");
  EXPECT_TRUE(warned({"1 images in val and 1 in test", "val evaluates"})) << all_warnings();
  options.part = EvaluationPart::test;
  expect_both("b.ppm: b; c.ppm: c", "a.ppm: A dog. | Dogs");
  EXPECT_FALSE(warned({"val evaluates"}));
  options.part = EvaluationPart::val;
  expect_both("b.ppm: b; c.ppm: c", "d.ppm: d");
}

TEST_F(Captions, KarpathyWithImagesInOneFolder) {
  put("dataset_flickr8k.json", karpathy);
  put_images({"Images/a.ppm", "Images/b.ppm", "Images/c.ppm", "Images/d.ppm"});
  expect_both("b.ppm: b; c.ppm: c", "d.ppm: d");
}

TEST_F(Captions, AListOfImages) {
  put("captions.json", R"([{"filename": "a.ppm", "split": "train", "width": 5, "captions": ["one", "two"]},
                           {"file_name": "images/b.ppm", "split": "val", "captions": ["three"]}])");
  put_images({"images/a.ppm", "images/b.ppm"});
  expect_both("a.ppm: one | two", "b.ppm: three");
}

TEST_F(Captions, AListOfRowsAndOneFileAPart) {
  put("train.json",
      R"([{"image": "x/a.ppm", "caption": "one"}, {"image": "x/b.ppm", "caption": "b"}, {"image": "x/a.ppm", "caption": "two"}])");
  put("test.json", R"([{"image": "x/c.ppm", "caption": ["three", "four"]}])");
  put_images({"x/a.ppm", "x/b.ppm", "x/c.ppm"});
  expect_both("a.ppm: one | two; b.ppm: b", "c.ppm: three | four");
}

TEST_F(Captions, FlickrTableWithCommasAndQuotes) {
  put("captions.txt",
      "image,caption\r\na.jpg.ppm,A dog, a cat, and \"a bird\" .\r\n"
      "a.jpg.ppm,\"Quoted, with a \"\"word\"\"\"\r\n\r\nb,2.ppm,\"Go\" he said, and went\r\n"
      "c.ppm,\"over two\nlines\"\r\nc.ppm,\"never closed\n");
  put_images({"Images/a.jpg.ppm", "Images/b,2.ppm", "Images/c.ppm"});
  options.holdout = 0;
  expect_both(
      "a.jpg.ppm: A dog, a cat, and \"a bird\" . | Quoted, with a \"word\"; b,2.ppm: \"Go\" he said, and went; "
      "c.ppm: over two\nlines | \"never closed",
      "none");
  EXPECT_TRUE(warned({"has no part to evaluate on"})) << all_warnings();
}

TEST_F(Captions, TablesOfFourColumns) {
  put("captions.csv", "image,caption_number,caption,split\na.ppm,0,A dog, running,train\na.ppm,1,\"A cat, too\",train\nb.ppm,0,b,val\n");
  put_images({"images/a.ppm", "images/b.ppm"});
  expect_both("a.ppm: A dog, running | A cat, too", "b.ppm: b");
}

TEST_F(Captions, KagglesBarsAndAShortRow) {
  put("results.csv", "image_name| comment_number| comment\na.ppm| 0| Two men , one tall .\na.ppm| 1   A dog\nb.ppm| 0| \"b\"\n");
  put_images({"flickr30k_images/a.ppm", "flickr30k_images/b.ppm"});
  expect_both("a.ppm: Two men , one tall .; b.ppm: \"b\"", "none");
  EXPECT_TRUE(warned({"1 captions stand in a row or a file that is not whole", "results.csv, line 3"})) << all_warnings();
}

TEST_F(Captions, TokenFileWithoutAHeader) {
  put("Flickr8k.token.txt", "a.ppm#0\tOne .\na.ppm#1\tTwo, \"too\" .\nb.ppm#0\tThree .\n");
  put("Flickr8k.lemma.token.txt", "a.ppm#0\tone .\n");
  put_images({"Flicker8k_Dataset/a.ppm", "Flicker8k_Dataset/b.ppm"});
  expect_both("a.ppm: One . | Two, \"too\" .; b.ppm: Three .", "none");
  put("Flickr_8k.trainImages.txt", "b.ppm\n");
  put("Flickr_8k.devImages.txt", "a.ppm\r\n");
  expect_both("b.ppm: Three .", "a.ppm: One . | Two, \"too\" .");
}

TEST_F(Captions, TabsAndOneFileAPart) {
  put("train.tsv", "filepath\ttitle\nimg/a.ppm\tone, two\nimg/a.ppm\t\"three\tfour\"\n");
  put("val.tsv", "title\tfilepath\nv\timg/b.ppm\n");
  put_images({"img/a.ppm", "img/b.ppm"});
  expect_both("a.ppm: one, two | three\tfour", "b.ppm: v");
  clear();
  put("pairs.tsv", "filepath\ttitle\tsplit\nimg/a.ppm\tone\ttrain\nimg/b.ppm\ttwo\ttest\n");
  put_images({"img/a.ppm", "img/b.ppm"});
  const CaptionSplits splits = open(folder_path("other") + "/pairs.tsv");
  EXPECT_EQ(told(splits.train.get()), "a.ppm: one");
  EXPECT_EQ(told(splits.test.get()), "b.ppm: two");
}

TEST_F(Captions, AbsolutePathsWithinTheFolder) {
  put_image("img/a.ppm");
  const std::string folder = folder_path();
  write(folder + "/captions.tsv", "filepath\ttitle\n" + folder + "/img/a.ppm\tone\n");
  EXPECT_EQ(told(open(folder).train.get()), "a.ppm: one");
  write(folder + "/sub/captions.tsv", "filepath\ttitle\n../img/a.ppm\tone\n");
  std::filesystem::remove(folder + "/captions.tsv");
  EXPECT_EQ(told(open(folder).train.get()), "a.ppm: one");
}

TEST_F(Captions, WebdatasetShards) {
  put_images({"0001.ppm", "0002.ppm", "0003.ppm"});
  put("0001.txt", "one\n\ntwo\n");
  put("0002.json", R"({"caption": "json", "url": "x"})");
  put("0003.txt", "text goes first");
  put("0003.json", R"({"captions": ["not this"]})");
  const std::string first = archive_path("pairs-000.tar");
  clear();
  put_image("0004.ppm");
  put("0004.json", R"({"captions": ["p", "q"]})");
  const std::string second = archive_path("pairs-001.tar");
  clear();
  put_image("0005.ppm");
  put("0005.txt", "held out");
  const std::string held = archive_path("val-000.tar");
  const std::string one = "0001.ppm: one | two; 0002.ppm: json; 0003.ppm: text goes first", both = one + "; 0004.ppm: p | q";
  const std::string folder = first.substr(0, first.rfind('/'));
  EXPECT_EQ(told(open(first).train.get()), one);
  EXPECT_EQ(told(open(folder + "/pairs-{000..001}.tar").train.get()), both);
  const CaptionSplits listed = open(first + "," + held);
  EXPECT_EQ(told(listed.train.get()), one);
  EXPECT_EQ(told(listed.test.get()), "0005.ppm: held out");
  EXPECT_EQ(told(open(folder).train.get()), both);
  EXPECT_TRUE(holds_captions(folder) && holds_captions(first) && holds_captions(folder + "/pairs-{000..001}.tar"));
}

TEST_F(Captions, KeysOfShardsMayLookLikeCaptionsFiles) {
  put_images({"train_1.ppm", "captions_2.ppm"});
  put("train_1.json", R"({"caption": "one"})");
  put("captions_2.json", R"({"caption": "two"})");
  EXPECT_EQ(told(open(archive_path()).train.get()), "captions_2.ppm: two; train_1.ppm: one");
}

TEST_F(Captions, OfSeveralKindsOneWinsAndANoteSaysSo) {
  put("captions.csv", "image,caption\na.ppm,from the table\n");
  put("captions.json", R"([{"filename": "a.ppm", "captions": ["from the list"]}])");
  put_image("a.ppm");
  expect_both("a.ppm: from the list", "none");
  EXPECT_TRUE(warned({"the captions are those of", "captions.json", "captions.csv is left alone"})) << all_warnings();
  put("dataset_coco.json", R"({"images": [{"filename": "a.ppm", "sentences": [{"raw": "from Karpathy"}]}]})");
  expect_both("a.ppm: from Karpathy", "none");
  put("dataset_flickr8k.json", "{}");
  EXPECT_NE(refused(folder_path()).find("both hold captions; name the one"), std::string::npos);
  EXPECT_TRUE(holds_captions(folder_path()));
}

TEST_F(Captions, AShareIsHeldOutByTheSeed) {
  std::string table = "image,caption\n";
  for (int i = 0; i < 20; ++i) {
    put_image(fmt::format("{}.ppm", i));
    for (int k = 0; k <= i % 3; ++k) table += fmt::format("{}.ppm,caption {} of {}\n", i, k, i);
  }
  put("captions.csv", table);
  options.holdout = 0.25;
  const std::string path = folder_path();
  const CaptionSplits splits = open(path), again = open(path);
  EXPECT_EQ(splits.train->size(), 15);
  EXPECT_EQ(splits.test->size(), 5);
  EXPECT_EQ(told(splits.test.get()), told(again.test.get()));
  std::set<std::string> seen;
  for (const auto* set : {splits.train.get(), splits.test.get()}) {
    const std::vector<int64_t> owners = set->owners();
    ASSERT_EQ(owners.size(), set->all_captions().size());
    for (size_t c = 0; c < owners.size(); ++c) {
      const std::string& caption = set->all_captions()[c];
      EXPECT_TRUE(seen.insert(caption).second);
      EXPECT_TRUE(set->name(owners[c]).ends_with("/" + caption.substr(caption.rfind(' ') + 1) + ".ppm")) << caption;
    }
  }
  EXPECT_EQ(std::ssize(seen), 39);
  options.seed = 1;
  EXPECT_NE(told(open(path).test.get()), told(splits.test.get()));
}

TEST_F(Captions, BatchesLeadToTheirCaptions) {
  put("captions.csv", "image,caption\na.ppm,a\nb.ppm,b\nc.ppm,c\nd.ppm,d\n");
  put_images({"a.ppm", "b.ppm", "c.ppm", "d.ppm"});
  const CaptionSplits splits = open(folder_path());
  CachingAllocator host{make_host_source(), Fill::poison};
  Loader loader(*splits.train, Sampler(4, {.seed = 3, .batch = 4}), host, {.format = {.size = 4, .channels = 3}, .threads = 2, .warn = {}});
  const Batch batch = loader.next();
  ASSERT_EQ(batch.indices.size(), 4u);
  for (size_t b = 0; b < 4; ++b) {
    const std::string caption = splits.train->captions(batch.indices[b])[0];
    EXPECT_EQ(batch.images.data<uint8_t>()[b * 48], value_of(caption + ".ppm"));
  }
}

TEST_F(Captions, OtherDataSetsHoldNone) {
  put_images({"train/cat/a.ppm", "train/dog/b.ppm"});
  put("labels.csv", "path,label\ntrain/cat/a.ppm,0\n");
  put("notes.txt", "nothing");
  put("dataset_description.json", R"({"Name": "cats", "images": 2})");
  put("train/cat/a.json", R"({"width": 3})");
  const std::string folder = folder_path();
  EXPECT_FALSE(holds_captions(folder));
  EXPECT_FALSE(holds_captions(folder + "/labels.csv"));
  EXPECT_FALSE(holds_captions(folder + "/notes.txt"));
  EXPECT_FALSE(holds_captions(archive_path()));
  EXPECT_FALSE(holds_captions(folder + "/nowhere"));
  EXPECT_FALSE(holds_captions("synthetic"));
  EXPECT_NE(refused(folder).find("but no captions; accepted are"), std::string::npos);
  EXPECT_NE(refused(folder + "/nowhere").find("there is no such file or folder"), std::string::npos);
}

TEST_F(Captions, NineHundredPhotographs) {
  ERMOE_REQUIRE_TEST_DATA(path, "flickr8k_900.tar");
  const CaptionSplits splits = open(path);
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->size(), 800);
  EXPECT_EQ(splits.test->size(), 100);
  EXPECT_EQ(splits.train->all_captions().size(), 4000u);
  EXPECT_EQ(splits.train->captions(0)[1], "A girl going into a wooden building .");
  EXPECT_TRUE(splits.train->name(0).ends_with("images/1000268201_693b08cb0e.jpg"));
  EXPECT_EQ(splits.train->read(0).width, 256);
  ASSERT_EQ(warnings.size(), 1u) << all_warnings();
  EXPECT_TRUE(warned({"captions.json", "captions.csv is left alone"}));
}

}  // namespace
}  // namespace ermoe
