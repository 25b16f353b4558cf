#include "data/phantom_plant.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/pieces.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

namespace ermoe {
namespace {

constexpr size_t most_planted = 8;
constexpr double least_slope = 0.001, most_slope = 0.03;  // of less, the deformations' errors would be a part worth mentioning
constexpr int last_aal = 116;
constexpr std::string_view gives_way = "white_matter_other";

struct MapRegion {
  std::string_view name, aal;
  double slope = 0;
};
constexpr std::array<MapRegion, 10> map_regions{{{"ventricles", "", 0.015},
                                                 {"hippocampus", "37-38", -0.005},
                                                 {"frontal", "1-28", -0.003},
                                                 {"temporal", "79-90", -0.003},
                                                 {"parietal", "57-70"},
                                                 {"occipital", "43-56"},
                                                 {"limbic_insula", "29-36,39-42"},
                                                 {"deep_grey", "71-78"},
                                                 {"cerebellum", "91-116"},
                                                 {gives_way, ""}}};

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

/// "7-8,13"
std::vector<int> parse_numbers(std::string_view name, std::string_view text) {
  std::vector<int> numbers;
  if (text.empty()) return numbers;
  for (const std::string_view range : pieces_of(text, ',')) {
    const size_t dash = range.find('-');
    const auto low = number_of<int>(range.substr(0, dash));
    const auto high = dash == std::string_view::npos ? low : number_of<int>(range.substr(dash + 1));
    check_input(low && high && *low >= 1 && *low <= *high && *high <= last_aal,
                "{}: \"{}\" are no numbers of AAL, which are 1 to {}, such as 7-8 or 7,8,13", name, printable(range), last_aal);
    for (int n = *low; n <= *high; ++n) numbers.push_back(n);
  }
  return numbers;
}

const MapRegion* find_in_map(std::string_view name) {
  const auto* found = std::find_if(map_regions.begin(), map_regions.end(), [&](const MapRegion& r) { return r.name == name; });
  return found == map_regions.end() ? nullptr : found;
}

double parse_slope(std::string_view name, std::string_view text) {
  const auto slope = number_of<double>(text.starts_with('+') ? text.substr(1) : text);
  check_input(slope && std::abs(*slope) >= least_slope && std::abs(*slope) <= most_slope,
              "{}: \"{}\" is no slope, which is from {} to {} a year, or below 0 from -{} to -{}", name, printable(text), least_slope,
              most_slope, most_slope, least_slope);
  return *slope;
}

/// NAME:SLOPE or NAME:NUMBERS:SLOPE.
PhantomRegion parse_region(std::string_view text) {
  const std::vector<std::string_view> parts = pieces_of(text, ':');
  check_input(parts.size() == 2 || parts.size() == 3, "\"{}\" is neither NAME:SLOPE nor NAME:AAL-NUMBERS:SLOPE", printable(text));
  const std::string name(parts[0]);
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; };
  check_input(!name.empty() && name.size() <= 40 && std::all_of(name.begin(), name.end(), fits),
              "\"{}\" is no name of a region: letters, digits and _ are, 40 at most", printable(name.substr(0, 60)));
  const double slope = parse_slope(name, parts.back());
  if (parts.size() == 3) {
    check_input(!parts[1].empty(), "{}: no numbers of AAL stand between its colons", name);
    return {name, parse_numbers(name, parts[1]), slope};
  }
  const MapRegion* known = find_in_map(name);
  if (!known) {
    std::string names;
    for (const MapRegion& region : map_regions)
      if (region.name != gives_way) names += fmt::format("{}{}", names.empty() ? "" : ", ", region.name);
    fail_input("{}: no region of the map has that name; they are {}; others want AAL's numbers: {}:7-8:{}", name, names, name, parts[1]);
  }
  check_input(known->name != gives_way, "{}: cannot be planted, it gives way to what is", name);
  return {name, parse_numbers(name, known->aal), slope};
}

/// No number and no name in two regions.
void check_apart(const std::vector<PhantomRegion>& plant) {
  std::map<int, std::string> owners;
  for (const PhantomRegion& region : plant)
    for (const int n : region.aal) {
      const auto [at, is_new] = owners.emplace(n, region.name);
      check_input(is_new || at->second != region.name, "{}: AAL's number {} stands there twice", region.name, n);
      check_input(is_new, "{} and {} overlap: both have AAL's number {}", at->second, region.name, n);
    }
  std::map<std::string, size_t> names{{"background", plant.size()}};
  const std::vector<PhantomRegion> all = phantom_regions(plant);
  for (size_t r = 0; r < all.size(); ++r) {
    const auto [at, is_new] = names.emplace(all[r].name, r);
    check_input(is_new || at->second >= plant.size() || r >= plant.size(), "{}: is planted twice", all[r].name);
    check_input(is_new, "{}: what is left of the map keeps that name; give what is planted another", all[r].name);
  }
}

}  // namespace

std::vector<PhantomRegion> usual_plant() {
  std::vector<PhantomRegion> plant;
  for (const MapRegion& region : map_regions)
    if (region.slope != 0) plant.push_back({std::string(region.name), parse_numbers(region.name, region.aal), region.slope});
  return plant;
}

std::vector<PhantomRegion> parse_plant(std::string_view text) {
  std::vector<PhantomRegion> plant;
  for (const std::string_view part : pieces_of(text, ';')) plant.push_back(parse_region(part));
  check_input(plant.size() <= most_planted, "{} regions are too many, {} can be planted", plant.size(), most_planted);
  check_apart(plant);
  return plant;
}

std::vector<PhantomRegion> phantom_regions(const std::vector<PhantomRegion>& plant) {
  std::vector<PhantomRegion> all = plant;
  const auto planted = [&](int n) {
    return std::any_of(plant.begin(), plant.end(), [&](const PhantomRegion& r) { return std::count(r.aal.begin(), r.aal.end(), n) > 0; });
  };
  for (const MapRegion& region : map_regions) {
    std::vector<int> left = parse_numbers(region.name, region.aal);
    std::erase_if(left, planted);
    // Ventricles have no numbers; they are planted by their name or not at all.
    const bool taken = region.aal.empty()
                           ? std::any_of(plant.begin(), plant.end(), [&](const auto& r) { return r.aal.empty() && r.name == region.name; })
                           : left.empty();
    if (!taken) all.push_back({std::string(region.name), std::move(left)});
  }
  return all;
}

bool is_of_the_map(const PhantomRegion& region) {
  const MapRegion* known = find_in_map(region.name);
  return known && parse_numbers(known->name, known->aal) == region.aal;
}

}  // namespace ermoe
