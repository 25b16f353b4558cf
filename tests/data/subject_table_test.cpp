// Tables of people and their volumes: what is understood, and what every refusal says.
#include "data/subject_table.h"

#include "core/rng.h"
#include "tests/data/fixtures.h"
#include "tests/data/tar_writer.h"
#include "tests/data/test_data.h"

#include <fmt/format.h>

#include <algorithm>

namespace ermoe {
namespace {

using testing::input_error;
using testing::ScratchFolder;
using testing::tar_end;
using testing::tar_member;
using testing::write;

class SubjectTable : public ::testing::Test {
 protected:
  void files(std::initializer_list<const char*> names) {
    for (const char* name : names) write(folder.file(name), "volume");
  }
  void table(const std::string& text, const std::string& name = "participants.tsv") { write(folder.file(name), text); }
  std::vector<Subject> read(SubjectTableOptions options = {}) {
    options.warn = [this](const std::string& text) { warnings += text + "\n"; };
    return read_subjects(*open_folder(folder.path()), options);
  }
  std::string listing(const SubjectTableOptions& options = {}) {
    std::string text;
    for (const Subject& s : read(options))
      text += fmt::format("{} {} {} {} {} {}\n", s.id, s.path, s.age, s.sex, s.site,
                          s.split ? std::to_string(static_cast<int>(*s.split)) : "-");
    return text;
  }
  void expect_refused(std::initializer_list<const char*> parts, const SubjectTableOptions& options = {}) {
    const std::string message = input_error([&] { read(options); });
    for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in '" << message << "'";
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }

  ScratchFolder folder;
  std::string warnings;
};

TEST_F(SubjectTable, Template) {
  files({"t1/a_T1.nii.gz", "t1/b_T1.nii.gz", "t1/other.nii"});
  table("participant_id\tage\tsex\tsite\tsplit\nb\t38.78\tM\tGuys\ttrain\na\t89+\tn/a\tHH\tval\n");
  EXPECT_EQ(listing({.path_template = "t1/{participant_id}_T1.nii.gz"}), "b t1/b_T1.nii.gz 38.78 M Guys 0\na t1/a_T1.nii.gz 89  HH 1\n");
  EXPECT_EQ(warnings, "");
  const auto subjects = read({.path_template = "t1/{participant_id}_T1.nii.gz"});
  EXPECT_EQ(open_folder(folder.path())->paths().at(subjects[0].file), "t1/b_T1.nii.gz");
}

TEST_F(SubjectTable, TemplateOfSeveralColumns) {
  files({"HH/a/1.nii", "HH/a/2.nii", "GU/b/1.nii"});
  table("\xef\xbb\xbfSubject, Age ,Site,Visit\r\na,30,HH,1\r\na,32,HH,2\r\nb, 40 ,GU,1\r\n,,,\r\n", "people.csv");
  EXPECT_EQ(listing({.table = "people.csv", .path_template = "{Site}/{subject}/{visit}.nii"}),
            "a HH/a/1.nii 30  HH -\na HH/a/2.nii 32  HH -\nb GU/b/1.nii 40  GU -\n");
}

TEST_F(SubjectTable, PathColumn) {
  files({"deep/vol/x.nii.gz", "deep/vol/sub-07_T1w.nii", "top.nii"});
  table("path,age,split\nvol/x.nii.gz,20,Training\n./vol/sub-07_T1w.nii,0,test\ntop.nii,120,valid\n", "deep/list.csv");
  EXPECT_EQ(listing({.table = "deep/list.csv"}),
            "vol/x.nii.gz deep/vol/x.nii.gz 20   0\nsub-07 deep/vol/sub-07_T1w.nii 0   2\ntop.nii top.nii 120   1\n");
  EXPECT_EQ(read({.table = folder.file("deep/list.csv")}).size(), 3u) << "named by its path on the disk";
}

TEST_F(SubjectTable, TableOutsideOfTheTree) {
  const ScratchFolder other;
  files({"vol/x.nii"});
  write(other.file("list.tsv"), "id\tfile\tage\nx\tvol/x.nii\t50\ny\t" + folder.file("vol/y.nii") + "\t51\n");
  files({"vol/y.nii"});
  EXPECT_EQ(listing({.table = other.file("list.tsv")}), "x vol/x.nii 50   -\ny vol/y.nii 51   -\n");
  EXPECT_NE(input_error([&] { read({.table = other.file("none.tsv")}); }).find("none.tsv"), std::string::npos);
}

TEST_F(SubjectTable, Bids) {
  files({"ds/sub-01/anat/sub-01_T1w.nii.gz", "ds/sub-01/anat/sub-01_T2w.nii.gz", "ds/sub-02/ses-b/anat/sub-02_ses-b_T1w.nii",
         "ds/sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii", "ds/sub-1/anat/sub-01_T1w.nii.gz", "ds/sub-1/anat/sub-1_acq-x_T1w.nii.gz",
         "ds/derivatives/sub-03/anat/sub-03_T1w.nii.gz", "ds/sub-03/func/sub-03_T1w.nii.gz", "ds/sub-03/anat/sub-03_T1w.json",
         "ds/derivatives/participants.tsv"});
  table("participant_id\tage\nsub-02\t33\n01\t44\nsub-1\t55\n", "ds/participants.tsv");
  EXPECT_EQ(listing(),
            "sub-02 ds/sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii 33   -\n01 ds/sub-01/anat/sub-01_T1w.nii.gz 44   -\n"
            "sub-1 ds/sub-1/anat/sub-1_acq-x_T1w.nii.gz 55   -\n");
  EXPECT_NE(warnings.find("1 of the subjects have several T1w volumes"), std::string::npos) << warnings;
  table("participant_id\tage\nsub-02\t33\nsub-03\t44\n", "ds/participants.tsv");
  expect_refused({"line 3", "sub-03", "T1w"});
}

TEST_F(SubjectTable, Archive) {
  const std::string path = folder.file("study.tar");
  write(path, tar_member({.name = "./ds/participants.tsv", .content = "participant_id\tage\n01\t61.5\n"}) +
                  tar_member({.name = "./ds/sub-01/anat/sub-01_T1w.nii.gz", .content = "volume"}) + tar_end());
  const auto tree = open_archive(path);
  const auto subjects = read_subjects(*tree);
  ASSERT_EQ(subjects.size(), 1u);
  EXPECT_EQ(subjects[0].path, "ds/sub-01/anat/sub-01_T1w.nii.gz");
  EXPECT_EQ(subjects[0].age, 61.5);
  EXPECT_EQ(tree->read(subjects[0].file, 100), "volume");
}

TEST_F(SubjectTable, MissingAgesAreLeftOutAndCountedOnce) {
  files({"a.nii", "b.nii", "c.nii", "d.nii", "e.nii"});
  table("id\tage\na\tn/a\nb\t30\nc\t\nd\tNA\ne\t31\nnobody\tN/A\n");
  EXPECT_EQ(listing({.path_template = "{id}.nii"}), "b b.nii 30   -\ne e.nii 31   -\n");
  EXPECT_EQ(warnings, folder.file("participants.tsv") + ": 4 of 6 subjects have no age and are left out, the first is a\n");
  EXPECT_EQ(read_subjects(*open_folder(folder.path()), {.path_template = "{id}.nii"}).size(), 2u) << "without anybody to warn";
  table("id\tage\na\tn/a\n");
  expect_refused({"nobody with an age"}, {.path_template = "{id}.nii"});
}

TEST_F(SubjectTable, AbsurdAgesNameSubjectFileAndLine) {
  files({"a.nii", "b.nii"});
  for (const char* age : {"-1", "120.5", "380", "inf", "1e9"}) {
    table(fmt::format("id\tage\na\t30\nb\t{}\n", age));
    expect_refused({"participants.tsv, line 3", age, "subject b"}, {.path_template = "{id}.nii"});
  }
  for (const char* age : {"nan", "NaN", "thirty", "38,7", "30 y", "+", "0x20", "30-40", "1\x01", "--3"}) {
    table(fmt::format("id\tage\na\t30\nb\t{}\n", age));
    expect_refused({"participants.tsv, line 3", "subject b", "no number of years"}, {.path_template = "{id}.nii"});
  }
}

TEST_F(SubjectTable, Leakage) {
  files({"a.nii", "a2.nii", "b.nii"});
  table("participant_id\tpath\tage\tsplit\nsub-a\ta.nii\t30\ttrain\nb\tb.nii\t30\ttrain\na\ta2.nii\t31\tval\n");
  expect_refused({"line 4", "sub-a", "in val", "in train in line 2"});
  table("participant_id\tpath\tage\tsplit\na\ta.nii\t30\ttrain\na\ta2.nii\t31\tn/a\n");
  expect_refused({"line 3", "no split"});
  table("path\tage\tsplit\na.nii\t30\ttrain\n./a.nii\t30\tval\n");
  expect_refused({"line 3", "a.nii", "line 2"});
  table("participant_id\tpath\tage\tsplit\na\ta.nii\t30\ttrain\nb\ta.nii\t31\tval\n");
  expect_refused({"line 3", "a.nii", "subject b", "subject a", "line 2"});
}

TEST_F(SubjectTable, TheSameRowTwice) {
  files({"a.nii", "a2.nii"});
  table("id\tage\tsplit\na\t30\ttrain\na\t30\ttrain\n");
  expect_refused({"line 3", "subject a", "line 2"}, {.path_template = "{id}.nii"});
  table("id\tpath\tage\na\ta.nii\t30\na\ta2.nii\t32\n");
  EXPECT_EQ(read().size(), 2u) << "two visits";
}

TEST_F(SubjectTable, MissingVolumes) {
  files({"a.nii"});
  table("id\tage\na\t30\nb\t31\n");
  expect_refused({"line 3", "subject b", "\"b.nii\"", folder.path().c_str()}, {.path_template = "{id}.nii"});
  table("id\tage\nx\t30\na\t30\ny\t31\n");
  expect_refused({"line 2", "subject x", "2 of 3"}, {.path_template = "{id}.nii"});
  table("id\tage\tpath\na\t30\tn/a\n");
  expect_refused({"line 2", "subject a", "path"});
  table("id\tage\tpath\na\t30\t../../../../../../etc/passwd\n");
  expect_refused({"line 2", "subject a"});
}

TEST_F(SubjectTable, Templates) {
  files({"a.nii"});
  table("participant_id\tage\tage_band\na\t30\tn/a\n");
  expect_refused({"{subject}.nii", "\"subject\"", "participant_id, age, age_band"}, {.path_template = "{subject}.nii"});
  expect_refused({"never closed"}, {.path_template = "{participant_id.nii"});
  expect_refused({"\"\""}, {.path_template = "{}.nii"});
  expect_refused({"line 2", "age_band", "missing"}, {.path_template = "{age_band}.nii"});
  EXPECT_EQ(read({.path_template = "{PARTICIPANT_ID}.nii"}).size(), 1u);
}

TEST_F(SubjectTable, TablesThatAreNone) {
  files({"a.nii"});
  expect_refused({folder.path().c_str(), "no participants.tsv"});
  table("");
  expect_refused({"empty"});
  table("participant_id\tsex\na\tM\n");
  expect_refused({"\"age\"", "participant_id, sex"});
  table("name\tage\na\t30\n");
  expect_refused({"participant_id", "name, age"});
  table("participant_id\tage\na\t30\n");
  expect_refused({"\"path\"", "template", "{participant_id}"});
  table("participant_id\tage\tage\na\t30\t30\n");
  expect_refused({"two columns \"age\""}, {.path_template = "{participant_id}.nii"});
  table("participant_id\tage\tsplit\na\t30\tholdout\n");
  expect_refused({"line 2", "subject a", "holdout"}, {.path_template = "{participant_id}.nii"});
  table("participant_id\tage\tsex\na\t30\n");
  expect_refused({"line 2", "2 columns"}, {.path_template = "{participant_id}.nii"});
  table("participant_id\tage\na\t30\tx\n");
  expect_refused({"line 2", "3 columns"}, {.path_template = "{participant_id}.nii"});
  table("participant_id\tpath\tage\n\t\t30\n");
  expect_refused({"line 2", "who"});
}

/// Cut off or with changed bytes anywhere: a list or one sentence, never anything else.
TEST_F(SubjectTable, DamagedTables) {
  files({"a.nii", "b.nii"});
  const std::string sound = "participant_id,path,age,sex,split\n\"a\",a.nii,38.5,\"M\",train\nb,b.nii,89+,F,val\n";
  const RngKey key{5};
  for (uint64_t i = 0; i < 400; ++i) {
    std::string text = sound.substr(0, i < sound.size() ? i : sound.size());
    for (uint64_t n = i < sound.size() ? 0 : 3; n > 0; --n)
      text[uniform_int(key.fold(n), i, text.size())] = static_cast<char>(uniform_int(key.fold(n + 9), i, 256));
    table(text, "list.csv");
    try {
      for (const Subject& s : read({.table = "list.csv"})) EXPECT_TRUE(s.age >= 0 && s.age <= 120 && !s.id.empty());
    } catch (const InputError& error) {
      EXPECT_EQ(std::string_view(error.what()).find_first_of("\n\r\x01"), std::string_view::npos) << error.what();
    }
  }
}

TEST_F(SubjectTable, RealStudy) {
  ERMOE_REQUIRE_TEST_DATA(path, "ixi_t1_2mm.tar");
  const auto subjects = read_subjects(*open_archive(path), {.path_template = "t1_brain/{participant_id}_T1_brain.nii.gz"});
  ASSERT_EQ(subjects.size(), 151u);
  EXPECT_EQ(std::ranges::count_if(subjects, [](const Subject& s) { return s.split == Part::train; }), 121);
  EXPECT_EQ(std::ranges::count_if(subjects, [](const Subject& s) { return s.split == Part::validation; }), 30);
  EXPECT_EQ(subjects[0].id, "IXI012-HH-1211");
  EXPECT_EQ(subjects[0].age, 38.78);
  EXPECT_EQ(subjects[0].path, "t1_brain/IXI012-HH-1211_T1_brain.nii.gz");
}

}  // namespace
}  // namespace ermoe
