#include "models/upcycle.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "models/config_rules.h"
#include "models/experts.h"
#include "models/svd.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

namespace ermoe {
namespace {

using Parameters = std::map<std::string, Parameter*>;

/// A block's dense network and what its matrices decompose to.
struct DenseNetwork {
  std::string block;  // "blocks.3"
  Tensor w1, b1;      // (F, D), (F)
  Tensor w2, b2;      // (D, F), (D)
  std::optional<SingularTriplets> svd1, svd2;
};

/// Columns of a decomposition in the order in which one expert has them.
using Order = std::vector<int64_t>;

/// Triplets are dealt out to experts like cards, so that no basis has all the large ones: e's own come first, then the next expert's.
Order order_of(int64_t expert, int64_t experts, int64_t rank) {
  Order order;
  for (int64_t turn = 0; turn < experts; ++turn)
    for (int64_t i = (expert + turn) % experts; i < rank; i += experts) order.push_back(i);
  return order;
}

Order as_they_are(int64_t rank) { return order_of(0, 1, rank); }

/// Where an expert's columns go: (rows, columns) at `to`, whose rows are `stride` apart.
template <typename T>
struct Columns {
  T* to;
  int64_t rows, stride;
};

/// Columns order[first …] of a matrix whose element (row, i) is at(row, i).
template <typename T, typename At>
void write_columns(const Columns<T>& place, std::span<const int64_t> order, const At& at) {
  for (int64_t row = 0; row < place.rows; ++row)
    for (size_t j = 0; j < order.size(); ++j) place.to[row * place.stride + static_cast<int64_t>(j)] = static_cast<T>(at(row, order[j]));
}

/// Makes the experts of one block.
class Maker {
 public:
  Maker(const VitConfig& config, const Parameters& parameters, const DenseNetwork& dense)
      : moe_(config.moe), dims_(expert_dims(config)), parameters_(parameters), dense_(dense) {}

  void make() const {
    repeat("experts.b1", dense_.b1);
    repeat("experts.b2", dense_.b2);
    if (moe_.expert == ExpertKind::plain) {
      repeat("experts.W1", dense_.w1);
      repeat("experts.W2", dense_.w2);
    }
    dispatch_float(dense_.w1.dtype(), "upcycle", [&](auto tag) {
      using T = decltype(tag);
      if (moe_.expert == ExpertKind::eigen) write_factors<T>();
      if (moe_.router == RouterKind::ermoe && moe_.basis != Basis::leading) write_basis<T>();
    });
  }

 private:
  Parameter& parameter(const std::string& name) const { return *parameters_.at(dense_.block + ".moe." + name); }

  /// Every expert of (E, …) becomes `one`.
  void repeat(const std::string& name, const Tensor& one) const {
    const Tensor& all = parameter(name).value;
    for (int64_t e = 0; e < all.shape()[0]; ++e) copy(one, all.slice(e, e + 1).reshape(one.shape()));
  }

  Order order(int64_t expert, int64_t rank) const {
    return expert < dims_.experts ? order_of(expert, dims_.experts, rank) : as_they_are(rank);
  }

  template <typename T>
  void write_factors() const {
    const bool shared = moe_.router == RouterKind::ermoe && moe_.basis == Basis::disjoint;
    for (int64_t e = 0; e < dims_.all(); ++e) {
      const Order own = order(e, dims_.rank);
      write_triplets<T>("experts.U1", "experts.s1", *dense_.svd1, e, own);
      write_triplets<T>("experts.U2", "experts.s2", *dense_.svd2, e, own);
      write_right<T>("experts.V2", *dense_.svd2, e, own);
      const bool scored = e < dims_.experts;
      const auto rest = std::span(own).subspan(shared && scored ? static_cast<size_t>(dims_.basis_rank) : 0);
      write_right<T>(shared && !scored ? "experts.free_V1" : "experts.V1", *dense_.svd1, shared && !scored ? e - dims_.experts : e, rest);
    }
  }

  template <typename T>
  void write_triplets(const char* left, const char* scales, const SingularTriplets& svd, int64_t e, std::span<const int64_t> order) const {
    const auto r = static_cast<int64_t>(order.size());
    const auto u = [&](int64_t row, int64_t i) { return svd.U[static_cast<size_t>(row * svd.count() + i)]; };
    write_columns(Columns<T>{parameter(left).value.data<T>() + e * svd.m * r, svd.m, r}, order, u);
    write_columns(Columns<T>{parameter(scales).value.data<T>() + e * r, 1, r}, order,
                  [&](int64_t, int64_t i) { return svd.s[static_cast<size_t>(i)]; });
  }

  template <typename T>
  void write_right(const char* name, const SingularTriplets& svd, int64_t e, std::span<const int64_t> order) const {
    const auto r = static_cast<int64_t>(order.size());
    if (r > 0) write_columns(Columns<T>{parameter(name).value.data<T>() + e * svd.n * r, svd.n, r}, order, right_of(svd));
  }

  /// A shared basis has an expert's columns beside the others'; bases of their own lie one behind the other.
  template <typename T>
  void write_basis() const {
    const int64_t D = dims_.width, E = dims_.experts, R = dims_.basis_rank;
    const bool shared = moe_.basis == Basis::disjoint;
    T* const basis = parameter("router.basis").value.data<T>();
    for (int64_t e = 0; e < E; ++e) {
      const Order own = order(e, kept());
      const Columns<T> place{shared ? basis + e * R : basis + e * D * R, D, shared ? E * R : R};
      write_columns(place, std::span(own).first(static_cast<size_t>(R)), right_of(*dense_.svd1));
    }
  }

  /// Of what triplets bases are made: what eigen experts keep, or all.
  int64_t kept() const { return moe_.expert == ExpertKind::eigen ? dims_.rank : dense_.svd1->count(); }

  static auto right_of(const SingularTriplets& svd) {
    return [&svd](int64_t row, int64_t i) { return svd.Vt[static_cast<size_t>(i * svd.n + row)]; };
  }

  const MoeConfig& moe_;
  ExpertDims dims_;
  const Parameters& parameters_;
  const DenseNetwork& dense_;
};

/// Whether its matrices are wanted as singular triplets.
bool decomposes(const MoeConfig& moe) {
  return moe.expert == ExpertKind::eigen || (moe.router == RouterKind::ermoe && moe.basis == Basis::untied);
}

std::optional<DenseNetwork> find_network(const std::string& block, const VitConfig& config, const FindTensor& find,
                                         const std::string& source) {
  const std::string first = block + ".mlp.fc1.weight";
  DenseNetwork dense{.block = block, .w1 = find(first), .b1 = {}, .w2 = {}, .b2 = {}, .svd1 = {}, .svd2 = {}};
  if (!dense.w1.defined() || find(block + ".moe.experts.b1").defined()) return std::nullopt;
  const int64_t D = config.width, F = expert_hidden(config);
  const Shape& stored = dense.w1.shape();
  check_input(stored.rank() == 2 && stored[1] == D, "{}: {} is {} but model.width is {}", source, first, stored.str(), D);
  check_input(stored[0] == F, "{}: {} is {}, and experts made from it are as wide: moe.hidden must be {}, not {}", source, first,
              stored.str(), stored[0], F);
  const auto part = [&](const std::string& name, const Shape& shape) {
    const Tensor t = find(block + ".mlp." + name);
    check_input(t.defined(), "{}: {}.mlp.{} is missing", source, block, name);
    check_input(t.shape() == shape, "{}: {}.mlp.{} is {}, not {}", source, block, name, t.shape().str(), shape.str());
    return t;
  };
  dense.b1 = part("fc1.bias", {F});
  dense.w2 = part("fc2.weight", {D, F});
  dense.b2 = part("fc2.bias", {D});
  return dense;
}

void check_bases(const VitConfig& config) {
  const MoeConfig& moe = config.moe;
  if (moe.router != RouterKind::ermoe) return;
  const int64_t E = moe.experts, R = basis_rank(config), full = std::min(expert_hidden(config), config.width);
  const int64_t kept = moe.expert == ExpertKind::eigen ? factor_rank(config) : full;
  check_input(R <= kept, "moe.basis_rank: {} columns are more than the {} singular triplets that are kept of a dense network", R, kept);
  check_input(E <= kept,
              "moe.experts: {} experts are more than the {} singular triplets that are kept of a dense network, so that some "
              "would have the same routing basis",
              E, kept);
  check_input(moe.basis != Basis::disjoint || E * R <= kept,
              "moe.basis_rank: disjoint bases of {} experts times {} columns are more than the {} singular triplets that are kept of a "
              "dense network; choose {} at most",
              E, R, kept, kept / E);
}

/// All matrices of all blocks, at once on as many cores as there are.
void decompose(std::vector<DenseNetwork>& networks, const std::string& source) {
  const auto count = std::ssize(networks) * 2;
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) {
    DenseNetwork& dense = networks[static_cast<size_t>(i / 2)];
    (i % 2 == 0 ? dense.svd1 : dense.svd2) = singular_triplets(i % 2 == 0 ? dense.w1 : dense.w2);
  }
  for (const DenseNetwork& dense : networks)
    check_input(dense.svd1.has_value() && dense.svd2.has_value(),
                "{}: {}.mlp.{}.weight has no singular value decomposition; are all its numbers finite?", source, dense.block,
                dense.svd1.has_value() ? "fc2" : "fc1");
}

/// What is lost where `rank` triplets are kept, in units of the matrix' own Frobenius norm.
double truncation(const SingularTriplets& svd, int64_t rank) {
  double all = 0, lost = 0;
  for (int64_t i = 0; i < svd.count(); ++i) {
    const double s = svd.s[static_cast<size_t>(i)];
    all += s * s;
    if (i >= rank) lost += s * s;
  }
  return all > 0 ? std::sqrt(lost / all) : 0;
}

std::string cut_text(const std::vector<DenseNetwork>& networks, int64_t rank) {
  double worst = 0;
  std::string where;
  for (const DenseNetwork& dense : networks)
    for (const auto& [svd, name] : {std::pair(&*dense.svd1, "fc1"), std::pair(&*dense.svd2, "fc2")})
      if (const double error = truncation(*svd, rank); error >= worst) {
        worst = error;
        where = fmt::format("{}.mlp.{}.weight", dense.block, name);
      }
  return fmt::format(", cut to rank {} of {}: a relative error of up to {:.2g} ({})", rank, networks[0].svd1->count(), worst, where);
}

std::string summary_of(const VitConfig& config, const std::vector<DenseNetwork>& networks, double noise) {
  const MoeConfig& moe = config.moe;
  std::vector<std::string> blocks;
  for (const DenseNetwork& dense : networks) blocks.push_back(dense.block.substr(dense.block.rfind('.') + 1));
  const bool eigen = moe.expert == ExpertKind::eigen, cut = eigen && factor_rank(config) < networks[0].svd1->count();
  std::string text =
      fmt::format("block{} {}: {} experts each made from the dense network ({}{})", blocks.size() > 1 ? "s" : "", fmt::join(blocks, ", "),
                  expert_dims(config).all(), eigen ? "SVD" : "copies", cut ? cut_text(networks, factor_rank(config)) : "");
  if (noise > 0) text += fmt::format("; relative noise of {:g} on their {}", noise, eigen ? "scales" : "weights");
  const bool ermoe = moe.router == RouterKind::ermoe;
  const bool adds_up = ermoe && (moe.combine == Combine::normalized || moe.combine == Combine::softmax);
  if (!adds_up)
    text += fmt::format("; the weights of {} do not add up to 1, so that the model does not begin as the dense one{}",
                        ermoe ? fmt::format("moe.combine {}", enum_name(moe.combine)) : fmt::format("moe.router {}", enum_name(moe.router)),
                        ermoe ? " (with moe.combine softmax it does)" : "");
  return text;
}

void add_noise_to(Parameter& p, double noise, RngKey key) {
  dispatch_float(p.value.dtype(), "upcycle", [&](auto tag) {
    using T = decltype(tag);
    const RngKey own = key_of(key, p.name);
    for (int64_t i = 0; i < p.value.numel(); ++i) p.value.data<T>()[i] *= static_cast<T>(1 + noise * normal(own, static_cast<uint64_t>(i)));
  });
}

}  // namespace

Upcycled upcycle(Module& model, const VitConfig& config, const FindTensor& find, const UpcycleSettings& settings,
                 const std::string& tower) {
  Upcycled result;
  const MoeConfig& moe = config.moe;
  if (moe.layer != ExpertLayer::routed || moe.adapter > 0) return result;  // the dense network stays, or nothing is like it
  std::vector<DenseNetwork> networks;
  for (const int64_t block : moe_blocks(moe.layers, config.depth)) {
    auto dense = find_network(fmt::format("{}blocks.{}", tower, block), config, find, settings.source);
    if (dense) networks.push_back(std::move(*dense));
  }
  if (networks.empty()) return result;
  check_bases(config);
  if (decomposes(moe)) decompose(networks, settings.source);
  Parameters parameters;
  for (Parameter* p : parameters_of(model)) parameters[p->name] = p;
  for (const DenseNetwork& dense : networks) {
    Maker(config, parameters, dense).make();
    for (const char* name : {"s1", "s2", "W1", "W2"}) {
      const auto found = parameters.find(fmt::format("{}.moe.experts.{}", dense.block, name));
      if (settings.noise == 0 || found == parameters.end() || found->second->role == Parameter::Role::derived) continue;
      add_noise_to(*found->second, settings.noise, settings.key);
    }
    result.blocks.push_back(dense.block);
    for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) result.used.push_back(dense.block + ".mlp." + name);
  }
  result.summary = summary_of(config, networks, settings.noise);
  return result;
}

}  // namespace ermoe
