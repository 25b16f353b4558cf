// What is wrong with captions, and the sentence that says so.
#include "core/file_io.h"
#include "core/rng.h"
#include "data/caption_text.h"
#include "tests/data/caption_fixtures.h"

#include <regex>

namespace ermoe {
namespace {

using testing::write;

class CaptionDamage : public testing::CaptionTest {
 protected:
  void SetUp() override { put_images({"a.ppm", "b.ppm", "c.ppm"}); }
  /// That the set with this captions.json is refused with a sentence that matches.
  void expect_refused(const std::string& list, const std::string& pattern, const std::string& file = "captions.json") {
    put(file, list);
    const std::string folder = folder_path(fmt::format("set{}", number_++));
    const std::string message = refused(folder);
    EXPECT_TRUE(std::regex_search(message, std::regex(pattern))) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }

 private:
  int number_ = 0;
};

TEST_F(CaptionDamage, CaptionsThatAreNoneAreLeftOutAndNamed) {
  const std::string longest(9'999, 'x'), wide = "\xc3\xa4";
  std::string too_wide, widest;
  for (int i = 0; i < 9'999; ++i) widest += wide;
  too_wide = widest + wide;
  put("captions.csv", "image,caption\na.ppm,good\na.ppm,\na.ppm,  \nb.ppm," + longest + "\nb.ppm," + longest +
                          "x\na.ppm,bad \xff byte\nb.ppm," + widest + "\nb.ppm," + too_wide + "\nc.ppm,cut \xe2\x82\n");
  const CaptionSplits splits = open(folder_path());
  EXPECT_EQ(told(splits.train.get()), "a.ppm: good; b.ppm: " + longest + " | " + widest);
  EXPECT_TRUE(warned({"2 captions are empty", "captions.csv, line 3"})) << all_warnings();
  EXPECT_TRUE(warned({"2 captions have 10,000 characters or more", "captions.csv, line 6"})) << all_warnings();
  EXPECT_TRUE(warned({"2 captions are no UTF-8", "captions.csv, line 7"})) << all_warnings();
  EXPECT_TRUE(warned({"1 images have no caption", "c.ppm"})) << all_warnings();
}

TEST_F(CaptionDamage, OneWrongByteInJsonCostsOneCaption) {
  put("captions.json",
      "[{\"filename\": \"a.ppm\", \"captions\": [\"good\", \"bad \xff\", \"cut \xc3\", \"\", \"d\xc3\xa9j\xc3\xa0\"]},"
      "{\"filename\": \"b.ppm\", \"captions\": [\"\xed\xa0\x80\"]}, {\"filename\": \"c.ppm\", \"captions\": []}]");
  const CaptionSplits splits = open(folder_path());
  EXPECT_EQ(told(splits.train.get()), "a.ppm: good | d\xc3\xa9j\xc3\xa0");
  EXPECT_TRUE(warned({"3 captions are no UTF-8", "captions.json, image 1"})) << all_warnings();
  EXPECT_TRUE(warned({"1 captions are empty", "captions.json, image 1"})) << all_warnings();
  EXPECT_TRUE(warned({"2 images have no caption", "b.ppm"})) << all_warnings();
}

TEST_F(CaptionDamage, AMissingImageCostsItselfUpToMaxBad) {
  put("captions.csv", "image,caption\na.ppm,a\nb.ppm,b\ngone.ppm,one\ngone.ppm,two\nc.ppm,c\n");
  const std::string message = refused(folder_path());
  EXPECT_NE(message.find("1 of 4 images that have captions are missing, more than the 1 % that max_bad allows; for example"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("captions.csv, line 4: \"gone.ppm\""), std::string::npos) << message;
  options.max_bad = 0.25;
  EXPECT_EQ(told(open(folder_path()).train.get()), "a.ppm: a; b.ppm: b; c.ppm: c");
  EXPECT_TRUE(warned({"1 of 4 images", "missing and left out", "line 4: \"gone.ppm\""})) << all_warnings();
  options.max_bad = 0.24;
  refused(folder_path());
}

TEST_F(CaptionDamage, IdsThatNothingRefersTo) {
  put("captions_train.json",
      R"({"images": [{"id": 1, "file_name": "a.ppm"}, {"id": 2, "file_name": "b.ppm"}, {"id": 3, "file_name": "x.ppm"}],
    "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 44, "caption": "of nothing"}]})");
  options.max_bad = 0.5;
  EXPECT_EQ(told(open(folder_path()).train.get()), "a.ppm: a");
  EXPECT_TRUE(warned({"1 of 3 images", "captions_train.json, annotation 2: \"image_id 44\""})) << all_warnings();
  EXPECT_TRUE(warned({"3 images have no caption", "captions_train.json, image 3: \"x.ppm\""})) << all_warnings();
  options.max_bad = 0.1;
  EXPECT_NE(refused(folder_path()).find("annotation 2"), std::string::npos);
}

TEST_F(CaptionDamage, ImagesThatStandTwice) {
  const std::string a = R"({"filename": "a.ppm", "split": "train", "captions": ["a"]})";
  expect_refused("[" + a + "," + a + "]", "captions.json, image 2: the image \"a.ppm\" stands in .*captions.json, image 1 already");
  expect_refused("[" + a + R"(,{"filename": "./a.ppm", "captions": ["a"]}])", "image 2: the image \"a.ppm\" stands in");
  expect_refused("[" + a + R"(,{"filename": "a.ppm", "split": "val", "captions": ["a"]}])",
                 "image 2: the image \"a.ppm\" is in val, but in train in .*image 1: a model would be tested on what it was trained on");
  expect_refused(R"({"images": [{"id": 1, "file_name": "a.ppm"}, {"id": 1, "file_name": "b.ppm"}], "annotations": []})",
                 "captions_val.json, image 2: a second image with the id 1", "captions_val.json");
}

TEST_F(CaptionDamage, TableRowsInTwoParts) {
  expect_refused("image,caption,split\na.ppm,one,train\na.ppm,two,val\n", "captions.csv, line 3: .*is in val, but in train in .*line 2",
                 "captions.csv");
}

TEST_F(CaptionDamage, UnknownSplits) {
  expect_refused(R"([{"filename": "a.ppm", "split": "tarin", "captions": ["a"]}])",
                 "captions.json, image 1: the split \"tarin\" of the image \"a.ppm\" is none of train, restval, val and test");
}

TEST_F(CaptionDamage, UnknownSplitsInATable) {
  expect_refused("image,caption,split\na.ppm,one,1\n", "captions.csv, line 2: the split \"1\"", "captions.csv");
  expect_refused("image,caption,split\n\na.ppm,\"one\ntwo\nthree\",train\n\na.ppm,four,x\n", "captions.csv, line 7: the split \"x\"",
                 "captions.csv");
}

TEST_F(CaptionDamage, PathsThatLeaveTheFolder) {
  for (const std::string path : {"../../etc/passwd", "/etc/passwd", "x/../../a.ppm", "../a.ppm", "/a.ppm"})
    expect_refused(R"([{"filename": ")" + path + R"(", "captions": ["a"]}])",
                   "captions.json, image 1: the image \"" + path + "\" lies outside of");
  expect_refused(R"({"images": [{"filepath": "../..", "filename": "a.ppm", "sentences": [{"raw": "a"}]}]})", "lies outside of",
                 "dataset_coco.json");
}

TEST_F(CaptionDamage, PathsThatLeaveAnArchive) {
  put("captions.csv", "image,caption\n../../etc/passwd.jpg,a\n");
  EXPECT_NE(refused(archive_path()).find("captions.csv, line 2: the image \"../../etc/passwd.jpg\" lies outside of"), std::string::npos);
}

TEST_F(CaptionDamage, ANameThatTwoFilesHave) {
  put_images({"x/d.ppm", "y/d.ppm"});
  expect_refused(R"([{"filename": "d.ppm", "captions": ["a"]}])", "image 1: the image \"d.ppm\" may be .*x/d.ppm or .*y/d.ppm");
  put("captions.json", R"([{"filename": "y/.//d.ppm", "captions": ["d"]}])");
  EXPECT_TRUE(open(folder_path()).train->name(0).ends_with("y/d.ppm"));
  put_images({"x/a.ppm", "y/a.ppm"});
  put("captions.json", R"([{"filename": "./a.ppm", "captions": ["a"]}])");
  EXPECT_TRUE(open(folder_path()).train->name(0).ends_with("set/a.ppm"));
}

TEST_F(CaptionDamage, JsonOfAnotherShape) {
  expect_refused("", "captions.json: line 1, column 1 is not JSON");
  expect_refused(R"([{"filename": "a.ppm", "captions": ["a)", "captions.json: line 1, column \\d+ is not JSON");
  expect_refused("7", "captions.json: neither a list of images nor an object with \"images\"");
  expect_refused("{}", "captions.json: there is no \"images\"");
  expect_refused(R"({"images": 3})", "captions.json: \"images\" is no list");
  expect_refused(R"({"images": [{"id": 1, "file_name": "a.ppm"}]})", "there are no \"annotations\" .* no \"sentences\"");
  expect_refused(R"({"images": [], "annotations": {}})", "\"annotations\" is no list");
  expect_refused(R"({"images": [7], "annotations": []})", "image 1: is no object");
  expect_refused(R"({"images": [{"id": 1}], "annotations": []})", "image 1: there is no \"file_name\"");
  expect_refused(R"({"images": [{"file_name": "a.ppm"}], "annotations": []})", "image 1: there is no \"id\"");
  expect_refused(R"({"images": [{"id": 1, "file_name": "a.ppm"}], "annotations": [{"caption": "x"}]})",
                 "annotation 1: there is no \"image_id\"");
  expect_refused(R"({"images": [{"id": 1, "file_name": "a.ppm"}], "annotations": [{"image_id": 1}]})",
                 "annotation 1: there is no \"caption\"");
  expect_refused(R"({"images": [{"id": [1], "file_name": "a.ppm"}], "annotations": []})", "image 1: \"id\" is no whole number and no text");
  expect_refused(R"([{"captions": ["a"]}])", "image 1: there is no \"filename\"");
  expect_refused(R"([{"filename": 3, "captions": ["a"]}])", "image 1: \"filename\" is no text");
  expect_refused(R"([{"filename": "a.ppm"}])", "image 1: the image \"a.ppm\" has no \"captions\"");
  expect_refused(R"([{"filename": "a.ppm", "captions": 3}])", "image 1: \"captions\" is no list");
  expect_refused(R"([{"filename": "a.ppm", "captions": [3]}])", "image 1: \"captions\" holds something that is no text");
  expect_refused(R"([{"filename": "a.ppm", "sentences": [{"tokens": ["a"]}]}])", "image 1: there is no \"raw\"");
  expect_refused(R"([["a.ppm", "a"]])", "image 1: is no object");
  expect_refused(std::string(100'000, '['), "nested deeper than 16 levels");
  expect_refused("[{\"tokens\": " + std::string(100'000, '['), "nested deeper than 16 levels");
}

TEST_F(CaptionDamage, EmptySets) {
  expect_refused("[]", "there is no image with a caption in it");
  expect_refused(R"({"images": [], "annotations": []})", "there is no image with a caption in it");
  expect_refused(R"([{"filename": "a.ppm", "captions": [" "]}])", "there is no image with a caption in it");
}

TEST_F(CaptionDamage, EmptyTablesAndHeaders) {
  expect_refused("", "captions.csv: the table is empty", "captions.csv");
  expect_refused("image,caption\n", "there is no image with a caption in it", "captions.csv");
  expect_refused("a.ppm,A dog runs\nb.ppm,A cat\n", "captions.csv, line 1: no header names a column of images .* but \"a.ppm,A dog runs\"",
                 "captions.csv");
}

TEST_F(CaptionDamage, NoImageForTraining) {
  expect_refused(R"([{"filename": "a.ppm", "split": "test", "captions": ["a"]}])",
                 "0 images are for training \\(0 are in val, 1 in test\\)");
  options.training = TrainingPart::optional;
  const CaptionSplits splits = open(folder_path());
  EXPECT_EQ(splits.train, nullptr);
  EXPECT_EQ(told(splits.test.get()), "a.ppm: a");
  options.part = EvaluationPart::val;
  EXPECT_NE(
      refused(folder_path()).find("the part val is to evaluate, but it has no image with a caption (0 in train, 0 in val, 1 in test)"),
      std::string::npos);
}

TEST_F(CaptionDamage, ShardsWithGaps) {
  clear();
  for (int i = 0; i < 4; ++i) put_image(fmt::format("{}.ppm", i));
  put("0.txt", "zero");
  put("1.txt", "");
  put("2.json", "{\"caption\": ");
  put("9.txt", "of nothing");
  const std::string path = archive_path("train-0.tar");
  EXPECT_NE(refused(path).find("1 of 4 images that have captions are missing"), std::string::npos);
  options.max_bad = 0.5;
  EXPECT_EQ(told(open(path).train.get()), "0.ppm: zero");
  EXPECT_TRUE(warned({"1 captions are empty", "1.txt"})) << all_warnings();
  EXPECT_TRUE(warned({"1 captions stand in a row or a file that is not whole", "2.json"})) << all_warnings();
  EXPECT_TRUE(warned({"3 images have no caption", "1.ppm"})) << all_warnings();
}

TEST_F(CaptionDamage, AnArchiveThatIsCutOff) {
  put("captions.csv", "image,caption\na.ppm,a\n");
  const std::string path = archive_path();
  const std::string whole = read_file(path, 1 << 20);
  for (size_t bytes = 0; bytes + 1024 < whole.size(); bytes += 300) {
    write(path, std::string_view(whole).substr(0, bytes));
    EXPECT_NE(refused(path).find("set.tar"), std::string::npos);
  }
}

/// Whatever stands in a captions file, it is read or refused with a sentence.
TEST_F(CaptionDamage, FilesAtRandom) {
  const std::string json =
      R"({"images": [{"filename": "a.ppm", "split": "train", "sentences": [{"raw": "a\u00e4"}]}], "annotations": [{"image_id": 1}]})";
  const std::string table = "image,caption,split\na.ppm,\"one, \"\"two\"\"\",train\nb.ppm,x,val\nc.ppm#0\tz\n";
  const std::string folder = folder_path();
  for (const auto& [name, sound] : {std::pair{"dataset_x.json", json}, std::pair{"captions.csv", table}}) {
    for (uint64_t trial = 0; trial < 400; ++trial) {
      std::string bytes = sound;
      const RngKey key = RngKey{17}.fold(trial);
      for (uint64_t k = 0; k < 1 + trial % 5; ++k) {
        const auto at = static_cast<size_t>(uniform_int(key, 2 * k, bytes.size()));
        bytes[at] = trial % 2 == 0 ? static_cast<char>(uniform_int(key, 2 * k + 1, 256)) : ",\"\n{}[]|\t:"[uniform_int(key, 2 * k + 1, 10)];
      }
      write(folder + "/" + name, bytes);
      try {
        open(folder);
      } catch (const InputError& e) {
        EXPECT_GT(std::string(e.what()).size(), 20u);
      }
    }
    std::filesystem::remove(folder + "/" + name);
  }
}

TEST(CaptionText, CharactersOfUtf8) {
  EXPECT_EQ(utf8_characters(""), 0);
  EXPECT_EQ(utf8_characters("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x95"), 4);
  for (const char* wrong : {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                            "\xf5\x80\x80\x80", "\xff", "a\xe2\x82", "\xe2\x28\xa1"})
    EXPECT_EQ(utf8_characters(wrong), std::nullopt) << printable(wrong);
  EXPECT_EQ(with_wrong_bytes_marked("a\xff\xc3\xa4"), "a\xef\xb7\x90\xc3\xa4");
  EXPECT_EQ(with_wrong_bytes_marked("a\xc3\xa4"), std::nullopt);
  EXPECT_EQ(fault_of_caption("\xef\xb7\x90"), CaptionFault::not_utf8);
  EXPECT_EQ(trimmed(" \t\r\na b\n"), "a b");
}

}  // namespace
}  // namespace ermoe
