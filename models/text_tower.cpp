#include "models/text_tower.h"

#include "models/config_rules.h"
#include "ops/add.h"
#include "ops/caption_ends.h"
#include "ops/cast.h"
#include "ops/embedding.h"
#include "ops/select_tokens.h"
#include "ops/slice_rows.h"
#include "ops/tokens.h"

#include <cmath>

namespace ermoe {
namespace {

/// Before anything is made by it.
VitConfig checked_blocks(const VitConfig& image, const TextConfig& text) {
  check_text(image, text);
  check_input(text.vocabulary > 0 && text.end_token >= 0, "text.vocabulary and text.end_token must be known");
  return text_blocks(image, text);
}

}  // namespace

TextTower::TextTower(const VitConfig& image, const TextConfig& text, int64_t projection, int64_t first_id, int64_t first_depth)
    : config_(text),
      experts_(0),
      blocks_(checked_blocks(image, text), AttentionMask::causal, first_id, first_depth + 1),
      norm_(text.width, image.norm_eps),
      head_(text.width, projection, Bias::off) {
  if (!moe_layers().empty()) experts_ = image.moe.experts;
  token_embed_.shape = {text.vocabulary, text.width};
  token_embed_.decay = true;
  pos_embed_.shape = {text.context, text.width};
  head_.weight.full_precision = true;
}

Variable TextTower::forward(const ExecContext& ctx, const Tensor& tokens, ForwardPass& pass) {
  const Shape& s = tokens.shape();
  check(tokens.defined() && s.rank() == 2 && s[1] >= 1 && s[1] <= config_.context, "[text_tower] tokens {} but the context is {}", s.str(),
        config_.context);
  const int64_t W = s[1], D = config_.width;
  const CaptionEnds ends = caption_ends(ctx, tokens, config_.end_token, experts_);
  pass.allow = ends.allow;
  pass.closed = ClosedTokens::leave_out;
  const Variable positions = W == config_.context ? Variable(pos_embed_) : slice_rows(ctx, pos_embed_, 0, W);
  Variable x = add_rows(ctx, embedding(ctx, token_embed_, tokens), reshape(ctx, positions, {1, W, D}));
  x = select_tokens(ctx, blocks_.forward(ctx, std::move(x), pass), ends.index);
  return head_.forward(ctx, cast(ctx, norm_.forward(ctx, x), head_.weight.value.dtype()));
}

int64_t TextTower::depth_of(const std::string& name) const {
  if (name.starts_with("blocks.")) return 1 + std::stoll(name.substr(7));
  return name.starts_with("norm") || name.starts_with("head") ? last_depth() : 0;
}

void TextTower::init(const ExecContext& ctx, RngKey key) {
  fill_normal(token_embed_.value, 0.02, key_of(key, token_embed_.name));
  fill_normal(pos_embed_.value, 0.01, key_of(key, pos_embed_.name));
  blocks_.init(ctx, key);
  norm_.init();
  fill_normal(head_.weight.value, 1 / std::sqrt(static_cast<double>(config_.width)), key_of(key, head_.weight.name));
}

void TextTower::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "token_embed"), token_embed_);
  visitor(join(prefix, "pos_embed"), pos_embed_);
  blocks_.visit(join(prefix, "blocks"), visitor);
  norm_.visit(join(prefix, "norm"), visitor);
  head_.visit(join(prefix, "head"), visitor);
}

}  // namespace ermoe
