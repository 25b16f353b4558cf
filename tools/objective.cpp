#include "tools/objective.h"

#include "core/file_io.h"
#include "models/config_rules.h"
#include "models/task_loss.h"
#include "tools/model_choice.h"
#include "tools/pair_evaluation.h"

namespace ermoe {
namespace {

/// Images like those of a batch.
Tensor noise_images(const Engine& engine, const VitConfig& model, int64_t images) {
  const Tensor input = engine.host_ctx().empty(input_shape(model, images), DType::f32);
  fill_normal(input, 1.0, RngKey{7});
  return on_device_of(engine.ctx, input);
}

/// Classes of images.
class Classes : public Objective {
 public:
  Classes(const Engine& engine, const RunConfig& config, Vit& model, Pipeline& pipeline)
      : engine_(engine),
        config_(config),
        model_(model),
        pipeline_(pipeline),
        loss_(engine.ctx, config.loss, config.model.classes, DType::f32) {}

  TargetLoss target_loss() const override {
    return [this](const ExecContext& ctx, const Variable& outputs, const Tensor& targets) { return loss_(ctx, outputs, targets); };
  }
  MicroBatch noise(int64_t images) const override {
    const Tensor targets = made_targets(engine_.host_ctx(), config_.loss, config_.model.classes, images);
    return {.images = noise_images(engine_, config_.model, images), .targets = on_device_of(engine_.ctx, targets)};
  }
  void try_evaluation(const ExecContext& ctx, int64_t images) const override {
    const MicroBatch batch = noise(images);
    ForwardPass pass;
    loss_(ctx, model_.forward(ctx, Variable(batch.images), pass), batch.targets);
  }
  Evaluation evaluate(int64_t batch, const EvaluationProgress& progress) override {
    Evaluation result = ermoe::evaluate(engine_.ctx, model_, pipeline_, config_.loss, batch, last_.get(), ExpertOrder::own, progress);
    last_ = result.collector;
    return result;
  }

  const char* sample() const override { return "an image"; }
  std::vector<Tower> towers() const override { return {{.name = "", .first_block = 0, .layers = model_.moe_layers()}}; }
  std::string block_name(int64_t block) const override { return fmt::format("block{}", block); }

  std::string figure(const Evaluation& e) const override { return fmt::format("accuracy {:.2f} %", 100 * e.accuracy); }
  std::vector<std::pair<std::string, double>> values(const Evaluation& e) const override {
    return {{"accuracy", e.accuracy}, {"top5", e.top5}};
  }
  double merit(const Evaluation& e) const override { return e.accuracy; }

 protected:
  const Engine& engine_;
  const RunConfig& config_;
  Vit& model_;
  Pipeline& pipeline_;

 private:
  TaskLoss loss_;
  std::shared_ptr<RoutingCollector> last_;
};

/// Numbers, of images or volumes.
class Numbers final : public Classes {
 public:
  using Classes::Classes;

  std::string figure(const Evaluation& e) const override { return fmt::format("mean error {:.2f}", e.mae); }
  std::vector<std::pair<std::string, double>> values(const Evaluation& e) const override { return {{"mae", e.mae}}; }
  double merit(const Evaluation& e) const override { return -e.mae; }
  void write_predictions(const Evaluation& e, const std::string& run_folder) const override {
    write_file(run_folder + "/predictions.csv", predictions_csv(age_predictions(e, pipeline_, config_.data, "val")));
  }
};

/// Images and captions that find each other.
class ImagesAndCaptions final : public Objective {
 public:
  ImagesAndCaptions(const Engine& engine, const RunConfig& config, DualEncoder& model, Pipeline& pipeline)
      : engine_(engine), config_(config), model_(model), pipeline_(pipeline) {}

  TargetLoss target_loss() const override { return {}; }
  /// Captions fill the context: nobody ends before its last token.
  MicroBatch noise(int64_t images) const override {
    const TextConfig& text = config_.text;
    const Tensor tokens = engine_.host_ctx().empty({images, text.context}, DType::i32, "batch");
    for (int64_t i = 0; i < tokens.numel(); ++i) {
      const auto id = static_cast<int32_t>(uniform_int(RngKey{8}, static_cast<uint64_t>(i), static_cast<uint64_t>(text.vocabulary)));
      tokens.data<int32_t>()[i] = id != text.end_token ? id : id > 0 ? id - 1 : id + 1;
    }
    return {.images = noise_images(engine_, config_.model, images), .targets = {}, .tokens = on_device_of(engine_.ctx, tokens)};
  }
  void try_evaluation(const ExecContext& ctx, int64_t images) const override {
    const MicroBatch batch = noise(images);
    ForwardPass image, text;
    model_.image_features(ctx, Variable(batch.images), image);
    model_.text_features(ctx, batch.tokens, text);
  }
  Evaluation evaluate(int64_t batch, const EvaluationProgress& progress) override {
    PairEvaluation result = evaluate_pairs(engine_.ctx, model_, pipeline_, {.images = batch, .loss = pair_batches(config_.train).loss},
                                           last_.get(), ExpertOrder::own, progress);
    last_ = result.evaluation.collector;
    return std::move(result.evaluation);
  }

  const char* sample() const override { return "an image with its caption"; }
  std::vector<Tower> towers() const override {
    return {{.name = "image tower, ", .first_block = 0, .layers = model_.image().moe_layers()},
            {.name = "text tower, ", .first_block = config_.model.depth, .layers = model_.text().moe_layers()}};
  }
  std::string block_name(int64_t block) const override {
    const int64_t L = config_.model.depth;
    return block < L ? fmt::format("block{}", block) : fmt::format("text_block{}", block - L);
  }

  std::string figure(const Evaluation& e) const override {
    const RankFigures &text = e.retrieval->all.to_text, &image = e.retrieval->all.to_image;
    return fmt::format("R@1 {:.1f} / {:.1f} %, R@10 {:.1f} / {:.1f} % (image to text / text to image), rsum {:.1f}", 100 * text.recall_1,
                       100 * image.recall_1, 100 * text.recall_10, 100 * image.recall_10, e.retrieval->all.rsum());
  }
  std::vector<std::pair<std::string, double>> values(const Evaluation& e) const override { return retrieval_values(e.retrieval->all); }
  double merit(const Evaluation& e) const override { return e.retrieval->all.rsum(); }

 private:
  const Engine& engine_;
  const RunConfig& config_;
  DualEncoder& model_;
  Pipeline& pipeline_;
  std::shared_ptr<RoutingCollector> last_;
};

}  // namespace

std::unique_ptr<Objective> make_objective(const Engine& engine, const RunConfig& config, Model& model, Pipeline& pipeline) {
  switch (task_of(config)) {
    case Task::pairs: return std::make_unique<ImagesAndCaptions>(engine, config, dynamic_cast<DualEncoder&>(model), pipeline);
    case Task::numbers: return std::make_unique<Numbers>(engine, config, dynamic_cast<Vit&>(model), pipeline);
    case Task::classes: break;
  }
  return std::make_unique<Classes>(engine, config, dynamic_cast<Vit&>(model), pipeline);
}

}  // namespace ermoe
