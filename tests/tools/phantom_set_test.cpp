// Made-up subjects on the disk: what is written, that it is the same however it was made, and what is refused.
#include "tools/phantom_set.h"

#include "core/error.h"
#include "core/json.h"
#include "data/nifti.h"
#include "tests/made_brain.h"
#include "tests/tools/temp_folder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

namespace ermoe {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

class PhantomSetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const testing::MadeBrain made = testing::made_brain(5);
    write_nifti(temp_ / "brain.nii.gz", made.brain);
    write_nifti(temp_ / "atlas.nii.gz", made.atlas);
    quiet_ = std::fopen("/dev/null", "w");
  }
  void TearDown() override { std::fclose(quiet_); }

  PhantomSet set_in(const std::string& name) const {
    PhantomSet set;
    set.folder = temp_ / name;
    set.subjects = 6;
    set.settings.spacing = 5;
    set.template_path = temp_ / "brain.nii.gz";
    set.atlas_path = temp_ / "atlas.nii.gz";
    return set;
  }

  PhantomSetDone write(const PhantomSet& set, int threads = 2) const { return write_phantom_set(set, threads, quiet_); }

  /// Every file below a folder with its bytes.
  static std::map<std::string, std::string> content(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) files[fs::relative(entry.path(), folder)] = TempFolder::read(entry.path());
    return files;
  }

  static std::string message_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const InputError& e) {
      return e.what();
    }
    return "nothing was refused";
  }

  TempFolder temp_;
  std::FILE* quiet_ = nullptr;
};

TEST_F(PhantomSetTest, WritesABidsFolder) {
  const PhantomSet set = set_in("out");
  const PhantomSetDone done = write(set);
  EXPECT_EQ(done.made, 6);
  EXPECT_EQ(done.kept, 0);
  const auto files = content(set.folder);
  EXPECT_EQ(files.size(), 6u * 2 + 7);
  const Volume brain = read_nifti(set.folder + "/sub-0003/anat/sub-0003_T1w.nii.gz");
  const Volume regions = read_nifti(set.folder + "/derivatives/regions/sub-0003_regions.nii.gz");
  EXPECT_EQ(brain.grid, regions.grid);
  EXPECT_EQ(brain.grid.spacing(), (Point3{5, 5, 5}));
  EXPECT_NO_THROW(require_sound(brain, "brain"));
  EXPECT_EQ(*std::max_element(regions.values.begin(), regions.values.end()), 10);
  const PhantomPerson third = draw_person(set.settings, 2);
  EXPECT_NE(files.at("participants.tsv").find(fmt::format("\nsub-0003\t{:.2f}\t{}\ttrain\n", third.age, third.sex)), std::string::npos);
  EXPECT_NE(files.at("participants.tsv").find("val\nsub-0006"), std::string::npos) << "every fifth is for validation";
  EXPECT_EQ(files.at("participants.tsv").rfind("participant_id\tage\tsex\tsplit\n", 0), 0u);
  EXPECT_EQ(files.at("derivatives/regions/labels.tsv").rfind("label\tname\tplanted\n0\tbackground\t0\n1\tventricles\t1\n", 0), 0u);
  EXPECT_NE(files.at("README").find("simulated"), std::string::npos);
}

TEST_F(PhantomSetTest, SaysWhatTheBestPredictorReaches) {
  const PhantomSet set = set_in("out");
  const PhantomSetDone done = write(set);
  const nlohmann::json json = read_json(set.folder + "/phantom.json");
  const nlohmann::json& best = json["optimal_predictor"];
  const double mae = best["mae"];
  EXPECT_EQ(mae, done.best_error);
  EXPECT_GE(mae, 1);
  // Drawn from what the file says of the regions, by other numbers.
  const double from = json["ages"]["from"], to = json["ages"]["to"];
  double sum = 0;
  constexpr int draws = 20000;
  for (uint64_t i = 0; i < draws; ++i) {
    const double age = from + (to - from) * static_cast<double>(uniform(RngKey{91}, i));
    double weighted = 0, precision = 0;
    for (const nlohmann::json& region : json["regions"]) {
      if (!region["planted"]) continue;
      const double slope = region["log_volume_per_year"], deviation = region["log_volume_deviation"];
      const double effect = slope * (age - (from + to) / 2) + deviation * normal(RngKey{92}.fold(region["label"]), i);
      weighted += slope * effect / (deviation * deviation);
      precision += slope * slope / (deviation * deviation);
    }
    const AgeModel model{from, to, 1 / std::sqrt(precision)};
    sum += std::abs(model.best_guess((from + to) / 2 + weighted / precision) - age);
  }
  EXPECT_NEAR(sum / draws, mae, 4 * mae / std::sqrt(draws));
  EXPECT_NEAR(static_cast<double>(best["mae_simulated"]), mae, 4 * mae / std::sqrt(draws));
}

TEST_F(PhantomSetTest, IsTheSameWithAnyNumberOfThreadsAndAfterAnInterruption) {
  const PhantomSet one = set_in("one"), three = set_in("three");
  write(one, 1);
  write(three, 3);
  EXPECT_EQ(content(one.folder), content(three.folder));
  // As a run leaves it that was interrupted in the fourth subject.
  for (const char* lost : {"participants.tsv", "sub-0004/anat/sub-0004_T1w.nii.gz", "derivatives/regions/sub-0005_regions.nii.gz",
                           "sub-0005/anat/sub-0005_T1w.nii.gz", "README"})
    fs::remove(fs::path(three.folder) / lost);
  const PhantomSetDone done = write(three);
  EXPECT_EQ(done.made, 2);
  EXPECT_EQ(done.kept, 4);
  EXPECT_EQ(content(one.folder), content(three.folder));
}

TEST_F(PhantomSetTest, RefusesFoldersOfAnythingElse) {
  const PhantomSet set = set_in("out");
  write(set);
  EXPECT_NE(message_of([&] { write(set); }).find("holds these subjects already"), std::string::npos);
  fs::remove(fs::path(set.folder) / "participants.tsv");
  PhantomSet other = set;
  other.settings.seed = 2;
  EXPECT_NE(message_of([&] { write(other); }).find("other settings"), std::string::npos);
  other = set_in("full");
  temp_.file("full/mine.txt", "mine");
  EXPECT_NE(message_of([&] { write(other); }).find("is not empty"), std::string::npos);
  EXPECT_EQ(content(other.folder).size(), 1u) << "nothing was added";
  fs::create_directories(temp_ / "empty");
  EXPECT_NO_THROW(write(set_in("empty")));
}

TEST_F(PhantomSetTest, SaysWhereTheTemplateComesFrom) {
  PhantomSet set = set_in("out");
  set.atlas_path = temp_ / "none.nii.gz";
  const std::string message = message_of([&] { write(set); });
  EXPECT_EQ(message.rfind(set.atlas_path + ": ", 0), 0u);
  EXPECT_NE(message.find("apt-get install mricron-data"), std::string::npos);
  EXPECT_FALSE(fs::exists(set.folder));
  set.atlas_path = set.template_path;
  EXPECT_NE(message_of([&] { write(set); }).find("the template with its atlas has no"), std::string::npos) << "no atlas";
}

TEST_F(PhantomSetTest, TakesATemplateInAnyOrientation) {
  // The same brain with x running to the left and y and z swapped.
  const auto turned = [](const Volume& v) {
    Volume t;
    t.grid.size = {v.grid.size[0], v.grid.size[2], v.grid.size[1]};
    const auto& old = v.grid.to_world.rows;
    const double last = static_cast<double>(v.grid.size[0] - 1);
    for (size_t r = 0; r < 3; ++r) t.grid.to_world.rows[r] = {-old[r][0], old[r][2], old[r][1], old[r][3] + last * old[r][0]};
    for (int64_t j = 0; j < v.grid.size[1]; ++j)
      for (int64_t k = 0; k < v.grid.size[2]; ++k)
        for (int64_t i = v.grid.size[0] - 1; i >= 0; --i) t.values.push_back(v.at(i, j, k));
    return t;
  };
  const PhantomSet straight = set_in("straight");
  PhantomSet set = set_in("turned");
  write_nifti(temp_ / "turned_brain.nii.gz", turned(read_nifti(set.template_path)));
  write_nifti(temp_ / "turned_atlas.nii.gz", turned(read_nifti(set.atlas_path)));
  set.template_path = temp_ / "turned_brain.nii.gz";
  set.atlas_path = temp_ / "turned_atlas.nii.gz";
  write(straight);
  write(set);
  const std::string name = "/sub-0001/anat/sub-0001_T1w.nii.gz";
  EXPECT_EQ(read_nifti(straight.folder + name).values, read_nifti(set.folder + name).values);
}

TEST_F(PhantomSetTest, FilesFollowWhatIsPlanted) {
  PhantomSet set = set_in("out");
  set.settings.plant = parse_plant("left_hippocampus:37:-0.006;ventricles:0.01");
  const PhantomSetDone done = write(set);
  EXPECT_EQ(done.best_error, (AgeModel{20, 80, 8 / std::sqrt(2.0)}.mean_error()));
  const auto files = content(set.folder);
  EXPECT_EQ(files.at("derivatives/regions/labels.tsv")
                .rfind("label\tname\tplanted\n0\tbackground\t0\n1\tleft_hippocampus\t1\n"
                       "2\tventricles\t1\n3\thippocampus\t0\n4\tfrontal\t0\n",
                       0),
            0u);
  EXPECT_EQ(files.at("truth.tsv").rfind("participant_id\tage\tleft_hippocampus_log_volume\tventricles_log_volume\tbest_guess\n", 0), 0u);
  const nlohmann::json json = read_json(set.folder + "/phantom.json");
  EXPECT_EQ(json["optimal_predictor"]["mae"], done.best_error);
  ASSERT_EQ(json["regions"].size(), 11u);
  EXPECT_EQ(json["regions"][0]["aal"], std::vector<int>{37});
  EXPECT_EQ(json["regions"][0]["log_volume_per_year"], -0.006);
  EXPECT_FALSE(json["regions"][1].contains("aal"));
  EXPECT_FALSE(json["regions"][2]["planted"]);
  fs::remove(fs::path(set.folder) / "participants.tsv");
  set.settings.plant[1].slope = 0.011;
  EXPECT_NE(message_of([&] { write(set); }).find("other settings"), std::string::npos);
}

TEST_F(PhantomSetTest, SaysBeforeItWritesThatDeformationsCannotReachWhatIsPlanted) {
  PhantomSet set = set_in("out");
  set.subjects = 40;
  set.settings.deviation_years = 15;
  set.settings.plant = parse_plant("frontal:0.03;cerebellum:0.03;temporal:0.03;parietal:0.03");
  const std::string message = message_of([&] { write(set); });
  EXPECT_NE(message.find("plant less"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(set.folder));
}

TEST(PhantomPlantFlag, IsReadOrRefused) {
  PhantomSettings settings;
  set_plant(settings, "ventricles:0.02");
  ASSERT_EQ(settings.plant.size(), 1u);
  EXPECT_EQ(settings.plant[0].slope, 0.02);
  try {
    set_plant(settings, "brainstem:0.02");
    FAIL();
  } catch (const InputError& e) {
    EXPECT_EQ(std::string(e.what()).rfind("--plant: brainstem: no region of the map has that name", 0), 0u) << e.what();
  }
}

TEST(PhantomAges, AreReadOrRefused) {
  PhantomSettings settings;
  set_ages(settings, "18:65.5");
  EXPECT_EQ(settings.age_from, 18);
  EXPECT_EQ(settings.age_to, 65.5);
  for (const char* wrong : {"", "20", ":", "20:", ":80", "80:20", "20:20", "20:80x", "-5:80", "20:800", "nan:80", "20-80"})
    EXPECT_THROW(set_ages(settings, wrong), InputError) << wrong;
}

TEST(PhantomOfColin27, HasVentriclesThatGrowWithAge) {
  PhantomSet set;
  if (!fs::exists(set.template_path)) GTEST_SKIP() << "needs the Debian package mricron-data";
  const TempFolder temp;
  set.folder = temp / "out";
  set.subjects = 6;
  set.settings.spacing = 4;
  set.settings.deviation_years = 0.5;
  std::FILE* quiet = std::fopen("/dev/null", "w");
  write_phantom_set(set, 2, quiet);
  std::fclose(quiet);
  const nlohmann::json json = read_json(set.folder + "/phantom.json");
  const double ventricles_ml = json["regions"][0]["template_ml"];
  EXPECT_GT(ventricles_ml, 10);
  EXPECT_LT(ventricles_ml, 30);
  for (int64_t i = 0; i < set.subjects; ++i) {
    const PhantomPerson person = draw_person(set.settings, i);
    const Volume map = read_nifti(fmt::format("{}/derivatives/regions/sub-{:04}_regions.nii.gz", set.folder, i + 1));
    const auto voxels = static_cast<double>(std::count(map.values.begin(), map.values.end(), 1.0f));
    EXPECT_NEAR(std::log(0.064 * voxels / ventricles_ml), person.effects[0], 0.12) << "aged " << person.age;
  }
}

}  // namespace
}  // namespace ermoe
