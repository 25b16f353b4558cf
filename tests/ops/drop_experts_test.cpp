#include "ops/drop_experts.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace ermoe::testing {
namespace {

std::vector<uint8_t> draw(const ExecContext& ctx, int64_t experts, int64_t clusters, int64_t dropped, uint64_t key) {
  const Tensor allow = drop_experts(ctx, {}, 3, experts, clusters, dropped, RngKey{key});
  EXPECT_EQ(allow.shape(), (Shape{3, experts}));
  const auto all = to_vector<uint8_t>(allow);
  std::vector<uint8_t> row(all.begin(), all.begin() + experts);
  for (int64_t n = 1; n < 3; ++n) EXPECT_TRUE(std::equal(row.begin(), row.end(), all.begin() + n * experts)) << "token " << n;
  return row;
}

TEST(DropExperts, ClosesThatManyOfEachCluster) {
  TestBench bench;
  struct Case {
    int64_t experts, clusters, dropped;
  };
  for (const Case c : {Case{8, 2, 1}, {8, 1, 7}, {8, 4, 1}, {6, 2, 2}, {1, 1, 0}, {12, 3, 0}, {70, 2, 20}}) {
    const int64_t size = c.experts / c.clusters;
    for (uint64_t key = 0; key < 20; ++key) {
      const auto row = draw(bench.ctx, c.experts, c.clusters, c.dropped, key);
      for (int64_t first = 0; first < c.experts; first += size)
        EXPECT_EQ(std::count(row.begin() + first, row.begin() + first + size, 0), c.dropped) << "experts " << c.experts << " key " << key;
    }
  }
}

TEST(DropExperts, EveryExpertIsClosedAsOftenAsItsNeighbours) {
  TestBench bench;
  std::vector<int> closed(8);
  std::set<std::vector<uint8_t>> seen;
  for (uint64_t key = 0; key < 2000; ++key) {
    const auto row = draw(bench.ctx, 8, 2, 1, key);
    for (size_t e = 0; e < 8; ++e) closed[e] += row[e] == 0;
    seen.insert(row);
  }
  for (const int times : closed) EXPECT_NEAR(times, 500, 80);  // over four deviations
  EXPECT_EQ(seen.size(), 16u);                                 // clusters draw by themselves
}

TEST(DropExperts, KeepsWhatWasClosedBefore) {
  TestBench bench;
  const std::vector<uint8_t> before = {1, 0, 1, 1, 0, 0, 0, 1};
  const Tensor open = Tensor::from<uint8_t>(bench.allocator, {2, 4}, before);
  const auto drawn = to_vector<uint8_t>(drop_experts(bench.ctx, {}, 2, 4, 2, 1, RngKey{5}));
  const auto both = to_vector<uint8_t>(drop_experts(bench.ctx, open, 2, 4, 2, 1, RngKey{5}));
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(both[i], drawn[i] != 0 && before[i] != 0) << i;
  EXPECT_EQ(drop_experts(bench.ctx, {}, 0, 4, 2, 1, RngKey{5}).shape(), (Shape{0, 4}));
}

TEST(DropExperts, WrongInputsAreRefused) {
  TestBench bench;
  const auto run = [&](int64_t experts, int64_t clusters, int64_t dropped) {
    return [&bench, experts, clusters, dropped] { drop_experts(bench.ctx, {}, 2, experts, clusters, dropped, RngKey{1}); };
  };
  expect_error(run(8, 3, 1), {"[drop_experts]", "3 groups of 8"});
  expect_error(run(8, 4, 2), {"[drop_experts]", "2 of each of 4"});
  expect_error(run(8, 4, -1), {"[drop_experts]", "-1"});
  expect_error([&] { drop_experts(bench.ctx, bench.ctx.empty({2, 7}, DType::u8), 2, 8, 1, 1, RngKey{1}); }, {"[drop_experts]", "(2, 7)"});
}

#if defined(ERMOE_WITH_CUDA)

void expect_gpu_draws_as_cpu() {
  TestBench cpu;
  GpuBench gpu;
  struct Case {
    int64_t tokens, experts, clusters, dropped;
  };
  for (const Case c : {Case{1000, 8, 2, 1}, {7, 3, 1, 2}, {1, 1, 1, 0}, {33, 600, 6, 40}, {0, 4, 2, 1}})
    for (const bool masked : {false, true}) {
      Tensor open;
      if (masked) {
        open = cpu.ctx.empty({c.tokens, c.experts}, DType::u8);
        for (int64_t i = 0; i < open.numel(); ++i) open.data<uint8_t>()[i] = i % 3 != 0;
      }
      const Tensor there = masked ? open.to(gpu.allocator) : Tensor();
      EXPECT_EQ(to_vector<uint8_t>(drop_experts(gpu.ctx, there, c.tokens, c.experts, c.clusters, c.dropped, RngKey{9})),
                to_vector<uint8_t>(drop_experts(cpu.ctx, open, c.tokens, c.experts, c.clusters, c.dropped, RngKey{9})));
    }
}

TEST(DropExperts, OnAGpuAreTheSame) { ERMOE_NEEDS_GPU(expect_gpu_draws_as_cpu()); }

#endif

}  // namespace
}  // namespace ermoe::testing
