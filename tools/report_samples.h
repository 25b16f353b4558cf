// What a model did with single images, for the report: where their patches went, its worst mistakes, and which patches each expert likes
// best. Gathered while the model is evaluated, so that every image passes once. Read first: tools/evaluation.h.
#pragma once

#include "tools/evaluation.h"
#include "tools/image_pipeline.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace ermoe {

/// What became of one image.
struct SampleRecord {
  int64_t index = 0;  // in the data set
  int32_t truth = 0, guess = 0;
  double probability = 0;                     // of the guess
  std::vector<std::vector<int32_t>> experts;  // (layers, patches) that of the first slot, -1 none; empty where it is not kept
};

/// A patch and the score that its expert gave it.
struct ScoredPatch {
  int64_t image = 0, patch = 0;
  float score = 0;
};

class SampleGatherer {
 public:
  /// Keeps the routes of the images `shown`, and up to `mistakes` wrong guesses.
  SampleGatherer(Vit& model, const LossConfig& loss, std::set<int64_t> shown, size_t mistakes);

  /// For evaluate().
  void add(const ExecContext& ctx, const EvaluationBatch& batch, const Tensor& outputs, const std::vector<RoutingRecord>& routes);

  /// In order of their numbers.
  const std::vector<SampleRecord>& shown() const { return shown_; }
  /// Wrong guesses, the most confident first.
  const std::vector<SampleRecord>& mistakes() const { return mistakes_; }
  /// Of a layer's expert: patches that it took first, by its own score, the highest first; one an image. At most nine.
  const std::vector<ScoredPatch>& favourites(size_t layer, int64_t expert) const;

 private:
  SampleRecord judge(const EvaluationBatch& batch, const Tensor& outputs, size_t b) const;
  void add_layer(size_t layer, const ExecContext& ctx, const RoutingRecord& route, const EvaluationBatch& batch,
                 std::vector<SampleRecord>& records);

  int64_t tokens_, prefix_;
  bool sigmoid_;
  std::set<int64_t> wanted_;
  size_t most_mistakes_;
  std::vector<SampleRecord> shown_, mistakes_;
  std::vector<std::vector<std::vector<ScoredPatch>>> favourites_;  // layer, expert
};

/// Pictures of what was gathered, from the evaluation images of `pipeline`.
class SamplePictures {
 public:
  SamplePictures(const ImagePipeline& pipeline, const RunConfig& config);

  /// Picture, file's name, number, classes, probability and, where they are there, the patches' experts. Null where the file is broken.
  nlohmann::ordered_json describe(const SampleRecord& record);
  /// Up to nine patches as one square picture, three by three, each framed amid the pixels around it. Empty without any.
  std::string favourites(const std::vector<ScoredPatch>& patches);

 private:
  Image read(int64_t index);

  const ImagePipeline& pipeline_;
  int64_t patch_;
  SampleFormat format_;
  SampleReader reader_;
};

}  // namespace ermoe
