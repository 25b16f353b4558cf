#include "core/json.h"

#include "core/error.h"
#include "core/file_io.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace ermoe {
namespace {

using nlohmann::json;

/// What the library says is wrong, without its own prefix and without the text it read last, which may be long or binary.
std::string reason_of(std::string_view what) {
  if (const size_t dash = what.find(" - "); dash != std::string_view::npos) what.remove_prefix(dash + 3);
  if (const size_t bracket = what.find("] "); what.starts_with("[json") && bracket != std::string_view::npos)
    what.remove_prefix(bracket + 2);
  if (const size_t last = what.find("; last read"); last != std::string_view::npos) what = what.substr(0, last);
  return printable(what);
}

/// Builds the document from the parser's events, which need no recursion, and counts what it costs on the way.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view text, const std::string& source, const JsonLimits& limits) : text_(text), source_(source), limits_(limits) {}

  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (dropped_levels_ > 0) return true;
    drops_next_ = !limits_.keys.empty() && std::ranges::find(limits_.keys, name) == limits_.keys.end();
    if (drops_next_) return true;
    const auto [entry, is_new] = open_.back()->get_ref<json::object_t&>().emplace(name, nullptr);
    check_input(is_new, "{}: the key '{}' stands twice in one object", source_, printable(name));
    slot_ = &entry->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& fault) override {
    const std::string_view before = text_.substr(0, position == 0 ? 0 : std::min(position - 1, text_.size()));
    const auto line = std::ranges::count(before, '\n') + 1;
    const size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    fail_input("{}: line {}, column {} is not JSON: {}", source_, line, column, reason_of(fault.what()));
  }

 private:
  json& place(json&& value) {
    check_input(++values_ <= limits_.max_values, "{}: more than {} JSON values", source_, limits_.max_values);
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_array()) return open_.back()->get_ref<json::array_t&>().emplace_back(std::move(value));
    return *slot_ = std::move(value);
  }
  /// Whether the value that begins belongs to a key that nobody wants.
  bool is_unwanted() { return dropped_levels_ > 0 || std::exchange(drops_next_, false); }
  bool add(json&& value) {
    if (!is_unwanted()) place(std::move(value));
    return true;
  }
  bool open(json&& container) {
    check_input(std::ssize(open_) + dropped_levels_ < limits_.max_depth, "{}: JSON nested deeper than {} levels", source_,
                limits_.max_depth);
    if (is_unwanted())
      ++dropped_levels_;
    else
      open_.push_back(&place(std::move(container)));
    return true;
  }
  bool close() {
    if (dropped_levels_ > 0)
      --dropped_levels_;
    else
      open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& source_;
  const JsonLimits& limits_;
  json root_;
  std::vector<json*> open_;  // the containers around the next value; an outer one does not grow while an inner one is open
  json* slot_ = nullptr;     // where the value of the last key goes
  size_t values_ = 0;
  bool drops_next_ = false;     // the value of the last key
  int64_t dropped_levels_ = 0;  // containers around the next value that lie below such a key
};

}  // namespace

json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits) {
  check_input(text.size() <= limits.max_bytes, "{}: {} bytes of JSON, above the limit of {}", source, text.size(), limits.max_bytes);
  // The library takes a NUL byte for the end of its input and would not look at what follows.
  check_input(text.find('\0') == std::string_view::npos, "{}: holds a NUL byte, which JSON does not know", source);
  Builder builder(text, source, limits);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

json read_json(const std::string& path, const JsonLimits& limits) { return parse_json(read_file(path, limits.max_bytes), path, limits); }

}  // namespace ermoe
