// Collects what captions files say, finds the images, and makes the data sets of it. Only what reads captions includes this; read
// data/captions.h first. Next: data/caption_files.h.
#pragma once

#include "data/caption_text.h"
#include "data/captions.h"
#include "data/sources.h"

#include <array>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ermoe {

/// A captions file of a tree, read.
struct CaptionFile {
  std::string name;          // for messages
  std::string folder;        // that it lies in, within the tree; "" or with a '/' at its end
  std::optional<Part> part;  // of all its images, where its name speaks of one
  std::string text;
  std::unordered_map<std::string, Part> parts;  // of images, by their names, where other files list them
};

/// For messages: "captions.csv, line 12", or the file alone where it is one entry.
struct CaptionPlace {
  std::string_view file, unit = {};
  int64_t number = 0;
  std::string text() const;
};

/// Whether an entry says all there is about its image, so that a second one is a mistake, or one caption of several.
enum class EntryKind { whole, row };

/// What one entry of a captions file says.
struct CaptionEntry {
  std::string image;         // its path, as written
  std::string above;         // a folder that it may lie in ("val2014" of Karpathy's `filepath`)
  std::optional<Part> part;  // nothing: not said
  std::vector<std::string> captions;
  EntryKind kind = EntryKind::row;
};

/// "train", "restval" (Karpathy's name for what joins it), "val", "dev", "test", …; throws `InputError` that names the entry and the image.
Part part_of_split(std::string_view split, const CaptionPlace& place, std::string_view image);

/// Finds image files of one tree by what captions files call them.
class ImageFinder {
 public:
  explicit ImageFinder(const FileTree& tree);
  /// The file at `path` seen from `folder`, or from the root, or the only one whose path ends so (or is an end of it); where several
  /// do, the one in a folder of the name of `part`. Throws `InputError` where it leaves the tree or still may be two.
  std::optional<size_t> find(const std::string& path, const std::string& folder, std::optional<Part> part, const CaptionPlace& place) const;

 private:
  const FileTree& tree_;
  std::unordered_map<std::string_view, std::vector<size_t>> by_name_;  // last parts of paths
};

class CaptionBuilder {
 public:
  /// `source` is what messages call the data set.
  CaptionBuilder(std::string source, Trees trees, const CaptionOptions& options);

  /// Looks for the image in the first tree.
  void add(const CaptionFile& file, const CaptionPlace& place, const CaptionEntry& entry);
  /// Adds captions of an image that is found.
  void add_file(const CaptionPlace& place, uint32_t tree, size_t image, const CaptionEntry& entry);
  /// A caption that belongs to no image that there is.
  void miss(const CaptionPlace& place, const std::string& image);
  void leave_out(CaptionFault fault, const CaptionPlace& place);
  CaptionSplits build();

 private:
  struct Item {
    uint32_t tree;
    size_t file;
    std::optional<Part> part;
    EntryKind kind;
    std::vector<std::string> captions;
    std::string place;  // of the first entry
  };
  struct Tally {
    int64_t count = 0;
    std::string example;
    void add(const std::string& what);
  };

  Item& item_of(const CaptionPlace& place, uint32_t tree, size_t image, const CaptionEntry& entry);
  void judge_missing() const;
  void tell_left_out();
  Part evaluation_part(const std::array<int64_t, 3>& counts) const;
  std::unique_ptr<CaptionDataset> dataset_of(Part part);

  std::string source_;
  Trees trees_;
  const CaptionOptions& options_;
  ImageFinder finder_;                          // in the first tree
  std::vector<std::vector<int64_t>> item_of_;   // by tree and file: its item, or -1
  std::vector<Item> items_;                     // in order of arrival
  std::set<std::string, std::less<>> missing_;  // names of images
  std::string first_missing_;                   // and where it stands
  std::array<Tally, 4> left_out_;               // by CaptionFault
  Tally uncaptioned_;
};

}  // namespace ermoe
