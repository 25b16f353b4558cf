#include "tools/bench/report.h"

#include "core/enum_names.h"

#include <nlohmann/json.hpp>

#include <cstdio>

namespace ermoe {
namespace {

using Json = nlohmann::ordered_json;

Json milliseconds(const Timing& t) { return {{"median_ms", 1e3 * t.median}, {"min_ms", 1e3 * t.min}, {"max_ms", 1e3 * t.max}}; }

/// The phases of a step by name; "other" is what lies between them.
std::vector<std::pair<const char*, double>> phases_of(const StepBenchResult& r) {
  const StepTimes& p = r.phases;
  return {{"forward", p.forward},       {"backward", p.backward}, {"pull_back", p.pull_back},          {"optimizer", p.optimizer},
          {"orthogonal", p.orthogonal}, {"refresh", p.refresh},   {"other", r.step.median - p.total()}};
}

double rate(double work, double seconds) { return seconds > 0 ? work / seconds / 1e9 : 0; }

template <typename... Args>
void line(fmt::format_string<Args...> format, Args&&... args) {
  std::fputs((fmt::format(format, std::forward<Args>(args)...) + "\n").c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

BenchReport::BenchReport(Format format, int threads) : format_(format), entries_(std::make_unique<Json>()) {
  *entries_ = Json{{"blas", blas_core()}, {"threads", threads}, {"results", Json::array()}};
  if (format_ == Format::table) line("CPU, float32, {} thread{}, OpenBLAS kernels for {}", threads, threads == 1 ? "" : "s", blas_core());
}

BenchReport::~BenchReport() = default;

void BenchReport::add(const StepBenchOptions& options, const StepBenchResult& r) {
  if (format_ == Format::table) return print(options, r);
  Json entry{{"workload", enum_name(options.workload)}, {"router", enum_name(options.layer)}, {"batch", options.batch}};
  if (options.layer == BenchLayer::ermoe) entry["orthogonality"] = enum_name(options.orthogonality);
  entry.update(milliseconds(r.step));
  entry["images_per_second"] = r.images_per_second;
  entry["useful_gflops_per_second"] = rate(r.useful_flops, r.step.median);
  entry["all_gflops_per_second"] = rate(r.all_flops, r.step.median);
  if (matrix_rate_ > 0) entry["matrix_gflops_per_second"] = matrix_rate_;
  entry["parameters"] = r.parameters;
  entry["peak_bytes"] = r.peak_bytes;
  entry["loss"] = r.loss;
  for (const auto& [name, seconds] : phases_of(r)) entry["phases_ms"][name] = 1e3 * seconds;
  (*entries_)["results"].push_back(std::move(entry));
}

void BenchReport::print(const StepBenchOptions& options, const StepBenchResult& r) {
  const std::string how = options.layer == BenchLayer::ermoe ? fmt::format(" ({})", enum_name(options.orthogonality)) : "";
  const double useful = rate(r.useful_flops, r.step.median), all = rate(r.all_flops, r.step.median);
  line("{} {}{}, batch {}: {:.1f} M parameters, loss {:.4f}", enum_name(options.workload), enum_name(options.layer), how, options.batch,
       static_cast<double>(r.parameters) / 1e6, r.loss);
  line("  step     median {:.1f} ms, min {:.1f}, max {:.1f} ({} steps after {})", 1e3 * r.step.median, 1e3 * r.step.min, 1e3 * r.step.max,
       options.steps, options.warmup);
  line("  rate     {:.2f} images/s, {:.1f} GFLOP/s useful, {:.1f} with scoring and factors", r.images_per_second, useful, all);
  if (matrix_rate_ > 0)
    line("  share    {:.1f} % useful, {:.1f} % in all, of the {:.1f} GFLOP/s of one large product", 100 * useful / matrix_rate_,
         100 * all / matrix_rate_, matrix_rate_);
  line("  memory   {:.0f} MiB peak", static_cast<double>(r.peak_bytes) / 1048576.0);
  for (const auto& [name, seconds] : phases_of(r))
    line("  {:<10} {:9.1f} ms {:6.1f} %", name, 1e3 * seconds, 100 * seconds / r.step.median);
}

void BenchReport::add(const OpCase& op, const OpResult& r) {
  const bool compute = op.bound == Bound::compute;
  const double forward = rate(op.work, r.forward.median), backward = rate(op.backward_work, r.backward.median);
  if (format_ == Format::json) {
    Json entry{{"op", op.name}, {"shapes", op.shapes}, {"forward", milliseconds(r.forward)}};
    const char* unit = compute ? "gflops_per_second" : "gbytes_per_second";
    entry["forward"][unit] = forward;
    if (op.backward_work > 0) {
      entry["backward"] = milliseconds(r.backward);
      entry["backward"][unit] = backward;
    }
    (*entries_)["results"].push_back(std::move(entry));
    return;
  }
  if (!op_head_) line("{:<16} {:<40} {:>10} {:>9}   {:>10} {:>9}", "op", "shapes", "fwd ms", "rate", "bwd ms", "rate");
  op_head_ = true;
  const char* unit = compute ? "GFLOP/s" : "GB/s";
  std::string back;
  if (op.backward_work > 0) back = fmt::format("   {:10.3f} {:9.1f}", 1e3 * r.backward.median, backward);
  line("{:<16} {:<40} {:10.3f} {:9.1f}{} {}", op.name, op.shapes, 1e3 * r.forward.median, forward, back, unit);
}

void BenchReport::add(const OrthogonalityOptions& options, const OrthogonalityResult& r) {
  if (format_ == Format::json) {
    Json entry{{"method", enum_name(options.method)},
               {"width", options.width},
               {"experts", options.experts},
               {"steps", options.steps},
               {"warmup", options.warmup},
               {"lr", options.lr},
               {"worst", r.worst},
               {"worst_step", r.worst_step},
               {"kept", r.kept()}};
    entry.update(milliseconds(r.step));
    entry["orthogonal_share"] = r.orthogonal_share;
    (*entries_)["results"].push_back(std::move(entry));
    return;
  }
  line("{:<14} D {}, {} expert{}, lr {}, {} warm-up: max|QᵀQ - I| {:.2e} over {} steps (at step {}), {} {:.0e}; {:.2f} ms a step",
       enum_name(options.method), options.width, options.experts, options.experts == 1 ? "" : "s", options.lr, options.warmup, r.worst,
       options.steps, r.worst_step, r.kept() ? "within" : "ABOVE", orthogonality_promise, 1e3 * r.step.median);
}

void BenchReport::finish() {
  if (format_ == Format::json) std::puts(entries_->dump(2).c_str());
}

}  // namespace ermoe
