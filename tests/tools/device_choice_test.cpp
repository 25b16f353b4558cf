// Which device is taken for what a machine has and a build has code for, and what the user is told.
#include "tools/device_choice.h"

#include "core/error.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

const GpuInfo turing{.index = 0, .name = "Tesla T4", .memory_bytes = 1, .multiprocessors = 40, .major = 7, .minor = 5};
const GpuInfo hopper{.index = 1, .name = "NVIDIA H100", .memory_bytes = 1, .multiprocessors = 132, .major = 9, .minor = 0};

FoundGpus found(std::vector<GpuInfo> gpus, std::string fault = {}) {
  return {.gpus = std::move(gpus), .fault = std::move(fault), .built_for = "80,90a"};
}

std::string refusal(const FoundGpus& gpus) {
  try {
    decide_device(DeviceChoice::cuda, gpus);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(DeviceChoice, TakesTheOneGpuWithoutAWord) {
  for (const DeviceChoice choice : {DeviceChoice::auto_, DeviceChoice::cuda}) {
    const DeviceDecision decision = decide_device(choice, found({hopper}));
    EXPECT_EQ(decision.gpu, 1);
    EXPECT_EQ(decision.note, "");
  }
}

TEST(DeviceChoice, FallsBackToTheCpuAndSaysWhy) {
  const std::string generation = "Tesla T4 has compute capability 7.5, and this build has code for generations 80,90a alone (ERMOE_GPUS)";
  const std::pair<FoundGpus, std::string> cases[] = {
      {found({}), "no GPU was found"},
      {found({}, "it is too old"), "the GPU driver failed: it is too old"},
      {found({turing}), generation},
      {found({turing, turing}), "none of 2 GPUs can be used: " + generation},
  };
  for (const auto& [gpus, reason] : cases) {
    const DeviceDecision decision = decide_device(DeviceChoice::auto_, gpus);
    EXPECT_FALSE(decision.gpu.has_value()) << reason;
    EXPECT_EQ(decision.note, reason);
    EXPECT_EQ(refusal(gpus), "train.device: cuda was asked for, but " + reason);
  }
}

TEST(DeviceChoice, PassesOverAGpuWithoutCodeAndNamesTheOneItTook) {
  const DeviceDecision decision = decide_device(DeviceChoice::auto_, found({turing, hopper}));
  EXPECT_EQ(decision.gpu, 1);
  EXPECT_EQ(decision.note, "GPU 1 of 2: a process uses one, CUDA_VISIBLE_DEVICES says which it may see");
}

TEST(DeviceChoice, ACpuThatWasAskedForNeedsNoReason) {
  const DeviceDecision decision = decide_device(DeviceChoice::cpu, found({hopper}));
  EXPECT_FALSE(decision.gpu.has_value());
  EXPECT_EQ(decision.note, "");
}

// Several ranks.

FoundGpus host_with(int gpus) {
  std::vector<GpuInfo> all;
  for (int i = 0; i < gpus; ++i) {
    all.push_back(hopper);
    all.back().index = i;
    all.back().identity = 100 + static_cast<uint64_t>(i);
  }
  FoundGpus host = found(std::move(all));
  host.can_join = true;
  return host;
}

/// What every rank decides, where rank r finds `finds[r]` on host `hosts[r]`: the index of its GPU, or -1, or the refusal.
struct Decided {
  std::vector<int> gpus;
  std::vector<std::string> texts;  // notes and refusals
};

Decided decide_all(DeviceChoice choice, const std::vector<FoundGpus>& finds, const std::vector<std::string>& hosts) {
  std::vector<RankGpus> ranks;
  for (size_t r = 0; r < finds.size(); ++r) ranks.push_back(gpus_of_rank(choice, finds[r], hosts[r]));
  Decided all;
  for (size_t r = 0; r < finds.size(); ++r) {
    try {
      const DeviceDecision decision = decide_device(choice, finds[r], static_cast<int>(r), ranks);
      all.gpus.push_back(decision.gpu.value_or(-1));
      all.texts.push_back(decision.note);
    } catch (const InputError& e) {
      all.gpus.push_back(-2);
      all.texts.emplace_back(e.what());
    }
  }
  return all;
}

TEST(DeviceChoice, EachRankOfAHostTakesTheNextGpu) {
  const Decided all = decide_all(DeviceChoice::cuda, std::vector(5, host_with(3)), {"a", "b", "a", "b", "a"});
  EXPECT_EQ(all.gpus, (std::vector{0, 0, 1, 1, 2}));
  EXPECT_EQ(all.texts[0], "");
  EXPECT_EQ(all.texts[1], "2 of the 3 GPUs of b: a rank uses one, and so many ranks run there");
}

TEST(DeviceChoice, RanksThatSeeOneGpuEachTakeIt) {
  FoundGpus second = host_with(2);
  second.gpus.erase(second.gpus.begin());
  second.gpus[0].index = 0;  // CUDA_VISIBLE_DEVICES=1
  const Decided all = decide_all(DeviceChoice::cuda, {host_with(1), second}, {"a", "a"});
  EXPECT_EQ(all.gpus, (std::vector{0, 0}));
  EXPECT_EQ(all.texts, (std::vector<std::string>{"", ""}));
}

TEST(DeviceChoice, ARankPassesOverAGpuWithoutCode) {
  FoundGpus host = host_with(3);
  host.gpus[1].major = 7;
  EXPECT_EQ(decide_all(DeviceChoice::auto_, {host, host}, {"a", "a"}).gpus, (std::vector{0, 2}));
}

TEST(DeviceChoice, MoreRanksThanGpusDecideAlike) {
  const std::string reason = "each rank wants a GPU of its own, and b has 3 ranks and 2 GPUs that can be used";
  const std::vector<std::string> hosts{"a", "b", "b", "b"};
  const Decided left = decide_all(DeviceChoice::auto_, std::vector(4, host_with(2)), hosts);
  EXPECT_EQ(left.gpus, std::vector<int>(4, -1));
  EXPECT_EQ(left.texts, std::vector<std::string>(4, reason));
  const Decided refused = decide_all(DeviceChoice::cuda, std::vector(4, host_with(2)), hosts);
  EXPECT_EQ(refused.gpus, std::vector<int>(4, -2));
  EXPECT_EQ(refused.texts, std::vector<std::string>(4, "train.device: cuda was asked for, but " + reason));
}

TEST(DeviceChoice, OneRankWithoutAGpuIsNamedByAll) {
  FoundGpus none = host_with(0);
  const Decided all = decide_all(DeviceChoice::auto_, {host_with(2), host_with(2), none}, {"a", "a", "b"});
  EXPECT_EQ(all.gpus, std::vector<int>(3, -1));
  EXPECT_EQ(all.texts, std::vector<std::string>(3, "on rank 2 (b) no GPU was found"));
  EXPECT_EQ(decide_all(DeviceChoice::auto_, {none, none}, {"a", "b"}).texts[0], "no GPU was found");
}

TEST(DeviceChoice, RanksWantNcclForGpus) {
  FoundGpus host = host_with(2);
  host.can_join = false;
  const std::string reason = "this build has no NCCL, over which GPUs of several ranks work together";
  EXPECT_EQ(decide_all(DeviceChoice::auto_, {host, host}, {"a", "a"}).texts[1], reason);
  EXPECT_EQ(decide_all(DeviceChoice::cuda, {host, host}, {"a", "a"}).texts[1], "train.device: cuda was asked for, but " + reason);
  EXPECT_EQ(decide_all(DeviceChoice::cpu, {host, host}, {"a", "a"}).texts[1], "");
}

}  // namespace
}  // namespace ermoe
