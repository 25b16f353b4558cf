#include "tools/volume_pipeline.h"

#include "models/config_rules.h"
#include "models/step_times.h"
#include "models/task_loss.h"
#include "ops/gather_samples.h"
#include "tools/volume_settings.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

namespace ermoe {
namespace {

constexpr double patience = 10;  // seconds between two lines about loading

std::shared_ptr<const FileTree> open_tree(const std::string& path) {
  std::error_code ignored;
  check_input(std::filesystem::exists(path, ignored), "data.path: {}: there is no such file or folder", path);
  return std::filesystem::is_directory(path, ignored) ? open_folder(path) : open_archive(path);
}

/// fn(i) for i in [0, n), shared by threads; what one throws is thrown here.
void in_parallel(int64_t n, int threads, const std::function<void(int64_t)>& fn) {
  std::atomic<int64_t> next = 0;
  std::exception_ptr fault;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (int64_t i = next++; i < n; i = next++) fn(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      fault = std::current_exception();
      next = n;
    }
  };
  {
    std::vector<std::jthread> workers;
    for (int t = 1; t < threads; ++t) workers.emplace_back(work);
    work();
  }
  if (fault) std::rethrow_exception(fault);
}

/// Bytes that the system can give without swapping; nothing where it does not say.
std::optional<double> available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  double kib = 0;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return 1024 * kib;
    file.ignore(64, '\n');
  }
  return std::nullopt;
}

}  // namespace

std::vector<double> VolumeSet::ages() const {
  std::vector<double> all;
  for (const Subject& s : subjects) all.push_back(s.age);
  return all;
}

VolumePipeline::VolumePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world)
    : config_(&config),
      host_(host),
      threads_(config.data.workers > 0 ? static_cast<int>(config.data.workers) : threads),
      warn_(std::move(warn)),
      rank_(rank),
      world_(world) {
  check_input(is_regression(config.loss.kind), "loss.kind: volumes come with ages, so choose l1, l2, huber or soft_labels");
  const auto files = open_tree(config.data.path);
  std::vector<Subject> train, test;
  split(read_subjects(*files, {.table = config.data.table, .path_template = config.data.volumes, .warn = warn_}), train, test);
  reader_.emplace(
      files, VolumeFormat{.size = {}, .spacing = config.data.spacing, .normalize = config.data.normalize, .regions = config.data.regions});
  check_input(!has_regions(config.model) || !config.data.regions.empty(),
              "data.regions: moe.regions wants maps of regions; say where they lie");
  fill_in_sizes(train.empty() ? test : train);
  require_memory(std::ssize(train) + std::ssize(test));
  train_ = load(train);
  test_ = load(test);
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
    constexpr int64_t enough = 32;
    const int64_t n = std::ssize(subjects), count = std::min(n, enough);
    std::array<int64_t, 3> most{1, 1, 1};
    std::mutex mutex;
    in_parallel(count, threads_, [&](int64_t i) {
      const std::array<int64_t, 3> size = reader_->brain_size(subjects[static_cast<size_t>(i * n / count)]);
      const std::lock_guard lock(mutex);
      for (size_t a = 0; a < 3; ++a) most[a] = std::max(most[a], size[a]);
    });
    for (const size_t a : {2, 1, 0}) model.volume.push_back((most[a] + model.patch - 1) / model.patch * model.patch);
  }
  const Shape shape = input_shape(model, 1);
  reader_->set_size({shape[4], shape[3], shape[2]});
}

void VolumePipeline::require_memory(int64_t volumes) const {
  const auto [nx, ny, nz] = reader_->format().size;
  const int64_t kinds = reader_->format().regions.empty() ? 1 : 2;
  const double wanted = static_cast<double>(volumes * nx * ny * nz * kinds) * sizeof(float);
  const auto there = available_memory();
  check_input(
      !there || wanted < 0.8 * *there,
      "{}: {} volumes of {}x{}x{} voxels take {:.1f} GiB of memory, and {:.1f} are free: a larger data.spacing or a smaller model.volume "
      "needs less",
      config_->data.path, volumes, nx, ny, nz, wanted / (1 << 30), there.value_or(0) / (1 << 30));
}

VolumeSet VolumePipeline::load(const std::vector<Subject>& subjects) const {
  const int64_t n = std::ssize(subjects);
  const auto [nx, ny, nz] = reader_->format().size;
  const int64_t voxels = nx * ny * nz;
  const bool regions = !reader_->format().regions.empty();
  VolumeSet set;
  if (n == 0) return set;
  const Tensor volumes = Tensor::empty(host_, {n, 1, nz, ny, nx}, DType::f32, "data set");
  const Tensor labels = regions ? Tensor::empty(host_, {n, nz, ny, nx}, DType::f32, "data set") : Tensor();
  std::map<int64_t, std::string> broken;
  std::mutex mutex;
  Stopwatch watch;
  double seconds = 0, told = 0;
  int64_t done = 0;
  in_parallel(n, threads_, [&](int64_t i) {
    std::string fault;
    try {
      const PreparedVolume prepared = reader_->read(subjects[static_cast<size_t>(i)]);
      std::ranges::copy(prepared.intensities.values, volumes.data<float>() + i * voxels);
      if (regions) std::ranges::copy(prepared.labels, labels.data<float>() + i * voxels);
    } catch (const InputError& error) {
      fault = error.what();
    }
    const std::lock_guard lock(mutex);
    if (!fault.empty()) broken.emplace(i, fault);
    ++done;
    seconds += watch.lap();
    if (!warn_ || seconds < told + patience) return;
    told = seconds;
    warn_(fmt::format("{} of {} volumes are prepared after {:.0f} s", done, n, seconds));
  });
  for (const auto& [i, fault] : broken)
    if (warn_) warn_(fault);
  check_input(std::ssize(broken) <= static_cast<int64_t>(config_->data.max_bad * static_cast<double>(n)),
              "{} of {} volumes cannot be used, more than the {:.3g} % that data.max_bad allows; for example {}", broken.size(), n,
              100 * config_->data.max_bad, broken.begin()->second);
  int64_t rows = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (broken.contains(i)) continue;
    if (rows < i) copy(volumes.slice(i, i + 1), volumes.slice(rows, rows + 1));
    if (rows < i && regions) copy(labels.slice(i, i + 1), labels.slice(rows, rows + 1));
    set.subjects.push_back(subjects[static_cast<size_t>(i)]);
    ++rows;
  }
  set.volumes = volumes.slice(0, rows);
  if (regions) set.labels = labels.slice(0, rows);
  if (const auto doubt = reader_->doubt(set.subjects[0]); doubt && warn_) warn_(*doubt);
  return set;
}

void VolumePipeline::measure_inputs() {
  const int64_t n = train_.size(), voxels = train_.volumes.numel() / n;
  statistics_.mean = Tensor::empty(host_, train_.volumes.slice(0, 1).shape(), DType::f32, "data set");
  const float* const all = train_.volumes.data<float>();
  double squares = 0;
  for (int64_t v = 0; v < voxels; ++v) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double x = all[i * voxels + v];
      sum += x;
      square += x * x;
    }
    statistics_.mean.data<float>()[v] = static_cast<float>(sum / static_cast<double>(n));
    squares += square / static_cast<double>(n) - (sum / static_cast<double>(n)) * (sum / static_cast<double>(n));
  }
  statistics_.deviation = std::sqrt(std::max(squares / static_cast<double>(voxels), 1e-12));
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
}

/// Rows of the set on the context's device, from wherever the set lies.
VolumePipeline::Picked VolumePipeline::pick(const ExecContext& ctx, const VolumeSet& set, const std::vector<int64_t>& rows) const {
  const std::vector<int32_t> narrow(rows.begin(), rows.end());
  ExecContext there = ctx;
  if (!set.volumes.device().is_cuda()) {
    there.device = set.volumes.device();
    there.allocator = &host_;
  }
  const Tensor index = Tensor::from<int32_t>(*there.allocator, {std::ssize(narrow)}, narrow, "batch");
  Picked picked{.volumes = on_device_of(ctx, gather_samples(there, set.volumes, index)), .labels = {}};
  if (set.labels.defined()) picked.labels = on_device_of(ctx, gather_samples(there, set.labels, index));
  return picked;
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
  const Picked picked = pick(ctx, train_, rows);
  const VolumesAndLabels varied = augment_volume(ctx, picked.volumes, picked.labels, volume_augment(config_->augment), key.fold(1));
  return {.images = varied.volumes, .targets = ages_of(ctx, train_, rows), .allow = allowed(ctx, varied.labels)};
}

void VolumePipeline::for_each_evaluation_batch(const ExecContext& ctx, int64_t batch,
                                               const std::function<void(const EvaluationBatch&)>& fn) {
  check_input(test_.size() > 0, "{} has no volumes to evaluate on", config_->data.path);
  const Sampler sampler(test_.size(), {.rank = rank_, .world = world_, .batch = std::min(batch, test_.size()), .mode = Mode::eval});
  Cursor at;
  for (int64_t step = 0; step < sampler.steps_per_epoch(); ++step, at = sampler.after(at)) {
    const std::vector<int64_t> rows = sampler.indices(at);
    if (rows.empty()) {
      fn({});
      continue;
    }
    const Picked picked = pick(ctx, test_, rows);
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
  Cursor at;
  for (int64_t i = 0; i < std::min(count, sampler.steps_per_epoch()); ++i, at = sampler.after(at)) {
    const Picked picked = pick(ctx, set, sampler.indices(at));
    fn({.images = picked.volumes, .allow = allowed(ctx, picked.labels)});
  }
}

}  // namespace ermoe
