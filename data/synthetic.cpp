// A data set out of thin air: oriented gratings whose angle and tint tell the class, at a random phase, under noise.
// Every pixel follows from its sample's number, so nothing is stored. A model that learns at all learns this in minutes.
#include "core/error.h"
#include "core/rng.h"
#include "data/sources.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

namespace ermoe {

namespace {

struct SyntheticSpec {
  int64_t classes = 10;
  int64_t size = 32;  // pixels a side
  int64_t count = 2048;
  int64_t channels = 3;
};

class SyntheticDataset final : public ImageDataset {
 public:
  SyntheticDataset(const SyntheticSpec& spec, int64_t count, uint64_t stream) : spec_(spec), count_(count), key_(RngKey{}.fold(stream)) {
    for (int64_t y = 0; y < spec.classes; ++y) {
      names_.push_back(fmt::format("{:.0f} degrees", 180.0 * static_cast<double>(y) / static_cast<double>(spec.classes)));
    }
  }

  int64_t size() const override { return count_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % spec_.classes); }
  std::string name(int64_t i) const override { return fmt::format("synthetic[{}]", i); }
  Image read(int64_t i) const override;

 private:
  SyntheticSpec spec_;
  int64_t count_;
  RngKey key_;
  std::vector<std::string> names_;
};

Image SyntheticDataset::read(int64_t i) const {
  check(i >= 0 && i < count_, "[synthetic] sample {} of {}", i, count_);
  constexpr double pi = std::numbers::pi;
  constexpr double periods = 4, contrast = 60, tint = 20, noise = 30;  // grey levels, but for the first
  const RngKey key = key_.fold(static_cast<uint64_t>(i));
  const double turn = pi * label(i) / static_cast<double>(spec_.classes);
  const double phase = 2 * pi * uniform(key, 0);
  const double step = 2 * pi * periods / static_cast<double>(spec_.size);  // radians a pixel
  Image image{spec_.size, spec_.size, spec_.channels, {}};
  image.pixels.reserve(static_cast<size_t>(spec_.size * spec_.size * spec_.channels));
  uint64_t draw = 1;
  for (int64_t y = 0; y < spec_.size; ++y) {
    for (int64_t x = 0; x < spec_.size; ++x) {
      const double along = static_cast<double>(x) * std::cos(turn) + static_cast<double>(y) * std::sin(turn);
      const double grating = contrast * std::sin(step * along + phase);
      for (int64_t c = 0; c < spec_.channels; ++c) {
        const double colour = spec_.channels == 3 ? tint * std::cos(2 * turn + 2 * pi * static_cast<double>(c) / 3) : 0;
        const double value = 127.5 + grating + colour + noise * normal(key, draw++);
        image.pixels.push_back(static_cast<uint8_t>(std::clamp(value, 0.0, 255.0)));
      }
    }
  }
  return image;
}

void set_option(SyntheticSpec& spec, const std::string& path, std::string_view text) {
  const size_t equals = text.find('=');
  const std::string_view key = text.substr(0, equals);
  struct Option {
    std::string_view key;
    int64_t& value;
    int64_t least, most;
  };
  const Option options[] = {{"classes", spec.classes, 2, 1000},
                            {"size", spec.size, 4, 1024},
                            {"count", spec.count, 1, 100'000'000},
                            {"channels", spec.channels, 1, 3}};
  for (const Option& option : options) {
    if (option.key != key) continue;
    const std::string_view digits = equals == std::string_view::npos ? "" : text.substr(equals + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), option.value);
    check_input(error == std::errc{} && end == digits.data() + digits.size() && option.value >= option.least && option.value <= option.most,
                "{}: {} must be a number from {} to {}", path, option.key, option.least, option.most);
    return;
  }
  fail_input("{}: unknown option \"{}\" (known: classes, size, count, channels)", path, key);
}

}  // namespace

bool is_synthetic(const std::string& path) { return path == "synthetic" || path.starts_with("synthetic:"); }

DatasetSplits open_synthetic(const std::string& path) {
  SyntheticSpec spec;
  std::string_view rest = path;
  rest.remove_prefix(std::min(path.size(), std::string_view("synthetic:").size()));
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    set_option(spec, path, rest.substr(0, comma));
    rest.remove_prefix(std::min(rest.size(), comma + 1));
  }
  check_input(spec.channels != 2, "{}: channels must be 1 or 3", path);
  check_input(spec.count >= spec.classes, "{}: {} samples cannot show {} classes", path, spec.count, spec.classes);
  DatasetSplits splits;
  splits.train = std::make_unique<SyntheticDataset>(spec, spec.count, 0);
  splits.test = std::make_unique<SyntheticDataset>(spec, std::max(spec.count / 4, spec.classes), 1);
  return splits;
}

}  // namespace ermoe
