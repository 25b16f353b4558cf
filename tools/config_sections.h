// How a section of tools/config_table.cpp is written: `add("lr", &OptimConfig::lr, above(0), "peak learning rate")`.
// A Section knows the way from a RunConfig to its struct; the type of the member decides kind, reading and writing.
#pragma once

#include "core/enum_names.h"
#include "tools/setting.h"

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace ermoe {

template <typename T>
constexpr Kind kind_of() {
  if constexpr (std::is_same_v<T, bool>) return Kind::flag;
  if constexpr (std::is_enum_v<T>) return Kind::choice;
  if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t>) return Kind::integer;
  if constexpr (std::is_same_v<T, double>) return Kind::number;
  if constexpr (std::is_same_v<T, std::string>) return Kind::text;
  if constexpr (std::is_same_v<T, std::vector<double>>) return Kind::numbers;
  if constexpr (std::is_same_v<T, std::vector<int64_t>>) return Kind::integers;
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return Kind::texts;
}

template <typename Struct>
class Section {
 public:
  using Find = Struct& (*)(RunConfig&);

  Section(std::vector<Setting>& table, std::string name, Find find) : table_(table), name_(std::move(name)), find_(find) {}

  template <typename T>
  Setting& add(const char* name, T Struct::*member, Range range, const char* help) {
    Setting s;
    s.key = name_.empty() ? name : name_ + "." + name;
    s.help = help;
    s.kind = kind_of<T>();
    s.range = range;
    // The config is only read through `find` here; it is the one function because both ways need the same path.
    s.get = [find = find_, member](const RunConfig& config) { return outward(find(const_cast<RunConfig&>(config)).*member); };
    s.put = [find = find_, member](RunConfig& config, const Value& value) { inward(value, find(config).*member); };
    if constexpr (std::is_enum_v<T>) {
      for (const auto choice : enum_names<T>()) s.choices.emplace_back(choice);
    }
    table_.push_back(std::move(s));
    return table_.back();
  }

  template <typename T>
  Setting& add(const char* name, T Struct::*member, const char* help) {
    return add(name, member, Range{}, help);
  }

 private:
  template <typename T>
  static Value outward(const T& member) {
    if constexpr (std::is_enum_v<T>) {
      return std::string(enum_name(member));
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      return static_cast<int64_t>(member);
    } else {
      return member;
    }
  }

  /// The value was checked: its type fits, and an enumerator's name exists.
  template <typename T>
  static void inward(const Value& value, T& member) {
    if constexpr (std::is_enum_v<T>) {
      member = *parse_enum<T>(std::get<std::string>(value));
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      member = static_cast<uint64_t>(std::get<int64_t>(value));
    } else {
      member = std::get<T>(value);
    }
  }

  std::vector<Setting>& table_;
  std::string name_;
  Find find_;
};

}  // namespace ermoe
