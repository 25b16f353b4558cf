#include "data/caption_builder.h"

#include "core/error.h"
#include "core/file_io.h"

#include <algorithm>
#include <cmath>

namespace ermoe {

namespace {

constexpr std::array<const char*, 4> fault_words = {"are empty", "have 10,000 characters or more", "are no UTF-8",
                                                    "stand in a row or a file that is not whole"};

std::string_view word_of(Part part) { return part == Part::train ? "train" : part == Part::validation ? "val" : "test"; }

/// Whether one path is the end of the other, by whole parts.
bool ends_alike(std::string_view a, std::string_view b) {
  if (a.size() > b.size()) std::swap(a, b);
  return b.ends_with(a) && (a.size() == b.size() || b[b.size() - a.size() - 1] == '/');
}

/// `path` within the tree, without "." and ".."; nothing where it leaves the tree.
std::optional<std::string> resolved(const std::string& folder, const std::string& path) {
  std::vector<std::string_view> steps;
  const std::string whole = folder + path;
  for (size_t at = 0; at <= whole.size();) {
    const size_t end = std::min(whole.find('/', at), whole.size());
    const std::string_view step = std::string_view(whole).substr(at, end - at);
    at = end + 1;
    if (step.empty() || step == ".") continue;
    if (step != "..") {
      steps.push_back(step);
      continue;
    }
    if (steps.empty()) return std::nullopt;
    steps.pop_back();
  }
  std::string result;
  for (const std::string_view step : steps) result.append(result.empty() ? "" : "/").append(step);
  return result;
}

/// An absolute path that lies below the tree, as seen from its root; any other as it is.
std::string below_root(const std::string& path, const std::string& root) {
  if (!path.starts_with('/')) return path;
  std::error_code ignored;
  const std::string folder = std::filesystem::absolute(root, ignored).lexically_normal().string();
  for (const std::string& start : {root, folder, std::filesystem::canonical(root, ignored).string()}) {
    const std::string above = start.ends_with('/') ? start : start + "/";
    if (start.size() > 1 && path.starts_with(above)) return path.substr(above.size());
  }
  return path;
}

std::string_view folder_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : base_name(path.substr(0, slash));
}

}  // namespace

std::string CaptionPlace::text() const { return unit.empty() ? std::string(file) : fmt::format("{}, {} {}", file, unit, number); }

Part part_of_split(std::string_view split, const CaptionPlace& place, std::string_view image) {
  const std::string word = lower(trimmed(split));
  if (word == "restval") return Part::train;
  if (word == "dev") return Part::validation;
  const auto part = part_of_folder(word);
  check_input(part.has_value(), "{}: the split \"{}\" of the image \"{}\" is none of train, restval, val and test", place.text(),
              printable(split), printable(image));
  return *part;
}

ImageFinder::ImageFinder(const FileTree& tree) : tree_(tree) {
  for (size_t i = 0; i < tree.paths().size(); ++i) {
    if (is_image_name(tree.paths()[i])) by_name_[base_name(tree.paths()[i])].push_back(i);
  }
}

std::optional<size_t> ImageFinder::find(const std::string& path, const std::string& folder, std::optional<Part> part,
                                        const CaptionPlace& place) const {
  const std::string wanted = below_root(path, tree_.root());
  const auto from_folder = resolved(folder, wanted), from_root = resolved("", wanted);
  check_input(from_folder.has_value() && !wanted.starts_with('/'), "{}: the image \"{}\" lies outside of {}", place.text(), printable(path),
              tree_.root());
  const auto named = by_name_.find(base_name(*from_folder));
  if (named == by_name_.end()) return std::nullopt;
  for (const auto& exact : {from_folder, from_root}) {
    for (const size_t i : named->second)
      if (exact && tree_.paths()[i] == *exact) return i;
  }
  if (!from_root) return std::nullopt;
  std::vector<size_t> alike, of_part;
  for (const size_t i : named->second) {
    if (!ends_alike(tree_.paths()[i], *from_root)) continue;
    alike.push_back(i);
    if (part && part_of_file(folder_of(tree_.paths()[i])) == part) of_part.push_back(i);
  }
  if (alike.size() > 1 && of_part.size() == 1) return of_part.front();
  check_input(alike.size() <= 1, "{}: the image \"{}\" may be {} or {}", place.text(), printable(path),
              alike.empty() ? "" : tree_.name(alike.front()), alike.empty() ? "" : tree_.name(alike.back()));
  return alike.empty() ? std::nullopt : std::optional(alike.front());
}

CaptionBuilder::CaptionBuilder(std::string source, Trees trees, const CaptionOptions& options)
    : source_(std::move(source)), trees_(std::move(trees)), options_(options), finder_(*trees_.at(0)) {
  for (const auto& tree : trees_) item_of_.emplace_back(tree->paths().size(), -1);
}

void CaptionBuilder::Tally::add(const std::string& what) {
  if (count++ == 0) example = what;
}

void CaptionBuilder::add(const CaptionFile& file, const CaptionPlace& place, const CaptionEntry& entry) {
  CaptionEntry known = entry;
  if (const auto listed = file.parts.find(entry.image); listed != file.parts.end()) known.part = listed->second;
  if (!known.part) known.part = file.part;
  std::optional<size_t> found;
  if (!entry.above.empty()) found = finder_.find(entry.above + "/" + entry.image, file.folder, known.part, place);
  if (!found) found = finder_.find(entry.image, file.folder, known.part, place);
  if (found)
    add_file(place, 0, *found, known);
  else if (entry.captions.empty())
    uncaptioned_.add(fmt::format("{}: \"{}\"", place.text(), printable(entry.image)));
  else
    miss(place, entry.image);
}

CaptionBuilder::Item& CaptionBuilder::item_of(const CaptionPlace& place, uint32_t tree, size_t image, const CaptionEntry& entry) {
  int64_t& at = item_of_[tree][image];
  if (at < 0) {
    at = std::ssize(items_);
    return items_.emplace_back(Item{tree, image, entry.part, entry.kind, {}, place.text()});
  }
  Item& item = items_[static_cast<size_t>(at)];
  const std::string& path = trees_[tree]->paths()[image];
  const Part before = item.part.value_or(Part::train), now = entry.part.value_or(Part::train);
  check_input(before == now, "{}: the image \"{}\" is in {}, but in {} in {}: a model would be tested on what it was trained on",
              place.text(), printable(path), word_of(now), word_of(before), item.place);
  check_input(item.kind == EntryKind::row && entry.kind == EntryKind::row, "{}: the image \"{}\" stands in {} already", place.text(),
              printable(path), item.place);
  return item;
}

void CaptionBuilder::add_file(const CaptionPlace& place, uint32_t tree, size_t image, const CaptionEntry& entry) {
  Item& item = item_of(place, tree, image, entry);
  for (const std::string& caption : entry.captions) {
    const std::string_view text = trimmed(caption);
    if (const auto fault = fault_of_caption(text))
      leave_out(*fault, place);
    else
      item.captions.emplace_back(text);
  }
}

void CaptionBuilder::leave_out(CaptionFault fault, const CaptionPlace& place) { left_out_[static_cast<size_t>(fault)].add(place.text()); }

void CaptionBuilder::miss(const CaptionPlace& place, const std::string& image) {
  if (missing_.empty()) first_missing_ = fmt::format("{}: \"{}\"", place.text(), printable(image));
  missing_.insert(image);
}

void CaptionBuilder::judge_missing() const {
  if (missing_.empty()) return;
  const auto gone = std::ssize(missing_), all = gone + std::ssize(items_);
  check_input(static_cast<double>(gone) <= std::floor(options_.max_bad * static_cast<double>(all)),
              "{}: {} of {} images that have captions are missing, more than the {:.3g} % that max_bad allows; for example {}", source_,
              gone, all, 100 * options_.max_bad, first_missing_);
  warn_with(options_.warn, fmt::format("{}: {} of {} images that have captions are missing and left out; for example {}", source_, gone,
                                       all, first_missing_));
}

void CaptionBuilder::tell_left_out() {
  for (size_t k = 0; k < left_out_.size(); ++k) {
    const auto& [count, example] = left_out_[k];
    if (count > 0)
      warn_with(options_.warn, fmt::format("{}: {} captions {} and are left out; for example {}", source_, count, fault_words[k], example));
  }
  for (size_t t = 0; t < trees_.size(); ++t) {
    for (size_t i = 0; i < trees_[t]->paths().size(); ++i) {
      const int64_t item = item_of_[t][i];
      const bool bare = item < 0 ? is_image_name(trees_[t]->paths()[i]) : items_[static_cast<size_t>(item)].captions.empty();
      if (bare) uncaptioned_.add(trees_[t]->name(i));
    }
  }
  if (uncaptioned_.count > 0)
    warn_with(options_.warn, fmt::format("{}: {} images have no caption and are left out; for example {}", source_, uncaptioned_.count,
                                         uncaptioned_.example));
}

Part CaptionBuilder::evaluation_part(const std::array<int64_t, 3>& counts) const {
  const int64_t val = counts[static_cast<size_t>(Part::validation)], test = counts[static_cast<size_t>(Part::test)];
  const bool asked = options_.part != EvaluationPart::auto_;
  Part part = val > 0 ? Part::validation : Part::test;
  if (asked) part = options_.part == EvaluationPart::val ? Part::validation : Part::test;
  const bool held_out = part == Part::validation && options_.holdout > 0;  // takes its place
  check_input(!asked || held_out || counts[static_cast<size_t>(part)] > 0,
              "{}: the part {} is to evaluate, but it has no image with a caption ({} in train, {} in val, {} in test)", source_,
              word_of(part), counts[0], val, test);
  if (!asked && val > 0 && test > 0)
    warn_with(options_.warn, fmt::format("{}: has {} images in val and {} in test; val evaluates, test is left alone", source_, val, test));
  return part;
}

std::unique_ptr<CaptionDataset> CaptionBuilder::dataset_of(Part part) {
  std::vector<FileSample> samples;
  std::vector<std::string> captions;
  std::vector<int64_t> first = {0};
  for (Item& item : items_) {
    if (item.captions.empty() || item.part.value_or(Part::train) != part) continue;
    samples.push_back({item.file, item.tree, 0});
    for (std::string& caption : item.captions) captions.push_back(std::move(caption));
    first.push_back(std::ssize(captions));
  }
  if (samples.empty()) return nullptr;
  std::shared_ptr<const ImageDataset> images = file_dataset(trees_, std::move(samples), {"image"});
  return std::make_unique<CaptionDataset>(std::move(images), std::move(captions), std::move(first));
}

CaptionSplits CaptionBuilder::build() {
  judge_missing();
  tell_left_out();
  std::array<int64_t, 3> counts{};
  for (const Item& item : items_) {
    if (!item.captions.empty()) ++counts[static_cast<size_t>(item.part.value_or(Part::train))];
  }
  check_input(counts[0] + counts[1] + counts[2] > 0, "{}: there is no image with a caption in it", source_);
  const Part evaluation = evaluation_part(counts);
  check_input(counts[0] > 0 || options_.training == TrainingPart::optional, "{}: 0 images are for training ({} are in val, {} in test)",
              source_, counts[1], counts[2]);
  CaptionSplits splits;
  splits.train = dataset_of(Part::train);
  splits.test = dataset_of(evaluation);
  splits.evaluated = word_of(evaluation);
  return splits;
}

}  // namespace ermoe
