// A trained model for use: from a run folder or a checkpoint to a model that evaluates and predicts. Training has its own
// way in (tools/session.h), since it needs the optimizer too. Read next: tools/ermoe_eval.cpp, tools/ermoe_predict.cpp.
#pragma once

#include "data/text/tokenizer.h"
#include "models/average.h"
#include "models/dual_encoder.h"
#include "tools/engine.h"
#include "tools/pipeline.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// What a program can use: a model of images (or volumes) alone, a dual encoder of images and texts, or either.
enum class Towers { one, two, any };

/// The settings that a checkpoint was trained with, complete. Throws InputError where they are damaged.
RunConfig config_of_checkpoint(const std::string& folder);

class LoadedModel {
 public:
  /// `path`: a run folder (its best checkpoint, else its latest) or a checkpoint's own folder. Its manifest is verified and
  /// its tensors are checked against the model. `note` takes sentences for the user. `precision`: what ops compute in; auto: as
  /// the run's train.precision says. Throws InputError, also for a model of other towers than `wanted`. `engine` must outlive this.
  LoadedModel(Engine& engine, const std::string& path, const WarnFn& note, Precision precision = Precision::auto_,
              Towers wanted = Towers::one);

  /// Uses the averaged weights where the checkpoint holds some, with the routing statistics that it keeps for them. Where it keeps none
  /// (it was written between two evaluations) they are taken from `training` or, where that is null, from the data that the run was
  /// trained on; where those are not at hand, those of the last weights stay and a note says so.
  void use_average(Pipeline* training, const WarnFn& note);

  /// The run's settings, complete: sizes and normalisation as the model was trained with.
  const RunConfig& config() const { return config_; }
  Model& model() { return *model_; }
  /// The same as what it is. Throws `Error` where it is not.
  Vit& vit();
  DualEncoder& dual();
  /// Of a dual encoder: what makes ids of its captions. Null for others.
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  /// One a model output; none for a dual encoder.
  const std::vector<std::string>& class_names() const { return class_names_; }
  const std::string& folder() const { return folder_; }
  int64_t step() const { return step_; }
  bool averaged() const { return averaged_ != nullptr; }

 private:
  Engine& engine_;
  std::string folder_;
  int64_t step_ = 0;
  RunConfig config_;
  std::vector<std::string> class_names_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<AveragedWeights> averaged_;  // last: it puts the live weights back into the model
};

}  // namespace ermoe
