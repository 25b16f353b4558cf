// Losses over the pairs of all ranks, against the formula with all pairs in one place. Each rank weighs its part by its share of the batch,
// as training does (models/train_step.h), and sums over ranks must be what one process finds. Started under mpirun by tests/ranks.sh;
// with `gpu` on a GPU each over NCCL, recorded and replayed: "skipped" where there are too few.
#include "core/gather.h"
#include "core/ranks.h"
#include "cuda/factory.h"
#include "ops/contrastive_loss.h"
#include "tests/bench.h"
#include "tests/ops/pair_reference.h"
#include "tools/main_guard.h"

#include <cstdio>
#include <string>

namespace ermoe::testing {
namespace {

enum class Loss { contrastive, sigmoid };
enum class Parts { of_batch, equal };  // rows as the context's part says, which may differ; the same number, of which it says nothing

struct Case {
  Loss loss;
  Parts parts;
  int64_t pairs, width;
  double scale;
};

/// Random features of about length 1, the same on each rank.
PairProblem problem_of(const Case& c) {
  PairProblem p{.pairs = c.pairs, .width = c.width, .image = {}, .text = {}, .log_scale = std::log(c.scale), .bias = -1.5};
  const double length = 1 / std::sqrt(static_cast<double>(c.width));
  for (int64_t i = 0; i < c.pairs * c.width; ++i) {
    const auto at = static_cast<uint64_t>(i);
    p.image.push_back(static_cast<double>(static_cast<float>(length * normal(RngKey{3}, at))));
    p.text.push_back(static_cast<double>(static_cast<float>(0.5 * p.image.back() + 0.9 * length * normal(RngKey{4}, at))));
  }
  p.log_scale = static_cast<double>(static_cast<float>(p.log_scale));
  return p;
}

/// One case on this rank: forward and backward pass over its own pairs.
class Shared {
 public:
  Shared(const ExecContext& ctx, const Case& c) : ctx_(ctx), case_(c), problem_(problem_of(c)) {
    const BatchPart own = part_of_batch(c.pairs, ctx.comm->rank(), ctx.comm->size());
    if (c.parts == Parts::of_batch) ctx_.part = own;
    share_ = own.share();
    first_ = own.first * c.width;
    count_ = own.count * c.width;
    const DType dtype = ctx.device.is_cuda() ? DType::f32 : DType::f64;
    image_ = placed(problem_.image, first_, {own.count, c.width}, dtype);
    text_ = placed(problem_.text, first_, {own.count, c.width}, dtype);
    scale_ = placed({problem_.log_scale}, 0, {1}, dtype);
    bias_ = placed({problem_.bias}, 0, {1}, dtype);
    for (const Tensor* t : {&image_, &text_, &scale_, &bias_}) grads_.push_back(ctx.empty(t->shape(), dtype));
    loss_ = ctx.empty({}, dtype);
  }

  void step() {
    Tape tape;
    const ExecContext ctx = ctx_.with_tape(&tape);
    const Variable image = tape.leaf(image_), text = tape.leaf(text_), scale = tape.leaf(scale_), bias = tape.leaf(bias_);
    const Variable y =
        case_.loss == Loss::contrastive ? contrastive_loss(ctx, image, text, scale) : sigmoid_pair_loss(ctx, image, text, scale, bias);
    copy(y.value, loss_);
    const Tensor seed = ctx.empty(y.shape(), y.dtype());
    fill(seed, share_);
    tape.backward(ctx, y, seed);
    size_t at = 0;
    for (const Variable* v : {&image, &text, &scale, &bias}) {
      const Tensor grad = tape.grad(*v), &to = grads_[at++];
      if (to.numel() == 0) continue;
      if (grad.defined())
        copy(grad, to);
      else
        zero(to);
    }
  }

  /// The largest distance from the reference, of the loss and of any gradient relative to its largest entry, over all ranks.
  double worst() {
    const PairAnswer want = case_.loss == Loss::contrastive ? contrastive_reference(problem_) : sigmoid_pair_reference(problem_);
    double sums[] = {share_ * to_doubles(loss_)[0], to_doubles(grads_[2])[0], to_doubles(grads_[3])[0]};
    reduce_over_ranks(*ctx_.comm, sums);
    double found[] = {std::max(distance(grads_[0], want.image), distance(grads_[1], want.text))};
    const double bias = case_.loss == Loss::sigmoid ? want.bias : 0, scalars[] = {want.loss, want.log_scale, bias};
    for (size_t i = 0; i < 3; ++i) found[0] = larger(found[0], std::abs(sums[i] - scalars[i]) / std::max(1e-3, std::abs(scalars[i])));
    reduce_over_ranks(*ctx_.comm, found, ReduceOp::max);
    return found[0];
  }

 private:
  static double larger(double a, double b) { return std::isnan(b) ? INFINITY : std::max(a, b); }

  Tensor placed(const std::vector<double>& values, int64_t first, const Shape& shape, DType dtype) {
    const Tensor t = Tensor::empty(host_memory(), shape, dtype);
    const std::vector<double> part(values.begin() + first, values.begin() + first + shape.numel());
    convert(Tensor::from<double>(host_memory(), shape, part), t);
    return t.to(*ctx_.allocator);
  }

  /// In single precision relative to e^s / 2B at least, the slope of a product where a softmax is quite wrong: what softmaxes that are
  /// quite right leave is rounding.
  double distance(const Tensor& own, const std::vector<double>& want) const {
    double worst = 0, largest = own.dtype() == DType::f64 ? 1e-3 : 0.5 * case_.scale / static_cast<double>(case_.pairs);
    for (const double w : want) largest = std::max(largest, std::abs(w));
    const std::vector<double> got = to_doubles(own);
    for (size_t i = 0; i < got.size(); ++i) worst = larger(worst, std::abs(got[i] - want[static_cast<size_t>(first_) + i]));
    return worst / largest;
  }

  ExecContext ctx_;
  Case case_;
  PairProblem problem_;
  double share_ = 1;
  int64_t first_ = 0, count_ = 0;
  Tensor image_, text_, scale_, bias_, loss_;
  std::vector<Tensor> grads_;
};

std::vector<Case> cases(int ranks) {
  std::vector<Case> all;
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
    for (const int64_t pairs : {1, 3, 10, 33})  // one or three: some of four ranks have none
      for (const double scale : {1.0, 14.3, 100.0}) all.push_back({loss, Parts::of_batch, pairs, 33, scale});
    all.push_back({loss, Parts::equal, 4 * ranks, 8, 14.3});
    all.push_back({loss, Parts::of_batch, 2100, 8, 14.3});  // several tiles where ranks are few
  }
  return all;
}

/// Prints what differs, on rank 0.
int report_case(const ExecContext& ctx, const Case& c, Shared& shared) {
  const double worst = shared.worst(), allowed = ctx.device.is_cuda() ? 1e-4 : 1e-9;
  if (worst <= allowed) return 0;
  if (ctx.comm->rank() == 0)
    std::printf("FAILED  %s of %d pairs, scale %g, %s parts: %.2e\n", c.loss == Loss::contrastive ? "softmax" : "sigmoid",
                static_cast<int>(c.pairs), c.scale, c.parts == Parts::equal ? "equal" : "batch's", worst);
  return 1;
}

int run_on_host(Ranks& ranks) {
  int failed = 0;
  TestBench bench;
  bench.ctx.comm = &ranks.world();
  for (const Case& c : cases(ranks.world().size())) {
    Shared shared(bench.ctx, c);
    shared.step();
    failed += report_case(bench.ctx, c, shared);
  }
  return failed;
}

#if defined(ERMOE_WITH_CUDA)
/// Each step twice op by op, then recorded and replayed.
int run_on_gpus(Ranks& ranks, Gpu& gpu, Communicator& comm) {
  int failed = 0;
  CachingAllocator memory(gpu.memory(), Fill::poison);
  Workspace workspace(memory);
  TestBench bench;
  ExecContext& ctx = bench.ctx;
  ctx.allocator = &memory;
  ctx.host = &host_memory();
  ctx.workspace = &workspace;
  ctx.comm = &comm;
  ctx.device = memory.device();
  ctx.stream = gpu.stream();
  for (const Case& c : cases(ranks.world().size())) {
    Shared shared(ctx, c);
    for (int time = 0; time < 2; ++time) shared.step();
    failed += report_case(ctx, c, shared);
    const std::unique_ptr<Recording> recording = gpu.record([&] { shared.step(); });
    for (int time = 0; time < 2; ++time) recording->replay();
    failed += report_case(ctx, c, shared);
  }
  gpu.synchronize();
  return failed;
}

int check_on_gpus(Ranks& ranks) {
  Communicator& world = ranks.world();
  const std::vector<GpuInfo> gpus = find_gpus().gpus;
  double without[] = {std::ssize(gpus) > world.local_rank() ? 0.0 : 1.0};
  reduce_over_ranks(world, without, ReduceOp::max);
  if (without[0] > 0) {
    if (world.rank() == 0) std::printf("skipped: %d ranks and %zu GPUs\n", world.size(), gpus.size());
    return 77;
  }
  const std::unique_ptr<Gpu> gpu = make_gpu(gpus[static_cast<size_t>(world.local_rank())].index);
  const std::unique_ptr<Communicator> joined = gpu->join(world, ranks.watch());
  return run_on_gpus(ranks, *gpu, *joined);
}
#else
int check_on_gpus(Ranks&) {
  std::puts("skipped: this build has no CUDA");
  return 77;
}
#endif

int run(const std::vector<std::string>& words, std::unique_ptr<Ranks>& ranks) {
  const bool on_gpus = words.size() == 1 && words[0] == "gpu";
  check_input(on_gpus || words.empty(), "say gpu, or nothing");
  ranks = Ranks::join("ranks", 60);
  ranks->watch().at(1, "checking");
  const int failed = on_gpus ? check_on_gpus(*ranks) : run_on_host(*ranks);
  if (failed == 77) return 77;
  if (ranks->world().rank() == 0) std::printf("%d ranks: %d losses failed\n", ranks->world().size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  std::unique_ptr<ermoe::Ranks> ranks;
  return ermoe::guard_main(
      "ranks", [&] { return ermoe::testing::run(std::vector<std::string>(argv + 1, argv + argc), ranks); },
      [&](const std::string& message, int code) {
        if (ranks) ranks->watch().stop(message, code);
      });
}
