#include "ops/step_results.h"

#include <algorithm>

namespace ermoe {
namespace {

StepResults* pointer(const Tensor& results) {
  check(results.defined() && results.dtype() == DType::u8 && results.bytes() == sizeof(StepResults), "[step_results] {} holds no results",
        results.defined() ? results.shape().str() : "an undefined tensor");
  return reinterpret_cast<StepResults*>(results.raw());
}

/// The terms from number `from` on, as many as one launch takes.
template <typename T>
ResultTerms<T> terms_of(const MicroBatchResults& micro_batch, size_t from) {
  ResultTerms<T> terms{.share = micro_batch.share, .loss = from == 0 ? micro_batch.loss.data<T>() : nullptr, .draws = from == 0 ? 1 : 0};
  const size_t end = from + ResultTerms<T>::most;
  for (size_t i = from; i < std::min(end, micro_batch.extra.size()); ++i) terms.extra[terms.extras++] = micro_batch.extra[i].data<T>();
  for (size_t i = from; i < std::min(end, micro_batch.nonfinite.size()); ++i) {
    terms.nonfinite[terms.flags] = micro_batch.nonfinite[i].second.data<int32_t>();
    terms.block[terms.flags++] = static_cast<int32_t>(micro_batch.nonfinite[i].first);
  }
  return terms;
}

}  // namespace

Tensor make_step_results(const ExecContext& ctx, int64_t draws) {
  const StepResults start{.draws = draws};
  const std::span bytes(reinterpret_cast<const uint8_t*>(&start), sizeof start);
  return Tensor::from<uint8_t>(*ctx.allocator, {static_cast<int64_t>(sizeof start)}, bytes, "step");
}

StepResults read_step_results(const Tensor& results) {
  StepResults host;
  results.allocator().source().download(&host, pointer(results), sizeof host);
  return host;
}

const int64_t* draw_number(const Tensor& results) { return &pointer(results)->draws; }

void begin_results(const ExecContext& ctx, const Tensor& results) {
  on_device(
      ctx, [&] { cpu::begin_results(pointer(results)); }, [&](auto) { cuda::begin_results(ctx.stream, pointer(results)); });
}

void add_results(const ExecContext& ctx, const MicroBatchResults& micro_batch, const Tensor& results) {
  const size_t count = std::max({size_t{1}, micro_batch.extra.size(), micro_batch.nonfinite.size()});
  dispatch_float(micro_batch.loss.dtype(), "step_results", [&](auto tag) {
    using T = decltype(tag);
    for (size_t from = 0; from < count; from += ResultTerms<T>::most) {
      const auto terms = terms_of<T>(micro_batch, from);
      on_device(
          ctx, tag, [&](auto) { cpu::add_results(terms, pointer(results)); },
          [&](auto) { cuda::add_results(ctx.stream, terms, pointer(results)); });
    }
  });
}

void flag_faults(const ExecContext& ctx, const Tensor& results, const Tensor& flag) {
  check(flag.shape() == Shape({1}), "[step_results] a flag of shape {}", flag.shape().str());
  on_device(
      ctx, [&] { cpu::flag_faults(pointer(results), flag.data<float>()); },
      [&](auto) { cuda::flag_faults(ctx.stream, pointer(results), flag.data<float>()); });
}

}  // namespace ermoe
