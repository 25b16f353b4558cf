// Two trainings of the same numbers side by side on one GPU, for as long as told: every bit must agree after every step. Started
// several times at once, its kernels are interrupted and find caches of others' data, which no other test does: what holds by the luck
// of timing alone shows then. It found that a parity was waited for two turns too early (stiefel_products_wgmma.cu).
//   for i in $(seq 16); do ermoe_soak 60 $((i % 2)) & done; wait
//   ermoe_soak [SECONDS [GRAPH [EVERY]]]   GRAPH 1: the second training replays its steps, 0: both run op by op; EVERY: after so many
//   steps all weights are compared, else the loss and the norm alone
#include "tests/models/small_training.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

#if defined(ERMOE_WITH_CUDA)

namespace ermoe::testing {
namespace {

/// Shapes of the brain-age preset, which take the kernels for Hopper's tensor cores.
VitConfig soak_config() {
  VitConfig c;
  c.image_size = 80;
  c.channels = 1;
  c.patch = 4;
  c.width = 192;
  c.depth = 4;
  c.heads = 4;
  c.classes = 2;
  c.moe.experts = 10;
  c.moe.hidden = 384;
  return c;
}

/// Names what differs, with where it lies; how many tensors.
int64_t compare(const Snapshot& a, const Snapshot& b, int64_t step) {
  int64_t bad = 0;
  for (const auto& [name, tensor] : a) {
    const Tensor& other = b.at(name);
    if (same_bits(tensor, other)) continue;
    ++bad;
    const auto x = to_doubles(tensor), y = to_doubles(other);
    size_t first = x.size(), last = 0, count = 0, broken = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      broken += std::isfinite(x[i]) && std::isfinite(y[i]) ? 0 : 1;
      if (x[i] == y[i]) continue;
      first = std::min(first, i);
      last = i;
      ++count;
    }
    fmt::print("step {}: {} {}: {} of {} differ, {} to {}; {} are no numbers\n", step, name, tensor.shape().str(), count, x.size(), first,
               last, broken);
  }
  return bad;
}

int soak(double seconds, bool graph, int64_t every) {
  const auto start = std::chrono::steady_clock::now();
  const VitConfig config = soak_config();
  SmallTraining<GpuBench> a(config, test_gpu(), DType::bf16, false, 3e-4, GradWrites::once);
  SmallTraining<GpuBench> b(config, test_gpu(), DType::bf16, graph, 3e-4, GradWrites::once);
  int64_t step = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++step) {
    const StepReport first = a.step(step % 8, 16), second = b.step(step % 8, 16);
    const bool same = first.loss == second.loss && first.grad_norm == second.grad_norm && first.accepted == second.accepted;
    if (!same)
      fmt::print("step {}: loss {} and {}, norm {} and {} {} {}\n", step, first.loss, second.loss, first.grad_norm, second.grad_norm,
                 first.fault, second.fault);
    if ((!same || step % every == 0) && (compare(a.state(), b.state(), step) > 0 || !same)) return 1;
  }
  fmt::print("{} steps, all bits alike\n", step);
  return 0;
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  if (ermoe::testing::test_gpu() == nullptr) {
    std::puts("no GPU: skipped");
    return 77;
  }
  return ermoe::testing::soak(argc > 1 ? std::atof(argv[1]) : 30, argc > 2 && std::atoi(argv[2]) != 0, argc > 3 ? std::atoi(argv[3]) : 20);
}

#else

int main() {
  std::puts("built without CUDA: skipped");
  return 77;
}

#endif
