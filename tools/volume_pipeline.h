// From a folder or an archive of brains and a table of ages to batches of volumes. All volumes are prepared once and stay in memory, on
// the device where there is room. Read first: tools/pipeline.h, data/volume_reader.h.
#pragma once

#include "data/folds.h"
#include "data/volume_reader.h"
#include "models/regions.h"
#include "tools/pipeline.h"

#include <optional>

namespace ermoe {

/// Subjects with their prepared volumes.
struct VolumeSet {
  std::vector<Subject> subjects;  // those whose volumes could be read
  Tensor volumes;                 // (n, 1, nz, ny, nx) f32
  Tensor labels;                  // (n, nz, ny, nx) f32; undefined without regions

  int64_t size() const { return std::ssize(subjects); }
  std::vector<double> ages() const;
};

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
  double wait_seconds() const override { return 0; }
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
  struct Picked {
    Tensor volumes, labels;  // (B, 1, nz, ny, nx), (B, nz, ny, nx) or undefined, on the device
  };

  void split(std::vector<Subject> subjects, std::vector<Subject>& train, std::vector<Subject>& test) const;
  void fill_in_sizes(const std::vector<Subject>& subjects);
  VolumeSet load(const std::vector<Subject>& subjects) const;
  void require_memory(int64_t volumes) const;
  void measure_inputs();
  Picked pick(const ExecContext& ctx, const VolumeSet& set, const std::vector<int64_t>& rows) const;
  Tensor allowed(const ExecContext& ctx, const Tensor& labels);
  Tensor ages_of(const ExecContext& ctx, const VolumeSet& set, const std::vector<int64_t>& rows) const;

  RunConfig* config_;
  CachingAllocator& host_;
  int threads_;
  WarnFn warn_;
  int rank_, world_;
  std::vector<std::string> names_{"age"};
  std::optional<VolumeReader> reader_;
  VolumeSet train_, test_;
  InputStatistics statistics_;
  std::optional<RegionMask> regions_;  // once a batch was asked for
  std::optional<Sampler> sampler_;
  Cursor cursor_;
};

}  // namespace ermoe
