// Class folders: `train/<class>/…` with `val|validation|test/<class>/…`, or `<class>/…` alone. Folders above that are the
// same for every image are skipped. The same code reads a folder and one or more archives.
#include "core/error.h"
#include "core/file_io.h"
#include "data/sources.h"

#include <algorithm>

namespace ermoe {

namespace {

/// The first part of a path and what follows its '/'; the rest is empty where there is no '/'.
struct Steps {
  std::string_view first, rest;
  explicit Steps(std::string_view path)
      : first(path.substr(0, path.find('/'))), rest(path.substr(std::min(path.size(), first.size() + 1))) {}
};

/// Where an image lies: in which tree, which of its files, and its path below the common folders.
struct Found {
  size_t tree, file;
  std::string_view path;
};

std::vector<Found> images_of(const Trees& trees, size_t t) {
  std::vector<Found> found;
  const auto& paths = trees[t]->paths();
  for (size_t i = 0; i < paths.size(); ++i) {
    if (is_image_name(paths[i])) found.push_back({t, i, paths[i]});
  }
  return found;
}

/// Takes off leading folders that all images share, as far as class folders and files remain below.
void strip_common(std::vector<Found>& found) {
  while (!found.empty()) {
    const std::string_view common = Steps(found.front().path).first;
    const bool all = std::all_of(found.begin(), found.end(), [&](const Found& f) {
      const Steps steps(f.path);
      return steps.first == common && steps.rest.find('/') != std::string_view::npos;
    });
    if (!all || part_of_folder(common)) return;
    for (Found& f : found) f.path = Steps(f.path).rest;
  }
}

/// What was met beside class folders, for one warning each.
struct Strays {
  int64_t outside_parts = 0, outside_classes = 0;
  std::string outside_part_example, outside_class_example;
};

void add_image(SplitBuilder& builder, const Trees& trees, const Found& f, bool has_parts, Part part_of_all, Strays& strays) {
  std::string_view path = f.path;
  Part part = part_of_all;
  if (has_parts) {
    const auto named = part_of_folder(Steps(path).first);
    if (!named) {
      if (strays.outside_parts++ == 0) strays.outside_part_example = trees[f.tree]->name(f.file);
      return;
    }
    part = *named;
    path = Steps(path).rest;
  }
  const Steps steps(path);
  if (steps.rest.empty()) {
    if (strays.outside_classes++ == 0) strays.outside_class_example = trees[f.tree]->name(f.file);
    return;
  }
  builder.add(part, steps.first, f.tree, f.file);
}

}  // namespace

DatasetSplits open_class_folders(const std::string& source, const Trees& trees, const WarnFn& warn) {
  SplitBuilder builder(source, trees, LabelKind::name);
  Strays strays;
  bool unsplit = false;
  for (size_t t = 0; t < trees.size(); ++t) {
    std::vector<Found> found = images_of(trees, t);
    strip_common(found);
    const bool has_parts = std::any_of(found.begin(), found.end(), [](const Found& f) { return part_of_folder(Steps(f.path).first); });
    // An archive may say in its own name which part it is.
    const auto named = has_parts || trees.size() == 1 ? std::nullopt : part_of_file(trees[t]->root());
    unsplit |= !has_parts && !named && !found.empty();
    for (const Found& f : found) add_image(builder, trees, f, has_parts, named.value_or(Part::train), strays);
  }
  if (builder.empty()) return {};
  if (unsplit) warn_with(warn, fmt::format("{}: has no train and val folders; every image counts as a training image", source));
  if (strays.outside_parts > 0) {
    warn_with(warn, fmt::format("{}: {} images outside train and val are ignored, for example {}", source, strays.outside_parts,
                                printable(strays.outside_part_example)));
  }
  if (strays.outside_classes > 0) {
    warn_with(warn, fmt::format("{}: {} images outside class folders are ignored, for example {}", source, strays.outside_classes,
                                printable(strays.outside_class_example)));
  }
  return builder.build(warn);
}

}  // namespace ermoe
