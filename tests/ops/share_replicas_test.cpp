#include "ops/share_replicas.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

/// Two images of five tokens with two slots; experts 1 and 3 have copies 4 and 5.
const std::vector<int32_t> given{0, 1, 1, 3, 3, 2, 1, -1, 2, 1, 1, 0, 3, 1, 3, 3, -1, 1, 1, 2};
const std::vector<float> copied{1, 3};

template <typename Bench>
std::vector<int32_t> shared_ids(Bench& bench) {
  TestBench host;
  const Tensor ids = on_device_of(bench.ctx, Tensor::from<int32_t>(host.allocator, {10, 2}, given));
  const Tensor of = on_device_of(bench.ctx, Tensor::from<float>(host.allocator, {2}, copied));
  const Tensor shared = on_host(bench.ctx, share_with_replicas(bench.ctx, ids, of, 4, 5));
  const auto all = shared.span<int32_t>();
  return {all.begin(), all.end()};
}

// Tokens 1, 2 and 4 of an image have an odd number of ones: 1, 10, 100. Token 3, 11, has not.
const std::vector<int32_t> wanted{0, 1, 4, 5, 5, 2, 1, -1, 2, 4, 1, 0, 5, 4, 5, 5, -1, 1, 4, 2};

TEST(ShareReplicas, TakeTheirExpertsSlotsInEveryOtherToken) {
  TestBench bench;
  EXPECT_EQ(shared_ids(bench), wanted);
}

TEST(ShareReplicas, RefusesTokensThatAreNoWholeImages) {
  TestBench bench;
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {10, 2}, given), of = Tensor::from<float>(bench.allocator, {2}, copied);
  expect_error([&] { share_with_replicas(bench.ctx, ids, of, 4, 3); }, {"[share_replicas] ids i32 (10, 2) for images of 3 tokens"});
}

#if defined(ERMOE_WITH_CUDA)
void expect_same_on_gpu() {
  GpuBench bench;
  EXPECT_EQ(shared_ids(bench), wanted);
}
TEST(ShareReplicas, GpuMatchesCpu) { ERMOE_NEEDS_GPU(expect_same_on_gpu()); }
#endif

}  // namespace
}  // namespace ermoe::testing
