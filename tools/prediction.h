// Class probabilities of single images, best first, and how they are written. Read next: tools/ermoe_predict.cpp.
#pragma once

#include "core/context.h"
#include "tools/run_config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

struct ClassProbability {
  int64_t index = 0;  // of the model's output
  double probability = 0;
};

struct Prediction {
  std::string file;
  std::vector<ClassProbability> best;  // most probable first; ties by index
};

/// The `count` most probable classes of each row of logits (B, Y), of which softmax or, for a sigmoid loss, the logistic
/// function of each makes probabilities.
std::vector<std::vector<ClassProbability>> rank_classes(const Tensor& logits, LossKind kind, int64_t count);

enum class PredictionFormat { csv, json };

/// Turns predictions into text, piece by piece: head, one piece a file, foot. CSV has one line a file and rank:
/// file,rank,class,probability. JSON is an array of {"file", "predictions": [{"class", "index", "probability"}]}.
class PredictionWriter {
 public:
  PredictionWriter(PredictionFormat format, std::vector<std::string> class_names) : format_(format), class_names_(std::move(class_names)) {}

  std::string head() const;
  std::string entry(const Prediction& prediction);
  std::string foot() const;

 private:
  PredictionFormat format_;
  std::vector<std::string> class_names_;
  bool first_ = true;
};

/// The same for what a search found: of each subject (a query, an image) the objects (images, captions) that lie closest, best first.
/// CSV has one line each, query,rank,score,file or file,rank,score,caption. JSON is an array of {"query", "images": [{"file", "score"}]} or
/// {"file", "captions": [{"caption", "score"}]}.
enum class SearchDirection { images_of_query, captions_of_image };

struct NamedMatch {
  std::string name;
  float score = 0;
};

class SearchWriter {
 public:
  SearchWriter(PredictionFormat format, SearchDirection direction) : format_(format), direction_(direction) {}

  std::string head() const;
  std::string entry(const std::string& subject, const std::vector<NamedMatch>& best);
  std::string foot() const;

 private:
  PredictionFormat format_;
  SearchDirection direction_;
  bool first_ = true;
};

}  // namespace ermoe
