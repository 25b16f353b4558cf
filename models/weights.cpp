#include "models/weights.h"

#include "core/safetensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace ermoe {
namespace {

/// Every tensor of the state dict: trained parameters and buffers.
std::vector<NamedTensor> state_of(Vit& model) {
  std::vector<NamedTensor> state;
  const auto parameter = [&](Parameter& p) {
    if (p.role != Parameter::Role::derived) state.push_back({p.name, p.value});
  };
  model.visit("", {.parameter = parameter, .buffer = [&](Buffer& b) { state.push_back({b.name, b.value}); }});
  return state;
}

Tensor as_f32(const Tensor& t) {
  if (t.dtype() == DType::f32) return t;
  Tensor single = Tensor::empty(t.allocator(), t.shape(), DType::f32, "checkpoint");
  convert(t, single);
  return single;
}

void write_all(const std::string& path, const std::vector<NamedTensor>& state, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  std::map<std::string, Tensor> by_name;
  for (const NamedTensor& entry : state) {
    specs.push_back({entry.name, DType::f32, entry.tensor.shape()});
    by_name[entry.name] = entry.tensor;
  }
  write_safetensors(
      path, specs, [&](const TensorSpec& spec) { return as_f32(by_name.at(spec.name)); }, metadata);
}

/// Names of the file that the model does not have.
std::vector<std::string> unexpected_in(const SafetensorsFile& file, const std::vector<NamedTensor>& state) {
  std::set<std::string_view> known;
  for (const NamedTensor& entry : state) known.insert(entry.name);
  std::vector<std::string> unexpected = file.names();
  std::erase_if(unexpected, [&](const std::string& name) { return known.contains(name); });
  return unexpected;
}

std::string first_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > 3 ? fmt::format("{} and {} more", text, names.size() - 3) : text;
}

}  // namespace

void save_weights(const std::string& path, Vit& model, const std::map<std::string, std::string>& metadata) {
  write_all(path, state_of(model), metadata);
}

void save_average(const std::string& path, const MovingAverage& average) {
  std::vector<NamedTensor> state;
  average.visit([&](const Parameter& p, const Tensor& t) { state.push_back({p.name, t}); });
  write_all(path, state, {});
}

std::string LoadReport::summary() const {
  std::string text;
  const auto part = [&](const char* what, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("{}{} {} ({})", text.empty() ? "" : "; ", names.size(), what, first_of(names));
  };
  part("not in the file", missing);
  part("not in the model", unexpected);
  part("adapted", adapted);
  return text;
}

void load_weights(const ExecContext& ctx, const std::string& path, Vit& model) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const std::vector<NamedTensor> state = state_of(model);
  for (const NamedTensor& entry : state) {
    check_input(file.has(entry.name), "{}: {} is missing", path, entry.name);
    check_input(file.shape(entry.name) == entry.tensor.shape(), "{}: {} is {} but the model has {}", path, entry.name,
                file.shape(entry.name).str(), entry.tensor.shape().str());
  }
  const std::vector<std::string> unexpected = unexpected_in(file, state);
  check_input(unexpected.empty(), "{}: {} is not in the model", path, first_of(unexpected));
  for (const NamedTensor& entry : state) file.load_into(entry.name, entry.tensor);
  model.refresh(ctx);
}

namespace {

/// Number of patch rows of (1, p + g², D) positions, and their prefix: 0 or 1.
std::pair<int64_t, int64_t> grid_of(const std::string& path, const Shape& shape) {
  for (int64_t prefix : {0, 1}) {
    const auto grid = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(shape[1] - prefix))));
    if (grid > 0 && grid * grid == shape[1] - prefix) return {grid, prefix};
  }
  fail_input("{}: pos_embed {} is no square grid of patches", path, shape.str());
}

void adapt(const SafetensorsFile& file, const NamedTensor& entry, const Vit& model, LoadReport& report) {
  const Shape& stored = file.shape(entry.name);
  const std::string shapes = fmt::format("{}: {} but the model has {}", entry.name, stored.str(), entry.tensor.shape().str());
  if (entry.name.starts_with("head.")) {
    report.adapted.push_back(shapes + ", left new");
    return;
  }
  const bool positions = entry.name == "pos_embed" && stored.rank() == 3 && stored[0] == 1 && stored[2] == entry.tensor.shape()[2];
  check_input(positions, "{}: {}", file.path(), shapes);
  const auto [grid, prefix] = grid_of(file.path(), stored);
  const int64_t to_grid = model.config().image_size / model.config().patch;
  CachingAllocator host(make_host_source());
  const Tensor original = file.load(entry.name, host, entry.tensor.dtype());
  copy(resize_positions(original, prefix, model.prefix_tokens(), to_grid), entry.tensor);
  report.adapted.push_back(fmt::format("pos_embed: {}x{} to {}x{}", grid, grid, to_grid, to_grid));
}

}  // namespace

LoadReport init_from_weights(const ExecContext& ctx, const std::string& path, Vit& model) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  LoadReport report;
  const std::vector<NamedTensor> state = state_of(model);
  report.unexpected = unexpected_in(file, state);
  for (const NamedTensor& entry : state) {
    if (!file.has(entry.name))
      report.missing.push_back(entry.name);
    else if (file.shape(entry.name) == entry.tensor.shape())
      file.load_into(entry.name, entry.tensor);
    else
      adapt(file, entry, model, report);
  }
  check_input(report.missing.size() < state.size(), "{}: no tensor has a name that the model knows (the first is \"{}\")", path,
              file.names().empty() ? "none" : file.names()[0]);
  model.refresh(ctx);
  return report;
}

namespace {

/// Weights of the four neighbours of a point at fraction t between the second and the third.
std::array<double, 4> cubic_weights(double t) {
  const auto inner = [](double x) { return (1.5 * x - 2.5) * x * x + 1; };
  const auto outer = [](double x) { return ((-0.5 * x + 2.5) * x - 4) * x + 2; };
  return {outer(1 + t), inner(t), inner(1 - t), outer(2 - t)};
}

}  // namespace

Tensor resize_positions(const Tensor& positions, int64_t from_prefix, int64_t to_prefix, int64_t to_grid) {
  const int64_t D = positions.shape()[2];
  const auto from_grid = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(positions.shape()[1] - from_prefix))));
  check(from_grid * from_grid + from_prefix == positions.shape()[1], "[resize_positions] {} is no square grid behind {} tokens",
        positions.shape().str(), from_prefix);
  Tensor result = Tensor::zeros(positions.allocator(), {1, to_prefix + to_grid * to_grid, D}, positions.dtype());
  dispatch_float(positions.dtype(), "resize_positions", [&](auto tag) {
    using T = decltype(tag);
    const T* from = positions.data<T>();
    T* to = result.data<T>();
    std::copy_n(from, std::min(from_prefix, to_prefix) * D, to);
    const double ratio = static_cast<double>(from_grid) / static_cast<double>(to_grid);
    const auto place = [&](int64_t i) { return (static_cast<double>(i) + 0.5) * ratio - 0.5; };
    for (int64_t y = 0; y < to_grid; ++y)
      for (int64_t x = 0; x < to_grid; ++x) {
        const double py = std::floor(place(y)), px = std::floor(place(x));
        const auto wy = cubic_weights(place(y) - py), wx = cubic_weights(place(x) - px);
        T* out = to + (to_prefix + y * to_grid + x) * D;
        for (int64_t j = 0; j < 4; ++j)
          for (int64_t i = 0; i < 4; ++i) {
            const int64_t sy = std::clamp<int64_t>(static_cast<int64_t>(py) - 1 + j, 0, from_grid - 1);
            const int64_t sx = std::clamp<int64_t>(static_cast<int64_t>(px) - 1 + i, 0, from_grid - 1);
            const T* in = from + (from_prefix + sy * from_grid + sx) * D;
            const auto w = static_cast<T>(wy[static_cast<size_t>(j)] * wx[static_cast<size_t>(i)]);
            for (int64_t d = 0; d < D; ++d) out[d] += w * in[d];
          }
      }
  });
  return result;
}

namespace {

/// `pattern` with * for any text and ? for one character, matched against the whole name, without recursion.
bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

int64_t freeze(const ExecContext& ctx, Vit& model, const std::vector<std::string>& patterns) {
  int64_t frozen = 0;
  for (const std::string& pattern : patterns) {
    int64_t hits = 0;
    for (Parameter* p : parameters_of(model)) {
      if (p->role == Parameter::Role::derived || !matches(pattern, p->name)) continue;
      hits += 1;
      frozen += !p->frozen;
      p->frozen = true;
    }
    check_input(hits > 0, "--freeze {}: no parameter has such a name", pattern);
  }
  model.refresh(ctx);  // what was derived before would still send gradients to its factors
  return frozen;
}

}  // namespace ermoe
