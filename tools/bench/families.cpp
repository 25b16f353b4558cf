#include "tools/bench/families.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>

namespace ermoe {
namespace {

struct Row {
  std::string_view op;
  Family family;
};

constexpr Row table[] = {
    {"grouped_linear", Family::experts},
    {"grouped_mlp", Family::experts},
    {"grouped_mlp_products", Family::experts},
    {"grouped_products", Family::experts},

    {"linear", Family::dense},
    {"linear_products", Family::dense},
    {"matmul", Family::dense},
    {"mlp", Family::dense},
    {"patch_embed", Family::dense},
    {"extract_patches", Family::dense},

    {"attention", Family::attention},
    {"attention_mean", Family::attention},
    {"qk_norm", Family::attention},

    {"layer_norm", Family::layer_norm},

    {"add", Family::elementwise},
    {"add_broadcast", Family::elementwise},
    {"caption_ends", Family::elementwise},
    {"concat_tokens", Family::elementwise},
    {"dropout", Family::elementwise},
    {"embedding", Family::elementwise},
    {"at_most", Family::elementwise},
    {"gelu", Family::elementwise},
    {"l2_normalize", Family::elementwise},
    {"layer_scale", Family::elementwise},
    {"multiply", Family::elementwise},
    {"pool_tokens", Family::elementwise},
    {"scale", Family::elementwise},
    {"select_tokens", Family::elementwise},
    {"skip_tokens", Family::elementwise},
    {"sigmoid", Family::elementwise},
    {"tokens", Family::elementwise},
    {"transpose", Family::elementwise},

    {"add_noise", Family::routing},
    {"balance_bias", Family::routing},
    {"balance_loss", Family::routing},
    {"basis_projection", Family::routing},
    {"choose_tokens", Family::routing},
    {"combine_weights", Family::routing},
    {"context_cosine", Family::routing},
    {"cosine", Family::routing},
    {"drop_experts", Family::routing},
    {"energy_share", Family::routing},
    {"gather_slots", Family::routing},
    {"importance_loss", Family::routing},
    {"leading_basis", Family::routing},
    {"load_loss", Family::routing},
    {"output_overlap", Family::routing},
    {"rank_tokens", Family::routing},
    {"router_stats", Family::routing},
    {"routing_plan", Family::routing},
    {"select_experts", Family::routing},
    {"score_variance", Family::routing},
    {"slice_rows", Family::routing},
    {"softmax", Family::routing},
    {"subspace_cosine", Family::routing},
    {"switch_balance", Family::routing},
    {"token_weights", Family::routing},
    {"z_loss", Family::routing},

    {"combine", Family::dispatch},
    {"dispatch", Family::dispatch},

    {"join_basis", Family::orthogonality},
    {"materialize", Family::orthogonality},
    {"orthogonal_step", Family::orthogonality},
    {"project_off", Family::orthogonality},

    {"adamw", Family::optimizer},

    {"attach_loss", Family::loss},
    {"contrastive_loss", Family::loss},
    {"cross_entropy", Family::loss},
    {"kl_loss", Family::loss},
    {"regression_loss", Family::loss},
    {"sigmoid_cross_entropy", Family::loss},
    {"sigmoid_pair_loss", Family::loss},
    {"soft_targets", Family::loss},
    {"step_results", Family::loss},

    {"augment", Family::input},
    {"mix_batch", Family::input},

    {"cast", Family::copies},
    {"reshape", Family::copies},
};

/// Seconds in which at least one of the activities ran.
double covered(std::span<const GpuActivity> activities) {
  double seconds = 0, end = 0;
  for (const GpuActivity& a : activities) {
    const double from = std::max(a.start, end), to = a.start + a.seconds;
    if (to > from) seconds += to - from;
    end = std::max(end, to);
  }
  return seconds;
}

}  // namespace

std::string_view title(Family family) {
  switch (family) {
    case Family::experts: return "experts' products";
    case Family::dense: return "dense products";
    case Family::attention: return "attention";
    case Family::layer_norm: return "LayerNorm";
    case Family::elementwise: return "GELU, elementwise";
    case Family::routing: return "routing";
    case Family::dispatch: return "dispatch, combine";
    case Family::orthogonality: return "orthogonality";
    case Family::optimizer: return "optimizer";
    case Family::loss: return "loss";
    case Family::input: return "augmentation";
    case Family::collectives: return "collectives";
    case Family::copies: return "copies, fills";
    case Family::idle: return "idle";
  }
  return "";
}

std::optional<Family> family_of_op(std::string_view op) {
  const auto* row = std::ranges::find(table, op, &Row::op);
  return row == std::end(table) ? std::nullopt : std::optional(row->family);
}

Family family_of(const GpuActivity& activity) {
  if (activity.name.find("nccl") != std::string::npos) return Family::collectives;
  std::string_view path = activity.ops;
  while (!path.empty()) {
    const size_t slash = path.rfind('/');
    const size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
    if (const auto family = family_of_op(path.substr(begin))) return *family;
    path = path.substr(0, begin == 0 ? 0 : slash);
  }
  return Family::copies;
}

double Breakdown::total() const {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0, [](double sum, const auto& entry) { return sum + entry.second; });
}

double Breakdown::of(Family family) const {
  const auto found = seconds.find(family);
  return found == seconds.end() ? 0 : found->second;
}

std::vector<CollectiveTime> collectives_of(std::span<const GpuActivity> activities) {
  std::vector<GpuActivity> others;
  std::map<std::string, std::vector<GpuActivity>> kinds;
  for (const GpuActivity& a : activities) (family_of(a) == Family::collectives ? kinds[a.name] : others).push_back(a);
  std::vector<CollectiveTime> times;
  for (const auto& [name, own] : kinds) {
    std::vector<GpuActivity> both(own);
    both.insert(both.end(), others.begin(), others.end());
    std::ranges::sort(both, {}, &GpuActivity::start);
    times.push_back({.name = name,
                     .calls = std::ssize(own),
                     .seconds = covered(own),
                     .hidden_seconds = covered(own) + covered(others) - covered(both)});
  }
  std::ranges::sort(times, std::greater(), &CollectiveTime::seconds);
  return times;
}

Breakdown break_down(std::span<const GpuActivity> activities, double step_seconds) {
  Breakdown result;
  if (activities.empty()) {
    result.fault = "CUPTI saw no work of the GPU";
    return result;
  }
  std::map<std::tuple<Family, std::string, std::string>, KernelTime> kernels;
  double last = 0;
  for (const GpuActivity& a : activities) {
    const Family family = family_of(a);
    result.seconds[family] += a.seconds;
    last = std::max(last, a.start + a.seconds);
    KernelTime& kernel = kernels[{family, a.ops, a.name}];
    kernel.family = family;
    kernel.ops = a.ops;
    kernel.name = a.name;
    ++kernel.calls;
    kernel.seconds += a.seconds;
  }
  result.profiled_seconds = last - activities.front().start;
  result.busy_seconds = covered(activities);
  result.seconds[Family::idle] = std::max(0.0, step_seconds - result.busy_seconds);
  for (auto& [key, kernel] : kernels) result.kernels.push_back(std::move(kernel));
  std::ranges::sort(result.kernels, std::greater(), &KernelTime::seconds);
  return result;
}

}  // namespace ermoe
