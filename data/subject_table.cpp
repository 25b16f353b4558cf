#include "data/subject_table.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/csv.h"
#include "data/nifti.h"
#include "data/subject_files.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>

namespace ermoe {

namespace {

constexpr double oldest = 120;  // years; nobody's head was scanned above that

std::string trimmed(std::string_view text) {
  constexpr std::string_view blank = " \t";
  const size_t begin = text.find_first_not_of(blank);
  return begin == std::string_view::npos ? std::string() : std::string(text.substr(begin, text.find_last_not_of(blank) - begin + 1));
}

bool is_missing(std::string_view text) {
  const std::string word = lower(text);
  return word.empty() || word == "n/a" || word == "na";
}

/// The rows of a table whose first line names its columns.
class TableRows {
 public:
  explicit TableRows(const SubjectTableFile& file)
      : csv_(file.text, std::string_view(file.text).substr(0, file.text.find('\n')).find('\t') == std::string::npos ? ',' : '\t',
             file.name) {
    check_input(read(), "{}: the table is empty", csv_.name());
    columns_ = fields_;
    for (std::string& column : columns_) column = lower(column);
  }

  /// The first of these names that is a column's.
  std::optional<size_t> column(std::initializer_list<std::string_view> names) const {
    for (const std::string_view name : names) {
      const auto at = std::find(columns_.begin(), columns_.end(), name);
      if (at == columns_.end()) continue;
      check_input(std::find(at + 1, columns_.end(), name) == columns_.end(), "{}: has two columns \"{}\"", csv_.name(), name);
      return static_cast<size_t>(at - columns_.begin());
    }
    return std::nullopt;
  }
  std::string column_names() const {
    std::string text;
    for (const std::string& column : columns_) text += (text.empty() ? "" : ", ") + column;
    return printable(text);
  }

  /// Goes to the next row that holds anything.
  bool next() {
    while (read()) {
      if (std::ranges::all_of(fields_, [](const std::string& field) { return field.empty(); })) continue;
      while (fields_.size() > columns_.size() && fields_.back().empty()) fields_.pop_back();
      check_input(fields_.size() == columns_.size(), "{}: {} columns, where the table's first line names {}", where(), fields_.size(),
                  columns_.size());
      return true;
    }
    return false;
  }
  /// A field of the row; empty where it is missing or there is no such column.
  std::string at(std::optional<size_t> column) const { return column && !is_missing(fields_[*column]) ? fields_[*column] : std::string(); }
  const std::string& name() const { return csv_.name(); }
  int64_t line() const { return csv_.line(); }
  std::string where() const { return fmt::format("{}, line {}", csv_.name(), csv_.line()); }

 private:
  bool read() {
    if (!csv_.next(fields_)) return false;
    for (std::string& field : fields_) field = trimmed(field);
    return true;
  }

  CsvReader csv_;
  std::vector<std::string> columns_, fields_;
};

/// "t1/{participant_id}.nii.gz" and what it makes of a row.
class PathTemplate {
 public:
  PathTemplate(const std::string& text, const TableRows& rows) : text_(text) {
    for (size_t at = 0; at < text.size();) {
      const size_t open = std::min(text.find('{', at), text.size());
      pieces_.push_back({text.substr(at, open - at), std::nullopt});
      if (open == text.size()) break;
      const size_t close = text.find('}', open);
      check_input(close != std::string::npos, "the template \"{}\": a brace is opened and never closed", printable(text));
      const std::string name = text.substr(open + 1, close - open - 1);
      pieces_.push_back({name, rows.column({lower(name)})});
      check_input(pieces_.back().column.has_value(), "the template \"{}\" asks for the column \"{}\", but {} has only {}", printable(text),
                  printable(name), rows.name(), rows.column_names());
      at = close + 1;
    }
  }

  std::string expand(const TableRows& rows) const {
    std::string path;
    for (const Piece& piece : pieces_) {
      const std::string value = piece.column ? rows.at(piece.column) : piece.text;
      check_input(!piece.column || !value.empty(), "{}: the template \"{}\" wants a value of \"{}\", which is missing", rows.where(),
                  printable(text_), printable(piece.text));
      path += value;
    }
    return path;
  }

 private:
  struct Piece {
    std::string text;              // as it is, or the column's name
    std::optional<size_t> column;  // whose value stands here
  };
  std::string text_;
  std::vector<Piece> pieces_;
};

/// Years, of "38.7" and "89+".
double parse_age(std::string_view text, const std::string& where, const std::string& subject) {
  const std::string_view digits = text.ends_with('+') ? text.substr(0, text.size() - 1) : text;
  double age = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), age);
  const bool number = error == std::errc{} && end == digits.data() + digits.size() && std::isfinite(age);
  check_input(number, "{}: the age \"{}\" of subject {} is no number of years", where, printable(text), printable(subject));
  check_input(age >= 0 && age <= oldest, "{}: the age {} of subject {} is not from 0 to {} years", where, printable(text),
              printable(subject), oldest);
  return age;
}

std::optional<Part> parse_split(const std::string& text, const std::string& where, const std::string& subject) {
  if (text.empty()) return std::nullopt;
  const auto part = part_of_folder(text);
  check_input(part.has_value(), "{}: the split \"{}\" of subject {} is none of train, val and test", where, printable(text),
              printable(subject));
  return part;
}

std::string_view name_of(std::optional<Part> part) {
  if (!part) return "no split";
  return *part == Part::train ? "train" : *part == Part::validation ? "val" : "test";
}

class SubjectReader {
 public:
  SubjectReader(const FileTree& files, const SubjectTableOptions& options)
      : table_(open_subject_table(files, options.table)), rows_(table_), warn_(options.warn), finder_(files, table_.folder) {
    id_ = rows_.column({"participant_id", "participant", "subject_id", "subject", "id"});
    age_ = rows_.column({"age", "age_years", "age_at_scan"});
    sex_ = rows_.column({"sex", "gender"});
    site_ = rows_.column({"site", "site_id", "center", "centre"});
    split_ = rows_.column({"split", "set", "part", "subset", "partition"});
    path_ = rows_.column({"path", "file", "filename", "filepath", "file_name", "volume", "image"});
    check_input(age_.has_value(), "{}: there is no column \"age\", only {}", rows_.name(), rows_.column_names());
    if (!options.path_template.empty()) template_.emplace(options.path_template, rows_);
    check_input(id_ || path_ || template_, "{}: there is no column \"participant_id\" or \"path\", only {}", rows_.name(),
                rows_.column_names());
    check_input(template_ || path_ || finder_.has_bids(),
                "{}: there is no column \"path\", and {} has no sub-*/[ses-*/]anat/sub-*_T1w.nii[.gz]; say where the volumes are by a "
                "template such as {}",
                rows_.name(), finder_.root(), template_ || path_ || finder_.has_bids() ? "" : proposals(files));
  }

  std::vector<Subject> read() {
    std::vector<Subject> subjects;
    while (rows_.next()) {
      ++people_;
      if (auto subject = read_row()) subjects.push_back(std::move(*subject));
    }
    check_input(lost_ < 2, "{} ({} of {} have none)", first_lost_, lost_, people_);
    check_input(lost_ == 0, "{}", first_lost_);
    check_input(!subjects.empty(), "{}: there is nobody with an age in it", rows_.name());
    if (ageless_ > 0 && warn_)
      warn_(fmt::format("{}: {} of {} subjects have no age and are left out, the first is {}", rows_.name(), ageless_, people_,
                        printable(first_ageless_)));
    if (const std::string several = finder_.choices(); !several.empty() && warn_) warn_(fmt::format("{}: {}", rows_.name(), several));
    return subjects;
  }

 private:
  /// Where volumes may be meant to lie: paths that name the first subject, and alike the second, with {participant_id} in its place.
  std::string proposals(const FileTree& files) {
    const std::string first = id_ && rows_.next() ? rows_.at(id_) : std::string();
    const std::string second = id_ && rows_.next() ? rows_.at(id_) : first;
    std::string text;
    int64_t found = 0;
    for (const std::string& path : files.paths()) {
      constexpr int64_t enough = 4;
      if (found == enough || first.empty() || second.empty() || !is_volume_name(path)) continue;
      const std::string hole = with_word(path, first, "{participant_id}");
      if (hole == path || !std::ranges::binary_search(files.paths(), with_word(path, first, second))) continue;
      text += fmt::format("{}\"{}\"", found++ == 0 ? "" : " or ", printable(hole));
    }
    return text.empty() ? "\"t1/{participant_id}.nii.gz\"" : text;
  }

  /// `text` with `other` wherever `word` stands alone, between what is no letter and no digit.
  static std::string with_word(std::string text, const std::string& word, const std::string& other) {
    const auto part_of_word = [&](size_t at) { return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0; };
    for (size_t at = text.find(word); at != std::string::npos;) {
      const bool alone = (at == 0 || !part_of_word(at - 1)) && !part_of_word(at + word.size());
      if (alone) text.replace(at, word.size(), other);
      at = text.find(word, at + (alone ? other.size() : 1));
    }
    return text;
  }

  struct Seen {
    std::string id;
    int64_t line;
    std::optional<Part> split;
  };

  /// Nothing where the age or the volume is missing.
  std::optional<Subject> read_row() {
    const std::string path = template_ ? template_->expand(rows_) : rows_.at(path_);
    const std::string own = rows_.at(id_);
    check_input(!own.empty() || !path.empty(), "{}: it is not said who this is", rows_.where());
    Subject subject{
        .id = own.empty() ? subject_in_path(path) : own, .path = {}, .sex = rows_.at(sex_), .site = rows_.at(site_), .split = {}};
    const std::string age = rows_.at(age_);
    if (age.empty()) {
      if (ageless_++ == 0) first_ageless_ = subject.id;
      return std::nullopt;
    }
    subject.age = parse_age(age, rows_.where(), subject.id);
    subject.split = parse_split(rows_.at(split_), rows_.where(), subject.id);
    refuse_leakage(subject);
    check_input(!path.empty() || !path_ || template_, "{}: the path of subject {} is missing", rows_.where(), printable(subject.id));
    const auto file = path.empty() ? finder_.find_bids(subject.id) : finder_.find(path);
    if (!file) {
      const std::string wanted = path.empty() ? "T1w volume in an anat folder of its own" : "volume \"" + printable(path) + "\"";
      if (lost_++ == 0)
        first_lost_ = fmt::format("{}: subject {} has no {} in {}", rows_.where(), printable(subject.id), wanted, finder_.root());
      return std::nullopt;
    }
    subject.file = *file;
    subject.path = finder_.path(*file);
    refuse_twice(subject);
    return subject;
  }

  void refuse_leakage(Subject& subject) {
    const auto [at, first] = people_seen_.try_emplace(std::string(bare_subject(subject.id)), Seen{subject.id, rows_.line(), subject.split});
    subject.id = at->second.id;  // with and without "sub-" they are one person
    check_input(at->second.split == subject.split,
                "{}: subject {} is in {}, and in {} in line {}: a model would be tested on someone whom it was trained on", rows_.where(),
                printable(subject.id), name_of(subject.split), name_of(at->second.split), at->second.line);
  }

  void refuse_twice(const Subject& subject) {
    const auto [at, first] = volumes_seen_.try_emplace(subject.file, Seen{subject.id, rows_.line(), subject.split});
    check_input(first, "{}: the volume {} of subject {} is that of subject {} in line {} already", rows_.where(), printable(subject.path),
                printable(subject.id), printable(at->second.id), at->second.line);
  }

  SubjectTableFile table_;
  TableRows rows_;
  WarnFn warn_;
  SubjectFinder finder_;
  std::optional<size_t> id_, path_, age_, sex_, site_, split_;
  std::optional<PathTemplate> template_;
  std::map<std::string, Seen> people_seen_;
  std::map<size_t, Seen> volumes_seen_;
  int64_t people_ = 0, ageless_ = 0, lost_ = 0;
  std::string first_ageless_, first_lost_;
};

}  // namespace

std::vector<Subject> read_subjects(const FileTree& files, const SubjectTableOptions& options) {
  return SubjectReader(files, options).read();
}

}  // namespace ermoe
