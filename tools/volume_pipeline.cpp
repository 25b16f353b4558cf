#include "tools/volume_pipeline.h"

#include "core/file_memory.h"
#include "models/config_rules.h"
#include "models/task_loss.h"
#include "ops/gather_samples.h"
#include "tools/volume_settings.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numeric>

namespace ermoe {
namespace {

constexpr double memory_share = 0.8;  // of what is free, that volumes may take
constexpr double gib = 1 << 30;

/// Where large files go that nobody keeps.
std::string cache_folder(const std::string& wish) {
  if (!wish.empty()) return wish;
  const char* const temporary = std::getenv("TMPDIR");
  return temporary != nullptr && *temporary != '\0' ? temporary : "/var/tmp";
}

}  // namespace

VolumePipeline::VolumePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world)
    : config_(&config),
      host_(host),
      threads_(config.data.workers > 0 ? static_cast<int>(config.data.workers) : threads),
      warn_(std::move(warn)),
      rank_(rank),
      world_(world),
      ahead_(host) {
  check_input(is_regression(config.loss.kind), "loss.kind: volumes come with ages, so choose l1, l2, huber or soft_labels");
  std::error_code ignored;
  check_input(std::filesystem::exists(config.data.path, ignored), "data.path: {}: there is no such file or folder", config.data.path);
  const auto files = open_tree(config.data.path);
  std::vector<Subject> train, test;
  split(read_subjects(*files, {.table = config.data.table, .path_template = config.data.volumes, .warn = warn_}), train, test);
  reader_.emplace(
      files, VolumeFormat{.size = {}, .spacing = config.data.spacing, .normalize = config.data.normalize, .regions = config.data.regions});
  check_input(!has_regions(config.model) || !config.data.regions.empty(),
              "data.regions: moe.regions wants maps of regions; say where they lie");
  fill_in_sizes(train.empty() ? test : train);
  sets_ = memory_for(std::ssize(train) + std::ssize(test));
  VolumeLoader loader(*reader_, *sets_, threads_, config.data.max_bad, warn_);
  train_ = loader.load(train);
  test_ = loader.load(test);
  if (const std::string doubts = loader.doubts(); !doubts.empty() && warn_) warn_(doubts);
  if (train_.size() > 0) fit_targets(config.loss, train_.ages());
  if (config.model.center_input && train_.size() > 0) measure_inputs();
  if (config.model.classes == 0) config.model.classes = outputs_of(config.loss);
}

/// The fold that is held out, or the table's own parts, or a share that is alike in age.
void VolumePipeline::split(std::vector<Subject> subjects, std::vector<Subject>& train, std::vector<Subject>& test) const {
  const DataConfig& data = config_->data;
  check_input(!subjects.empty(), "{}: the table names no subject with an age and a volume", data.path);
  std::vector<double> ages;
  std::vector<std::string> ids;
  bool own = false;
  for (const Subject& s : subjects) {
    ages.push_back(s.age);
    ids.push_back(s.id);
    own |= s.split && *s.split != Part::train;
  }
  std::vector<int> folds;
  if (data.folds > 0)
    folds = stratified_folds(ages, ids, static_cast<int>(data.folds), data.fold_seed);
  else if (!own && data.val_share > 0)
    folds = stratified_folds(ages, ids, std::max(2, static_cast<int>(std::lround(1 / data.val_share))), config_->train.seed);
  const int held_out = data.folds > 0 ? static_cast<int>(data.fold) - 1 : 0;
  for (size_t i = 0; i < subjects.size(); ++i) {
    const bool out = folds.empty() ? subjects[i].split.value_or(Part::train) != Part::train : folds[i] == held_out;
    (out ? test : train).push_back(std::move(subjects[i]));
  }
  if (data.limit > 0 && std::ssize(train) > data.limit) train.resize(static_cast<size_t>(data.limit));
}

/// A window that holds the brains of some training subjects, in whole patches.
void VolumePipeline::fill_in_sizes(const std::vector<Subject>& subjects) {
  VitConfig& model = config_->model;
  model.channels = 1;
  if (model.volume.empty() && model.image_size == 0) {
    const std::array<int64_t, 3> most = largest_brain(*reader_, subjects, threads_);
    for (const size_t a : {2, 1, 0}) model.volume.push_back((most[a] + model.patch - 1) / model.patch * model.patch);
  }
  const Shape shape = input_shape(model, 1);
  reader_->set_size({shape[4], shape[3], shape[2]});
}

/// The host's, or that of a file on a disk where the volumes would not fit there. Says which. Every rank has all of them, perhaps all on
/// this host and at this moment.
std::unique_ptr<CachingAllocator> VolumePipeline::memory_for(int64_t volumes) const {
  const double wanted = prepared_bytes(reader_->format(), volumes), ranks = world_;
  const double room = static_cast<double>(host_.source().available()) / ranks;
  if (wanted < memory_share * room) return std::make_unique<CachingAllocator>(make_host_source());
  const std::string folder = cache_folder(config_->data.cache);
  auto file = std::make_unique<CachingAllocator>(make_file_source(folder));
  const auto [nx, ny, nz] = reader_->format().size;
  const double disk = static_cast<double>(file->source().available()) / ranks;
  const std::string what = fmt::format("{} volumes of {}x{}x{} voxels take {:.1f} GiB, and of memory {:.1f} are free{}", volumes, nx, ny,
                                       nz, wanted / gib, room / gib, world_ > 1 ? " for each process" : "");
  // An eighth more, for blocks are rounded up.
  check_input(
      1.125 * wanted < disk,
      "{}: {}, of the disk of {} {:.1f}: another data.cache may have more, and a larger data.spacing or a smaller model.volume needs "
      "less",
      config_->data.path, what, folder, disk / gib);
  if (warn_)
    warn_(fmt::format("{}: they are kept in a file in {}, which is gone when this ends{}", what, folder,
                      lies_in_memory(folder) ? "; but that folder lies in memory too: data.cache should name one on a disk" : ""));
  return file;
}

void VolumePipeline::measure_inputs() {
  const int64_t n = train_.size(), voxels = train_.volumes.numel() / n;
  statistics_.mean = Tensor::empty(host_, train_.volumes.slice(0, 1).shape(), DType::f32, "data set");
  const float* row = train_.volumes.data<float>();
  std::vector<double> sums(static_cast<size_t>(voxels)), squares(static_cast<size_t>(voxels));
  for (int64_t i = 0; i < n; ++i, row += voxels) {  // as they lie, for they may lie on a disk
    for (int64_t v = 0; v < voxels; ++v) {
      const double x = row[v];
      sums[static_cast<size_t>(v)] += x;
      squares[static_cast<size_t>(v)] += x * x;
    }
  }
  double variance = 0;
  for (int64_t v = 0; v < voxels; ++v) {
    const double mean = sums[static_cast<size_t>(v)] / static_cast<double>(n);
    statistics_.mean.data<float>()[v] = static_cast<float>(mean);
    variance += squares[static_cast<size_t>(v)] / static_cast<double>(n) - mean * mean;
  }
  statistics_.deviation = std::sqrt(std::max(variance / static_cast<double>(voxels), 1e-12));
}

std::string VolumePipeline::description() const {
  const auto [nx, ny, nz] = reader_->format().size;
  const auto range = [](std::vector<double> ages) {
    const auto [low, high] = std::ranges::minmax(ages);
    return fmt::format("{:.0f} to {:.0f}", low, high);
  };
  const std::string fold = config_->data.folds > 0 ? fmt::format(", fold {} of {} held out", config_->data.fold, config_->data.folds) : "";
  return fmt::format("{} training{} and {} evaluation volumes, {}x{}x{} voxels of {} mm{}", training_size(),
                     training_size() > 0 ? fmt::format(" (ages {})", range(train_.ages())) : "", evaluation_size(), nx, ny, nz,
                     config_->data.spacing, fold);
}

std::optional<double> VolumePipeline::mean_target() const {
  if (train_.size() == 0) return std::nullopt;
  const std::vector<double> ages = train_.ages();
  return std::reduce(ages.begin(), ages.end()) / static_cast<double>(ages.size());
}

void VolumePipeline::evaluate_on_training() {
  check_input(train_.size() > 0, "{} has no training volumes", config_->data.path);
  test_ = train_;
}

void VolumePipeline::settle_on(const ExecContext& ctx, Gpu*) {
  if (!ctx.device.is_cuda()) return;
  double wanted = 0;
  for (const VolumeSet* set : {&train_, &test_})
    for (const Tensor* t : {&set->volumes, &set->labels}) wanted += t->defined() ? static_cast<double>(t->bytes()) : 0;
  if (wanted > config_->data.gpu_cache * static_cast<double>(ctx.allocator->source().available())) return;
  for (VolumeSet* set : {&train_, &test_})
    for (Tensor* t : {&set->volumes, &set->labels})
      if (t->defined()) *t = on_device_of(ctx, *t);
  sets_->trim();  // where they were
  if (warn_) warn_(fmt::format("{} volumes stay on the GPU, {:.0f} MiB", train_.size() + test_.size(), wanted / (1 << 20)));
}

void VolumePipeline::seek(Cursor at) {
  check_input(train_.size() > 0, "{} has no training volumes", config_->data.path);
  const int64_t micro = config_->train.batch / config_->train.accumulate;
  check_input(micro >= 1 && micro <= train_.size(), "train.batch is {} in {} micro-batches, but {} has {} training volumes",
              config_->train.batch, config_->train.accumulate, config_->data.path, train_.size());
  sampler_.emplace(train_.size(),
                   SamplerOptions{.seed = config_->train.seed, .rank = rank_, .world = world_, .batch = micro, .mode = Mode::train});
  cursor_ = at;
  if (!train_.volumes.device().is_cuda()) ahead_.begin(train_, sampler_->indices(cursor_));
}

/// Rows of the set on the context's device, from wherever the set lies. From the host those of the next batch are begun.
VolumeRows VolumePipeline::pick(const ExecContext& ctx, RowsAhead& ahead, const VolumeSet& set, const std::vector<int64_t>& rows,
                                std::vector<int64_t> next) const {
  if (set.volumes.device().is_cuda()) {
    const std::vector<int32_t> narrow(rows.begin(), rows.end());
    const Tensor index = Tensor::from<int32_t>(*ctx.allocator, {std::ssize(narrow)}, narrow, "batch");
    const Tensor labels = set.labels.defined() ? gather_samples(ctx, set.labels, index) : Tensor();
    return {.volumes = gather_samples(ctx, set.volumes, index), .labels = labels};
  }
  const VolumeRows picked = ahead.take(set, rows);
  if (!next.empty()) ahead.begin(set, std::move(next));
  return {.volumes = on_device_of(ctx, picked.volumes), .labels = picked.labels.defined() ? on_device_of(ctx, picked.labels) : Tensor()};
}

/// Which experts the tokens of a batch may go to.
Tensor VolumePipeline::allowed(const ExecContext& ctx, const Tensor& labels) {
  if (!regions_) regions_.emplace(ctx, config_->model);
  return (*regions_)(ctx, labels);
}

Tensor VolumePipeline::ages_of(const ExecContext& ctx, const VolumeSet& set, const std::vector<int64_t>& rows) const {
  std::vector<float> ages;
  for (const int64_t i : rows) ages.push_back(static_cast<float>(set.subjects[static_cast<size_t>(i)].age));
  return Tensor::from<float>(*ctx.allocator, {std::ssize(ages), 1}, ages, "batch");
}

MicroBatch VolumePipeline::next(const ExecContext& ctx, RngKey key, bool) {
  const std::vector<int64_t> rows = sampler_->indices(cursor_);
  cursor_ = sampler_->after(cursor_);
  const VolumeRows picked = pick(ctx, ahead_, train_, rows, sampler_->indices(cursor_));
  const VolumesAndLabels varied = augment_volume(ctx, picked.volumes, picked.labels, volume_augment(config_->augment), key.fold(1));
  return {.images = varied.volumes, .targets = ages_of(ctx, train_, rows), .allow = allowed(ctx, varied.labels)};
}

void VolumePipeline::for_each_evaluation_batch(const ExecContext& ctx, int64_t batch,
                                               const std::function<void(const EvaluationBatch&)>& fn) {
  check_input(test_.size() > 0, "{} has no volumes to evaluate on", config_->data.path);
  const Sampler sampler(test_.size(), {.rank = rank_, .world = world_, .batch = std::min(batch, test_.size()), .mode = Mode::eval});
  RowsAhead ahead(host_);
  Cursor at;
  for (int64_t step = 0; step < sampler.steps_per_epoch(); ++step) {
    const std::vector<int64_t> rows = sampler.indices(at);
    at = sampler.after(at);
    if (rows.empty()) {
      fn({});
      continue;
    }
    const bool last = step + 1 == sampler.steps_per_epoch();
    const VolumeRows picked = pick(ctx, ahead, test_, rows, last ? std::vector<int64_t>() : sampler.indices(at));
    fn({.input = {.images = picked.volumes, .allow = allowed(ctx, picked.labels)},
        .targets = ages_of(ctx, test_, rows),
        .labels = std::vector<int32_t>(rows.size()),
        .indices = rows});
  }
}

void VolumePipeline::for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                                          const std::function<void(const ModelInput&)>& fn) {
  const VolumeSet& set = train_.size() > 0 ? train_ : test_;
  const int64_t rows = std::min(std::max<int64_t>(batch, world_), set.size());  // every rank wants one
  const Sampler sampler(set.size(), {.seed = 1, .rank = rank_, .world = world_, .batch = rows, .mode = Mode::train});
  RowsAhead ahead(host_);
  Cursor at;
  for (int64_t i = 0; i < std::min(count, sampler.steps_per_epoch()); ++i, at = sampler.after(at)) {
    const VolumeRows picked = pick(ctx, ahead, set, sampler.indices(at));
    fn({.images = picked.volumes, .allow = allowed(ctx, picked.labels)});
  }
}

}  // namespace ermoe
