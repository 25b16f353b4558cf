// Images with captions: what a model of images and texts learns from. Layouts are told apart by data/caption_files.h and read by
// data/caption_json.cpp, _table.cpp and _shards.cpp; docs/data.md lists them.
// Read next: data/caption_tokens.h (texts as ids), data/loader.h (images as batches, whose `indices` lead to the captions).
#pragma once

#include "data/dataset.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// Images, each with one caption or more (usually five), in a fixed order. As an ImageDataset it has a single class. Const members may
/// be called from several threads at once.
class CaptionDataset final : public ImageDataset {
 public:
  /// Captions of image i are captions[first[i]] up to captions[first[i + 1]] (not included). Throws `Error` where an image would have none.
  CaptionDataset(std::shared_ptr<const ImageDataset> images, std::vector<std::string> captions, std::vector<int64_t> first);

  int64_t size() const override { return images_->size(); }
  const std::vector<std::string>& class_names() const override { return images_->class_names(); }
  int32_t label(int64_t i) const override { return images_->label(i); }
  Image read(int64_t i) const override { return images_->read(i); }
  Image read_part(int64_t i, const WantedPart& part) const override { return images_->read_part(i, part); }
  std::optional<std::string> file(int64_t i) const override { return images_->file(i); }
  std::string name(int64_t i) const override { return images_->name(i); }

  /// Of image i, in the order of its source: valid UTF-8 without white space at its ends, not empty, below 10,000 characters.
  std::span<const std::string> captions(int64_t i) const;
  /// Of all images, image by image: the order of evaluation.
  const std::vector<std::string>& all_captions() const { return captions_; }
  /// Place of image i's first caption among all of them; their number for i = size().
  int64_t first_caption(int64_t i) const { return first_.at(static_cast<size_t>(i)); }
  /// The image of each caption, in the order of evaluation.
  std::vector<int64_t> owners() const;
  /// The images at `indices`, in that order. Throws `Error` for an index out of range, `InputError` for none.
  std::unique_ptr<CaptionDataset> pick(const std::vector<int64_t>& indices) const;

 private:
  std::shared_ptr<const ImageDataset> images_;
  std::vector<std::string> captions_;
  std::vector<int64_t> first_;
};

/// Either may be null: without a held-out part, or (where training is not asked for) for evaluation alone.
struct CaptionSplits {
  std::unique_ptr<CaptionDataset> train, test;
  std::string evaluated;  // what `test` is: "val", "test", or "held out" of the training images
};

/// The part that evaluates. `auto_`: the validation part, or the test part where there is none, as for classes.
enum class EvaluationPart { auto_, val, test };

enum class TrainingPart { required, optional };

struct CaptionOptions {
  EvaluationPart part = EvaluationPart::auto_;
  TrainingPart training = TrainingPart::required;
  double holdout = 0;     // share of the training images to hold out where no part evaluates
  uint64_t seed = 0;      // draws that share
  double max_bad = 0.01;  // share of the captioned images that may be missing
  WarnFn warn = {};       // empty: silent
};

/// Opens images with captions at `path`: a folder or a .tar[.gz] with a captions file (JSON of COCO, of Karpathy or a list; a table of
/// Flickr, CSV or TSV), such a file by its own path, or webdataset shards (.tar, folder, list or `shard-{000..010}.tar`). Where several
/// kinds of captions files lie together the order is Karpathy, COCO, another JSON, table; a note says what was left alone.
///
/// Left out, counted and named once: captions that are empty, of 10,000 characters or more, or no UTF-8; rows with too few columns;
/// images without a caption; images that are missing, up to `max_bad` of them. Throws `InputError`, one sentence that names the file and
/// the entry, beyond that, and for an image that stands twice or in two parts, a path that leaves the folder, a split that nobody knows,
/// a file that is damaged or of another shape, no image at all, and none for training where that is required.
CaptionSplits open_captions(const std::string& path, const CaptionOptions& options = {});

/// True where `open_captions` would find captions at `path`, sound or not. Never throws for what lies there.
bool holds_captions(const std::string& path);

}  // namespace ermoe
