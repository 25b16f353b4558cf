// One setting of a run: its key, where its value lies, its type, help and allowed values. What is typed, read from JSON
// or written back passes through the same few functions here. The list of all of them is in tools/config_table.cpp.
#pragma once

#include "tools/run_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ermoe {

/// A setting's value on its way between the outside and a struct. Enumerators travel as their names.
using Value = std::variant<bool, int64_t, double, std::string, std::vector<double>, std::vector<int64_t>, std::vector<std::string>>;

/// `rule`: text that may be a bare number in JSON (a threshold).
enum class Kind { flag, integer, number, text, rule, choice, numbers, integers, texts };

enum class End { included, excluded };

/// Numbers that a setting may take. Lists are checked element by element.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  End low_end = End::included;
  End high_end = End::included;

  bool holds(double x) const;
  /// "at least 1", "above 0", "from 0 to 1", "from 0 to below 1"; empty where anything goes.
  std::string text() const;
};

Range at_least(double low);
Range above(double low);
Range between(double low, double high);
Range from_to_below(double low, double high);

/// `no`: belongs to one start of the program, so the run folder's config.json leaves it out.
enum class Saved { yes, no };

struct Setting {
  std::string key;         // "optim.lr"
  std::string short_name;  // "data" for --data; empty: none
  std::string help;
  Kind kind = Kind::text;
  Range range;
  std::vector<std::string> choices;                            // of Kind::choice
  std::function<void(const std::string& value)> check_syntax;  // of text and rule; throws InputError without the key
  std::function<Value(const RunConfig&)> get;
  std::function<void(RunConfig&, const Value&)> put;
  Saved saved = Saved::yes;

  /// The part before the first dot; empty for `preset`.
  std::string section() const;
  /// What may be given: "a number from 0 to 1", "one of cosine, linear, …".
  std::string expects() const;
};

/// Reads what was typed; throws InputError naming the key. `source` starts the message ("--" or "run.json: ").
void set_from_text(RunConfig& config, const Setting& setting, std::string_view text, const std::string& source);

/// Takes a JSON value of the right type; throws InputError naming the key.
void set_from_json(RunConfig& config, const Setting& setting, const nlohmann::json& json, const std::string& source);

/// As one would type it: "0.001", "true", "a,b", "cosine".
std::string to_text(const Value& value);

}  // namespace ermoe
