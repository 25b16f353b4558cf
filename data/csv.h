// Rows of a CSV or TSV text (RFC 4180), read and written: quoted fields may hold separators, line breaks and doubled quotes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// Goes through a text row by row; empty lines are skipped, as are a byte order mark and carriage returns at line ends.
class CsvReader {
 public:
  /// `text` must outlive the reader; messages call it `name`.
  CsvReader(std::string_view text, char separator, std::string name);

  /// Fills `fields` with the next row; false at the end. Throws `InputError` with the line for a quote that never closes.
  bool next(std::vector<std::string>& fields);
  /// Line, from 1, on which the last row began.
  int64_t line() const { return row_line_; }
  const std::string& name() const { return name_; }

 private:
  std::string field();

  std::string_view text_;
  char separator_;
  std::string name_;
  size_t at_ = 0;
  int64_t line_ = 1;
  int64_t row_line_ = 0;
};

/// `text` as a field of a comma-separated row, in quotes where it has to be.
std::string csv_field(const std::string& text);

}  // namespace ermoe
