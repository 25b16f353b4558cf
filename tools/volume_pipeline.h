// From a folder or an archive of brains and a table of ages to batches of volumes. All volumes are prepared once and stay in memory, on
// the device where there is room, or in a file where memory has none. Read first: tools/pipeline.h, tools/volume_set.h.
#pragma once

#include "data/folds.h"
#include "models/regions.h"
#include "tools/pipeline.h"
#include "tools/volume_set.h"

#include <optional>

namespace ermoe {

/// Fills in model.volume (from the training brains) and model.classes, and fits loss.target_mean and loss.target_scale.
class VolumePipeline final : public Pipeline {
 public:
  VolumePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank = 0, int world = 1);

  int64_t training_size() const override { return train_.size(); }
  int64_t evaluation_size() const override { return test_.size(); }
  std::string description() const override;
  std::string sample_name(int64_t i) const override { return test_.subjects[static_cast<size_t>(i)].id; }
  std::optional<double> mean_target() const override;
  InputStatistics input_statistics() const override { return statistics_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  bool number_classes(const std::vector<std::string>&) override { return true; }
  void evaluate_on_training() override;
  void settle_on(const ExecContext& ctx, Gpu* gpu) override;

  int64_t batches_per_epoch() const override { return sampler_->steps_per_epoch(); }
  void seek(Cursor at) override;
  Cursor cursor() const override { return cursor_; }
  double wait_seconds() const override { return ahead_.wait_seconds(); }
  MicroBatch next(const ExecContext& ctx, RngKey key, bool mixing) override;

  void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) override;
  void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                            const std::function<void(const ModelInput&)>& fn) override;

  /// The subjects to evaluate on, and to train on, in the order of samples' indices.
  const VolumeSet& evaluation() const { return test_; }
  const VolumeSet& training() const { return train_; }
  /// Where the voxels of prepared volumes lie around the brain's middle: all have this size and spacing.
  const VolumeFormat& format() const { return reader_->format(); }

 private:
  void split(std::vector<Subject> subjects, std::vector<Subject>& train, std::vector<Subject>& test) const;
  void fill_in_sizes(const std::vector<Subject>& subjects);
  std::unique_ptr<CachingAllocator> memory_for(int64_t volumes) const;
  void measure_inputs();
  VolumeRows pick(const ExecContext& ctx, RowsAhead& ahead, const VolumeSet& set, const std::vector<int64_t>& rows,
                  std::vector<int64_t> next = {}) const;
  Tensor allowed(const ExecContext& ctx, const Tensor& labels);
  Tensor ages_of(const ExecContext& ctx, const VolumeSet& set, const std::vector<int64_t>& rows) const;

  RunConfig* config_;
  CachingAllocator& host_;  // of batches: page-locked where there is a GPU, so the sets do not lie there
  int threads_;
  WarnFn warn_;
  int rank_, world_;
  std::vector<std::string> names_{"age"};
  std::optional<VolumeReader> reader_;
  std::unique_ptr<CachingAllocator> sets_;  // their memory, or a file where memory cannot hold them
  VolumeSet train_, test_;
  InputStatistics statistics_;
  std::optional<RegionMask> regions_;  // once a batch was asked for
  std::optional<Sampler> sampler_;
  Cursor cursor_;
  RowsAhead ahead_;
};

}  // namespace ermoe
