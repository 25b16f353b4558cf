// Captions in tables: Flickr's CSV (captions hold commas and may be quoted or not), Kaggle's with '|', TSV of file and title, and
// Flickr8k.token.txt, which has no header. A row that follows the rules of CSV is taken at its word; any other is cut where the
// columns beside the caption end. Read data/caption_files.h first.
#include "core/error.h"
#include "core/file_io.h"
#include "data/caption_files.h"
#include "data/pieces.h"

#include <algorithm>

namespace ermoe {

namespace {

using Fields = std::vector<std::string>;

struct Columns {
  char separator = ',';
  size_t count = 0, image = 0, caption = 0;
  std::optional<size_t> split;
};

std::string_view line_at(std::string_view text, size_t at) {
  std::string_view line = text.substr(at, std::min(text.find('\n', at), text.size()) - at);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::string_view without_mark(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  return text;
}

/// "img.jpg" of a row "img.jpg#0<TAB>caption"; nothing where it is none.
std::optional<std::string_view> token_image(std::string_view line) {
  const size_t tab = line.find('\t');
  if (tab == std::string_view::npos) return std::nullopt;
  const size_t hash = line.substr(0, tab).rfind('#');
  if (hash == std::string_view::npos || hash == 0 || hash + 1 == tab) return std::nullopt;
  const std::string_view digits = line.substr(hash + 1, tab - hash - 1);
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  return line.substr(0, hash);
}

std::optional<size_t> column_named(const std::vector<std::string_view>& names, std::initializer_list<std::string_view> wanted) {
  for (const std::string_view want : wanted) {
    for (size_t i = 0; i < names.size(); ++i) {
      std::string_view name = trimmed(names[i]);
      if (name.size() > 2 && name.starts_with('"') && name.ends_with('"')) name = name.substr(1, name.size() - 2);
      if (lower(name) == want) return i;
    }
  }
  return std::nullopt;
}

/// What a header line names; nothing where it does not name images and captions, or where it names labels.
std::optional<Columns> columns_of(std::string_view line) {
  Columns columns;
  columns.separator = line.find('\t') != std::string_view::npos ? '\t' : line.find('|') != std::string_view::npos ? '|' : ',';
  const auto names = pieces_of(line, columns.separator);
  const auto image = column_named(names, {"image", "image_name", "filename", "file_name", "filepath", "path", "file", "image_path", "img"});
  const auto caption = column_named(names, {"caption", "title", "comment", "sentence", "text", "description", "raw"});
  if (!image || !caption || column_named(names, {"label", "class", "age"})) return std::nullopt;
  columns.count = names.size();
  columns.image = *image;
  columns.caption = *caption;
  columns.split = column_named(names, {"split", "set", "part", "subset", "partition"});
  return columns;
}

/// Reads one field by the rules of CSV and moves on behind the separator. False where a quote is closed within a field or never.
bool take_field(std::string_view text, size_t& at, char separator, std::string& field) {
  constexpr size_t longest = 65536;  // of a quoted field: a quote that is never closed must not swallow the table
  field.clear();
  if (at >= text.size() || text[at] != '"') {
    const size_t end = std::min(text.find_first_of(std::string{separator, '\n'}, at), text.size());
    field = text.substr(at, end - at);
    at = end;
    return true;
  }
  const size_t start = at++;
  for (; at < text.size() && at - start < longest; ++at) {
    if (text[at] == '"' && (at + 1 >= text.size() || text[at + 1] != '"')) break;
    if (text[at] == '"') ++at;
    field += text[at];
  }
  if (at >= text.size() || text[at] != '"') return false;
  ++at;
  if (at < text.size() && text[at] == '\r') ++at;
  return at >= text.size() || text[at] == separator || text[at] == '\n';
}

/// The row at `at` where it is one by the rules of CSV with the right number of columns; `at` moves to the end of its line.
std::optional<Fields> strict_row(std::string_view text, size_t& at, const Columns& columns) {
  Fields fields;
  for (size_t place = at;; ++place) {
    std::string field;
    if (!take_field(text, place, columns.separator, field)) return std::nullopt;
    fields.push_back(std::move(field));
    if (fields.size() > columns.count) return std::nullopt;
    if (place < text.size() && text[place] == columns.separator) continue;
    if (fields.size() != columns.count) return std::nullopt;
    at = place;
    return fields;
  }
}

/// Where a field of an image ends: at the first separator behind an image's extension, else at the first.
size_t image_end(std::string_view line, char separator) {
  for (size_t at = line.find(separator); at != std::string_view::npos; at = line.find(separator, at + 1)) {
    if (is_image_name(trimmed(line.substr(0, at)))) return at;
  }
  return line.find(separator);
}

/// Columns before the caption from the left, those behind it from the right; the caption is all between, separators and quotes included.
std::optional<Fields> lenient_row(std::string_view line, const Columns& columns) {
  Fields fields(columns.count);
  for (size_t c = 0; c < columns.caption; ++c) {
    const size_t end = c == columns.image ? image_end(line, columns.separator) : line.find(columns.separator);
    if (end == std::string_view::npos) return std::nullopt;
    fields[c] = line.substr(0, end);
    line.remove_prefix(end + 1);
  }
  for (size_t c = columns.count; --c > columns.caption;) {
    const size_t start = line.rfind(columns.separator);
    if (start == std::string_view::npos) return std::nullopt;
    fields[c] = line.substr(start + 1);
    line = line.substr(0, start);
  }
  fields[columns.caption] = line;
  return fields;
}

/// Goes over a text line by line; a row may take several.
class Rows {
 public:
  explicit Rows(const CaptionFile& file) : text_(without_mark(file.text)), place_{file.name, "line", 0} {}

  /// To the next line that is not blank; false at the end.
  bool next() {
    while (begin_ < text_.size()) {
      line_ = line_at(text_, begin_);
      ++place_.number;
      if (!trimmed(line_).empty()) return true;
      begin_ = std::min(text_.find('\n', begin_), text_.size()) + 1;
    }
    return false;
  }
  std::string_view line() const { return line_; }
  const CaptionPlace& place() const { return place_; }
  void skip_line() { begin_ = std::min(text_.find('\n', begin_), text_.size()) + 1; }
  /// The row that begins here.
  std::optional<Fields> take(const Columns& columns) {
    size_t end = begin_;
    auto fields = strict_row(text_, end, columns);
    if (!fields) {
      fields = lenient_row(line_, columns);
      skip_line();
      return fields;
    }
    extra_ = std::count(text_.begin() + static_cast<ptrdiff_t>(begin_), text_.begin() + static_cast<ptrdiff_t>(end), '\n');
    begin_ = end + 1;
    return fields;
  }
  /// Counts the lines that the last row took beyond its first.
  void count_lines() { place_.number += std::exchange(extra_, 0); }

 private:
  std::string_view text_, line_;
  size_t begin_ = 0;
  int64_t extra_ = 0;
  CaptionPlace place_;
};

void add_token_rows(const CaptionFile& file, Rows& rows, CaptionBuilder& builder) {
  do {
    const auto image = token_image(rows.line());
    if (!image) {
      builder.leave_out(CaptionFault::torn, rows.place());
    } else {
      const std::string_view caption = rows.line().substr(rows.line().find('\t') + 1);
      builder.add(file, rows.place(), {.image = std::string(trimmed(*image)), .above = {}, .part = {}, .captions = {std::string(caption)}});
    }
    rows.skip_line();
  } while (rows.next());
}

void add_row(const CaptionFile& file, const Columns& columns, const CaptionPlace& place, const std::optional<Fields>& fields,
             CaptionBuilder& builder) {
  if (!fields || trimmed((*fields)[columns.image]).empty()) return builder.leave_out(CaptionFault::torn, place);
  CaptionEntry entry{
      .image = std::string(trimmed((*fields)[columns.image])), .above = {}, .part = {}, .captions = {(*fields)[columns.caption]}};
  if (columns.split) entry.part = part_of_split((*fields)[*columns.split], place, entry.image);
  builder.add(file, place, entry);
}

}  // namespace

bool is_caption_table(std::string_view text) {
  text = without_mark(text);
  const std::string_view first = line_at(text, 0);
  return first.size() < 4096 && (token_image(first) || columns_of(first));
}

void add_caption_table(const CaptionFile& file, CaptionBuilder& builder) {
  Rows rows(file);
  check_input(rows.next(), "{}: the table is empty", file.name);
  if (token_image(rows.line())) return add_token_rows(file, rows, builder);
  const auto columns = columns_of(rows.line());
  check_input(
      columns.has_value(),
      "{}: no header names a column of images (image, filename, filepath) and one of captions (caption, title, comment), but \"{}\"",
      rows.place().text(), printable(rows.line()));
  rows.skip_line();
  while (rows.next()) {
    const auto fields = rows.take(*columns);
    add_row(file, *columns, rows.place(), fields, builder);
    rows.count_lines();
  }
}

}  // namespace ermoe
