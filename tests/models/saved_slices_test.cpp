// What ranks write of a model whose experts they share out: two models of E experts, as of two ranks, make one file of 2E.
#include "models/saved_slices.h"

#include "tests/models/tiny_model.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

/// This model's experts are those from `offset` on of `all`.
void spread(TinyModel& tiny, int64_t offset, int64_t all) {
  for (Parameter* p : parameters_of(tiny.model)) {
    if (!p->expert_sharded) continue;
    p->expert_offset = offset;
    p->experts_of_all = all;
  }
}

void join(std::vector<SavedSlice>& slices, const std::vector<SavedSlice>& more) { slices.insert(slices.end(), more.begin(), more.end()); }

TEST(SavedSlicesOfModels, ExpertsOfTwoRanksMakeOneFile) {
  const int64_t experts = tiny_config().moe.experts;
  TinyModel one(tiny_config(), DType::f32, 1), two(tiny_config(), DType::f32, 2), got(tiny_config(), DType::f32, 3);
  spread(one, 0, 2 * experts);
  spread(two, experts, 2 * experts);
  spread(got, experts, 2 * experts);
  std::vector<SavedSlice> slices = saved_slices(two.model, 1);
  join(slices, saved_slices(one.model, 0));
  const ScratchFolder folder;
  const std::string path = folder.file("model.safetensors");
  SelfCommunicator alone;
  write_slices(path, slices, alone);
  const auto file = SafetensorsFile::open(path);
  read_slices(file, saved_slices(got.model, 1), Unlisted::refused);
  const Snapshot of_one = one.values(), of_two = two.values(), read = got.values();
  int64_t spread_ones = 0;
  for (Parameter* p : parameters_of(got.model)) {
    if (p->role == Parameter::Role::derived) continue;
    EXPECT_EQ(file.shape(p->name), p->expert_sharded ? p->shape.with(0, 2 * experts) : p->shape) << p->name;
    EXPECT_TRUE(same_bits(read.at(p->name), (p->expert_sharded ? of_two : of_one).at(p->name))) << p->name;
    spread_ones += p->expert_sharded;
  }
  EXPECT_GT(spread_ones, 0);
}

TEST(SavedSlicesOfModels, WhatNoRankSavesIsNamed) {
  const int64_t experts = tiny_config().moe.experts;
  TinyModel one(tiny_config(), DType::f32, 1), two(tiny_config(), DType::f32, 2);
  spread(one, 0, 2 * experts);
  spread(two, experts, 2 * experts);
  Parameter& u1 = two.parameter("blocks.1.moe.experts.U1");
  u1.saves = false;
  std::vector<SavedSlice> slices = saved_slices(two.model, 1);
  join(slices, saved_slices(one.model, 0));
  const ScratchFolder folder;
  SelfCommunicator alone;
  try {
    write_slices(folder.file("model.safetensors"), slices, alone);
    FAIL() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(fmt::format("blocks.1.moe.experts.U1 {}: element {}, in row {} of {}, is written by no rank",
                                                     u1.whole_shape().str(), u1.shape.numel(), experts, 2 * experts)),
              std::string::npos)
        << e.what();
  }
}

TEST(SavedSlicesOfModels, MomentsAndAveragesAreListedByName) {
  TinyModel tiny(tiny_config(), DType::f64);
  spread(tiny, 0, tiny_config().moe.experts);
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), {}, stiefel_method(tiny.model.config().moe.orthogonality));
  const MovingAverage average(tiny.bench.ctx, tiny.model.arena(), 0.9);
  for (const int rank : {0, 1}) {
    const std::vector<SavedSlice> averages = saved_slices(average, rank), moments = saved_slices(optimizer, rank);
    EXPECT_TRUE(std::ranges::is_sorted(averages, {}, &SavedSlice::name));
    EXPECT_TRUE(std::ranges::is_sorted(moments, {}, &SavedSlice::name));
    EXPECT_EQ(moments.size(), 2 * averages.size());
    for (const SavedSlice& slice : averages) {
      EXPECT_EQ(slice.writes, rank == 0 || tiny.parameter(slice.name).expert_sharded) << slice.name;
      EXPECT_EQ(slice.stored, DType::f32);
    }
    for (const SavedSlice& slice : moments) EXPECT_EQ(slice.stored, DType::f64) << "rounded moments would change what follows";
  }
}

}  // namespace
}  // namespace ermoe::testing
