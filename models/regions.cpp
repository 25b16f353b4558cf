#include "models/regions.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "models/config_rules.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace ermoe {
namespace {

constexpr int64_t most_experts = 4096, last_label = 65535;

/// A whole number from `low` to `high`.
int64_t number_in(std::string_view text, const char* what, int64_t low, int64_t high) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  check_input(whole && value >= low && value <= high, "\"{}\" is no {}, which is a whole number from {} to {}",
              printable(text.substr(0, 20)), what, low, high);
  return value;
}

/// Cuts off the part before the next `separator`.
std::string_view next_part(std::string_view& rest, char separator) {
  const size_t at = rest.find(separator);
  const std::string_view part = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  return part;
}

class RegionList {
 public:
  /// The region of the expert with this number, which had none so far.
  std::vector<int64_t>& start(std::string_view expert) {
    const auto e = static_cast<size_t>(number_in(expert, "expert", 0, most_experts - 1));
    if (regions_.size() <= e) regions_.resize(e + 1);
    check_input(regions_[e].empty(), "expert {} is named twice", e);
    return regions_[e];
  }
  Regions finish() {
    for (size_t e = 0; e < regions_.size(); ++e) {
      std::ranges::sort(regions_[e]);
      const auto twice = std::ranges::adjacent_find(regions_[e]);
      check_input(twice == regions_[e].end(), "expert {} has label {} twice", e, twice == regions_[e].end() ? 0 : *twice);
    }
    return std::move(regions_);
  }

 private:
  Regions regions_;
};

Regions parse_text(std::string_view rest) {
  RegionList list;
  check_input(!rest.ends_with(';'), "\"{}\" ends before its last expert", printable(rest.substr(0, 60)));
  while (!rest.empty()) {
    std::string_view labels = next_part(rest, ';');
    const std::string_view expert = next_part(labels, ':');
    check_input(!labels.empty() && !labels.ends_with(','), "expert {} lacks a label; write regions as in 0:1,2;1:3, or name a .json file",
                printable(expert));
    std::vector<int64_t>& region = list.start(expert);
    while (!labels.empty()) region.push_back(number_in(next_part(labels, ','), "label", 1, last_label));
  }
  return list.finish();
}

Regions read_regions(const std::string& path) {
  const nlohmann::json table = read_json(path);
  check_input(table.is_object() && !table.empty(), "{} holds no table of experts and labels, as in {{\"0\": [1, 2], \"1\": [3]}}", path);
  RegionList list;
  for (const auto& [expert, labels] : table.items()) {
    std::vector<int64_t>& region = list.start(expert);
    check_input(labels.is_array() && !labels.empty(), "{}: expert {} wants a list of labels", path, expert);
    for (const auto& label : labels) region.push_back(number_in(label.dump(), "label", 1, last_label));
  }
  return list.finish();
}

}  // namespace

Regions parse_regions(const std::string& setting) { return setting.ends_with(".json") ? read_regions(setting) : parse_text(setting); }

std::string regions_text(const Regions& regions) {
  std::string text;
  for (size_t e = 0; e < regions.size(); ++e)
    if (!regions[e].empty()) text += fmt::format("{}{}:{}", text.empty() ? "" : ";", e, fmt::join(regions[e], ","));
  return text;
}

bool has_regions(const VitConfig& model) { return !model.moe.regions.empty() && !moe_blocks(model.moe.layers, model.depth).empty(); }

RegionMask::RegionMask(const ExecContext& ctx, const VitConfig& model)
    : patch_(model.patch), prefix_(model.pool == Pool::token ? 1 : 0), share_(model.moe.region_share) {
  check_model(model);
  sides_ = image_sides(model);
  if (has_regions(model)) table_ = make_region_table(ctx, parse_regions(model.moe.regions));
}

Tensor RegionMask::operator()(const ExecContext& ctx, const Tensor& labels) const {
  if (!wanted()) return {};
  const Shape& s = labels.shape();
  check(labels.defined() && s.rank() == 4 && Shape{s[1], s[2], s[3]} == sides_, "[regions] labels {} for volumes of {}", s.str(),
        fmt::join(sides_, "x"));
  return region_mask(ctx, labels, table_, patch_, prefix_, share_);
}

}  // namespace ermoe
