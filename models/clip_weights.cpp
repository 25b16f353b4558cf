#include "models/clip_weights.h"

#include "models/saved_slices.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <span>

namespace ermoe {
namespace {

constexpr double usual_norm_eps = 1e-5;

/// How their tensor becomes ours.
enum class Fit { as_it_is, transposed };

/// Our name (or how it begins: the rest is then the same in both), and theirs: more than one where ours is theirs one after the other.
struct Rule {
  std::string_view own;
  std::vector<std::string_view> theirs;
  Fit fit = Fit::as_it_is;
};

struct Naming {
  std::string_view whose, marker;              // a tensor by which the naming is known
  std::string_view image_blocks, text_blocks;  // in front of a block's number
  std::vector<Rule> block, rest;
};

const Naming& hugging_face() {
  static const Naming naming{.whose = "Hugging Face",
                             .marker = "vision_model.embeddings.class_embedding",
                             .image_blocks = "vision_model.encoder.layers.",
                             .text_blocks = "text_model.encoder.layers.",
                             .block = {{"norm1.", {"layer_norm1."}},
                                       {"attn.qkv.", {"self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."}},
                                       {"attn.proj.", {"self_attn.out_proj."}},
                                       {"norm2.", {"layer_norm2."}},
                                       {"mlp.fc1.", {"mlp.fc1."}},
                                       {"mlp.fc2.", {"mlp.fc2."}}},
                             .rest = {{"image.cls_token", {"vision_model.embeddings.class_embedding"}},
                                      {"image.pos_embed", {"vision_model.embeddings.position_embedding.weight"}},
                                      {"image.patch_embed.proj.", {"vision_model.embeddings.patch_embedding."}},
                                      {"image.norm_pre.", {"vision_model.pre_layrnorm."}},  // so it is spelt there
                                      {"image.norm.", {"vision_model.post_layernorm."}},
                                      {"image.head.", {"visual_projection."}},
                                      {"text.token_embed", {"text_model.embeddings.token_embedding.weight"}},
                                      {"text.pos_embed", {"text_model.embeddings.position_embedding.weight"}},
                                      {"text.norm.", {"text_model.final_layer_norm."}},
                                      {"text.head.", {"text_projection."}},
                                      {"logit_", {"logit_"}}}};
  return naming;
}

const Naming& open_clip() {
  static const Naming naming{.whose = "OpenCLIP",
                             .marker = "visual.class_embedding",
                             .image_blocks = "visual.transformer.resblocks.",
                             .text_blocks = "transformer.resblocks.",
                             .block = {{"norm1.", {"ln_1."}},
                                       {"attn.qkv.", {"attn.in_proj_"}},
                                       {"attn.proj.", {"attn.out_proj."}},
                                       {"norm2.", {"ln_2."}},
                                       {"mlp.fc1.", {"mlp.c_fc."}},
                                       {"mlp.fc2.", {"mlp.c_proj."}}},
                             .rest = {{"image.cls_token", {"visual.class_embedding"}},
                                      {"image.pos_embed", {"visual.positional_embedding"}},
                                      {"image.patch_embed.proj.", {"visual.conv1."}},
                                      {"image.norm_pre.", {"visual.ln_pre."}},
                                      {"image.norm.", {"visual.ln_post."}},
                                      {"image.head.weight", {"visual.proj"}, Fit::transposed},
                                      {"text.token_embed", {"token_embedding.weight"}},
                                      {"text.pos_embed", {"positional_embedding"}},
                                      {"text.norm.", {"ln_final."}},
                                      {"text.head.weight", {"text_projection"}, Fit::transposed},
                                      {"logit_", {"logit_"}}}};
  return naming;
}

/// What stands in such files beside weights.
bool is_no_weight(const std::string& name) {
  return name.ends_with("position_ids") || name == "input_resolution" || name == "context_length" || name == "vocab_size";
}

const Naming* naming_of(const SafetensorsFile& file) {
  for (const Naming* n : {&hugging_face(), &open_clip()})
    if (file.has(std::string(n->marker))) return n;
  return nullptr;
}

const Naming& known_naming(const SafetensorsFile& file) {
  const Naming* const found = naming_of(file);
  check_input(found != nullptr, "{}: has neither {} nor {}, so it is no CLIP model with names of Hugging Face or OpenCLIP", file.path(),
              hugging_face().marker, open_clip().marker);
  return *found;
}

/// Where a tensor of ours comes from.
struct Source {
  std::vector<std::string> names;
  Fit fit = Fit::as_it_is;
};

std::optional<Source> by_rule(std::span<const Rule> rules, std::string_view front, std::string_view own) {
  for (const Rule& rule : rules) {
    if (!own.starts_with(rule.own)) continue;
    Source source{.names = {}, .fit = rule.fit};
    for (const std::string_view theirs : rule.theirs)
      source.names.push_back(fmt::format("{}{}{}", front, theirs, own.substr(rule.own.size())));
    return source;
  }
  return std::nullopt;
}

std::optional<Source> source_of(const Naming& naming, std::string_view own) {
  for (const auto& [tower, theirs] :
       {std::pair{std::string_view("image.blocks."), naming.image_blocks}, {"text.blocks.", naming.text_blocks}}) {
    if (!own.starts_with(tower)) continue;
    const size_t dot = own.find('.', tower.size());
    return by_rule(naming.block, fmt::format("{}{}", theirs, own.substr(tower.size(), dot + 1 - tower.size())), own.substr(dot + 1));
  }
  return by_rule(naming.rest, "", own);
}

/// The same without sides of length 1.
std::vector<int64_t> bare(const Shape& shape) {
  std::vector<int64_t> sides(shape.begin(), shape.end());
  std::erase(sides, 1);
  return sides;
}

Shape transposed(const Shape& s) { return s.rank() == 2 ? Shape{s[1], s[0]} : s; }

/// Of a tensor as ours would be; names what is missing.
Shape shape_in(const SafetensorsFile& file, const Source& source) {
  for (const std::string& name : source.names) check_input(file.has(name), "{}: has no tensor {}", file.path(), name);
  Shape shape = file.shape(source.names[0]);
  if (source.fit == Fit::transposed) return transposed(shape);
  if (source.names.size() == 1) return shape;
  for (const std::string& name : source.names)
    check_input(shape.rank() > 0 && file.shape(name) == shape, "{}: {} is {} but {} is {}", file.path(), source.names[0], shape.str(), name,
                file.shape(name).str());
  return shape.with(0, shape[0] * std::ssize(source.names));
}

/// Sizes of a file, which must have the form that CLIP's have.
class Sizes {
 public:
  explicit Sizes(const SafetensorsFile& file) : file_(file), naming_(known_naming(file)) {}

  /// Side `axis` of a tensor of ours.
  int64_t side(const char* own, int rank, int axis) const {
    const Source source = *source_of(naming_, own);
    const Shape shape = shape_in(file_, source);
    check_input(shape.rank() == rank && shape.numel() > 0, "{}: {} is {}, which is not CLIP's form", file_.path(), source.names[0],
                shape.str());
    return shape[axis];
  }

  bool has(std::string_view own) const { return file_.has(source_of(naming_, own)->names[0]); }

  int64_t depth(const char* tower) const {
    int64_t blocks = 0;
    while (has(fmt::format("{}.blocks.{}.norm1.weight", tower, blocks))) ++blocks;
    return blocks;
  }

  /// Fills in what is open; names what is another.
  void settle(const char* key, int64_t& wanted, int64_t implied) const {
    check_input(wanted == 0 || wanted == implied, "{}: {} is {}, but the file has {}", file_.path(), key, wanted, implied);
    wanted = implied;
  }

  /// 64 wide; but published image towers have no more than 16 (ViT-H, ViT-g and ViT-bigG: 80, 88 and 104 wide).
  void settle_heads(const char* key, int64_t& heads, int64_t width, int64_t most) const {
    constexpr int64_t head_width = 64;
    if (heads > 0) return;
    check_input(width % head_width == 0, "{}: {} must be given, since a width of {} is no multiple of {}", file_.path(), key, width,
                head_width);
    heads = std::min(width / head_width, most);
  }

  void settle_ratio(const char* key, double& ratio, int64_t width, int64_t hidden) const {
    const auto wanted = static_cast<int64_t>(ratio * static_cast<double>(width));
    check_input(ratio == 0 || wanted == hidden, "{}: {} {} makes dense blocks {} wide, but the file's are {}", file_.path(), key, ratio,
                wanted, hidden);
    if (ratio == 0) ratio = static_cast<double>(hidden) / static_cast<double>(width);
  }

  const std::string& path() const { return file_.path(); }

 private:
  const SafetensorsFile& file_;
  const Naming& naming_;
};

void settle_image(const Sizes& sizes, VitConfig& image) {
  sizes.settle("model.width", image.width, sizes.side("image.patch_embed.proj.weight", 4, 0));
  sizes.settle("model.channels", image.channels, sizes.side("image.patch_embed.proj.weight", 4, 1));
  sizes.settle("model.patch", image.patch, sizes.side("image.patch_embed.proj.weight", 4, 2));
  sizes.settle("model.depth", image.depth, sizes.depth("image"));
  sizes.settle_heads("model.heads", image.heads, image.width, 16);
  if (image.depth > 0)
    sizes.settle_ratio("model.mlp_ratio", image.mlp_ratio, image.width, sizes.side("image.blocks.0.mlp.fc1.weight", 2, 0));
  const int64_t patches = sizes.side("image.pos_embed", 2, 0) - 1;
  const int64_t grid = std::llround(std::sqrt(static_cast<double>(std::max<int64_t>(patches, 0))));
  check_input(grid > 0 && grid * grid == patches, "{}: positions of {} patches are no square grid", sizes.path(), patches);
  if (image.image_size == 0) image.image_size = grid * image.patch;
  image.pre_norm = sizes.has("image.norm_pre.weight");  // OpenCLIP can do without (no_ln_pre)
  image.patch_bias = PatchBias::off;
  image.norm_eps = usual_norm_eps;
  image.pool = Pool::token;
  image.positions = Positions::learned;
}

void settle_text(const Sizes& sizes, TextConfig& text) {
  sizes.settle("text.vocabulary", text.vocabulary, sizes.side("text.token_embed", 2, 0));
  sizes.settle("text.width", text.width, sizes.side("text.token_embed", 2, 1));
  sizes.settle("text.context", text.context, sizes.side("text.pos_embed", 2, 0));
  sizes.settle("text.depth", text.depth, sizes.depth("text"));
  sizes.settle_heads("text.heads", text.heads, text.width, text.width);
  if (text.depth > 0) sizes.settle_ratio("text.mlp_ratio", text.mlp_ratio, text.width, sizes.side("text.blocks.0.mlp.fc1.weight", 2, 0));
}

DualConfig settled(const SafetensorsFile& file, const DualConfig& wanted) {
  const Sizes sizes(file);
  DualConfig config = wanted;
  settle_image(sizes, config.image);
  settle_text(sizes, config.text);
  sizes.settle("retrieval.projection", config.retrieval.projection, sizes.side("image.head.weight", 2, 0));
  return config;
}

/// That a model of these settings computes what the file's does: sizes, and what their shapes do not tell.
void check_form(const SafetensorsFile& file, const DualConfig& config) {
  const VitConfig clip = settled(file, config).image, &own = config.image;
  std::vector<std::string> other;
  if (own.pre_norm != clip.pre_norm) other.push_back(fmt::format("--model.pre_norm {}", clip.pre_norm));
  if (own.patch_bias != clip.patch_bias) other.emplace_back("--model.patch_bias off");
  if (own.pool != clip.pool) other.emplace_back("--model.pool token");
  if (own.positions != clip.positions) other.emplace_back("--model.positions learned");
  check_input(other.empty(), "{}: a CLIP model computes otherwise than these settings say; give {}", file.path(), fmt::join(other, " "));
}

/// One tensor of the model and where it comes from.
struct Move {
  SavedSlice slice;
  Source source;
};

bool other_grid(const SavedSlice& slice, const Shape& stored, const DualEncoder& model) {
  return slice.name == "image.pos_embed" && stored.rank() == 2 && stored[1] == slice.whole[2] && stored[0] != slice.whole[1] &&
         model.config().image.pool == Pool::token;
}

/// "image.blocks.3.mlp." of "image.blocks.3.moe.experts.U1", or of a factored tensor's "….cp.gate": the dense network whose place experts
/// have; empty for another name.
std::string dense_network_of(const std::string& own) {
  const size_t at = std::min(own.find(".moe."), own.find(".cp."));
  return at == std::string::npos ? "" : own.substr(0, at) + ".mlp.";
}

/// Where the tensor of ours that has no such place comes from; for one of a block with experts nothing, and the dense network is `spared`.
std::optional<Source> source_or_spared(const SafetensorsFile& file, const Naming& naming, const std::string& own,
                                       std::set<std::string>& spared) {
  if (std::optional<Source> source = source_of(naming, own)) return source;
  const std::string dense = dense_network_of(own);
  check_input(!dense.empty(), "{}: a CLIP model has nothing for {}; it has plain blocks, learned positions and the class token's feature",
              file.path(), own);
  for (const char* part : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) spared.insert(source_of(naming, dense + part)->names[0]);
  return std::nullopt;
}

/// Everything that the model has, with its source; InputError where something does not fit. `report` takes what the file need not have.
std::vector<Move> plan(const SafetensorsFile& file, DualEncoder& model, LoadReport& report) {
  const Naming& naming = known_naming(file);
  std::vector<Move> moves;
  std::set<std::string> used, spared;
  for (const SavedSlice& slice : saved_slices(model, 0)) {
    const std::optional<Source> source = source_or_spared(file, naming, slice.name, spared);
    if (!source || (slice.name == "logit_bias" && !file.has(source->names[0]))) {
      report.missing.push_back(slice.name);
      continue;
    }
    const Shape stored = shape_in(file, *source);
    check_input(bare(stored) == bare(slice.whole) || other_grid(slice, stored, model), "{}: {} is {}, but the model's {} is {}",
                file.path(), source->names[0], file.shape(source->names[0]).str(), slice.name, slice.whole.str());
    used.insert(source->names.begin(), source->names.end());
    moves.push_back({slice, *source});
  }
  std::vector<std::string> left;
  for (const std::string& name : file.names())
    if (!used.contains(name) && !is_no_weight(name)) (spared.contains(name) ? report.unexpected : left).push_back(name);
  check_input(left.empty(), "{}: the model has no place for {}", file.path(), first_of(left));
  return moves;
}

void load_transposed(const SafetensorsFile& file, const std::string& name, const Tensor& to) {
  CachingAllocator host(make_host_source());
  const Tensor from = file.load(name, host, to.dtype());
  dispatch_float(to.dtype(), "clip_weights", [&](auto tag) {
    using T = decltype(tag);
    const int64_t rows = to.shape()[0], columns = to.shape()[1];
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) to.data<T>()[r * columns + c] = from.data<T>()[c * rows + r];
  });
}

/// Positions of another grid.
void load_positions(const SafetensorsFile& file, const std::string& name, const DualEncoder& model, const Tensor& to, LoadReport& report) {
  CachingAllocator host(make_host_source());
  const Tensor from = file.load(name, host, to.dtype());
  const int64_t side = std::llround(std::sqrt(static_cast<double>(from.shape()[0] - 1)));
  check_input(side > 0 && side * side == from.shape()[0] - 1, "{}: {} {} are no positions of a class token and a square grid", file.path(),
              name, from.shape().str());
  const Shape grid = model.grid();
  copy(resize_positions(from.reshape({1, from.shape()[0], from.shape()[1]}), 1, {side, side}, 1, grid), to);
  report.adapted.push_back(fmt::format("image.pos_embed: {}x{} to {}", side, side, fmt::join(grid, "x")));
}

}  // namespace

bool has_clip_names(const SafetensorsFile& file) { return naming_of(file) != nullptr; }

DualConfig clip_config(const std::string& path, const DualConfig& wanted) { return settled(SafetensorsFile::open(path), wanted); }

std::string clip_name(const SafetensorsFile& file, const std::string& own) {
  const std::optional<Source> source = source_of(known_naming(file), own);
  const bool whole = source && source->names.size() == 1 && source->fit == Fit::as_it_is && file.has(source->names[0]);
  return whole ? source->names[0] : "";
}

Tensor clip_tensor(const SafetensorsFile& file, const std::string& own, CachingAllocator& allocator, DType dtype) {
  const std::string name = clip_name(file, own);
  return name.empty() ? Tensor() : file.load(name, allocator, dtype);
}

LoadReport load_clip_weights(const ExecContext& ctx, const std::string& path, DualEncoder& model) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  check_form(file, model.config());
  LoadReport report;
  // The file does not tell, and this engine's own towers go out into such files with what they have.
  if (const double eps = model.config().image.norm_eps; eps != usual_norm_eps)
    report.adapted.push_back(fmt::format("model.norm_eps stays {}, where CLIP's own models have {}", eps, usual_norm_eps));
  for (const Move& move : plan(file, model, report)) {
    const Tensor& to = move.slice.part;
    const auto& names = move.source.names;
    if (move.source.fit == Fit::transposed) {
      load_transposed(file, names[0], to);
    } else if (file.at(names[0]).shape.numel() * std::ssize(names) != to.numel()) {
      load_positions(file, names[0], model, to, report);
    } else {
      const int64_t rows = to.shape()[0] / std::ssize(names);
      for (int64_t i = 0; i < std::ssize(names); ++i) file.load_part(names[static_cast<size_t>(i)], 0, to.slice(i * rows, (i + 1) * rows));
    }
  }
  model.refresh(ctx);
  return report;
}

}  // namespace ermoe
