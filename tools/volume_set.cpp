#include "tools/volume_set.h"

#include "core/error.h"
#include "models/step_times.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

namespace ermoe {
namespace {

constexpr double patience = 10;  // seconds between two lines about loading
constexpr size_t most_named = 3;

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

/// Keeps the rows of `kept`, ascending, at the front.
Tensor close_gaps(const Tensor& all, const std::vector<int64_t>& kept) {
  if (!all.defined()) return {};
  for (int64_t row = 0; row < std::ssize(kept); ++row) {
    const int64_t from = kept[static_cast<size_t>(row)];
    if (row < from) copy(all.slice(from, from + 1), all.slice(row, row + 1));
  }
  return all.slice(0, std::ssize(kept));
}

Tensor gathered(CachingAllocator& memory, const Tensor& all, const std::vector<int64_t>& rows) {
  if (!all.defined()) return {};
  const Tensor picked = Tensor::empty(memory, all.shape().with(0, std::ssize(rows)), all.dtype(), "batch");
  for (int64_t b = 0; b < std::ssize(rows); ++b) {
    const int64_t row = rows[static_cast<size_t>(b)];
    copy(all.slice(row, row + 1), picked.slice(b, b + 1));
  }
  return picked;
}

VolumeRows gathered(CachingAllocator& memory, const Tensor& volumes, const Tensor& labels, const std::vector<int64_t>& rows) {
  return {.volumes = gathered(memory, volumes, rows), .labels = gathered(memory, labels, rows)};
}

}  // namespace

std::vector<double> VolumeSet::ages() const {
  std::vector<double> all;
  for (const Subject& s : subjects) all.push_back(s.age);
  return all;
}

double prepared_bytes(const VolumeFormat& format, int64_t volumes) {
  const auto [nx, ny, nz] = format.size;
  const int64_t kinds = format.regions.empty() ? 1 : 2;
  return static_cast<double>(volumes * nx * ny * nz * kinds) * sizeof(float);
}

std::array<int64_t, 3> largest_brain(const VolumeReader& reader, const std::vector<Subject>& subjects, int threads) {
  constexpr int64_t enough = 32;
  const int64_t n = std::ssize(subjects), count = std::min(n, enough);
  std::array<int64_t, 3> most{1, 1, 1};
  std::mutex mutex;
  in_parallel(count, threads, [&](int64_t i) {
    const std::array<int64_t, 3> size = reader.brain_size(subjects[static_cast<size_t>(i * n / count)]);
    const std::lock_guard lock(mutex);
    for (size_t a = 0; a < 3; ++a) most[a] = std::max(most[a], size[a]);
  });
  return most;
}

/// What threads find out while they load.
struct VolumeLoader::Progress {
  std::mutex mutex;
  std::map<int64_t, std::string> broken, doubted;  // sentences by row
  Stopwatch watch;
  double seconds = 0, told = 0;
  int64_t done = 0;
};

VolumeLoader::VolumeLoader(const VolumeReader& reader, CachingAllocator& memory, int threads, double max_bad, WarnFn warn)
    : reader_(reader), memory_(memory), threads_(threads), max_bad_(max_bad), warn_(warn ? std::move(warn) : [](const std::string&) {}) {}

void VolumeLoader::prepare(const Subject& subject, const VolumeSet& into, int64_t row, Progress& progress) const {
  std::string fault;
  std::optional<std::string> doubt;
  try {
    const PreparedVolume prepared = reader_.read(subject);
    std::ranges::copy(prepared.intensities.values, into.volumes.at(row).data<float>());
    if (into.labels.defined()) std::ranges::copy(prepared.labels, into.labels.at(row).data<float>());
    doubt = prepared.doubt;
  } catch (const InputError& error) {
    fault = error.what();
  }
  const std::lock_guard lock(progress.mutex);
  if (!fault.empty()) progress.broken.emplace(row, fault);
  if (doubt) progress.doubted.emplace(row, *doubt);
  ++progress.done;
  progress.seconds += progress.watch.lap();
  if (progress.seconds < progress.told + patience) return;
  progress.told = progress.seconds;
  warn_(fmt::format("{} of {} volumes are prepared after {:.0f} s", progress.done, into.volumes.shape()[0], progress.seconds));
}

VolumeSet VolumeLoader::load(const std::vector<Subject>& subjects) {
  const int64_t n = std::ssize(subjects);
  const auto [nx, ny, nz] = reader_.format().size;
  VolumeSet set;
  if (n == 0) return set;
  set.volumes = Tensor::empty(memory_, {n, 1, nz, ny, nx}, DType::f32, "data set");
  if (!reader_.format().regions.empty()) set.labels = Tensor::empty(memory_, {n, nz, ny, nx}, DType::f32, "data set");
  Progress progress;
  in_parallel(n, threads_, [&](int64_t i) { prepare(subjects[static_cast<size_t>(i)], set, i, progress); });
  const auto& broken = progress.broken;
  for (const auto& [i, fault] : broken) warn_(fault);
  check_input(std::ssize(broken) <= static_cast<int64_t>(max_bad_ * static_cast<double>(n)),
              "{} of {} volumes cannot be used, more than the {:.3g} % that data.max_bad allows; for example {}", broken.size(), n,
              100 * max_bad_, broken.empty() ? "" : broken.begin()->second);
  check_input(std::ssize(broken) < n, "none of {} volumes can be used; for example {}", n, broken.empty() ? "" : broken.begin()->second);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < n; ++i) {
    if (broken.contains(i)) continue;
    kept.push_back(i);
    set.subjects.push_back(subjects[static_cast<size_t>(i)]);
  }
  set.volumes = close_gaps(set.volumes, kept);
  set.labels = close_gaps(set.labels, kept);
  looked_at_ += set.size();
  for (const auto& [i, doubt] : progress.doubted) doubts_.emplace_back(subjects[static_cast<size_t>(i)].id, doubt);
  return set;
}

std::string VolumeLoader::doubts() const {
  if (doubts_.empty()) return {};
  std::string names;
  for (size_t i = 0; i < std::min(doubts_.size(), most_named); ++i) names += (i > 0 ? ", " : "") + doubts_[i].first;
  return fmt::format("{} of {} volumes look as if skull and skin were still in them, of {}{}; the first: {}", doubts_.size(), looked_at_,
                     names, doubts_.size() > most_named ? " and others" : "", doubts_[0].second);
}

VolumeRows RowsAhead::take(const VolumeSet& set, const std::vector<int64_t>& rows) {
  Stopwatch watch;
  const bool begun = coming_.valid() && rows == rows_ && of_.shares_memory_with(set.volumes);
  VolumeRows taken = begun ? coming_.get() : gathered(*memory_, set.volumes, set.labels, rows);
  if (coming_.valid()) coming_.get();  // other rows than those wanted
  of_ = {};
  waited_ += watch.lap();
  return taken;
}

void RowsAhead::begin(const VolumeSet& set, std::vector<int64_t> rows) {
  if (coming_.valid()) coming_.get();
  rows_ = std::move(rows);
  of_ = set.volumes;
  coming_ = std::async(std::launch::async, [memory = memory_, volumes = set.volumes, labels = set.labels, own = rows_] {
    return gathered(*memory, volumes, labels, own);
  });
}

}  // namespace ermoe
