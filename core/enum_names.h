// Names of enumerators, taken from the compiler, so that no table of strings can fall behind an enum. Settings, messages
// and checkpoints print and read enumerators with it. Enums must count from 0 without gaps; up to 32 enumerators.
// An enumerator that is a C++ keyword carries a trailing underscore, which its name leaves out (`auto_` is "auto").
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

namespace ermoe {
namespace detail {

/// The name of enumerator V; empty where V is a number that no enumerator has (the compiler prints a cast then).
template <auto V>
constexpr std::string_view enumerator_name() {
  std::string_view text = __PRETTY_FUNCTION__;  // "… [with auto V = ermoe::Pool::token; …]" or "… [V = ermoe::Pool::token]"
  text.remove_prefix(text.find("V = ") + 4);
  text = text.substr(0, text.find_first_of(";]"));
  if (text.empty() || text.front() == '(' || (text.front() >= '0' && text.front() <= '9')) return {};
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) text.remove_prefix(colon + 1);
  if (text.back() == '_') text.remove_suffix(1);
  return text;
}

template <typename E, size_t... I>
constexpr auto enumerator_names(std::index_sequence<I...>) {
  return std::array<std::string_view, sizeof...(I)>{enumerator_name<static_cast<E>(I)>()...};
}

template <typename E, size_t N = 0>
constexpr size_t enumerator_count() {
  if constexpr (N < 32 && !enumerator_name<static_cast<E>(N)>().empty()) {
    return enumerator_count<E, N + 1>();
  } else {
    return N;
  }
}

}  // namespace detail

/// The names of all enumerators of E, in order.
template <typename E>
constexpr auto enum_names() {
  return detail::enumerator_names<E>(std::make_index_sequence<detail::enumerator_count<E>()>{});
}

/// The name of one enumerator; "?" where `value` is none.
template <typename E>
constexpr std::string_view enum_name(E value) {
  constexpr auto names = enum_names<E>();
  const auto index = static_cast<size_t>(value);
  return index < names.size() ? names[index] : std::string_view("?");
}

/// The enumerator of that name, if there is one.
template <typename E>
constexpr std::optional<E> parse_enum(std::string_view name) {
  constexpr auto names = enum_names<E>();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<E>(i);
  }
  return std::nullopt;
}

}  // namespace ermoe
