// What training reads: a list of labelled images behind one small class, and `open_dataset`, which finds out what lies
// at a path. One source is one file: sources_idx, _cifar, _folder, _tar, _webdataset, _csv and synthetic.
// Read next: data/sampler.h (in which order), data/loader.h (as batches).
#pragma once

#include "data/decode.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Labelled images in a fixed order. Every const member may be called from several threads at once.
class ImageDataset {
 public:
  virtual ~ImageDataset() = default;
  /// Number of samples, at least 1.
  virtual int64_t size() const = 0;
  /// One name per class; train and test of one data set share them.
  virtual const std::vector<std::string>& class_names() const = 0;
  /// Class of sample i, in [0, class_names().size()).
  virtual int32_t label(int64_t i) const = 0;
  /// The decoded image of sample i, at its own size. Throws `InputError` that names the file.
  virtual Image read(int64_t i) const = 0;
  /// A part of it, decoded alone and perhaps smaller where the file's format allows (data/decode.h).
  virtual Image read_part(int64_t i, const WantedPart& part) const {
    const Image whole = read(i);
    return crop(whole, part.choose(whole.height, whole.width));
  }
  /// The bytes of its image file, for those who decode it themselves; nothing where it is none (a record, a made-up image).
  /// Throws as `read` does.
  virtual std::optional<std::string> file(int64_t) const { return std::nullopt; }
  /// Where sample i comes from: a path, `archive.tar:member`, or `file[record]`.
  virtual std::string name(int64_t i) const = 0;
};

/// Either may be null: a data set without a held-out part, or one for evaluation alone.
struct DatasetSplits {
  std::unique_ptr<ImageDataset> train, test;
};

/// Takes one sentence for the user; called from the thread that opened the data set or asks for batches.
using WarnFn = std::function<void(const std::string&)>;

struct DatasetOptions {
  double holdout = 0;  // share of the training samples to hold out, class by class, where the source has no test part
  uint64_t seed = 0;   // draws that share
  WarnFn warn;         // empty: silent
};

/// Opens what lies at `path`:
///   a folder of IDX pairs (train-images-idx3-ubyte[.gz], …) or of CIFAR-10/100 binaries; one CIFAR .bin;
///   `train/<class>/…` with `val|validation|test/…`, or class folders alone, in a folder, a .tar or a .tar.gz;
///   several archives "a.tar.gz,b.tar.gz"; webdataset shards (folder, list or `shard-{000..010}.tar`);
///   a CSV or TSV of `path,label[,split]`; or `synthetic[:classes=10,size=32,count=2048,channels=3]`.
/// Throws `InputError` that says what was found where it is none of these, empty or damaged.
DatasetSplits open_dataset(const std::string& path, const DatasetOptions& options = {});

}  // namespace ermoe
