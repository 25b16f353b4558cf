#include "core/saved_slice.h"

#include <algorithm>
#include <set>

namespace ermoe {

std::vector<std::string> unlisted_in(const SafetensorsFile& file, std::span<const SavedSlice> slices) {
  std::set<std::string_view> known;
  for (const SavedSlice& slice : slices) known.insert(slice.name);
  std::vector<std::string> names = file.names();
  std::erase_if(names, [&](const std::string& name) { return known.contains(name); });
  return names;
}

std::string first_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > 3 ? fmt::format("{} and {} more", text, names.size() - 3) : text;
}

void read_slices(const SafetensorsFile& file, std::span<const SavedSlice> slices, Unlisted unlisted) {
  for (const SavedSlice& slice : slices) {
    check_input(file.has(slice.name), "{}: {} is missing", file.path(), slice.name);
    check_input(file.shape(slice.name) == slice.whole, "{}: {} is {} but the model has {}", file.path(), slice.name,
                file.shape(slice.name).str(), slice.whole.str());
  }
  if (unlisted == Unlisted::refused) {
    const std::vector<std::string> names = unlisted_in(file, slices);
    check_input(names.empty(), "{}: {} is not in the model", file.path(), first_of(names));
  }
  for (const SavedSlice& slice : slices) file.load_part(slice.name, slice.first, slice.part);
}

}  // namespace ermoe
