#include "tools/trainer.h"

#include "core/gather.h"
#include "models/summary.h"
#include "tools/config_io.h"
#include "tools/link_probe.h"
#include "tools/loaded_model.h"
#include "tools/model_choice.h"
#include "tools/parallel_choice.h"
#include "tools/vocabulary.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double mebibyte = 1048576.0;
constexpr size_t most_loads = 64;         // experts of a layer up to which each one's load is logged
constexpr double told_wait_share = 0.01;  // waiting for data that the user should know of

double images_per_second(int64_t images, double seconds) { return seconds > 0 ? static_cast<double>(images) / seconds : 0; }

/// "text_block1" of the logs as people read it: "text block 1".
std::string spaced(const std::string& name) {
  const size_t digits = std::min(name.find_first_of("0123456789"), name.size());
  std::string text = name.substr(0, digits) + " " + name.substr(digits);
  std::ranges::replace(text, '_', ' ');
  return text;
}

/// With `comm` of all ranks' images, which all ask then; without, of this rank's.
StepLoad load_of(const ExecContext& ctx, const std::vector<RoutingRecord>& routes, Communicator* comm) {
  StepLoad load;
  for (const RoutingRecord& route : routes) {
    const int64_t scored = route.scores.shape()[1];
    const Tensor all = on_host(ctx, route.plan.counts);
    const auto counts = all.span<int32_t>().first(static_cast<size_t>(scored));
    std::vector<double> tokens(counts.begin(), counts.end());
    if (comm != nullptr) reduce_over_ranks(*comm, tokens);
    load.add(route.block, tokens);
  }
  return load;
}

}  // namespace

Trainer::Trainer(RunConfig config, Ranks* ranks)
    : config_(std::move(config)), ranks_(ranks), first_(ranks == nullptr || ranks->world().rank() == 0) {
  const RunConfig asked = config_;
  FoundCheckpoint found;
  if (!config_.train.resume.empty()) found = find_checkpoint(config_.train.resume, "latest");
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!found.folder.empty() && task_of(config_) == Task::pairs) {
    const RunConfig saved = config_of_checkpoint(found.folder);
    check_input(saved.tokenizer == config_.tokenizer, "text.tokenizer: a resumed run keeps its own, which lies in {}", found.folder);
    tokenizer = saved_tokenizer(found.folder, config_);
  }
  session_ = std::make_unique<Session>(
      config_, [this](const std::string& text) { note(text); }, ranks_, tokenizer);
  if (!found.folder.empty()) {
    if (!found.note.empty()) say("note: " + found.note);
    session_->restore(found.folder);
  }
  session_->require_same_start();
  if (first_) folder_.emplace(config_, session_->progress().step);
  if (const auto own = session_->pipeline().tokenizer(); folder_ && own) write_tokenizer(*own, path() + "/tokenizer");
  const std::string changes = describe_changes(asked);
  if (!changes.empty()) say("settings\n" + changes);
  print_start();
}

std::string Trainer::path() const { return folder_ ? folder_->path() : std::string(); }

void Trainer::say(const std::string& line) {
  if (first_) progress_.message(line);
}

/// At the start all ranks would say the same; later, of files that cannot be read, each has its own.
void Trainer::note(const std::string& text) {
  if (first_) return say("note: " + text);
  if (session_) progress_.message(fmt::format("note, rank {}: {}", ranks_->world().rank(), text));
}

void Trainer::enter(int64_t step, const char* phase, Patience patience) {
  step_ = step;
  patience_ = patience;
  enter(phase);
}

/// Another phase of the same step. A host that waits for its GPU waits for other ranks, as in a collective: their kernels meet.
void Trainer::enter(const char* phase) {
  if (ranks_ != nullptr) {
    RankWatch& watch = ranks_->watch();
    watch.leave();
    watch.at(step_, phase, patience_);
    if (phase == std::string_view(TrainStep::on_gpu)) watch.enter(RankWatch::steps_group, phase, static_cast<uint64_t>(step_), 0);
  }
  on_phase_(step_, phase);
}

/// Signals reach ranks at different times: all stop after the same step.
bool Trainer::stop_requested() {
  double signal[] = {static_cast<double>(signals_.received())};
  reduce_over_ranks(*session_->engine().ctx.comm, signal, ReduceOp::max);
  stop_signal_ = static_cast<int>(signal[0]);
  return stop_signal_ != 0;
}

void Trainer::print_start() {
  const Pipeline& data = session_->pipeline();
  const Engine& engine = session_->engine();
  const char* precision = name_of(engine.compute_dtype(config_.train.precision));
  const std::string note = engine.device_note.empty() ? "" : fmt::format(" ({})", engine.device_note);
  const int ranks = engine.ctx.comm->size();
  const std::string each = engine.gpu && ranks > 1 ? fmt::format("{} GPUs, one a rank; rank 0's: ", ranks) : "";
  say(fmt::format("device   {}{}, computing in {}{}", each, engine.device_name(), precision, note));
  say(fmt::format("data     {}: {}", config_.data.path, data.description()));
  print_model();
  print_parallel();
  planned_memory_ = session_->plan_memory();
  session_->engine().reset_peak();
  say(fmt::format("memory   {:.0f} MiB planned for the engine, beside the data", static_cast<double>(planned_memory_) / mebibyte));
  say(fmt::format("run      {}: {} steps of {} images, {} an epoch{}", path(), session_->total_steps(), config_.train.batch,
                  session_->steps_per_epoch(),
                  session_->progress().step > 0 ? fmt::format(", continuing after step {}", session_->progress().step) : ""));
}

void Trainer::print_model() {
  const Objective& objective = session_->objective();
  const ModelSummary cost = summarize(session_->model());
  say(fmt::format("model    {:.2f} M parameters, {:.2f} M active a token; {:.3f} GFLOP {} forward, {:.1f} % of it scoring",
                  static_cast<double>(cost.parameters) / 1e6, static_cast<double>(cost.active_parameters) / 1e6, cost.forward_flops / 1e9,
                  objective.sample(), 100 * cost.scoring_flops / cost.forward_flops));
  for (const CpLayer* layer : session_->model().cp_layers())
    say(fmt::format("experts  block {}: a mixture of {}, factors of rank {}", layer->block(), config_.model.moe.experts, layer->rank()));
  for (const Tower& tower : objective.towers())
    if (!tower.layers.empty()) print_experts(tower);
}

void Trainer::print_experts(const Tower& tower) {
  std::string blocks;
  for (const MoeLayer* layer : tower.layers) blocks += fmt::format("{}{}", blocks.empty() ? "" : ", ", layer->block() - tower.first_block);
  const ExpertDims& d = tower.layers[0]->dims();
  say(fmt::format("experts  {}blocks {}: {} scored{}, {}, F {}, r {}, routing basis R {}", tower.name, blocks, d.experts,
                  d.free_experts > 0 ? fmt::format(" and {} free", d.free_experts) : "",
                  d.slots > 0 ? fmt::format("{} slots each", d.slots) : fmt::format("{} a token", config_.model.moe.top_k), d.hidden,
                  d.rank, d.basis_rank > 0 ? std::to_string(d.basis_rank) : "none"));
}

/// Of several ranks: what it costs to hold experts on each rank, and to spread them. All ranks measure.
void Trainer::print_parallel() {
  if (!session_->tuning().empty()) say(session_->tuning());
  const Engine& engine = session_->engine();
  const int ranks = engine.ctx.comm->size();
  const SharedSizes sizes = shared_sizes(config_, ranks, engine.compute_dtype(config_.train.precision));
  if (ranks == 1 || sizes.layers == 0) return;
  std::vector<ExpertTraffic> ways;
  for (const int64_t expert_ranks : expert_rank_choices(ranks, sizes.experts))
    ways.push_back(expert_traffic(sizes, ranks, expert_ranks, engine.gpu ? Begun::together : Begun::apart));
  say(describe_choice(ways, other_traffic(sizes, ranks), measure_links(engine), engine.gpu ? Overlap::backward_pass : Overlap::none));
}

bool Trainer::evaluation_due() const {
  if (!session_->pipeline().has_evaluation()) return false;
  const int64_t every = config_.train.eval_every > 0 ? config_.train.eval_every : session_->steps_per_epoch();
  return session_->progress().step % every == 0 || session_->finished();
}

bool Trainer::checkpoint_due() const { return config_.checkpoint.every > 0 && session_->progress().step % config_.checkpoint.every == 0; }

int Trainer::run() {
  session_->on_phase([this](const char* phase) { enter(phase); });
  while (!session_->finished()) {
    enter(session_->progress().step + 1, "a training step");
    if (stop_requested()) break;
    one_step();
    if (evaluation_due())
      evaluate();
    else if (checkpoint_due())
      save(Standing::ordinary);
  }
  finish();
  return 0;
}

void Trainer::one_step() {
  const double together = seconds_in_collectives();
  const SessionStep step = session_->step();
  own_seconds_ += step.seconds - (seconds_in_collectives() - together);
  enter("metrics");
  if (!step.report.accepted) refuse_bad_step(step);
  if (step.purity) log_purity(*step.purity);
  seconds_ += step.seconds;
  wait_seconds_ += step.wait_seconds;
  all_seconds_ += step.seconds;
  all_wait_seconds_ += step.wait_seconds;
  loss_ += step.report.loss;
  steps_ += 1;
  const bool due = session_->progress().step % config_.train.log_every == 0 || session_->finished();
  if (due || (first_ && progress_.live())) log_step(step);
}

double Trainer::seconds_in_collectives() const { return ranks_ != nullptr ? ranks_->watch().seconds_in_collectives() : 0; }

/// Of several ranks, which all ask. A GPU's host does not see what that waits for.
std::optional<SlowestRank> Trainer::find_slowest() const {
  Communicator& ranks = *session_->engine().ctx.comm;
  if (ranks.size() == 1 || session_->engine().gpu) return std::nullopt;
  return slowest_rank(gather_from_all(ranks, std::vector{own_seconds_}));
}

void Trainer::refuse_bad_step(const SessionStep& step) {
  const TrainingProgress& now = session_->progress();
  say(fmt::format("step {} was skipped: {} ({} in a row, {} in all)", now.step, step.report.fault, now.bad_steps, now.skipped));
  check(now.bad_steps <= config_.train.max_bad_steps,
        "step {}: {} steps in a row were not finite, more than train.max_bad_steps {}; the last: {}", now.step, now.bad_steps,
        config_.train.max_bad_steps, step.report.fault);
}

void Trainer::log_step(const SessionStep& step) {
  const TrainingProgress& now = session_->progress();
  const ExecContext& ctx = session_->engine().ctx;
  const bool row_due = now.step % config_.train.log_every == 0 || session_->finished();  // the same on all ranks
  double losses[] = {loss_, step.report.extra_loss};
  if (row_due) {
    reduce_over_ranks(*ctx.comm, losses);
    slowest_ = find_slowest();
  } else {
    losses[0] *= ctx.comm->size();  // this rank's images, for the line in between
  }
  const StepLoad load = load_of(ctx, step.report.routes, row_due ? ctx.comm : nullptr);
  losses[0] /= static_cast<double>(std::max<int64_t>(1, steps_));
  if (first_) show(step, losses[0], load);
  if (row_due && folder_) write_row(step, losses[0], losses[1], load);
  if (row_due) start_row();
}

void Trainer::show(const SessionStep& step, double loss, const StepLoad& load) {
  const TrainingProgress& now = session_->progress();
  ProgressState state{.step = now.step, .steps = session_->total_steps()};
  if (config_.train.steps == 0) {
    state.epoch = (now.step - 1) / session_->steps_per_epoch() + 1;
    state.epochs = config_.train.epochs;
  }
  state.loss = loss;
  state.gradient_norm = step.report.grad_norm;
  state.lr = step.lr;
  state.step_ms = 1e3 * seconds_ / static_cast<double>(std::max<int64_t>(1, steps_));
  state.images_per_s = images_per_second(steps_ * config_.train.batch, seconds_);
  if (wait_seconds_ > told_wait_share * seconds_) state.data_wait_share = wait_seconds_ / seconds_;
  if (!step.report.routes.empty()) {
    state.load_max_mean = load.max_over_mean;
    state.loaded_block = spaced(session_->objective().block_name(load.block));
    state.loaded_expert = load.expert;
    state.gini = load.gini;
  }
  if (slowest_) {
    state.slowest_rank = slowest_->rank;
    state.slowest_over_mean = slowest_->over_mean;
  }
  state.memory_bytes = static_cast<int64_t>(session_->engine().memory().peak);
  progress_.update(state);
}

void Trainer::write_row(const SessionStep& step, double loss, double extra_loss, const StepLoad& load) {
  const TrainingProgress& now = session_->progress();
  const AllocatorStats memory = session_->engine().memory();
  MetricsRow row{.step = now.step, .split = "train", .values = {{"epoch", session_->epoch()}, {"loss", loss}, {"lr", step.lr}}};
  row.values.emplace_back("grad_norm", step.report.grad_norm);
  row.values.emplace_back("extra_loss", extra_loss);
  row.values.emplace_back("images_per_s", images_per_second(steps_ * config_.train.batch, seconds_));
  row.values.emplace_back("data_wait_share", seconds_ > 0 ? wait_seconds_ / seconds_ : 0);
  row.values.emplace_back("load_max_over_mean", load.max_over_mean);
  row.values.emplace_back("load_gini", load.gini);
  row.values.emplace_back("loaded_block", static_cast<double>(load.block));
  row.values.emplace_back("loaded_expert", static_cast<double>(load.expert));
  if (slowest_) {
    row.values.emplace_back("slowest_rank", static_cast<double>(slowest_->rank));
    row.values.emplace_back("slowest_over_mean", slowest_->over_mean);
  }
  row.values.emplace_back("skipped_steps", static_cast<double>(now.skipped));
  row.values.emplace_back("memory_mib", static_cast<double>(memory.peak) / mebibyte);
  row.values.emplace_back("source_calls", static_cast<double>(memory.source_calls));
  folder_->write(row);
}

/// A row of its own: it comes at its own interval.
void Trainer::log_purity(const std::vector<TermPurity>& terms) {
  const int64_t step = session_->progress().step;
  if (terms.empty()) return note("train.purity_every: no loss term is added to the task's, so there is no purity to measure");
  const auto values = purity_values(terms);
  if (folder_ && !values.empty()) folder_->write({.step = step, .split = "purity", .values = values});
}

void Trainer::start_row() {
  seconds_ = own_seconds_ = wait_seconds_ = loss_ = 0;
  steps_ = 0;
}

void Trainer::evaluate() {
  enter(session_->progress().step, "evaluation", Patience::endless);  // images of one rank may take longer, and nothing waits on the way
  last_evaluation_ = session_->evaluate({});
  const Evaluation& e = *last_evaluation_;
  TrainingProgress& now = session_->progress();
  const Objective& objective = session_->objective();
  MetricsRow row{.step = now.step, .split = "eval", .values = {{"epoch", session_->epoch()}, {"loss", e.loss}}};
  for (const auto& value : objective.values(e)) row.values.push_back(value);
  std::string gini;
  for (const RoutingMetrics& m : e.routing) {
    const std::string layer = objective.block_name(m.block) + "/";
    for (const auto& [name, value] : routing_values(m)) row.values.emplace_back(layer + name, value);
    for (size_t expert = 0; expert < m.load.size() && m.load.size() <= most_loads; ++expert)
      row.values.emplace_back(fmt::format("{}load/{}", layer, expert), m.load[expert]);
    gini += fmt::format(" {:.3f}", m.gini);
  }
  if (folder_) folder_->write(row);
  say(fmt::format("epoch {:.1f}: {} {}, loss {:.4f}{}{}", session_->epoch(), session_->pipeline().evaluated_part(), objective.figure(e),
                  e.loss, gini.empty() ? "" : ", load Gini by layer", gini));
  const double value = config_.checkpoint.best == BestMetric::accuracy ? objective.merit(e) : -e.loss;
  const bool best = !now.has_best || value > now.best;
  if (best) {
    now.best = value;
    now.has_best = true;
  }
  const bool due = config_.checkpoint.every == 0 || checkpoint_due() || best || session_->finished();
  if (due) save(best ? Standing::best : Standing::ordinary);
}

void Trainer::save(Standing standing) {
  enter(session_->progress().step, "writing a checkpoint", Patience::endless);
  session_->save(path(), standing, config_to_json(config_));
  last_saved_ = session_->progress().step;
  if (ranks_ == nullptr) return;
  ranks_->watch().advise(first_ ? "the last checkpoint is whole; to go on: --resume " + path() : "the last checkpoint is whole");
}

void Trainer::finish() {
  if (session_->progress().step != last_saved_) save(Standing::ordinary);
  enter(session_->progress().step, "the end", Patience::endless);
  progress_.finish();
  if (!session_->finished()) {
    say(fmt::format("{} came: stopped after step {} of {}, all saved. To go on: ermoe-train --resume {}", name_of_signal(stop_signal_),
                    session_->progress().step, session_->total_steps(), path()));
    return;
  }
  if (folder_ && last_evaluation_) session_->objective().write_predictions(*last_evaluation_, path());
  const AllocatorStats memory = session_->engine().memory();
  const double deviation = static_cast<double>(memory.peak) / static_cast<double>(planned_memory_) - 1;
  say(fmt::format("memory   peak {:.0f} MiB, planned {:.0f} MiB ({:+.1f} %)", static_cast<double>(memory.peak) / mebibyte,
                  static_cast<double>(planned_memory_) / mebibyte, 100 * deviation));
  if (all_wait_seconds_ > told_wait_share * all_seconds_)
    say(fmt::format("data     steps waited for images {:.1f} % of their time: more data.workers may help",
                    100 * all_wait_seconds_ / all_seconds_));
  if (last_evaluation_)
    say(fmt::format("done     {} {}, best checkpoint {}/checkpoints/best", session_->pipeline().evaluated_part(),
                    session_->objective().figure(*last_evaluation_), path()));
}

}  // namespace ermoe
