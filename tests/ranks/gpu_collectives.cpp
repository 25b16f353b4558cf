#include "core/flat.h"
#include "core/gather.h"
#include "cuda/factory.h"
#include "tests/ranks/collectives.h"
#include "tests/ranks/communicator_checks.h"

#include <cstdio>
#include <functional>
#include <numeric>
#include <vector>

namespace ermoe::testing {

#if !defined(ERMOE_WITH_CUDA)

int check_gpu_collectives(Ranks&) {
  std::puts("skipped: this build has no CUDA");
  return 77;
}

#else

namespace {

/// What a communicator of GPUs does beside each single collective.
class GpuChecks {
 public:
  GpuChecks(Gpu& gpu, Communicator& comm) : gpu_(gpu), comm_(comm), memory_(gpu.memory(), Fill::poison) {}

  int run() {
    const int world = comm_.size(), rank = comm_.rank();
    failed_ += check_communicator(comm_, ranks_from(0, world, 1), "GPUs", &memory_);
    failed_ += check_communicator(comm_, ranks_from(0, world, 1), "tensors of the host");
    const auto part = comm_.split(rank % 2);
    failed_ += check_communicator(*part, ranks_from(rank % 2, world, 2), "part of the GPUs", &memory_);
    started_together(*part);
    recorded(*part);
    refusals();
    return failed_;
  }

 private:
  static constexpr int64_t n = 200'003;

  void expect(bool holds, const char* claim) {
    if (holds) return;
    ++failed_;
    std::printf("FAILED  GPUs together, rank %d: %s\n", comm_.rank(), claim);
  }

  Tensor all_of(double value, int64_t count) {
    const Tensor t = Tensor::empty(memory_, {count}, DType::f32);
    fill(t, value);
    return t;
  }

  /// Whether every element is `value`.
  bool is(const Tensor& t, double value) {
    const Tensor host = t.to(host_);
    for (const float v : host.span<float>()) {
      if (v != static_cast<float>(value)) return false;
    }
    return true;
  }

  /// Σ of r + `plus` over the ranks r of the world that are `part`.
  double sum_of(Communicator& part, double plus) const {
    double sum = 0;
    for (int r = 0; r < comm_.size(); ++r) {
      if (part.size() == comm_.size() || r % 2 == comm_.rank() % 2) sum += r + plus;
    }
    return sum;
  }

  /// Several collectives of two communicators in one group, while the engine's stream does something else.
  void started_together(Communicator& part) {
    const int size = comm_.size(), own = comm_.rank();
    std::vector<int64_t> rows;
    for (int r = 0; r < size; ++r) rows.push_back(r % 3 == 1 ? 0 : n + r);
    const int64_t first = std::accumulate(rows.begin(), rows.begin() + own, int64_t{0});
    const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0}), mine = rows[static_cast<size_t>(own)];
    for (int round = 0; round < 3; ++round) {
      const Tensor sum = all_of(own + round, n), of_part = all_of(own + round + 1, n), many = all_of(own + 2, total);
      const Tensor gathered = all_of(-1, total), sent = all_of(own, n * size), came = all_of(-1, n * size), beside = all_of(0, n);
      const Tensor slice = many.slice(first, first + mine), given = gathered.slice(first, first + mine);
      if (mine > 0) fill(given, own);
      const std::vector<int64_t> even(static_cast<size_t>(size), n);
      comm_.start([&] {
        comm_.all_reduce(sum, ReduceOp::sum);
        part.all_reduce(of_part, ReduceOp::max);
        comm_.reduce_scatter(many, slice, rows);
        comm_.all_gather(given, gathered, rows);
        comm_.all_to_all(sent, even, came, even);
      });
      for (int i = 1; i <= 20; ++i) fill(beside, i);
      comm_.wait();
      expect(is(sum, sum_of(comm_, round)), "all_reduce in a group");
      expect(is(of_part, own % 2 + 2 * (part.size() - 1) + round + 1), "all_reduce of a part in a group");
      if (mine > 0) expect(is(slice, sum_of(comm_, 2)), "reduce_scatter in a group");
      int64_t at = 0;
      for (int r = 0; r < size; at += rows[static_cast<size_t>(r++)]) {
        const int64_t count = rows[static_cast<size_t>(r)];
        if (count > 0) expect(is(gathered.slice(at, at + count), r), "all_gather in a group");
        expect(is(came.slice(r * n, (r + 1) * n), r), "all_to_all in a group");
      }
      expect(is(beside, 20), "work beside a group");
    }
  }

  /// A step of kernels, started and plain collectives, recorded once and replayed with new inputs.
  void recorded(Communicator& part) {
    const int size = comm_.size(), own = comm_.rank();
    const Tensor input = all_of(0, n), sum = all_of(0, n), of_part = all_of(0, n), total = all_of(0, n), all = all_of(0, n * size);
    const Tensor came = all_of(0, n * size), beside = all_of(0, n);
    const std::vector<int64_t> even(static_cast<size_t>(size), n);
    const std::unique_ptr<Recording> step = gpu_.record([&] {
      convert(input, sum);
      convert(input, of_part);
      comm_.start([&] {
        comm_.all_reduce(sum, ReduceOp::sum);
        part.all_reduce(of_part, ReduceOp::sum);
      });
      convert(input, beside);
      comm_.wait();
      convert(sum, total, Accumulate::add);
      comm_.all_gather(total, all);
      comm_.start([&] { comm_.all_to_all(all, even, came, even); });
      convert(input, beside, Accumulate::add);
      comm_.wait();
    });
    double so_far = 0;
    for (int replay = 1; replay <= 3; ++replay) {
      fill(input, own + 10 * replay);
      step->replay();
      so_far += sum_of(comm_, 10 * replay);
      expect(is(sum, sum_of(comm_, 10 * replay)), "a recorded all_reduce");
      expect(is(of_part, sum_of(part, 10 * replay)), "a recorded all_reduce of a part");
      expect(is(total, so_far), "a kernel behind a recorded collective");
      expect(is(came, so_far), "a recorded all_gather and all_to_all");
      expect(is(beside, 2 * (own + 10 * replay)), "recorded work beside collectives");
    }
  }

  void refused(const char* claim, const std::function<void()>& call) {
    try {
      call();
    } catch (const Error&) {
      return;
    }
    expect(false, claim);
  }

  /// Seen before anything is sent, and nothing is broken by it.
  void refusals() {
    const Tensor t = all_of(1, n), host = t.to(host_);
    const Tensor flag = Tensor::zeros(memory_, {1}, DType::i32);
    refused("a collective of two devices", [&] { comm_.all_gather(host, all_of(0, n * comm_.size())); });
    refused("a group inside of a group", [&] { comm_.start([&] { comm_.start([] {}); }); });
    refused("a collective inside of record_if",
            [&] { gpu_.record([&] { gpu_.record_if(flag.data<int32_t>(), [&] { comm_.all_reduce(t, ReduceOp::sum); }); }); });
    comm_.wait();
    comm_.all_reduce(t, ReduceOp::sum);
    expect(is(t, comm_.size()), "a collective after refusals");
  }

  Gpu& gpu_;
  Communicator& comm_;
  CachingAllocator memory_, host_{make_host_source(), Fill::poison};
  int failed_ = 0;
};

}  // namespace

int check_gpu_collectives(Ranks& ranks) {
  Communicator& world = ranks.world();
  const std::vector<GpuInfo> gpus = find_gpus().gpus;
  double without[] = {std::ssize(gpus) > world.local_rank() ? 0.0 : 1.0};
  reduce_over_ranks(world, without, ReduceOp::max);
  if (world.size() == 1 || without[0] > 0) {
    if (world.rank() == 0) std::printf("skipped: %d ranks and %zu GPUs\n", world.size(), gpus.size());
    return 77;
  }
  const std::unique_ptr<Gpu> gpu = make_gpu(gpus[static_cast<size_t>(world.local_rank())].index);
  const std::unique_ptr<Communicator> joined = gpu->join(world, ranks.watch());
  ranks.watch().at(1, "checking");
  return report(world, GpuChecks(*gpu, *joined).run());
}

#endif

}  // namespace ermoe::testing
