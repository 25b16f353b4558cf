// A table of images: `path,label[,split]` with or without a header line, comma- or tab-separated. Paths are relative to the
// table. Labels are class numbers where all of them are whole numbers, otherwise names.
#include "core/error.h"
#include "core/file_io.h"
#include "data/csv.h"
#include "data/sources.h"

#include <algorithm>
#include <array>

namespace ermoe {

namespace {

constexpr size_t largest_table = size_t{4} << 30;

/// The files that a table names, in its order.
class ListedTree final : public FileTree {
 public:
  ListedTree(const std::string& table, std::vector<std::string> paths)
      : root_(table), folder_(std::filesystem::path(table).parent_path()), paths_(std::move(paths)) {}

  const std::string& root() const override { return root_; }
  const std::vector<std::string>& paths() const override { return paths_; }
  std::string read(size_t i, size_t most) const override { return read_file(name(i), most); }
  std::string name(size_t i) const override { return (folder_ / paths_.at(i)).string(); }

 private:
  std::string root_;
  std::filesystem::path folder_;
  std::vector<std::string> paths_;
};

struct Columns {
  size_t path = 0, label = 1;
  std::optional<size_t> split;
  bool header = false;
};

std::optional<size_t> column_named(const std::vector<std::string>& row, std::initializer_list<std::string_view> names) {
  for (size_t i = 0; i < row.size(); ++i) {
    if (std::find(names.begin(), names.end(), lower(row[i])) != names.end()) return i;
  }
  return std::nullopt;
}

/// A first row that names a column of paths and one of labels is a header.
Columns columns_of(const std::vector<std::string>& first) {
  const auto path = column_named(first, {"path", "file", "filename", "filepath", "file_name", "image", "image_path"});
  const auto label = column_named(first, {"label", "class", "target", "category", "label_id", "class_name"});
  if (path && label) return {*path, *label, column_named(first, {"split", "set", "part", "subset", "partition"}), true};
  Columns columns;
  if (first.size() > 2 && part_of_folder(first[2])) columns.split = 2;
  return columns;
}

struct Row {
  Part part;
  std::string label;
};

Row read_row(const CsvReader& csv, const std::vector<std::string>& fields, const Columns& columns) {
  const size_t needed = std::max({columns.path, columns.label, columns.split.value_or(0)}) + 1;
  check_input(fields.size() >= needed, "{}, line {}: {} columns where {} are needed", csv.name(), csv.line(), fields.size(), needed);
  check_input(!fields[columns.path].empty() && !fields[columns.label].empty(), "{}, line {}: the path or the label is empty", csv.name(),
              csv.line());
  Row row{Part::train, fields[columns.label]};
  if (columns.split) {
    const auto part = part_of_folder(fields[*columns.split]);
    check_input(part.has_value(), "{}, line {}: the split \"{}\" is none of train, val and test", csv.name(), csv.line(),
                printable(fields[*columns.split]));
    row.part = *part;
  }
  return row;
}

}  // namespace

DatasetSplits open_csv(const std::string& path, const WarnFn& warn) {
  const std::string text = read_file(path, largest_table);
  CsvReader csv(text, extension(path) == "tsv" ? '\t' : ',', path);
  std::vector<std::string> fields, paths;
  std::vector<Row> rows;
  std::optional<Columns> columns;
  while (csv.next(fields)) {
    if (!columns) {
      columns = columns_of(fields);
      if (columns->header) continue;
    }
    rows.push_back(read_row(csv, fields, *columns));
    paths.push_back(fields[columns->path]);
  }
  SplitBuilder builder(path, {std::make_shared<ListedTree>(path, std::move(paths))}, LabelKind::text);
  for (size_t i = 0; i < rows.size(); ++i) builder.add(rows[i].part, rows[i].label, 0, i);
  return builder.build(warn);
}

}  // namespace ermoe
