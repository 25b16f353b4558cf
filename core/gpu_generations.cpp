#include "core/gpu_generations.h"

#include <charconv>
#include <utility>

namespace ermoe {
namespace {

constexpr std::string_view translated = "80";  // what later generations' drivers translate for themselves

/// Takes the first of a list off it.
std::string_view take_first(std::string_view& list) {
  const size_t end = list.find(',');
  const std::string_view first = list.substr(0, end);
  list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
  return first;
}

bool one_runs_on(std::string_view generation, int major, int minor) {
  int number = 0;
  const char* end = generation.data() + generation.size();
  const auto [rest, fault] = std::from_chars(generation.data(), end, number);
  const std::string_view suffix(rest, static_cast<size_t>(end - rest));
  if (fault != std::errc() || number < 10) return false;
  if (generation == translated && std::pair(major, minor) >= std::pair(8, 0)) return true;
  const bool same_major = number / 10 == major;
  if (suffix == "a") return same_major && number % 10 == minor;
  return (suffix.empty() || suffix == "f") && same_major && number % 10 <= minor;
}

}  // namespace

bool names_generation(std::string_view generations, std::string_view generation) {
  while (!generations.empty())
    if (take_first(generations) == generation) return true;
  return false;
}

bool runs_on(std::string_view generations, int major, int minor) {
  while (!generations.empty())
    if (one_runs_on(take_first(generations), major, minor)) return true;
  return false;
}

}  // namespace ermoe
