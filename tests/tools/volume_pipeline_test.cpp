// Who is trained on and who is held out, what window the brains are cut out with, what batches hold, and what is refused or warned of.
#include "tools/volume_pipeline.h"

#include "core/error.h"
#include "tests/bench.h"
#include "tests/tools/made_study.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>

namespace ermoe::testing {
namespace {

std::vector<std::string> names_of(const VolumeSet& set) {
  std::vector<std::string> names;
  for (const Subject& s : set.subjects) names.push_back(s.id);
  return names;
}

/// The host's memory on a machine that has this much.
class SmallMachine final : public MemorySource {
 public:
  explicit SmallMachine(size_t bytes) : bytes_(bytes) {}
  Device device() const override { return {}; }
  Stream stream() const override { return {}; }
  void* allocate(size_t bytes) override { return host_->allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { host_->release(block, bytes); }
  size_t available() const override { return bytes_; }
  void upload(void* to, const void* host, size_t bytes) override { host_->upload(to, host, bytes); }
  void download(void* host, const void* from, size_t bytes) override { host_->download(host, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { host_->copy(to, from, bytes); }
  void set(void* to, uint8_t byte, size_t bytes) override { host_->set(to, byte, bytes); }

 private:
  size_t bytes_;
  const std::unique_ptr<MemorySource> host_ = make_host_source();
};

constexpr size_t plenty = size_t{1} << 40, little = size_t{12} * 12 * 12 * 12 * 4;  // the volumes of twelve subjects

/// A pipeline over a study, and all that it said.
struct Opened {
  explicit Opened(RunConfig settings, size_t memory = plenty)
      : config(std::move(settings)), host(std::make_unique<SmallMachine>(memory), Fill::poison) {
    pipeline.emplace(config, host, 2, [this](const std::string& text) { said.push_back(text); });
  }
  RunConfig config;
  CachingAllocator host;
  TestBench bench;
  std::vector<std::string> said;
  std::optional<VolumePipeline> pipeline;
};

std::string refusal(const RunConfig& config, size_t memory = plenty) {
  try {
    Opened opened(config, memory);
  } catch (const InputError& fault) {
    return fault.what();
  }
  return "accepted";
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class VolumePipelineTest : public ::testing::Test {
 protected:
  MadeStudy study{12};
};

TEST_F(VolumePipelineTest, HoldsOutAShareThatIsAlikeInAge) {
  const Opened opened(study.config());
  const VolumePipeline& p = *opened.pipeline;
  EXPECT_EQ(p.training_size(), 9);
  EXPECT_EQ(p.evaluation_size(), 3);
  std::set<std::string> all;
  for (const VolumeSet* set : {&p.training(), &p.evaluation()})
    for (const std::string& name : names_of(*set)) EXPECT_TRUE(all.insert(name).second) << name << " is in both";
  EXPECT_EQ(all.size(), 12u);
  for (int64_t i = 0; i < 3; ++i) {  // one of each four by age
    EXPECT_GE(p.evaluation().subjects[static_cast<size_t>(i)].age, MadeStudy::age(4 * i));
    EXPECT_LE(p.evaluation().subjects[static_cast<size_t>(i)].age, MadeStudy::age(4 * i + 3));
    EXPECT_EQ(p.sample_name(i), p.evaluation().subjects[static_cast<size_t>(i)].id);
  }
  double sum = 0;
  for (const double age : p.training().ages()) sum += age;
  EXPECT_NEAR(*p.mean_target(), sum / 9, 1e-12);
}

TEST_F(VolumePipelineTest, EveryoneIsHeldOutInOneFoldAndOthersStay) {
  RunConfig config = study.config();
  config.data.folds = 3;
  std::map<std::string, int> held_out;
  for (config.data.fold = 1; config.data.fold <= 3; ++config.data.fold) {
    const Opened opened(config);
    EXPECT_EQ(opened.pipeline->training_size() + opened.pipeline->evaluation_size(), 12);
    for (const std::string& name : names_of(opened.pipeline->evaluation())) ++held_out[name];
    for (const std::string& name : names_of(opened.pipeline->training())) held_out[name] += 0;
    EXPECT_TRUE(holds(opened.pipeline->description(), fmt::format("fold {} of 3 held out", config.data.fold)));
  }
  ASSERT_EQ(held_out.size(), 12u);
  for (const auto& [name, times] : held_out) EXPECT_EQ(times, 1) << name;
}

TEST_F(VolumePipelineTest, TheTablesOwnSplitIsKeptUnlessFoldsAreAskedFor) {
  study.write_table([](int64_t i) { return i % 6 == 5 ? "test" : i % 6 == 4 ? "val" : "train"; });
  RunConfig config = study.config();
  EXPECT_EQ(names_of(Opened(config).pipeline->evaluation()), (std::vector<std::string>{"s04", "s05", "s10", "s11"}));
  config.data.folds = 4;
  config.data.fold = 1;
  EXPECT_EQ(Opened(config).pipeline->evaluation_size(), 3);
}

TEST_F(VolumePipelineTest, ALimitLeavesEvaluationAlone) {
  RunConfig config = study.config();
  config.data.limit = 5;
  const Opened opened(config), whole(study.config());
  EXPECT_EQ(opened.pipeline->training_size(), 5);
  EXPECT_EQ(names_of(opened.pipeline->evaluation()), names_of(whole.pipeline->evaluation()));
}

TEST_F(VolumePipelineTest, TheWindowHoldsTheBrainsInWholePatches) {
  Opened opened(study.config());
  EXPECT_EQ(opened.config.model.volume, (std::vector<int64_t>{12, 12, 12}));  // brains of 10 x 12 x 10 voxels: z, y, x
  EXPECT_EQ(opened.config.model.channels, 1);
  EXPECT_EQ(opened.config.model.classes, 1);
  EXPECT_EQ(opened.pipeline->training().volumes.shape(), Shape({9, 1, 12, 12, 12}));
  RunConfig config = study.config();
  config.model.patch = 5;
  EXPECT_EQ(Opened(config).config.model.volume, (std::vector<int64_t>{10, 15, 10}));
  config.model.volume = {5, 10, 20};
  EXPECT_EQ(Opened(config).pipeline->training().volumes.shape(), Shape({9, 1, 5, 10, 20}));
}

TEST_F(VolumePipelineTest, TargetsAreScaledByTheTrainingAges) {
  const Opened opened(study.config());
  double squares = 0;
  for (const double age : opened.pipeline->training().ages()) squares += std::pow(age - *opened.pipeline->mean_target(), 2);
  EXPECT_NEAR(opened.config.loss.target_mean, *opened.pipeline->mean_target(), 1e-12);
  EXPECT_NEAR(opened.config.loss.target_scale, std::sqrt(squares / 9), 1e-12);
}

TEST_F(VolumePipelineTest, BatchesAreTheVolumesOfTheirAges) {
  Opened opened(study.config());
  VolumePipeline& p = *opened.pipeline;
  p.settle_on(opened.bench.ctx, nullptr);
  p.seek({});
  std::map<double, std::vector<float>> by_age;
  const VolumeSet& set = p.training();
  for (int64_t i = 0; i < set.size(); ++i) by_age[set.subjects[static_cast<size_t>(i)].age] = to_vector<float>(set.volumes.at(i));
  std::set<double> seen;
  for (int64_t step = 0; step < p.batches_per_epoch(); ++step) {
    const MicroBatch batch = p.next(opened.bench.ctx, RngKey{1}, false);
    ASSERT_EQ(batch.images.shape(), Shape({4, 1, 12, 12, 12}));
    for (int64_t b = 0; b < 4; ++b) {
      const double age = batch.targets.data<float>()[b];
      EXPECT_EQ(to_vector<float>(batch.images.at(b)), by_age.at(age)) << age;
      EXPECT_TRUE(seen.insert(age).second) << "twice in an epoch: " << age;
    }
  }
  EXPECT_EQ(seen.size(), 8u);
  std::vector<double> ages;
  p.for_each_evaluation_batch(opened.bench.ctx, 2, [&](const EvaluationBatch& batch) {
    for (size_t b = 0; b < batch.indices.size(); ++b) {
      ages.push_back(batch.targets.data<float>()[b]);
      EXPECT_EQ(to_vector<float>(batch.input.images.at(static_cast<int64_t>(b))),
                to_vector<float>(p.evaluation().volumes.at(batch.indices[b])));
    }
  });
  EXPECT_EQ(ages, p.evaluation().ages());
}

TEST_F(VolumePipelineTest, GoesOnWhereItWas) {
  Opened opened(study.config());
  VolumePipeline& p = *opened.pipeline;
  p.seek({});
  std::vector<Cursor> at;
  std::vector<std::vector<float>> ages;
  for (int step = 0; step < 5; ++step) {
    at.push_back(p.cursor());
    ages.push_back(to_vector<float>(p.next(opened.bench.ctx, RngKey{1}, false).targets));
  }
  for (const size_t step : {size_t{3}, size_t{1}}) {
    p.seek(at[step]);
    EXPECT_EQ(to_vector<float>(p.next(opened.bench.ctx, RngKey{1}, false).targets), ages[step]);
  }
}

TEST_F(VolumePipelineTest, MeasuresTheMeanOfTheTrainingInputs) {
  RunConfig config = study.config();
  config.model.center_input = true;
  const Opened opened(config);
  const InputStatistics inputs = opened.pipeline->input_statistics();
  const std::vector<float> all = to_vector<float>(opened.pipeline->training().volumes), mean = to_vector<float>(inputs.mean);
  const size_t voxels = mean.size();
  double left = 0;
  for (size_t v = 0; v < voxels; ++v) {
    double sum = 0;
    for (size_t i = 0; i < 9; ++i) sum += all[i * voxels + v];
    EXPECT_NEAR(mean[v], sum / 9, 1e-6);
    for (size_t i = 0; i < 9; ++i) left += std::pow(all[i * voxels + v] - sum / 9, 2);
  }
  EXPECT_NEAR(inputs.deviation, std::sqrt(left / static_cast<double>(9 * voxels)), 1e-6);
}

TEST_F(VolumePipelineTest, MapsOfRegionsSayWhereTokensMayGo) {
  RunConfig config = study.regional("");
  EXPECT_TRUE(holds(refusal(config), "data.regions: moe.regions wants maps of regions"));
  config = study.regional();
  Opened opened(config);
  opened.pipeline->seek({});
  EXPECT_TRUE(opened.pipeline->next(opened.bench.ctx, RngKey{1}, false).allow.defined());
  const Tensor labels = opened.pipeline->training().labels;
  ASSERT_EQ(labels.shape(), Shape({9, 12, 12, 12}));
  EXPECT_EQ(labels.data<float>()[6 * 144 + 6 * 12 + 2], 1);
  EXPECT_EQ(labels.data<float>()[6 * 144 + 6 * 12 + 9], 2);
  config.data.regions = "regions/s00.nii";  // one for all
  EXPECT_EQ(to_vector<float>(Opened(config).pipeline->training().labels.at(3)), to_vector<float>(labels.at(3)));
  config.data.regions = "regions/{participant_id}_x.nii";
  EXPECT_TRUE(holds(refusal(config), "its map of regions regions/s0")) << refusal(config);
}

TEST_F(VolumePipelineTest, WhatIsWrongWithASubjectNamesIt) {
  const std::string third = study.volume(3);
  const Volume sound = small_brain(3, 0.06);
  Volume holed = sound, flat = sound;
  holed.at(10, 10, 10) = std::numeric_limits<float>::quiet_NaN();
  std::ranges::fill(flat.values, 7.0f);
  for (const auto& [volume, fault] : {std::pair{&holed, "not finite"}, {&flat, "every voxel has the same value, 7"}}) {
    write_nifti(third, *volume);
    const std::string text = refusal(study.config());
    EXPECT_TRUE(holds(text, "subject s03: ") && holds(text, "t1/s03.nii") && holds(text, fault)) << text;
  }
  const std::string whole = TempFolder::read(study.volume(2));
  study.folder.file("t1/s03.nii", whole.substr(0, whole.size() / 2));
  EXPECT_TRUE(holds(refusal(study.config()), "subject s03: ")) << refusal(study.config());
  RunConfig config = study.config();
  config.model.volume = {12, 12, 12};  // nothing is looked at beforehand then
  EXPECT_TRUE(
      holds(refusal(config), "1 of 9 volumes cannot be used, more than the 1 % that data.max_bad allows; for example subject s03: ") ||
      holds(refusal(config), "1 of 3 volumes cannot be used"))
      << refusal(config);
  write_nifti(third, sound);
  Volume other = small_regions(sound);
  other.grid.to_world.rows[0][3] += 4;
  write_nifti(study.folder / "regions/s03.nii", other);
  config.data.regions = "regions/{participant_id}.nii";
  const std::string text = refusal(config);
  EXPECT_TRUE(holds(text, "subject s03: ") && holds(text, "does not lie on the grid of")) << text;
  Volume vague = small_regions(sound);
  vague.at(10, 10, 10) = 1.5f;
  write_nifti(study.folder / "regions/s03.nii", vague);
  EXPECT_TRUE(holds(refusal(config), "regions/s03.nii: holds 1.5, which is no label")) << refusal(config);
  config.data.regions = "regions/s03.nii";
  EXPECT_TRUE(holds(refusal(config), "regions/s03.nii: holds 1.5, which is no label")) << refusal(config);
}

TEST_F(VolumePipelineTest, BrokenVolumesCostTheirSubjectsUpToMaxBad) {
  study.folder.file("t1/s03.nii", "nothing of use");
  RunConfig config = study.config();
  config.model.volume = {12, 12, 12};
  config.data.max_bad = 0.4;
  const Opened opened(config);
  const VolumePipeline& p = *opened.pipeline;
  EXPECT_EQ(p.training_size() + p.evaluation_size(), 11);
  ASSERT_EQ(opened.said.size(), 1u);
  EXPECT_TRUE(opened.said[0].starts_with("subject s03: ")) << opened.said[0];
  write_nifti(study.volume(3), small_brain(3, 0.06));
  const Opened whole(config);
  for (const VolumeSet* set : {&p.training(), &p.evaluation()}) {  // those behind the gap moved up with their volumes
    const VolumeSet& full = set == &p.training() ? whole.pipeline->training() : whole.pipeline->evaluation();
    for (int64_t i = 0; i < set->size(); ++i) {
      const auto at = std::ranges::find(full.subjects, set->subjects[static_cast<size_t>(i)].id, &Subject::id) - full.subjects.begin();
      EXPECT_EQ(to_vector<float>(set->volumes.at(i)), to_vector<float>(full.volumes.at(at)));
    }
  }
}

/// All that a run takes from its data, twice through the training volumes.
std::vector<std::vector<float>> everything_of(Opened& opened) {
  VolumePipeline& p = *opened.pipeline;
  p.settle_on(opened.bench.ctx, nullptr);
  p.seek({});
  std::vector<std::vector<float>> all;
  const auto keep = [&](const Tensor& images, const Tensor& allow) {
    all.push_back(to_vector<float>(images));
    const std::vector<uint8_t> mask = to_vector<uint8_t>(allow);
    all.emplace_back(mask.begin(), mask.end());
  };
  for (int step = 0; step < 4; ++step) {
    const MicroBatch batch = p.next(opened.bench.ctx, RngKey{1}, false);
    keep(batch.images, batch.allow);
    all.push_back(to_vector<float>(batch.targets));
    if (step == 1) p.for_each_evaluation_batch(opened.bench.ctx, 2, [&](const EvaluationBatch& b) { keep(b.input.images, b.input.allow); });
  }
  p.seek({0, 1});
  keep(p.next(opened.bench.ctx, RngKey{1}, false).images, Tensor::zeros(opened.host, {1}, DType::u8));
  p.for_each_plain_batch(opened.bench.ctx, 3, 2, [&](const ModelInput& in) { keep(in.images, in.allow); });
  all.push_back(to_vector<float>(p.input_statistics().mean));
  return all;
}

TEST_F(VolumePipelineTest, WhatMemoryCannotHoldIsTheSameFromAFile) {
  RunConfig config = study.regional();
  config.data.cache = study.folder / "cache";
  config.model.center_input = true;
  std::filesystem::create_directories(config.data.cache);
  Opened whole(config);
  EXPECT_TRUE(whole.said.empty()) << whole.said[0];
  Opened streamed(config, little);
  ASSERT_EQ(streamed.said.size(), 1u);
  EXPECT_TRUE(
      streamed.said[0].starts_with("12 volumes of 12x12x12 voxels take 0.0 GiB, and of memory 0.0 are free: they are kept in a file in " +
                                   config.data.cache + ", which is gone when this ends"))
      << streamed.said[0];
  EXPECT_FALSE(&streamed.pipeline->training().volumes.allocator() == &streamed.host);
  EXPECT_TRUE(std::filesystem::is_empty(config.data.cache));
  EXPECT_EQ(everything_of(streamed), everything_of(whole));
}

TEST_F(VolumePipelineTest, ADiskThatCannotHoldThemIsRefused) {
  RunConfig config = study.config();
  config.data.cache = study.folder / "nowhere";
  EXPECT_TRUE(holds(refusal(config, little), "nowhere: no file can be made in it")) << refusal(config, little);
  config.data.spacing = 0.5;
  config.data.cache = study.folder / "";
  config.model.volume = {1 << 15, 1 << 15, 1 << 15};  // 2 PiB
  const std::string text = refusal(config);
  EXPECT_TRUE(holds(text, "of the disk of") && holds(text, "another data.cache may have more")) << text;
}

TEST_F(VolumePipelineTest, OneSentenceAboutAllSkulls) {
  for (const int64_t i : {1, 4, 5, 7}) {
    Volume head = small_brain(static_cast<uint64_t>(i), 0.1);
    for (float& v : head.values) v += 5;  // air that is not empty
    write_nifti(study.volume(i), head);
  }
  RunConfig config = study.config();
  config.data.val_share = 0.5;
  const Opened opened(config);
  ASSERT_EQ(opened.said.size(), 1u);
  const std::string& text = opened.said[0];
  EXPECT_TRUE(text.starts_with("4 of 12 volumes look as if skull and skin were still in them, of s0")) << text;
  EXPECT_TRUE(holds(text, " and others; the first: ") && holds(text, "brains are expected here")) << text;
}

TEST_F(VolumePipelineTest, RefusesWhatCannotBe) {
  const auto with = [&](const std::function<void(RunConfig&)>& change) {
    RunConfig config = study.config();
    change(config);
    return refusal(config);
  };
  EXPECT_TRUE(holds(with([](RunConfig& c) { c.loss.kind = LossKind::cross_entropy; }), "loss.kind: volumes come with ages"));
  EXPECT_TRUE(holds(with([](RunConfig& c) { c.data.path = "/nowhere"; }), "data.path: /nowhere: there is no such file or folder"));
  EXPECT_TRUE(holds(with([](RunConfig& c) { c.data.folds = 13, c.data.fold = 1; }), "12 subjects cannot be dealt out to 13 folds"));
  EXPECT_TRUE(holds(with([](RunConfig& c) { c.data.volumes = "t2/{participant_id}.nii"; }), "subject s00 has no volume"));
  RunConfig config = study.config();
  config.train.batch = 10;
  Opened opened(config);
  try {
    opened.pipeline->seek({});
    ADD_FAILURE() << "a batch that is larger than the data set";
  } catch (const InputError& fault) {
    EXPECT_TRUE(holds(fault.what(), "train.batch is 10 in 1 micro-batches, but")) << fault.what();
  }
}

}  // namespace
}  // namespace ermoe::testing
