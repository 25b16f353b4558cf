#include "tools/bench/report.h"

#include "core/enum_names.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <span>
#include <utility>

namespace ermoe {
namespace {

using Json = nlohmann::ordered_json;

Json milliseconds(const Timing& t) {
  return {{"median_ms", 1e3 * t.median}, {"min_ms", 1e3 * t.min}, {"max_ms", 1e3 * t.max}, {"spread", t.spread}};
}

/// The phases of a step by name; "other" is what lies between them.
std::vector<std::pair<const char*, double>> phases_of(const StepTimes& p, double step_seconds) {
  return {{"forward", p.forward},       {"backward", p.backward}, {"pull_back", p.pull_back},         {"optimizer", p.optimizer},
          {"orthogonal", p.orthogonal}, {"refresh", p.refresh},   {"other", step_seconds - p.total()}};
}

double rate(double work, double seconds) { return seconds > 0 ? work / seconds : 0; }
double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

/// 12.3 GFLOP/s, 456.7 TFLOP/s.
std::string flops_text(double rate) {
  return rate < 1e12 ? fmt::format("{:.1f} GFLOP/s", rate / 1e9) : fmt::format("{:.1f} TFLOP/s", rate / 1e12);
}

/// A kernel's name without its namespaces' common start and its arguments.
std::string short_name(std::string name) {
  for (const std::string_view noise : {"void ", "ermoe::cuda::", "(anonymous namespace)::", "ermoe::"})
    for (size_t at = name.find(noise); at != std::string::npos; at = name.find(noise)) name.erase(at, noise.size());
  if (const size_t arguments = name.rfind('('); arguments != std::string::npos && arguments > 0) name.resize(arguments);
  if (name.size() > 72) name = name.substr(0, 69) + "...";
  return name;
}

Json breakdown_of(const Breakdown& b, double step_seconds) {
  if (!b.made()) return {{"fault", b.fault}};
  Json entry{{"profiled_ms", 1e3 * b.profiled_seconds}, {"busy_ms", 1e3 * b.busy_seconds}};
  for (const auto& [family, seconds] : b.seconds) {
    entry["families_ms"][enum_name(family)] = 1e3 * seconds;
    entry["families_percent"][enum_name(family)] = percent(seconds, step_seconds);
  }
  return entry;
}

template <typename... Args>
void line(fmt::format_string<Args...> format, Args&&... args) {
  std::fputs((fmt::format(format, std::forward<Args>(args)...) + "\n").c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

BenchReport::BenchReport(Format format, BenchHead head) : format_(format), head_(std::move(head)), entries_(std::make_unique<Json>()) {
  *entries_ = Json{{"device", head_.device}, {"precision", name_of(head_.precision)},
                   {"blas", blas_core()},    {"threads", head_.threads},
                   {"ranks", head_.ranks},   {"results", Json::array()}};
  if (format_ != Format::table) return;
  const std::string blas = head_.gpu ? "" : ", OpenBLAS kernels for " + blas_core();
  line("{}, {}{}", head_.device, name_of(head_.precision), blas);
}

BenchReport::~BenchReport() = default;

void BenchReport::set_matrix_rate(double rate) {
  matrix_rate_ = rate;
  (*entries_)["matrix_gflops_per_second"] = rate / 1e9;
}

void BenchReport::set_copy_bandwidth(double rate) {
  copy_bandwidth_ = rate;
  (*entries_)["copy_gbytes_per_second"] = rate / 1e9;
}

void BenchReport::add(const StepBenchOptions& options, const StepBenchResult& r) {
  if (format_ == Format::table) return print(options, r);
  Json entry{{"workload", enum_name(options.what.workload)}, {"router", enum_name(options.what.layer)}, {"batch", options.batch}};
  if (options.what.layer == BenchLayer::ermoe) entry["orthogonality"] = enum_name(options.what.orthogonality);
  entry.update(milliseconds(r.step));
  const double useful = rate(r.useful_flops, r.step.median), all = rate(r.all_flops, r.step.median);
  entry["images_per_second"] = r.images_per_second;
  entry["useful_gflops_per_second"] = useful / 1e9;
  entry["all_gflops_per_second"] = all / 1e9;
  if (matrix_rate_ > 0) entry["useful_share"] = useful / matrix_rate_;
  entry["parameters"] = r.parameters;
  entry["peak_bytes"] = r.peak_bytes;
  entry["reserved_bytes"] = r.reserved_bytes;
  entry["optimizer_bytes"] = r.optimizer_bytes;
  entry["ranks"] = r.ranks;
  entry["loss"] = r.loss;
  if (head_.gpu) entry["recorded"] = r.recorded;
  if (r.phases)
    for (const auto& [name, seconds] : phases_of(*r.phases, r.step.median)) entry["phases_ms"][name] = 1e3 * seconds;
  if (head_.gpu) entry["breakdown"] = breakdown_of(r.breakdown, r.step.median);
  for (const CollectiveTime& c : r.collectives)
    entry["collectives"].push_back({{"name", c.name}, {"calls", c.calls}, {"ms", 1e3 * c.seconds}, {"hidden_ms", 1e3 * c.hidden_seconds}});
  (*entries_)["results"].push_back(std::move(entry));
}

void BenchReport::print(const StepBenchOptions& options, const StepBenchResult& r) const {
  const std::string how = options.what.layer == BenchLayer::ermoe ? fmt::format(" ({})", enum_name(options.what.orthogonality)) : "";
  const std::string ranks = r.ranks > 1 ? fmt::format(" on each of {} ranks, {} with the experts together", r.ranks, options.expert) : "";
  line("{} {}{}, batch {}{}: {:.1f} M parameters, loss {:.4f}", enum_name(options.what.workload), enum_name(options.what.layer), how,
       options.batch, ranks, static_cast<double>(r.parameters) / 1e6, r.loss);
  line("  step     median {:.2f} ms, min {:.2f}, max {:.2f}, quartiles {:.1f} % apart ({} steps after {}{})", 1e3 * r.step.median,
       1e3 * r.step.min, 1e3 * r.step.max, 100 * r.step.spread, options.steps, options.warmup, r.recorded ? ", replayed as one graph" : "");
  print(r);
}

void BenchReport::print(const StepBenchResult& r) const {
  const double useful = rate(r.useful_flops, r.step.median), all = rate(r.all_flops, r.step.median);
  line("  rate     {:.2f} images/s, {} useful, {} with scoring and factors", r.images_per_second, flops_text(useful), flops_text(all));
  if (matrix_rate_ > 0)
    line("  share    {:.1f} % useful, {:.1f} % in all, of the {} of one large product", percent(useful, matrix_rate_),
         percent(all, matrix_rate_), flops_text(matrix_rate_));
  const auto mebibytes = [](size_t bytes) { return static_cast<double>(bytes) / 1048576.0; };
  line("  memory   {:.0f} MiB peak, {:.0f} MiB with cached blocks, {:.0f} MiB of them the optimizer's", mebibytes(r.peak_bytes),
       mebibytes(r.reserved_bytes), mebibytes(r.optimizer_bytes));
  if (r.phases)
    for (const auto& [name, seconds] : phases_of(*r.phases, r.step.median))
      line("  {:<10} {:9.1f} ms {:6.1f} %", name, 1e3 * seconds, percent(seconds, r.step.median));
  if (!r.breakdown.fault.empty()) line("  The breakdown by kernels needs CUPTI: {}.", r.breakdown.fault);
  if (r.breakdown.made()) print(r.breakdown, r.step.median);
  if (!r.collectives.empty()) line("  between ranks, in a step as those that were timed:");
  for (const CollectiveTime& c : r.collectives)
    line("    {:9.3f} ms {:6.1f} % {:5} x  {:5.1f} % of it beside other work  {}", 1e3 * c.seconds, percent(c.seconds, r.step.median),
         c.calls, percent(c.hidden_seconds, c.seconds), short_name(c.name));
}

void BenchReport::print(const Breakdown& b, double step_seconds) const {
  line("  by kernels, in a step of its own, op by op, that took {:.2f} ms while it was watched; shares of the median above",
       1e3 * b.profiled_seconds);
  for (const auto& [family, seconds] : b.seconds)
    line("  {:<20} {:9.3f} ms {:6.1f} %", title(family), 1e3 * seconds, percent(seconds, step_seconds));
  line("  {:<20} {:9.3f} ms {:6.1f} %", "together", 1e3 * b.total(), percent(b.total(), step_seconds));
  const size_t shown = std::min(b.kernels.size(), static_cast<size_t>(head_.kernels));
  for (const KernelTime& k : std::span(b.kernels).first(shown))
    line("    {:9.3f} ms {:6.1f} % {:5} x  {:<28} {}", 1e3 * k.seconds, percent(k.seconds, step_seconds), k.calls,
         k.ops.empty() ? "-" : k.ops, short_name(k.name));
}

void BenchReport::add(const OpCase& op, const OpResult& r) {
  if (format_ == Format::table) return print(op, r);
  const bool compute = op.bound == Bound::compute;
  const double roof = compute ? matrix_rate_ : copy_bandwidth_;
  const auto pass = [&](const Timing& time, double work) {
    Json entry = milliseconds(time);
    entry[compute ? "gflops_per_second" : "gbytes_per_second"] = rate(work, time.median) / 1e9;
    if (roof > 0) entry["share"] = rate(work, time.median) / roof;
    return entry;
  };
  Json entry{{"op", op.name}, {"shapes", op.shapes}, {"forward", pass(r.forward, op.work)}};
  if (op.backward_work > 0) entry["backward"] = pass(r.backward, op.backward_work);
  (*entries_)["results"].push_back(std::move(entry));
}

void BenchReport::print(const OpCase& op, const OpResult& r) {
  const bool compute = op.bound == Bound::compute, tera = compute && head_.gpu;
  const double roof = compute ? matrix_rate_ : copy_bandwidth_;
  if (!op_head_) {
    if (matrix_rate_ > 0) line("one large product: {}", flops_text(matrix_rate_));
    if (copy_bandwidth_ > 0) line("one large copy: {:.1f} GB/s", copy_bandwidth_ / 1e9);
    line("{:<16} {:<42} {:>9} {:>8} {:>6} {:>7}   {:>9} {:>8} {:>6} {:>7}", "op", "shapes", "fwd ms", "rate", "share", "spread", "bwd ms",
         "rate", "share", "spread");
  }
  op_head_ = true;
  const auto pass = [&](const Timing& time, double work) {
    const double done = rate(work, time.median);
    return fmt::format("{:9.3f} {:8.1f} {:5.1f}% {:6.1f}%", 1e3 * time.median, done / (tera ? 1e12 : 1e9), percent(done, roof),
                       100 * time.spread);
  };
  const std::string back = op.backward_work > 0 ? "   " + pass(r.backward, op.backward_work) : "";
  line("{:<16} {:<42} {}{} {}", op.name, op.shapes, pass(r.forward, op.work), back, tera ? "TFLOP/s" : compute ? "GFLOP/s" : "GB/s");
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
    if (!head_.gpu) entry["orthogonal_share"] = r.orthogonal_share;
    (*entries_)["results"].push_back(std::move(entry));
    return;
  }
  line("{:<14} D {}, {} expert{}, lr {}, {} warm-up: max|QᵀQ - I| {:.2e} over {} steps (at step {}), {} {:.0e}; {:.2f} ms a step",
       enum_name(options.method), options.width, options.experts, options.experts == 1 ? "" : "s", options.lr, options.warmup, r.worst,
       options.steps, r.worst_step, r.kept() ? "within" : "ABOVE", orthogonality_promise, 1e3 * r.step.median);
}

void BenchReport::add(const CommResult& r) {
  if (format_ == Format::json) {
    Json entry{{"collective", enum_name(r.collective)}, {"bytes", r.bytes}};
    entry.update(milliseconds(r.time));
    entry["algorithm_gbytes_per_second"] = r.algorithm_rate / 1e9;
    entry["bus_gbytes_per_second"] = r.bus_rate / 1e9;
    (*entries_)["results"].push_back(std::move(entry));
    return;
  }
  if (!std::exchange(comm_head_, true)) {
    line("{} ranks; GB/s by the tensor's bytes, and on the bus by the fewest bytes that each rank must send", head_.ranks);
    line("{:<15} {:>11} {:>10} {:>10} {:>7} {:>9} {:>9}", "collective", "KiB", "median us", "min us", "spread", "GB/s", "bus GB/s");
  }
  line("{:<15} {:>11} {:>10.1f} {:>10.1f} {:>6.1f}% {:>9.2f} {:>9.2f}", enum_name(r.collective), r.bytes / 1024, 1e6 * r.time.median,
       1e6 * r.time.min, 100 * r.time.spread, r.algorithm_rate / 1e9, r.bus_rate / 1e9);
}

void BenchReport::add(const LayerBenchOptions& options, const LayerBenchResult& r) {
  if (format_ == Format::json) {
    Json entry{{"workload", enum_name(options.workload)},
               {"router", enum_name(options.layer)},
               {"tokens", r.tokens},
               {"expert_ranks", options.expert_ranks},
               {"chunks", options.chunks},
               {"rows", r.slots},
               {"most_rows", r.most_rows},
               {"sent_bytes", r.sent_bytes}};
    entry.update(milliseconds(r.pass));
    if (head_.gpu) entry["recorded"] = r.recorded;
    (*entries_)["results"].push_back(std::move(entry));
    return;
  }
  const int64_t M = options.expert_ranks;
  const std::string where = M == 1 ? "all on each rank" : fmt::format("over {} ranks", M);
  line("one layer of {} {}, {} tokens a rank of {}, experts {}: no reduction of gradients", enum_name(options.workload),
       enum_name(options.layer), r.tokens, head_.ranks, where);
  line("  both ways  median {:.2f} ms, min {:.2f}, max {:.2f}, quartiles {:.1f} % apart, of the slowest rank{}", 1e3 * r.pass.median,
       1e3 * r.pass.min, 1e3 * r.pass.max, 100 * r.pass.spread, r.recorded ? ", replayed as one graph" : "");
  line("  rows       {} of a rank's tokens for experts; {} came to the rank with the most ({:.2f} of an even share)", r.slots, r.most_rows,
       r.slots > 0 ? static_cast<double>(r.most_rows) / static_cast<double>(r.slots) : 0);
  line("  sent       {:.2f} MB by the rank that sends most", static_cast<double>(r.sent_bytes) / 1e6);
}

void BenchReport::finish() {
  if (format_ == Format::json) std::puts(entries_->dump(2).c_str());
}

}  // namespace ermoe
