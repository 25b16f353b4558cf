#include "tools/region_names.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/csv.h"
#include "data/file_tree.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace ermoe {
namespace {

constexpr size_t largest_table = size_t{16} << 20;

std::string read_table(const std::string& path, const std::string& data) {
  if (path_exists(path)) return read_file(path, largest_table);
  const auto files = open_tree(data);
  const auto file = find_file(*files, path);
  check_input(file.has_value(), "{}: there is no such file, neither here nor in {}", path, data);
  return files->read(*file, largest_table);
}

/// Where a column stands, or as many as there are.
size_t column(const std::vector<std::string>& head, const char* name) {
  return static_cast<size_t>(std::ranges::find(head, name) - head.begin());
}

}  // namespace

RegionNames::RegionNames(const std::string& path, const std::string& data) {
  const std::string text = read_table(path, data);
  CsvReader rows(text, path.ends_with(".csv") ? ',' : '\t', path);
  std::vector<std::string> fields;
  rows.next(fields);
  const size_t columns = fields.size(), label = column(fields, "label"), name = column(fields, "name"), planted = column(fields, "planted");
  check_input(label < columns && name < columns, "{}: a table of regions has columns label and name", path);
  while (rows.next(fields)) {
    check_input(fields.size() == columns, "{}: line {} has {} fields, and its head {}", path, rows.line(), fields.size(), columns);
    const std::string& number = fields[label];
    int64_t value = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    check_input(error == std::errc{} && end == number.data() + number.size() && value >= 0, "{}: line {}: '{}' is no label", path,
                rows.line(), printable(number));
    check_input(names_.emplace(value, fields[name]).second, "{}: line {}: label {} stands there twice", path, rows.line(), value);
    if (planted < columns && fields[planted] == "1") planted_.push_back(value);
  }
  std::ranges::sort(planted_);
}

std::string RegionNames::name(int64_t label) const {
  const auto found = names_.find(label);
  if (found != names_.end()) return found->second;
  return label == 0 ? "background" : std::to_string(label);
}

}  // namespace ermoe
