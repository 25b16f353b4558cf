// Rows of a CSV text. Read data/csv.h first.
#include "data/csv.h"

#include "core/error.h"

#include <algorithm>

namespace ermoe {

CsvReader::CsvReader(std::string_view text, char separator, std::string name) : text_(text), separator_(separator), name_(std::move(name)) {
  if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  while (at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r')) {
    if (text_[at_++] == '\n') ++line_;
  }
  if (at_ >= text_.size()) return false;
  row_line_ = line_;
  while (true) {
    fields.push_back(field());
    if (at_ >= text_.size()) return true;
    if (text_[at_++] == separator_) continue;
    ++line_;
    return true;
  }
}

/// Stops at the separator or line feed behind the field, or at the end.
std::string CsvReader::field() {
  if (at_ >= text_.size() || text_[at_] != '"') {
    const char stops[] = {separator_, '\n'};
    const size_t end = std::min(text_.find_first_of(std::string_view(stops, 2), at_), text_.size());
    std::string value(text_.substr(at_, end - at_));
    at_ = end;
    if ((at_ >= text_.size() || text_[at_] == '\n') && value.ends_with('\r')) value.pop_back();
    return value;
  }
  std::string value;
  for (++at_; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
      ++at_;
    } else if (text_[at_] == '\n') {
      ++line_;
    }
    value += text_[at_];
  }
  check_input(at_ < text_.size(), "{}, line {}: a quote is opened and never closed", name_, row_line_);
  ++at_;
  if (at_ < text_.size() && text_[at_] == '\r') ++at_;
  check_input(at_ >= text_.size() || text_[at_] == separator_ || text_[at_] == '\n', "{}, line {}: text follows a closing quote", name_,
              row_line_);
  return value;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace ermoe
