#include "models/weights.h"

#include "core/wildcards.h"
#include "models/saved_slices.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {

uint32_t save_weights(const ExecContext& ctx, const std::string& path, Model& model, std::map<std::string, std::string> metadata) {
  metadata.emplace(patch_grid_key, fmt::format("{}", fmt::join(model.grid(), "x")));
  return write_slices(path, saved_slices(model, ctx.comm->rank()), *ctx.comm, metadata);
}

uint32_t save_average(const ExecContext& ctx, const std::string& path, const MovingAverage& average) {
  return write_slices(path, saved_slices(average, ctx.comm->rank()), *ctx.comm);
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

void load_weights(const ExecContext& ctx, const std::string& path, Model& model) {
  read_slices(SafetensorsFile::open(path), saved_slices(model, ctx.comm->rank()), Unlisted::refused);
  model.refresh(ctx);
}

namespace {

/// Weights of the four neighbours of a point at fraction t between the second and the third.
std::array<double, 4> cubic_weights(double t) {
  const auto inner = [](double x) { return (1.5 * x - 2.5) * x * x + 1; };
  const auto outer = [](double x) { return ((-0.5 * x + 2.5) * x - 4) * x + 2; };
  return {outer(1 + t), inner(t), inner(1 - t), outer(2 - t)};
}

/// x (before, n, after) to (before, m, after), between neighbours along the middle axis; those beyond the ends repeat them.
template <typename T>
Tensor resize_middle(const Tensor& x, int64_t m) {
  const int64_t before = x.shape()[0], n = x.shape()[1], after = x.shape()[2];
  Tensor y = Tensor::zeros(x.allocator(), {before, m, after}, x.dtype());
  for (int64_t i = 0; i < m; ++i) {
    const double place = (static_cast<double>(i) + 0.5) * static_cast<double>(n) / static_cast<double>(m) - 0.5;
    const auto second = static_cast<int64_t>(std::floor(place));
    const auto weights = cubic_weights(place - static_cast<double>(second));
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t source = std::clamp<int64_t>(second - 1 + k, 0, n - 1);
      const auto w = static_cast<T>(weights[static_cast<size_t>(k)]);
      for (int64_t b = 0; b < before; ++b) {
        const T* from = x.data<T>() + (b * n + source) * after;
        T* to = y.data<T>() + (b * m + i) * after;
        for (int64_t j = 0; j < after; ++j) to[j] += w * from[j];
      }
    }
  }
  return y;
}

}  // namespace

Tensor resize_positions(const Tensor& positions, int64_t from_prefix, const Shape& from_grid, int64_t to_prefix, const Shape& to_grid) {
  const Shape& shape = positions.shape();
  check(shape.rank() == 3 && shape[1] == from_prefix + from_grid.numel() && from_grid.rank() == to_grid.rank(),
        "[resize_positions] {} are not {} prefix tokens and a grid {} that becomes {}", shape.str(), from_prefix, from_grid.str(),
        to_grid.str());
  const int64_t D = shape[2];
  Tensor result = Tensor::zeros(positions.allocator(), {1, to_prefix + to_grid.numel(), D}, positions.dtype());
  dispatch_float(positions.dtype(), "resize_positions", [&](auto tag) {
    using T = decltype(tag);
    std::copy_n(positions.data<T>(), std::min(from_prefix, to_prefix) * D, result.data<T>());
    Tensor patches = positions.reshape({shape[1], D}).slice(from_prefix, shape[1]);
    Shape sides = from_grid;
    for (int axis = 0; axis < sides.rank(); ++axis) {
      const int64_t before = sides.rows(axis), n = sides[axis];
      if (n == to_grid[axis]) continue;
      patches = resize_middle<T>(patches.reshape({before, n, sides.numel() / (before * n) * D}), to_grid[axis]);
      sides = sides.with(axis, to_grid[axis]);
    }
    std::copy_n(patches.data<T>(), patches.numel(), result.data<T>() + to_prefix * D);
  });
  return result;
}

int64_t freeze(const ExecContext& ctx, Model& model, const std::vector<std::string>& patterns) {
  int64_t frozen = 0;
  for (const std::string& pattern : patterns) {
    int64_t hits = 0;
    for (Parameter* p : parameters_of(model)) {
      if (p->role == Parameter::Role::derived || !matches_wildcards(pattern, p->name)) continue;
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
