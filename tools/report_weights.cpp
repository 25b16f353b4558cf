#include "tools/report_weights.h"

#include "models/router_ermoe.h"
#include "models/routing_metrics.h"
#include "models/svd.h"
#include "tools/report_page.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <functional>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

constexpr int64_t most_places = 64, largest_matrix = 1 << 20;

/// (E, r) -> of each expert the absolute values, descending.
std::vector<std::vector<double>> scales_of(const Tensor& s) {
  const int64_t E = s.shape()[0], r = s.shape()[1];
  std::vector<std::vector<double>> all;
  for (int64_t e = 0; e < E; ++e) {
    std::vector<double>& own = all.emplace_back();
    for (int64_t i = 0; i < r; ++i) own.push_back(std::abs(static_cast<double>(s.data<float>()[e * r + i])));
    std::ranges::sort(own, std::greater{});
  }
  return all;
}

/// Which singular values are shown: all, or those at even steps and the last.
std::vector<int64_t> places_of(int64_t count) {
  std::vector<int64_t> places;
  const int64_t shown = std::min(count, most_places);
  for (int64_t i = 0; i < shown; ++i) places.push_back(shown < 2 ? 0 : i * (count - 1) / (shown - 1));
  return places;
}

ordered_json picked(const std::vector<std::vector<double>>& spectra, const std::vector<int64_t>& places) {
  ordered_json out = ordered_json::array();
  for (const std::vector<double>& spectrum : spectra) {
    ordered_json& row = out.emplace_back(ordered_json::array());
    for (const int64_t place : places) row.push_back(brief(spectrum[static_cast<size_t>(place)]));
  }
  return out;
}

/// The parameter of the experts with this name; undefined where there is none.
Tensor find(const ExecContext& ctx, MoeLayer& layer, const std::string& name) {
  Tensor found;
  layer.experts().visit("", {.parameter = [&](Parameter& p) { found = p.name == name ? p.value : found; }, .buffer = {}});
  return found.defined() ? on_host(ctx, found) : found;
}

/// The leading columns of V1 (E, D, r) as rows: (E, R, D), R as eigenbasis routing has it where nothing else is said.
Tensor leading_basis(const ExecContext& ctx, const Tensor& V, int64_t experts) {
  const int64_t D = V.shape()[1], r = V.shape()[2], R = std::min(r, std::max<int64_t>(1, D / 8));
  const Tensor basis = Tensor::empty(ctx.host != nullptr ? *ctx.host : *ctx.allocator, {experts, R, D}, DType::f32);
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t d = 0; d < D; ++d)
      for (int64_t i = 0; i < R; ++i) basis.data<float>()[(e * R + i) * D + d] = V.data<float>()[(e * D + d) * r + i];
  return basis;
}

Tensor basis_of(const ExecContext& ctx, MoeLayer& layer) {
  if (auto* router = dynamic_cast<ErmoeRouter*>(&layer.router())) return router->packed_basis();
  const Tensor V = find(ctx, layer, "V1");
  return V.defined() ? leading_basis(ctx, V, layer.dims().experts) : V;
}

}  // namespace

ordered_json report_spectra(const ExecContext& ctx, MoeLayer& layer) {
  ordered_json out;
  for (const char* number : {"1", "2"}) {
    const Tensor s = find(ctx, layer, std::string("s") + number), W = find(ctx, layer, std::string("W") + number);
    if (!s.defined() && (!W.defined() || W.shape()[1] * W.shape()[2] > largest_matrix)) return nullptr;
    const auto spectra = s.defined() ? scales_of(s) : singular_values(W);
    const std::vector<int64_t> places = places_of(std::ssize(spectra.at(0)));
    out["place"] = ordered_json::array();
    for (const int64_t place : places) out["place"].push_back(place + 1);
    out[std::string("W") + number] = picked(spectra, places);
  }
  return out;
}

ordered_json report_overlap(const ExecContext& ctx, MoeLayer& layer) {
  const Tensor basis = basis_of(ctx, layer);
  if (!basis.defined() || basis.shape()[0] < 2) return nullptr;
  const std::vector<double> all = subspace_overlaps(basis);
  const int64_t E = basis.shape()[0];
  ordered_json out{{"rank", basis.shape()[1]}, {"width", basis.shape()[2]}, {"matrix", ordered_json::array()}};
  for (int64_t a = 0; a < E; ++a) {
    ordered_json& row = out["matrix"].emplace_back(ordered_json::array());
    for (int64_t b = 0; b < E; ++b) row.push_back(brief(all[static_cast<size_t>(a * E + b)]));
  }
  return out;
}

}  // namespace ermoe
