// A model that starts from weights of a similar one: `init_from_weights` of models/weights.h. What the file is to the model decides under
// which names its tensors are looked for. Read next: models/clip_weights.cpp, models/upcycle.cpp.
#include "core/saved_slice.h"
#include "models/clip_weights.h"
#include "models/config_rules.h"
#include "models/saved_slices.h"
#include "models/weights.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

namespace ermoe {

namespace {

/// Blocks that may have experts: what stands before their names, and their settings.
struct Tower {
  std::string prefix;
  VitConfig config;
};

/// A model of one tower, or of two.
struct Start {
  Model& model;
  DualEncoder* dual;  // null: a classifier
  Vit& image;

  std::string image_prefix() const { return dual != nullptr ? "image." : ""; }
  std::vector<Tower> towers() const {
    if (dual == nullptr) return {{"", image.config()}};
    const DualConfig& config = dual->config();
    return {{"image.", config.image}, {"text.", text_blocks(config.image, config.text)}};
  }
};

Start start_of(Model& model) {
  auto* const dual = dynamic_cast<DualEncoder*>(&model);
  auto* const image = dual != nullptr ? &dual->image() : dynamic_cast<Vit*>(&model);
  check(image != nullptr, "[init_weights] a model that is neither a Vit nor a DualEncoder");
  return {model, dual, *image};
}

bool is_head(std::string_view name) {
  return name.starts_with("head.") || name.starts_with("image.head.") || name.starts_with("text.head.");
}

/// How names of the model become those of the file. Where one is a classifier's and the other a dual encoder's, they share the image tower
/// but for its head.
class Names {
 public:
  Names(const SafetensorsFile& file, const Start& to) : here_(to.image_prefix()) {
    const auto names = file.names();
    there_ = std::ranges::any_of(names, [](const std::string& name) { return name.starts_with("image."); }) ? "image." : "";
  }

  /// Empty: the file has no such thing.
  std::string stored(const std::string& own) const {
    if (here_ == there_) return own;
    if (!own.starts_with(here_) || is_head(own)) return "";
    return there_ + own.substr(here_.size());
  }

 private:
  std::string here_, there_;  // what stands before the names of an image tower
};

struct StoredGrid {
  int64_t prefix = 0;
  Shape sides;
};

/// The grid that the file says it has; empty where it does not, or where that is none of so many sides.
Shape named_grid(const SafetensorsFile& file, int rank) {
  const auto found = file.metadata().find(patch_grid_key);
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

/// Which setting makes a side of a tensor as long as it is; "mlp_ratio" and "width" are the tower's.
struct SideSettings {
  std::string_view part;  // of a tensor's name
  std::array<std::string_view, 5> sides;
};

constexpr SideSettings side_settings[] = {
    {"token_embed", {"text.vocabulary", "width"}},
    {"text.pos_embed", {"text.context", "width"}},
    {"pos_embed", {"", "", "width"}},
    {"patch_embed.proj.weight", {"width", "model.channels", "model.patch", "model.patch", "model.patch"}},
    {"mlp.fc1.weight", {"mlp_ratio", "width"}},
    {"mlp.fc1.bias", {"mlp_ratio"}},
    {"mlp.fc2.weight", {"width", "mlp_ratio"}},
    {"experts.b1", {"moe.experts", "moe.hidden"}},
    {"experts.U1", {"moe.experts", "moe.hidden", "moe.rank"}},
    {"score_mean", {"moe.experts"}},
    {"q_norm.", {"heads"}},
    {".attn.", {"width"}},
    {"norm", {"width"}},
    {"cls_token", {"", "", "width"}},
};

/// " (model.width)": what decides over the first side in which the two differ; empty where that is nothing simple.
std::string setting_of(std::string_view name, const Shape& stored, const Shape& own) {
  const std::string tower = name.starts_with("text.") ? "text." : "model.";
  if (stored.rank() != own.rank() || own.rank() > 5) return "";
  int axis = 0;
  while (axis + 1 < own.rank() && stored[axis] == own[axis]) ++axis;
  for (const SideSettings& known : side_settings) {
    if (name.find(known.part) == std::string_view::npos) continue;
    const std::string_view setting = known.sides[static_cast<size_t>(axis)];
    if (setting.empty()) return "";
    return fmt::format(" ({}{})", setting.find('.') == std::string_view::npos ? tower : "", setting);
  }
  return "";
}

/// Positions of as many patches as the model's in another grid.
bool moved_patches(const SafetensorsFile& file, const SavedSlice& slice, const Start& to) {
  return slice.name == to.image_prefix() + "pos_embed" && grid_of(file, slice.whole, to.image.grid()).sides != to.image.grid();
}

/// A tensor of the file, `stored` there, that does not have the model's shape.
void adapt(const SafetensorsFile& file, const std::string& stored_name, const SavedSlice& slice, const Start& to, LoadReport& report) {
  const Shape& stored = file.shape(stored_name);
  const std::string shapes = fmt::format("{}: {} but the model has {}", slice.name, stored.str(), slice.whole.str());
  if (is_head(slice.name)) {
    report.adapted.push_back(shapes + ", left new");
    return;
  }
  const bool positions =
      slice.name == to.image_prefix() + "pos_embed" && stored.rank() == 3 && stored[0] == 1 && stored[2] == slice.whole[2];
  check_input(positions, "{}: {}{}", file.path(), shapes, setting_of(slice.name, stored, slice.whole));
  const Shape& grid = to.image.grid();
  const StoredGrid from = grid_of(file, stored, grid);
  CachingAllocator host(make_host_source());
  const Tensor original = file.load(stored_name, host, slice.part.dtype());
  copy(resize_positions(original, from.prefix, from.sides, to.image.prefix_tokens(), grid), slice.part);
  report.adapted.push_back(fmt::format("{}: {} to {}", slice.name, fmt::join(from.sides, "x"), fmt::join(grid, "x")));
}

/// The file's name of a tensor of ours; empty: it has none.
using StoredName = std::function<std::string(const std::string& own)>;

/// Makes experts of the file's dense networks; the report is then silent about what is missing or left over in those blocks.
void make_experts(const SafetensorsFile& file, const Start& to, const StoredName& stored_name, const InitOptions& options,
                  LoadReport& report) {
  if (options.experts == InitOptions::Experts::left_new) return;
  CachingAllocator host(make_host_source());
  const DType dtype = to.model.arena().dtype();
  const auto find = [&](const std::string& own) {
    const std::string name = stored_name(own);
    return file.has(name) ? file.load(name, host, dtype) : Tensor();
  };
  for (const Tower& tower : to.towers()) {
    const Upcycled made =
        upcycle(to.model, tower.config, find, {.source = file.path(), .noise = options.noise, .key = options.key}, tower.prefix);
    if (made.blocks.empty()) continue;
    const std::string which = to.dual == nullptr ? "" : tower.prefix.substr(0, tower.prefix.size() - 1) + " tower's ";
    report.upcycled += (report.upcycled.empty() ? "" : "; ") + which + made.summary;
    for (const std::string& own : made.used) std::erase(report.unexpected, stored_name(own));
    for (const std::string& block : made.blocks)
      std::erase_if(report.missing, [&](const std::string& name) { return name.starts_with(block + ".moe."); });
  }
}

LoadReport init_from_clip(const ExecContext& ctx, const SafetensorsFile& file, const Start& to, const InitOptions& options) {
  LoadReport report = load_clip_weights(ctx, file.path(), *to.dual);
  make_experts(
      file, to, [&](const std::string& own) { return clip_name(file, own); }, options, report);
  return report;
}

LoadReport init_by_names(const ExecContext& ctx, const SafetensorsFile& file, const Start& to, const InitOptions& options) {
  LoadReport report;
  const Names names(file, to);
  std::set<std::string> used;
  const std::vector<SavedSlice> slices = saved_slices(to.model, ctx.comm->rank());
  for (const SavedSlice& slice : slices) {
    const std::string stored = names.stored(slice.name);
    used.insert(stored);
    if (!file.has(stored))
      report.missing.push_back(slice.name);
    else if (file.shape(stored) == slice.whole && !moved_patches(file, slice, to))
      file.load_part(stored, slice.first, slice.part);
    else
      adapt(file, stored, slice, to, report);
  }
  check_input(report.missing.size() < slices.size(), "{}: no tensor has a name that the model knows (the first is \"{}\")", file.path(),
              file.names().empty() ? "none" : file.names()[0]);
  for (const std::string& name : file.names())
    if (!used.contains(name)) report.unexpected.push_back(name);
  make_experts(
      file, to, [&](const std::string& own) { return names.stored(own); }, options, report);
  return report;
}

}  // namespace

LoadReport init_from_weights(const ExecContext& ctx, const std::string& path, Model& model, const InitOptions& options) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const Start to = start_of(model);
  const bool clip = to.dual != nullptr && has_clip_names(file);
  LoadReport report = clip ? init_from_clip(ctx, file, to, options) : init_by_names(ctx, file, to, options);
  model.refresh(ctx);
  return report;
}

}  // namespace ermoe
