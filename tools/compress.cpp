#include "tools/compress.h"

#include "core/enum_names.h"
#include "models/config_rules.h"
#include "models/router_ermoe.h"
#include "ops/l2_normalize.h"
#include "ops/linear.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace ermoe {
namespace {

constexpr double shortest = 1e-20;  // norm of a hidden unit below which it has no direction

int64_t row_size(const Tensor& t) { return t.shape()[0] > 0 ? t.numel() / t.shape()[0] : 0; }
float* row(const Tensor& t, int64_t i) { return t.data<float>() + i * row_size(t); }

/// Row i of `to` = row ids[i] of `from`.
void take_rows(const Tensor& from, const std::vector<int64_t>& ids, const Tensor& to) {
  for (size_t i = 0; i < ids.size(); ++i) std::copy_n(row(from, ids[i]), row_size(from), row(to, static_cast<int64_t>(i)));
}

/// The matrices and biases of a layer's experts, all of them.
struct ExpertTensors {
  Tensor W1, b1, W2, b2;  // (E, F, D), (E, F), (E, D, F), (E, D)

  int64_t hidden() const { return W1.shape()[1]; }
  int64_t width() const { return W1.shape()[2]; }
  std::vector<Tensor> all() const { return {W1, b1, W2, b2}; }

  /// Expert e's hidden units, (F, 2D + 1): what each reads, its bias, what it writes.
  Tensor units(const ExecContext& ctx, int64_t e) const {
    const int64_t F = hidden(), D = width();
    const Tensor t = ctx.empty({F, 2 * D + 1}, DType::f32);
    for (int64_t f = 0; f < F; ++f) {
      float* const to = row(t, f);
      std::copy_n(row(W1, e) + f * D, D, to);
      to[D] = row(b1, e)[f];
      for (int64_t d = 0; d < D; ++d) to[D + 1 + d] = row(W2, e)[d * F + f];
    }
    return t;
  }

  void set_unit(int64_t e, int64_t f, const double* unit) const {
    const int64_t F = hidden(), D = width();
    for (int64_t d = 0; d < D; ++d) row(W1, e)[f * D + d] = static_cast<float>(unit[d]);
    row(b1, e)[f] = static_cast<float>(unit[D]);
    for (int64_t d = 0; d < D; ++d) row(W2, e)[d * F + f] = static_cast<float>(unit[D + 1 + d]);
  }
};

using Named = std::map<std::string, Tensor>;

/// Everything by name, what is made from factors included.
Named values_of(Vit& model) {
  Named all;
  for (const Parameter* p : parameters_of(model)) all[p->name] = p->value;
  for (const Buffer* b : buffers_of(model)) all[b->name] = b->value;
  return all;
}

ExpertTensors experts_of(const Named& values, int64_t block) {
  const auto at = [&](const char* name) { return values.at(fmt::format("blocks.{}.moe.experts.{}", block, name)); };
  return {at("W1"), at("b1"), at("W2"), at("b2")};
}

/// Where a hidden unit of a dropped expert goes.
struct Place {
  double cosine = -2;
  size_t expert = 0;  // place among those that stay
  int64_t unit = 0;
};

/// For each hidden unit of expert e the most similar one of those that stay, whose units' directions are `kept`.
std::vector<Place> best_places(const ExecContext& ctx, const Tensor& units, const std::vector<Tensor>& kept) {
  const int64_t F = units.shape()[0];
  const Variable directions = l2_normalize(ctx, Variable(units), shortest);
  std::vector<Place> best(static_cast<size_t>(F));
  for (size_t e = 0; e < kept.size(); ++e) {
    const Tensor cosines = linear(ctx, directions, Variable(kept[e]), Variable()).value;  // (F, F)
    for (int64_t f = 0; f < F; ++f) {
      const float* const of = row(cosines, f);
      const float* const most = std::max_element(of, of + F);
      Place& place = best[static_cast<size_t>(f)];
      if (static_cast<double>(*most) > place.cosine) place = {static_cast<double>(*most), e, most - of};
    }
  }
  return best;
}

/// Means of hidden units, weighted by loads, as they gather.
class UnitSums {
 public:
  UnitSums(const Tensor& own, double load) : size_(own.shape()[1]), weights_(static_cast<size_t>(own.shape()[0]), load) {
    for (const float v : own.span<float>()) sums_.push_back(load * static_cast<double>(v));
  }
  void add(int64_t unit, const float* other, double load) {
    for (int64_t i = 0; i < size_; ++i) sums_[static_cast<size_t>(unit * size_ + i)] += load * static_cast<double>(other[i]);
    weights_[static_cast<size_t>(unit)] += load;
    touched_.push_back(unit);
  }
  /// The units that others came to; all others stay as they are, to the bit.
  void write(const ExpertTensors& to, int64_t expert) {
    std::ranges::sort(touched_);
    touched_.erase(std::ranges::unique(touched_).begin(), touched_.end());
    for (const int64_t f : touched_) {
      double* const mean = sums_.data() + f * size_;
      for (int64_t i = 0; i < size_; ++i) mean[i] /= weights_[static_cast<size_t>(f)];
      to.set_unit(expert, f, mean);
    }
  }

 private:
  int64_t size_;
  std::vector<double> sums_, weights_;
  std::vector<int64_t> touched_;
};

/// Hidden units of the experts of `from` that do not stay join those of `to`, where experts stand in the order of `kept`.
void merge_units(const ExecContext& ctx, const ExpertTensors& from, const std::vector<int64_t>& kept, const std::vector<double>& loads,
                 double similarity, const ExpertTensors& to, Compressed& result) {
  const double least = 1e-6;  // an expert without any load still has a say about itself
  const auto load = [&](int64_t e) { return std::max(least, loads[static_cast<size_t>(e)]); };
  std::vector<Tensor> directions;
  std::vector<UnitSums> sums;
  for (const int64_t e : kept) {
    const Tensor units = from.units(ctx, e);
    directions.push_back(l2_normalize(ctx, Variable(units), shortest).value);
    sums.emplace_back(units, load(e));
  }
  for (int64_t e = 0; e < std::ssize(loads); ++e) {
    if (std::ranges::binary_search(kept, e)) continue;
    const Tensor units = from.units(ctx, e);
    const std::vector<Place> places = best_places(ctx, units, directions);
    for (int64_t f = 0; f < from.hidden(); ++f) {
      const Place& place = places[static_cast<size_t>(f)];
      const bool alike = place.cosine >= similarity;
      if (alike) sums[place.expert].add(place.unit, row(units, f), load(e));
      result.merged_units += alike;
      result.lost_units -= alike;
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i].write(to, static_cast<int64_t>(i));
}

/// Each row of so many elements as int8 would hold it.
void quantise_rows(float* values, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r, values += columns) {
    float largest = 0;
    for (int64_t c = 0; c < columns; ++c) largest = std::max(largest, std::abs(values[c]));
    if (largest == 0) continue;
    const float step = largest / 127;
    for (int64_t c = 0; c < columns; ++c) values[c] = step * std::round(values[c] / step);
  }
}

/// Copies of the most loaded experts at the end of `to`, whose ids go into `replica_of`.
void replicate(const std::vector<int64_t>& heaviest, int64_t first, const ExpertTensors& to, const Tensor& replica_of) {
  const int64_t F = to.hidden(), D = to.width();
  for (size_t i = 0; i < heaviest.size(); ++i) {
    const int64_t copy = first + static_cast<int64_t>(i);
    for (const Tensor& t : to.all()) std::copy_n(row(t, heaviest[i]), row_size(t), row(t, copy));
    quantise_rows(row(to.W1, copy), F, D);
    quantise_rows(row(to.W2, copy), D, F);
    replica_of.data<float>()[i] = static_cast<float>(heaviest[i]);
  }
}

/// (E, R, D), as ermoe's router scores with it, to a basis of the router's own (E', D, R).
void take_bases(const Tensor& packed, const std::vector<int64_t>& kept, const Tensor& basis) {
  const int64_t R = packed.shape()[1], D = packed.shape()[2];
  for (size_t i = 0; i < kept.size(); ++i)
    for (int64_t d = 0; d < D; ++d)
      for (int64_t r = 0; r < R; ++r) row(basis, static_cast<int64_t>(i))[d * R + r] = row(packed, kept[i])[r * D + d];
}

/// One layer: its experts and what of its router goes by expert.
void compress_layer(const ExecContext& host, MoeLayer& from, const std::vector<double>& loads, const Compression& what, MoeLayer& to,
                    const Named& values, Named& made, Compressed& all) {
  const ExpertDims &old = from.dims(), &now = to.dims();
  const std::vector<int64_t> kept = experts_to_keep(loads, now.experts);
  std::vector<int64_t> ids = kept;
  for (int64_t f = 0; f < old.free_experts; ++f) ids.push_back(old.experts + f);
  const ExpertTensors source = experts_of(values, from.block()), result = experts_of(made, from.block());
  for (size_t i = 0; i < source.all().size(); ++i) take_rows(source.all()[i], ids, result.all()[i]);
  all.lost_units += (old.experts - now.experts) * old.hidden;
  if (what.method == Pruning::merge) merge_units(host, source, kept, loads, what.similarity, result, all);
  const std::string prefix = fmt::format("blocks.{}.moe.", from.block());
  if (now.replicas > 0) {
    std::vector<double> left;
    for (const int64_t e : kept) left.push_back(loads[static_cast<size_t>(e)]);
    replicate(experts_to_keep(left, now.replicas), now.first_replica(), result, made.at(prefix + "replica_of"));
  }
  auto* const ermoe = dynamic_cast<ErmoeRouter*>(&from.router());
  for (auto& [name, value] : made) {
    if (!name.starts_with(prefix + "router.") || name.ends_with(".packed_basis")) continue;
    if (ermoe != nullptr && name.ends_with(".basis")) {
      take_bases(ermoe->packed_basis(), kept, value);
      continue;
    }
    const auto found = values.find(name);
    const bool there = found != values.end();
    const bool same = there && found->second.shape() == value.shape();
    const bool by_expert =
        there && value.shape().rank() > 0 && value.shape()[0] == now.experts && found->second.shape() == value.shape().with(0, old.experts);
    check_input(same || by_expert, "moe.router {}: its {} cannot lose experts", enum_name(all.model->config().moe.router), name);
    if (by_expert)
      take_rows(found->second, kept, value);
    else
      copy(found->second, value);
  }
}

}  // namespace

VitConfig compressed_config(const VitConfig& model, const Compression& what) {
  VitConfig config = model;
  MoeConfig& moe = config.moe;
  check_input(!moe_blocks(moe.layers, model.depth).empty(), "the model has no experts (moe.layers {})", moe.layers);
  check_input(moe.layer == ExpertLayer::routed,
              "moe.layer {}: all its experts are one factored tensor, of which none can be dropped or copied", enum_name(moe.layer));
  check_input(moe.replicas == 0, "the model has {} copies of experts already (moe.replicas): compress the one that it was made of",
              moe.replicas);
  check_input(moe.regions.empty(), "moe.regions: each expert of this model has regions of its own, which no other would take over");
  const auto dropped = static_cast<int64_t>(std::llround(what.prune * static_cast<double>(moe.experts)));
  const int64_t left = moe.experts - dropped;
  check_input(moe.router != RouterKind::soft || (dropped == 0 && what.replicas == 0),
              "moe.router soft: its slots are numbered by expert, so none of its experts can be dropped or copied");
  check_input(left >= 1 && left + moe.free_experts >= moe.top_k,
              "--prune {}: {} of {} experts would be left, and a token takes {} (moe.top_k)", what.prune, left, moe.experts, moe.top_k);
  check_input(what.replicas <= left, "--replicate {}: a layer has {} experts", what.replicas, left);
  if (moe.adapter == 0) moe.hidden = expert_hidden(model);  // adapters have their width from moe.adapter
  if (moe.router == RouterKind::ermoe) {
    moe.basis_rank = basis_rank(model);
    moe.basis = Basis::untied;
  }
  moe.expert = ExpertKind::plain;
  moe.rank = 0;
  moe.experts = left;
  moe.expert_dropout = 0;  // of clusters that the experts left need not fill
  moe.expert_clusters = 1;
  moe.replicas = what.replicas;
  return config;
}

std::vector<int64_t> experts_to_keep(const std::vector<double>& loads, int64_t count) {
  std::vector<int64_t> ids(loads.size());
  std::iota(ids.begin(), ids.end(), int64_t{0});
  std::ranges::stable_sort(ids, std::greater{}, [&](int64_t e) { return loads[static_cast<size_t>(e)]; });
  ids.resize(static_cast<size_t>(count));
  std::ranges::sort(ids);
  return ids;
}

Compressed compress(const ExecContext& host, Vit& model, const ExpertLoads& loads, const Compression& what) {
  Compressed result{.model = std::make_unique<Vit>(compressed_config(model.config(), what))};
  result.model->allocate(host, DType::f32);
  const Named values = values_of(model);
  Named made = values_of(*result.model);
  for (auto& [name, value] : made)
    if (name.find(".moe.") == std::string::npos) copy(values.at(name), value);
  const std::vector<MoeLayer*> from = model.moe_layers(), to = result.model->moe_layers();
  check(loads.size() == from.size(), "[compress] loads of {} layers for {}", loads.size(), from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    check(std::ssize(loads[i]) == from[i]->dims().experts, "[compress] {} loads for {} experts", loads[i].size(), from[i]->dims().experts);
    compress_layer(host, *from[i], loads[i], what, *to[i], values, made, result);
  }
  result.model->refresh(host);
  return result;
}

std::unique_ptr<Vit> host_copy(const ExecContext& ctx, const ExecContext& host, Vit& model) {
  auto result = std::make_unique<Vit>(model.config());
  result->allocate(host, DType::f32);
  const std::vector<Parameter*> from = parameters_of(model), to = parameters_of(*result);
  for (size_t i = 0; i < from.size(); ++i)
    if (from[i]->role != Parameter::Role::derived && from[i]->shape.numel() > 0) copy(on_host(ctx, from[i]->value), to[i]->value);
  const std::vector<Buffer*> kept = buffers_of(model), copies = buffers_of(*result);
  for (size_t i = 0; i < kept.size(); ++i) copy(on_host(ctx, kept[i]->value), copies[i]->value);
  result->refresh(host);
  return result;
}

}  // namespace ermoe
