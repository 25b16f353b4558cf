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

}  // namespace
}  // namespace ermoe
