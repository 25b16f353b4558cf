// ermoe-bench: times whole training steps, a layer with experts, single ops, the steps that keep factors orthonormal, and collectives
// between ranks. What is measured: tools/bench/step_bench.h, layer_bench.h, op_bench.h, orthogonality_bench.h, comm_bench.h.
#include "core/ranks.h"
#include "tools/bench/report.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/engine.h"
#include "tools/main_guard.h"
#include "tools/rank_agreement.h"
#include "tools/thread_waiting.h"

#include "core/enum_names.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <optional>
#include <utility>

namespace ermoe {
namespace {

constexpr double patience_s = 120;  // for a rank that says nothing

struct Common {
  int64_t threads = 0;
  DeviceChoice device = DeviceChoice::auto_;
  bool json = false;
};

template <typename E>
void add_choice(CLI::App& app, const std::string& flag, E& value, const std::string& help) {
  const auto names = enum_names<E>();
  const auto store = [&value, flag](const std::string& text) {
    const auto found = parse_enum<E>(text);
    check_input(found.has_value(), "{} {}: choose from {}", flag, text, fmt::join(enum_names<E>(), ", "));
    value = *found;
  };
  app.add_option_function<std::string>(flag, store, fmt::format("{} ({})", help, fmt::join(names, ", ")))
      ->default_str(std::string(enum_name(value)));
}

void add_common(CLI::App& app, Common& common) {
  app.add_option("--threads", common.threads, "threads; 0: the cores that this process may use")->check(CLI::Range(0, 4096));
  add_device_flag(app, common.device);
  app.add_flag("--json", common.json, "print one JSON object instead of a table");
}

void add_step_flags(CLI::App& app, StepBenchOptions& step) {
  add_choice(app, "--workload", step.what.workload, "the model");
  add_choice(app, "--router", step.what.layer, "what every second block holds");
  add_choice(app, "--orthogonality", step.what.orthogonality, "how factors are kept orthonormal");
  add_choice(app, "--precision", step.precision, "what ops compute in");
  app.add_option("--batch", step.batch, "images a step; 0: 256 for clip, 32 for ba, 16 for the others")->check(CLI::Range(0, 4096));
  app.add_option("--steps", step.steps, "timed steps")->check(CLI::Range(1, 1000000));
  app.add_option("--warmup", step.warmup, "untimed steps before")->check(CLI::Range(0, 1000000));
  app.add_option("--expert", step.expert, "of the ranks that mpirun starts, how many hold the experts together")
      ->check(CLI::Range(1, 4096));
  app.add_option("--chunks", step.chunks, "in which rows travel to them, one while another is computed; 0: 1 on one host, else 4")
      ->check(CLI::Range(0, 4096));
}

struct StepFlags {
  StepBenchOptions bench;
  bool op_by_op = false;
  int64_t kernels = 0;
  bool steps_only = false;
};

void add_report_flags(CLI::App& app, StepFlags& flags) {
  app.add_option("--kernels", flags.kernels, "on a GPU, name so many of the longest kernels too")->check(CLI::Range(0, 10000));
  app.add_flag("--op-by-op", flags.op_by_op, "on a GPU, do not replay steps as one CUDA graph");
  app.add_flag("--steps-only", flags.steps_only, "neither the matrix rate nor the breakdown by kernels: for other tools that watch");
}

struct OpFlags {
  OpOptions bench;
  Precision precision = Precision::auto_;
  int64_t batch = 0;
  bool list = false;
};

void add_op_flags(CLI::App& app, OpFlags& flags) {
  app.add_option("name", flags.bench.only, "the op; all where it is left out");
  app.add_flag("--list", flags.list, "name the ops and their shapes");
  add_choice(app, "--workload", flags.bench.workload, "whose shapes ops have");
  add_choice(app, "--precision", flags.precision, "what ops compute in");
  app.add_option("--batch", flags.batch, "images; 0: 16 on a CPU, the performance table's on a GPU")->check(CLI::Range(0, 4096));
  app.add_option("--seconds", flags.bench.seconds, "how long each pass is repeated at least")->check(CLI::Range(0.0, 600.0));
}

struct OrthogonalityFlags {
  OrthogonalityOptions bench;
  std::string method = "newton_schulz";
  StepBenchOptions step{.what = {}, .steps = 3, .warmup = 2};
  std::string share_of;
};

void add_orthogonality_flags(CLI::App& app, OrthogonalityFlags& flags) {
  app.add_option("--width", flags.bench.width, "D: the factors are (4D, D) and (D, D)")->check(CLI::Range(2, 4096));
  app.add_option("--experts", flags.bench.experts, "factors of each kind")->check(CLI::Range(1, 4096));
  app.add_option("--steps", flags.bench.steps, "optimizer steps")->check(CLI::Range(1, 1000000));
  app.add_option("--warmup", flags.bench.warmup, "of them, with a rising learning rate")->check(CLI::Range(0, 1000000));
  app.add_option("--lr", flags.bench.lr, "learning rate")->check(CLI::Range(0.0, 1.0));
  app.add_option("--check-every", flags.bench.check_every, "steps between two looks at the factors")->check(CLI::Range(1, 1000000));
  app.add_option("--method", flags.method, "newton_schulz, gram_schmidt, cholesky_qr, cayley or all");
  app.add_option(
      "--share-of", flags.share_of,
      fmt::format("also run whole steps of this workload ({}) and give the share of each method", fmt::join(enum_names<Workload>(), ", ")));
  app.add_option("--batch", flags.step.batch, "images of these steps; 0: 256 for clip, 32 for ba, 16 for the others")
      ->check(CLI::Range(0, 4096));
}

struct CommFlags {
  CommBenchOptions bench;
  bool op_by_op = false;
};

void add_comm_flags(CLI::App& app, CommFlags& flags) {
  constexpr int64_t largest = int64_t{1} << 36;
  app.add_option("name", flags.bench.only, "all_reduce, reduce_scatter, all_gather, broadcast or all_to_all; all where it is left out");
  app.add_option("--from", flags.bench.least, "bytes of the smallest size; each next is four times as large")
      ->check(CLI::Range(int64_t{4096}, largest));
  app.add_option("--to", flags.bench.most, "bytes of the largest size, at most")->check(CLI::Range(int64_t{4096}, largest));
  app.add_flag("--op-by-op", flags.op_by_op, "on a GPU, do not replay calls as one CUDA graph");
}

struct LayerFlags {
  LayerBenchOptions bench;
  bool op_by_op = false;
};

void add_layer_flags(CLI::App& app, LayerFlags& flags) {
  LayerBenchOptions& layer = flags.bench;
  add_choice(app, "--workload", layer.workload, "whose layer");
  add_choice(app, "--router", layer.layer, "what the layer holds");
  add_choice(app, "--precision", layer.precision, "what ops compute in");
  app.add_option("--batch", layer.batch, "images a rank; 0: 256 for clip, 32 for ba, 16 for the others")->check(CLI::Range(0, 4096));
  app.add_option("--steps", layer.steps, "timed passes, forward and backward")->check(CLI::Range(1, 1000000));
  app.add_option("--warmup", layer.warmup, "untimed passes before")->check(CLI::Range(0, 1000000));
  app.add_option("--expert", layer.expert_ranks, "ranks that hold the experts together; 1: each holds all")->check(CLI::Range(1, 4096));
  app.add_option("--chunks", layer.chunks, "in which rows travel to them, one while another is computed; 0: 1 on one host, else 4")
      ->check(CLI::Range(0, 4096));
  app.add_flag("--op-by-op", flags.op_by_op, "on a GPU, do not replay passes as one CUDA graph; spread experts never are");
}

std::vector<Orthogonality> methods_of(const std::string& name) {
  if (name == "all") return {Orthogonality::newton_schulz, Orthogonality::gram_schmidt, Orthogonality::cholesky_qr, Orthogonality::cayley};
  const auto method = parse_enum<Orthogonality>(name);
  check_input(method && keeps_orthonormal(*method), "--method {}: choose newton_schulz, gram_schmidt, cholesky_qr, cayley or all", name);
  return {*method};
}

int run_orthogonality(Engine& engine, BenchReport& report, OrthogonalityFlags& flags) {
  std::optional<StepBench> whole;
  const auto methods = methods_of(flags.method);
  if (!flags.share_of.empty()) {
    const auto workload = parse_enum<Workload>(flags.share_of);
    check_input(workload.has_value(), "--share-of {}: choose from {}", flags.share_of, fmt::join(enum_names<Workload>(), ", "));
    flags.step.what.workload = *workload;
    flags.step.batch = batch_of(*workload, flags.step.batch);
    whole.emplace(engine, flags.step);
  }
  bool kept = true;
  for (const Orthogonality method : methods) {
    flags.bench.method = method;
    const OrthogonalityResult result = bench_orthogonality(engine, flags.bench);
    report.add(flags.bench, result);
    kept &= result.kept();
    if (!whole) continue;
    flags.step.what.orthogonality = method;
    report.add(flags.step, whole->run(method));
  }
  return kept ? 0 : 1;
}

void list_ops(const Engine& engine, const OpOptions& options) {
  for_each_op(engine, options, [](const OpCase& op) { std::puts((op.name + "  " + op.shapes).c_str()); });
}

/// Roofs are measured when the first op under them comes.
void run_ops(const Engine& engine, BenchReport& report, const OpOptions& options) {
  bool products = false, copies = false, found = false;
  std::optional<OpBench> bench;
  for_each_op(engine, options, [&](const OpCase& op) {
    if (!bench) bench.emplace(engine, options.seconds);
    found = true;
    bool& measured = op.bound == Bound::compute ? products : copies;
    if (!std::exchange(measured, true)) {
      if (op.bound == Bound::compute) report.set_matrix_rate(matrix_rate(engine, options.dtype));
      if (op.bound == Bound::memory) report.set_copy_bandwidth(copy_bandwidth(engine));
    }
    report.add(op, bench->run(op));
  });
  check_input(found, "op {} is not known; --list names them", options.only);
}

void run_steps(Engine& engine, BenchReport& report, StepFlags flags) {
  if (flags.steps_only) flags.bench.breaking = Breaking::none;
  if (flags.op_by_op) flags.bench.running = Running::op_by_op;
  flags.bench.batch = batch_of(flags.bench.what.workload, flags.bench.batch);
  const StepBenchResult result = StepBench(engine, flags.bench).run();
  if (!flags.steps_only) report.set_matrix_rate(matrix_rate(engine, engine.compute_dtype(flags.bench.precision)));
  report.add(flags.bench, result);
}

/// Calls `measure(engine, add)` on every rank; what it hands to `add` is reported by rank 0.
template <typename Measure>
int run_on_ranks(const Common& common, Precision precision, Ranks& ranks, Measure&& measure) {
  const int threads = resolve_threads(common.threads, ranks_on_same_cores(ranks.world()));
  Engine engine(threads, 0, common.device, &ranks);
  const bool first = ranks.world().rank() == 0;
  if (first && !engine.device_note.empty()) std::fprintf(stderr, "note: %s\n", engine.device_note.c_str());
  const BenchHead head{.device = engine.device_name(),
                       .precision = engine.compute_dtype(precision),
                       .threads = threads,
                       .gpu = engine.gpu != nullptr,
                       .ranks = ranks.world().size()};
  std::optional<BenchReport> report;
  if (first) report.emplace(common.json ? BenchReport::Format::json : BenchReport::Format::table, head);
  ranks.watch().at(1, "measuring");
  measure(engine, [&](const auto&... result) {
    if (report) report->add(result...);
  });
  if (report) report->finish();
  return 0;
}

int run_comm(const Common& common, CommFlags flags, std::unique_ptr<Ranks>& ranks) {
  ranks = Ranks::join("ermoe-bench", patience_s);
  check_input(ranks->world().size() > 1, "ermoe-bench comm measures between ranks: start several, as in mpirun -n 2 ermoe-bench comm");
  if (flags.op_by_op) flags.bench.running = Running::op_by_op;
  return run_on_ranks(common, Precision::f32, *ranks,
                      [&](Engine& engine, const auto& add) { bench_collectives(engine, flags.bench, add); });
}

int run_layer(const Common& common, LayerFlags flags, std::unique_ptr<Ranks>& ranks) {
  ranks = Ranks::join("ermoe-bench", patience_s);
  const int world = ranks->world().size();
  check_input(world % flags.bench.expert_ranks == 0, "--expert {}: {} rank{} cannot be parted into groups of so many",
              flags.bench.expert_ranks, world, world == 1 ? "" : "s");
  if (flags.op_by_op) flags.bench.running = Running::op_by_op;
  return run_on_ranks(common, flags.bench.precision, *ranks, [&](Engine& engine, const auto& add) {
    engine.spread_experts(flags.bench.expert_ranks, flags.bench.chunks);
    add(flags.bench, LayerBench(engine, flags.bench).run());
  });
}

int bench(int argc, char** argv, std::unique_ptr<Ranks>& ranks) {
  CLI::App app("Times training steps, a layer with experts, single ops, the steps that keep factors orthonormal, and collectives.",
               "ermoe-bench");
  app.require_subcommand(1);
  app.fallthrough();
  app.option_defaults()->always_capture_default();
  Common common;
  add_common(app, common);
  StepFlags step;
  CLI::App* step_app = app.add_subcommand("step", "whole training steps on random images, and on a GPU where their time went");
  add_step_flags(*step_app, step.bench);
  add_report_flags(*step_app, step);
  LayerFlags layer;
  CLI::App* layer_app =
      app.add_subcommand("layer", "one layer with experts on random tokens, forward and backward; of several ranks, with experts spread");
  add_layer_flags(*layer_app, layer);
  OpFlags op;
  CLI::App* op_app = app.add_subcommand("op", "one op, or all, at the shapes of a workload, beside one large product or copy");
  add_op_flags(*op_app, op);
  OrthogonalityFlags orthogonality;
  add_orthogonality_flags(*app.add_subcommand("orthogonality", "do factors stay orthonormal? Exit code 1 where they do not"),
                          orthogonality);
  CommFlags comm;
  CLI::App* comm_app = app.add_subcommand("comm", "collectives between the ranks that mpirun starts, by their size");
  add_comm_flags(*comm_app, comm);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::ParseError& e) {
    fail_input("{}", e.what());
  }

  if (comm_app->parsed()) return run_comm(common, comm, ranks);
  if (layer_app->parsed()) return run_layer(common, layer, ranks);
  if (step_app->parsed()) ranks = Ranks::join("ermoe-bench", patience_s);
  if (!ranks) refuse_silent_multi_launch();
  const bool first = !ranks || ranks->world().rank() == 0;
  const int threads = resolve_threads(common.threads, ranks ? ranks_on_same_cores(ranks->world()) : 1);
  Engine engine(threads, 0, common.device, ranks.get());
  engine.spread_experts(step.bench.expert, step.bench.chunks);
  if (ranks) ranks->watch().at(1, "measuring");
  if (first && !engine.device_note.empty()) std::fprintf(stderr, "note: %s\n", engine.device_note.c_str());
  DType dtype = DType::f32;
  if (step_app->parsed()) dtype = engine.compute_dtype(step.bench.precision);
  if (op_app->parsed()) {
    dtype = engine.compute_dtype(op.precision);
    op.bench.dtype = dtype;
    op.bench.batch = op.batch > 0 ? op.batch : engine.gpu ? table_batch(op.bench.workload) : 16;
    if (op.list) {
      list_ops(engine, op.bench);
      return 0;
    }
  }
  BenchReport report(
      common.json || !first ? BenchReport::Format::json : BenchReport::Format::table,
      {.device = engine.device_name(), .precision = dtype, .threads = threads, .gpu = engine.gpu != nullptr, .kernels = step.kernels});
  int code = 0;
  if (step_app->parsed()) {
    run_steps(engine, report, step);
  } else if (op_app->parsed()) {
    run_ops(engine, report, op.bench);
  } else {
    code = run_orthogonality(engine, report, orthogonality);
  }
  if (first) report.finish();
  return code;
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  std::unique_ptr<ermoe::Ranks> ranks;
  return ermoe::guard_main(
      "ermoe-bench", [&] { return ermoe::bench(argc, argv, ranks); },
      [&](const std::string& message, int code) {
        if (ranks) ranks->watch().stop(message, code);
      });
}
