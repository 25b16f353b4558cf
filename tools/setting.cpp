#include "tools/setting.h"

#include "core/error.h"
#include "core/file_io.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace ermoe {
namespace {

using nlohmann::json;

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53: doubles up to here hold every integer

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<int64_t> whole(double value) {
  if (std::trunc(value) != value || std::abs(value) > kExactIntegers) return std::nullopt;
  return static_cast<int64_t>(value);
}

/// "128", and also "1e4".
std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc{} && end == text.data() + text.size()) return value;
  const auto number = parse_number(text);
  return number ? whole(*number) : std::nullopt;
}

std::optional<bool> parse_flag(std::string_view text) {
  for (const auto* yes : {"true", "on", "yes", "1"}) {
    if (text == yes) return true;
  }
  for (const auto* no : {"false", "off", "no", "0"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    parts.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return parts;
}

template <typename T>
std::optional<Value> as_value(std::optional<T> parsed) {
  if (!parsed) return std::nullopt;
  return Value(*std::move(parsed));
}

template <typename T, typename Parse>
std::optional<std::vector<T>> parse_all(std::string_view text, Parse parse) {
  std::vector<T> values;
  for (const auto& part : split_list(text)) {
    const std::optional<T> value = parse(part);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::optional<Value> value_from_text(Kind kind, std::string_view text) {
  switch (kind) {
    case Kind::flag: return as_value(parse_flag(text));
    case Kind::integer: return as_value(parse_integer(text));
    case Kind::number: return as_value(parse_number(text));
    case Kind::text:
    case Kind::rule:
    case Kind::choice: return Value(std::string(text));
    case Kind::texts: return Value(split_list(text));
    case Kind::numbers: return as_value(parse_all<double>(text, parse_number));
    case Kind::integers: return as_value(parse_all<int64_t>(text, parse_integer));
  }
  return std::nullopt;
}

std::optional<int64_t> integer_from_json(const json& j) {
  if (j.is_number_unsigned()) {
    const auto value = j.get<uint64_t>();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(value);
  }
  if (j.is_number_integer()) return j.get<int64_t>();
  return j.is_number() ? whole(j.get<double>()) : std::nullopt;
}

std::optional<Value> value_from_json(Kind kind, const json& j) {
  switch (kind) {
    case Kind::flag: return j.is_boolean() ? std::optional<Value>(j.get<bool>()) : std::nullopt;
    case Kind::integer: return as_value(integer_from_json(j));
    case Kind::number: return j.is_number() ? std::optional<Value>(j.get<double>()) : std::nullopt;
    case Kind::rule:
      if (j.is_number()) return Value(fmt::format("{}", j.get<double>()));
      [[fallthrough]];
    case Kind::text:
    case Kind::choice: return j.is_string() ? std::optional<Value>(j.get<std::string>()) : std::nullopt;
    default: break;
  }
  if (!j.is_array()) return std::nullopt;
  if (kind == Kind::integers) {
    std::vector<int64_t> integers;
    for (const json& item : j) {
      const auto value = integer_from_json(item);
      if (!value) return std::nullopt;
      integers.push_back(*value);
    }
    return Value(std::move(integers));
  }
  const auto fits = [&](const json& item) { return kind == Kind::numbers ? item.is_number() : item.is_string(); };
  if (!std::all_of(j.begin(), j.end(), fits)) return std::nullopt;
  if (kind == Kind::numbers) return Value(j.get<std::vector<double>>());
  return Value(j.get<std::vector<std::string>>());
}

bool in_range(const Range& range, const Value& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return range.holds(static_cast<double>(*i));
  if (const auto* d = std::get_if<double>(&value)) return range.holds(*d);
  const auto all = [&](const auto& list) { return std::ranges::all_of(list, [&](auto x) { return range.holds(static_cast<double>(x)); }); };
  if (const auto* list = std::get_if<std::vector<double>>(&value)) return all(*list);
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) return all(*list);
  return true;
}

/// `shown` is the value as the user wrote it.
void put_checked(RunConfig& config, const Setting& setting, const std::optional<Value>& value, std::string_view shown,
                 const std::string& source) {
  const auto refuse = [&] { fail_input("{}{} must be {}, not {}", source, setting.key, setting.expects(), printable(shown)); };
  if (!value || !in_range(setting.range, *value)) refuse();
  const auto* text = std::get_if<std::string>(&*value);
  if (setting.kind == Kind::choice && std::find(setting.choices.begin(), setting.choices.end(), *text) == setting.choices.end()) refuse();
  if (setting.check_syntax) {
    try {
      setting.check_syntax(*text);
    } catch (const InputError& e) {
      fail_input("{}{}: {}", source, setting.key, e.what());
    }
  }
  setting.put(config, *value);
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

}  // namespace

bool Range::holds(double x) const {
  const bool above_low = low_end == End::included ? x >= low : x > low;
  const bool below_high = high_end == End::included ? x <= high : x < high;
  return above_low && below_high;  // false for NaN
}

std::string Range::text() const {
  const bool has_low = std::isfinite(low), has_high = std::isfinite(high);
  if (has_low && has_high) {
    return fmt::format("from {}{} to {}{}", low_end == End::excluded ? "above " : "", low, high_end == End::excluded ? "below " : "", high);
  }
  if (has_low) return fmt::format("{} {}", low_end == End::excluded ? "above" : "of at least", low);
  if (has_high) return fmt::format("{} {}", high_end == End::excluded ? "below" : "of at most", high);
  return {};
}

Range at_least(double low) { return {.low = low}; }
Range above(double low) { return {.low = low, .low_end = End::excluded}; }
Range between(double low, double high) { return {.low = low, .high = high}; }
Range from_to_below(double low, double high) { return {.low = low, .high = high, .high_end = End::excluded}; }

std::string Setting::section() const {
  const size_t dot = key.find('.');
  return dot == std::string::npos ? std::string{} : key.substr(0, dot);
}

std::string Setting::expects() const {
  std::string limits = range.text();
  if (!limits.empty()) limits.insert(0, 1, ' ');
  switch (kind) {
    case Kind::flag: return "true or false";
    case Kind::integer: return fmt::format("a whole number{}", limits);
    case Kind::number: return fmt::format("a number{}", limits);
    case Kind::text:
    case Kind::rule: return "text";
    case Kind::choice: return fmt::format("one of {}", fmt::join(choices, ", "));
    case Kind::numbers: return fmt::format("a list of numbers{}", limits);
    case Kind::integers: return fmt::format("a list of whole numbers{}", limits);
    case Kind::texts: return "a list of texts";
  }
  return {};
}

void set_from_text(RunConfig& config, const Setting& setting, std::string_view text, const std::string& source) {
  put_checked(config, setting, value_from_text(setting.kind, text), fmt::format("\"{}\"", text), source);
}

void set_from_json(RunConfig& config, const Setting& setting, const json& j, const std::string& source) {
  const std::string shown = j.dump(-1, ' ', true, json::error_handler_t::replace);
  put_checked(config, setting, value_from_json(setting.kind, j), shown, source);
}

std::string to_text(const Value& value) {
  struct Printer {
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(int64_t i) const { return fmt::format("{}", i); }
    std::string operator()(double d) const { return fmt::format("{}", d); }
    std::string operator()(const std::string& s) const { return s; }
    std::string operator()(const std::vector<double>& list) const { return fmt::format("{}", fmt::join(list, ",")); }
    std::string operator()(const std::vector<int64_t>& list) const { return fmt::format("{}", fmt::join(list, ",")); }
    std::string operator()(const std::vector<std::string>& list) const { return join(list, ","); }
  };
  return std::visit(Printer{}, value);
}

}  // namespace ermoe
