#include "tools/session.h"

#include "core/gather.h"
#include "models/vit.h"
#include "tools/config_check.h"
#include "tools/memory_advice.h"
#include "tools/model_choice.h"
#include "tools/parallel_choice.h"
#include "tools/rank_agreement.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

namespace ermoe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs `work`; where memory runs out, what `advice` says is added to the sentence.
template <typename Work, typename Advice>
auto advised(Work&& work, Advice&& advice) {
  try {
    return work();
  } catch (const OutOfMemory& e) {
    throw OutOfMemory(fmt::format("{}; {}", e.what(), advice()));
  }
}

std::string evaluation_advice(const TrainConfig& train) {
  return fmt::format("evaluation takes {} images at a time: a smaller train.eval_batch needs less", evaluation_batch(train));
}

}  // namespace

Session::Session(RunConfig& config, WarnFn warn, Ranks* ranks, std::shared_ptr<const Tokenizer> tokenizer)
    : config_(config),
      threads_(resolve_threads(config.train.threads, ranks != nullptr ? ranks_on_same_cores(ranks->world()) : 1)),
      engine_(threads_, config.train.seed, config.train.device, ranks) {
  if (!config.parallel.autotune) engine_.spread_experts(config.parallel.expert, config.parallel.chunks);
  require_data(config);
  validate(config);  // what needs no data; warnings come below, when all is known
  const Communicator& comm = *engine_.ctx.comm;
  require_parts_of_batches(config, comm.size());
  pipeline_ = open_pipeline(config, engine_.staging, threads_, warn, comm.rank(), comm.size(), std::move(tokenizer));
  for (const std::string& warning : validate(config)) warn(warning);
  if (config.parallel.autotune) choose_expert_ranks(config);
  build(config, warn);
  pipeline_->settle_on(engine_.ctx, engine_.gpu.get());
  pipeline_->seek({});
  steps_per_epoch_ = std::max<int64_t>(1, pipeline_->batches_per_epoch() / config.train.accumulate);
  total_steps_ = config.train.steps > 0 ? config.train.steps : config.train.epochs * steps_per_epoch_;
  progress_.seed = config.train.seed;
}

/// The model on the host, with what training begins from.
void Session::give_first_values(const RunConfig& config, const WarnFn& warn) {
  const ExecContext& host = engine_.host_ctx();
  model_ = make_model(config);
  model_->allocate(host, DType::f32);
  model_->init(host, RngKey{config.train.seed}.fold(1));
  if (!config.train.init.empty()) {
    std::string weights = config.train.init;
    if (!weights.ends_with(".safetensors")) weights = find_checkpoint(weights, "latest").folder + "/model.safetensors";
    using Experts = InitOptions::Experts;
    const LoadReport report = init_from_weights(host, weights, *model_,
                                                {.experts = config.train.upcycle ? Experts::from_dense : Experts::left_new,
                                                 .noise = config.train.upcycle_noise,
                                                 .key = RngKey{config.train.seed}.fold(4)});
    if (!report.upcycled.empty()) warn(fmt::format("{}: {}", weights, report.upcycled));
    if (!report.summary().empty()) warn(fmt::format("{}: {}", weights, report.summary()));
  }
  if (const InputStatistics inputs = pipeline_->input_statistics(); inputs.mean.defined())  // volumes, whose model has one tower
    dynamic_cast<Vit&>(*model_).center_inputs(inputs.mean, config.train.init.empty() ? inputs.deviation : 0);
  if (!config.train.freeze.empty()) freeze(host, *model_, config.train.freeze);
}

void Session::build(RunConfig& config, const WarnFn& warn) {
  const ExecContext& ctx = engine_.ctx;
  give_first_values(config, warn);
  const DType compute = engine_.compute_dtype(config.train.precision);
  const bool shared = ctx.comm->size() > 1;
  if (engine_.gpu || shared) model_->move_to(ctx, compute, gradient_writes(config, ctx.comm->size()));
  model_->scale_learning_rates(config.optim);
  optimizer_ = std::make_unique<Optimizer>(ctx, model_->arena(), config.optim, stiefel_method(config.model.moe.orthogonality));
  if (config.optim.ema > 0) average_ = std::make_unique<MovingAverage>(ctx, model_->arena(), config.optim.ema);
  objective_ = make_objective(engine_, config, *model_, *pipeline_);
  train_step_ = std::make_unique<TrainStep>(ctx, *model_, *optimizer_, average_.get(), config.optim.clip);
  // The host reads how many rows travel where experts are spread.
  const bool recorded = config.train.graph && ctx.expert_ranks->size() == 1;
  recorded_step_ = std::make_unique<RecordedStep>(*train_step_, recorded ? engine_.gpu.get() : nullptr, objective_->target_loss());
}

void Session::require_same_start() { ermoe::require_same_start(engine_.ctx, *model_, progress_.step, pipeline_->training_size()); }

void Session::on_phase(std::function<void(const char* phase)> fn) {
  phase_ = fn;
  train_step_->on_phase(std::move(fn));
}

void Session::restore(const std::string& folder) {
  const TrainingProgress saved = read_progress(folder);
  check_input(saved.seed == config_.train.seed, "{}: was trained with train.seed {}, not {}", folder, saved.seed, config_.train.seed);
  read_checkpoint(engine_.ctx, folder, *model_, *optimizer_, average_.get());
  progress_ = saved;
  train_step_->set_draws(saved.step * config_.train.accumulate);
  ahead_.reset();
  pipeline_->seek({saved.epoch, saved.epoch_step});
}

void Session::save(const std::string& run_folder, Standing standing, const std::string& config_json) {
  const Cursor cursor = ahead_ ? cursor_ : pipeline_->cursor();
  progress_.epoch = cursor.epoch;
  progress_.epoch_step = cursor.step;
  progress_.config = config_json;
  progress_.classes = pipeline_->class_names();
  const std::shared_ptr<const Tokenizer> tokenizer = pipeline_->tokenizer();
  Communicator& ranks = *engine_.ctx.comm;
  std::optional<CheckpointWriter> writer;  // rank 0's, as the folder is
  all_or_none(ranks, [&] {
    if (ranks.rank() == 0) writer.emplace(run_folder, progress_.step);
    if (writer && tokenizer) write_tokenizer(*tokenizer, writer->partial());
  });
  // Others may have another working directory.
  const std::string folder = broadcast_text(ranks, writer ? std::filesystem::absolute(writer->partial()).string() : "");
  const FileChecksums checksums = write_checkpoint(engine_.ctx, folder, *model_, *optimizer_, average_.get(), progress_);
  if (writer) phase_("committing a checkpoint");
  all_or_none(ranks, [&] {
    if (writer) writer->commit(standing, static_cast<int>(config_.checkpoint.keep), checksums);
  });
}

/// What this rank has of every micro-batch.
BatchPart Session::part() const {
  const Communicator& comm = *engine_.ctx.comm;
  return part_of_batch(config_.train.batch / config_.train.accumulate, comm.rank(), comm.size());
}

/// Micro-batch number `micro` of step number `step`, from where the loader stands.
MicroBatch Session::make_batch(int64_t step, int64_t micro) {
  phase_("loading images");
  const RngKey key = RngKey{config_.train.seed}.fold(2).fold(static_cast<uint64_t>(step)).fold(static_cast<uint64_t>(micro));
  const bool mixing = step < total_steps_ - config_.augment.off_epochs * steps_per_epoch_;
  ExecContext ctx = engine_.ctx;
  ctx.part = part();
  return pipeline_->next(ctx, key, mixing);
}

MicroBatch Session::next_batch(int64_t micro) {
  if (micro > 0 || !ahead_) return make_batch(progress_.step, micro);
  return *std::exchange(ahead_, {});
}

/// Prepares what the next step begins with, while the GPU is busy with this one.
void Session::make_ahead() {
  cursor_ = pipeline_->cursor();
  if (progress_.step + 1 < total_steps_) ahead_ = make_batch(progress_.step + 1, 0);
}

/// Before the first step, the last one, and at the interval asked for.
bool Session::purity_due() const {
  const int64_t every = config_.train.purity_every, step = progress_.step;
  return every > 0 && !has_no_terms_ && (step % every == 0 || step + 1 == total_steps_);
}

/// On the micro-batch that the step begins with, op by op: a recording would read gradients that are gone by then.
std::vector<TermPurity> Session::measure_purity() {
  recorded_step_->forget();
  if (!ahead_) {
    cursor_ = pipeline_->cursor();
    ahead_ = make_batch(progress_.step, 0);
  }
  phase_("measuring gradients");
  ExecContext ctx = engine_.step_ctx();
  ctx.mode = Mode::train;
  ctx.rng = step_key();
  ctx.part = part();
  auto terms = ermoe::measure_purity(ctx, *model_, *ahead_, objective_->target_loss(), progress_.step * config_.train.accumulate);
  has_no_terms_ = terms.empty();
  return terms;
}

SessionStep Session::step() {
  SessionStep result;
  if (average_) average_->drop_statistics();
  if (purity_due()) result.purity = advised([&] { return measure_purity(); }, [this] { return advice(); });
  const auto start = std::chrono::steady_clock::now();
  const double waited = pipeline_->wait_seconds();
  ExecContext ctx = engine_.step_ctx();
  ctx.mode = Mode::train;
  ctx.rng = step_key();
  ctx.part = part();
  result.lr = learning_rate(config_.optim, progress_.step, total_steps_);
  pipeline_->prefetch(engine_.ctx);
  const auto meanwhile = engine_.gpu ? std::function<void()>([this] { make_ahead(); }) : nullptr;
  const auto next = [this](int64_t micro) { return next_batch(micro); };
  result.report =
      advised([&] { return recorded_step_->run(ctx, config_.train.accumulate, next, result.lr, meanwhile); }, [this] { return advice(); });
  progress_.step += 1;
  progress_.bad_steps = result.report.accepted ? 0 : progress_.bad_steps + 1;
  progress_.skipped += !result.report.accepted;
  result.seconds = seconds_since(start);
  const bool gpu_was_busy = result.report.result_wait > 1e-4;  // then the wait for the next batch was hidden behind its work
  result.wait_seconds = gpu_was_busy ? 0 : pipeline_->wait_seconds() - waited;
  return result;
}

std::unique_ptr<AveragedWeights> Session::use_average() {
  if (!engine_.gpu) model_->arena().begin_gradients();  // an evaluation takes the memory that a CPU's steps used
  if (!average_) return nullptr;
  const ForEachBatch batches = statistics_batches(engine_.ctx, *pipeline_, evaluation_batch(config_.train));
  return std::make_unique<AveragedWeights>(engine_.ctx, *model_, *average_, batches);
}

Evaluation Session::evaluate(const EvaluationProgress& progress) {
  const auto averaged = use_average();
  if (averaged) average_->keep_statistics(averaged->statistics());
  const auto work = [&] { return objective_->evaluate(evaluation_batch(config_.train), progress); };
  return advised(work, [this] { return evaluation_advice(config_.train); });
}

/// A dry run of one micro-batch of noise of so many images, forward and backward: its highest live bytes above what was live before.
size_t Session::probe_activations(int64_t images) {
  ExecContext ctx = engine_.step_ctx();
  ctx.mode = Mode::train;
  model_->arena().begin_gradients();  // a step may have left some
  const size_t before = engine_.memory().live;
  engine_.reset_peak();
  train_step_->begin(ctx, 1);
  if (images == part().count) ctx.part = part();  // a loss over the pairs of all ranks wants to know how many the others have
  train_step_->micro_batch(ctx, objective_->noise(images), objective_->target_loss());
  const size_t peak = engine_.memory().peak;
  model_->discard_step();
  train_step_->begin(ctx, 1);  // drops what the probe left
  train_step_->set_draws(progress_.step * config_.train.accumulate);
  return peak - before;
}

/// A dry run of an evaluation's full and its last batch, with averaged weights where they are kept: its highest live bytes.
size_t Session::probe_evaluation() {
  if (!pipeline_->has_evaluation()) return 0;
  ExecContext ctx = engine_.ctx;
  ctx.mode = Mode::eval;
  const int64_t images = pipeline_->evaluation_size(), batch = std::min(evaluation_batch(config_.train), images);
  const auto own = [&](int64_t rows) { return most_images_a_part(rows, ctx.comm->size()); };
  const ForEachBatch statistics = [&](const std::function<void(const ModelInput&)>& fn) {
    const MicroBatch noise = objective_->noise(own(batch));
    fn({.images = noise.images, .allow = {}, .tokens = noise.tokens});
  };
  std::vector<Tensor> live;
  for (Buffer* b : buffers_of(*model_)) live.push_back(b->value.clone("dry run"));
  engine_.reset_peak();
  {
    std::unique_ptr<AveragedWeights> averaged;
    if (average_)
      averaged = std::make_unique<AveragedWeights>(ctx, *model_, *average_, statistics);
    else
      recompute_statistics(ctx, *model_, statistics);
    const std::vector<Buffer> kept = averaged ? averaged->statistics() : std::vector<Buffer>();
    for (const int64_t rows : {own(batch), own(images % batch)})
      if (rows > 0) objective_->try_evaluation(ctx, rows);
  }
  const std::vector<Buffer*> buffers = buffers_of(*model_);
  for (size_t i = 0; i < buffers.size(); ++i) copy(live[i], buffers[i]->value);
  return engine_.memory().peak;
}

/// What would fit, from dry runs of a few images: called when a step found no memory, which has been given back by then.
std::string Session::advice() {
  const int64_t batch = config_.train.batch, accumulate = config_.train.accumulate;
  if (engine_.ctx.comm->size() > 1) return "a smaller train.batch, or more processes, needs less";  // a dry run takes all ranks
  const int64_t few = std::clamp<int64_t>(batch / accumulate / 4, 1, 8);
  int64_t fitting = 0;
  try {
    recorded_step_->forget();
    model_->discard_step();
    const MeasuredImages first{.images = few, .bytes = probe_activations(few)};
    const MeasuredImages second{.images = 2 * few, .bytes = probe_activations(2 * few)};
    const size_t room = engine_.room(), widened = model_->arena().narrow_grads().bytes();  // by more micro-batches than one
    fitting = images_that_fit(first, second, room - std::min(room, widened));
  } catch (const OutOfMemory&) {
    return "a few images do not fit either: a smaller train.batch, or a smaller model, needs less";
  }
  return batch_advice(batch, accumulate, fitting);
}

size_t Session::plan_memory() {
  const int64_t images = part().count;
  const size_t activations = advised([&] { return probe_activations(images); }, [this] { return advice(); });
  size_t step = model_->largest_made_bytes();  // beside their successors; or an orthonormal parameter's direction and scratch
  for (const Parameter* p : model_->arena().parameters()) step = std::max(step, 3 * p->value.bytes());
  // A GPU's scratch for a batch of factors is about three times as large as they are, and stays beside what comes next.
  const size_t kept = engine_.gpu ? 3 * optimizer_->largest_batch_bytes() : 0;
  const size_t stepping = model_->arena().factor_gradient_bytes() + step + kept;  // when activations are gone
  const size_t live = engine_.memory().live, training = live + std::max(activations + kept, stepping);
  const auto probe = [this] { return probe_evaluation(); };
  const size_t evaluation = advised(probe, [this] { return evaluation_advice(config_.train); });
  if (!engine_.gpu) return std::max(training, evaluation);
  return training + (evaluation > live ? evaluation - live : 0);  // a GPU's steps keep their memory while an evaluation runs
}

}  // namespace ermoe
