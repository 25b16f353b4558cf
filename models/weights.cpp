#include "models/weights.h"

#include "core/wildcards.h"
#include "models/saved_slices.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace ermoe {

namespace {

/// Metadata of a file: sides of the grid of patches, as in "10x12x10", which the shape of pos_embed does not tell.
constexpr const char* grid_key = "patch_grid";

std::string grid_text(const Shape& grid) { return fmt::format("{}", fmt::join(grid, "x")); }

}  // namespace

uint32_t save_weights(const ExecContext& ctx, const std::string& path, Model& model, std::map<std::string, std::string> metadata) {
  metadata.emplace(grid_key, grid_text(model.grid()));
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

struct StoredGrid {
  int64_t prefix = 0;
  Shape sides;
};

/// The grid that the file says it has; empty where it does not, or where that is none of so many sides.
Shape named_grid(const SafetensorsFile& file, int rank) {
  const auto found = file.metadata().find(grid_key);
  if (found == file.metadata().end()) return {};
  std::vector<int64_t> sides;
  for (std::string_view rest = found->second; !rest.empty();) {
    const size_t end = std::min(rest.find('x'), rest.size());
    int64_t side = 0;
    const auto [stop, error] = std::from_chars(rest.data(), rest.data() + end, side);
    if (error != std::errc{} || stop != rest.data() + end || side < 1 || side > 4096) return {};
    sides.push_back(side);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return std::ssize(sides) == rank ? Shape(sides) : Shape();
}

/// The grid of stored (1, p + patches, D) positions: what the file says; where it does not (timm's), the model's own if as many patches
/// are there, else a square or a cube; p is 0 or 1.
StoredGrid grid_of(const SafetensorsFile& file, const Shape& shape, const Shape& own) {
  const Shape named = named_grid(file, own.rank());
  for (int64_t prefix : {0, 1})
    if (named.rank() > 0 && shape[1] - prefix == named.numel()) return {prefix, named};
  for (int64_t prefix : {0, 1}) {
    const int64_t patches = shape[1] - prefix;
    if (patches > 0 && patches == own.numel()) return {prefix, own};
  }
  for (int64_t prefix : {0, 1}) {
    const double patches = static_cast<double>(shape[1] - prefix);
    const std::vector<int64_t> sides(static_cast<size_t>(own.rank()), std::llround(std::pow(patches, 1.0 / own.rank())));
    if (patches > 0 && Shape(sides).numel() == shape[1] - prefix) return {prefix, Shape(sides)};
  }
  fail_input("{}: pos_embed {} is no {} grid of patches", file.path(), shape.str(), own.rank() == 3 ? "cubic" : "square");
}

/// Positions of as many patches as the model's in another grid.
bool moved_patches(const SafetensorsFile& file, const SavedSlice& slice, const Vit& model) {
  return slice.name == "pos_embed" && grid_of(file, slice.whole, model.grid()).sides != model.grid();
}

void adapt(const SafetensorsFile& file, const SavedSlice& slice, const Vit& model, LoadReport& report) {
  const Shape& stored = file.shape(slice.name);
  const std::string shapes = fmt::format("{}: {} but the model has {}", slice.name, stored.str(), slice.whole.str());
  if (slice.name.starts_with("head.")) {
    report.adapted.push_back(shapes + ", left new");
    return;
  }
  const bool positions = slice.name == "pos_embed" && stored.rank() == 3 && stored[0] == 1 && stored[2] == slice.whole[2];
  check_input(positions, "{}: {}", file.path(), shapes);
  const StoredGrid from = grid_of(file, stored, model.grid());
  CachingAllocator host(make_host_source());
  const Tensor original = file.load(slice.name, host, slice.part.dtype());
  copy(resize_positions(original, from.prefix, from.sides, model.prefix_tokens(), model.grid()), slice.part);
  report.adapted.push_back(fmt::format("pos_embed: {} to {}", fmt::join(from.sides, "x"), fmt::join(model.grid(), "x")));
}

/// Makes experts of the file's dense networks; the report is then silent about what is missing or left over in those blocks.
void make_experts(const SafetensorsFile& file, Vit& model, const InitOptions& options, LoadReport& report) {
  if (options.experts == InitOptions::Experts::left_new) return;
  CachingAllocator host(make_host_source());
  const DType dtype = model.arena().dtype();
  const auto find = [&](const std::string& name) { return file.has(name) ? file.load(name, host, dtype) : Tensor(); };
  const Upcycled made = upcycle(model, model.config(), find, {.source = file.path(), .noise = options.noise, .key = options.key});
  report.upcycled = made.summary;
  std::erase_if(report.unexpected, [&](const std::string& name) { return std::ranges::count(made.used, name) > 0; });
  for (const std::string& block : made.blocks)
    std::erase_if(report.missing, [&](const std::string& name) { return name.starts_with(block + ".moe."); });
}

}  // namespace

LoadReport init_from_weights(const ExecContext& ctx, const std::string& path, Vit& model, const InitOptions& options) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  LoadReport report;
  const std::vector<SavedSlice> slices = saved_slices(model, ctx.comm->rank());
  report.unexpected = unlisted_in(file, slices);
  for (const SavedSlice& slice : slices) {
    if (!file.has(slice.name))
      report.missing.push_back(slice.name);
    else if (file.shape(slice.name) == slice.whole && !moved_patches(file, slice, model))
      file.load_part(slice.name, slice.first, slice.part);
    else
      adapt(file, slice, model, report);
  }
  check_input(report.missing.size() < slices.size(), "{}: no tensor has a name that the model knows (the first is \"{}\")", path,
              file.names().empty() ? "none" : file.names()[0]);
  make_experts(file, model, options, report);
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
