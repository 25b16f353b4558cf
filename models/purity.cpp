#include "models/purity.h"

#include "autograd/tape.h"
#include "core/flat.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

/// What a pass has the gradient of.
struct Parts {
  double task = 0, terms = 0;
  std::string only;  // of the terms; empty: all
};

bool is_of(const Parameter& p, const char* part) {
  return p.role != Parameter::Role::derived && !p.frozen && p.name.find(part) != std::string::npos;
}

/// The gradients of some parameters, one after the other.
std::vector<double> read_gradients(const ExecContext& ctx, Model& model, const char* part) {
  std::vector<double> all;
  for (const Parameter* p : model.arena().parameters()) {
    if (!is_of(*p, part) || p->shape.numel() == 0) continue;
    const Tensor host = on_host(ctx, p->grad);
    const Tensor wide = Tensor::empty(host.allocator(), host.shape(), DType::f64);
    convert(host, wide);
    const auto values = wide.span<double>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

struct Gradients {
  std::vector<double> experts, router;
  std::vector<std::string> terms;  // that the pass met
};

Gradients differentiate(const ExecContext& outer, Model& model, const MicroBatch& batch, const TargetLoss& loss, int64_t draws,
                        const Parts& parts) {
  ParameterArena& arena = model.arena();
  arena.begin_gradients();
  model.refresh_derived(outer);
  Gradients found;
  {
    Tape tape;
    ExecContext ctx = outer.with_tape(&tape).with_rng(outer.rng.fold(0));
    const Tensor counter = make_step_results(ctx, draws);
    ctx.draw = draw_number(counter);
    ForwardPass pass;
    pass.allow = batch.allow;
    pass.loss_weight = parts.terms;
    pass.only_loss = parts.only;
    const Variable value = model.loss(ctx, batch, loss, pass);
    const Tensor seed = ctx.empty(value.shape(), value.dtype(), "gradient");
    fill(seed, parts.task);
    tape.backward(ctx, value, seed);
    for (const auto& [name, term] : pass.losses)
      if (std::ranges::find(found.terms, name) == found.terms.end()) found.terms.push_back(name);
  }
  arena.end_gradients(Parameter::Role::direct);
  arena.end_gradients(Parameter::Role::derived);
  model.pull_back(outer);
  arena.end_gradients(Parameter::Role::factor);
  found.experts = read_gradients(outer, model, ".moe.experts.");
  found.router = read_gradients(outer, model, ".moe.router.");
  model.discard_step();
  arena.begin_gradients();
  return found;
}

void take_off(const std::vector<double>& other, std::vector<double>& from) {
  std::ranges::transform(from, other, from.begin(), std::minus{});
}

Agreement compare(const std::vector<double>& task, const std::vector<double>& term) {
  double both = 0, of_task = 0, of_term = 0;
  for (size_t i = 0; i < task.size(); ++i) {
    both += task[i] * term[i];
    of_task += task[i] * task[i];
    of_term += term[i] * term[i];
  }
  Agreement result;
  if (of_task > 0) result.norm_ratio = std::sqrt(of_term / of_task);
  if (of_task > 0 && of_term > 0) result.cosine = both / std::sqrt(of_task) / std::sqrt(of_term);
  return result;
}

}  // namespace

std::vector<TermPurity> measure_purity(const ExecContext& ctx, Model& model, const MicroBatch& batch, const TargetLoss& loss,
                                       int64_t draws) {
  check(ctx.comm->size() == 1, "[purity] measured on {} ranks", ctx.comm->size());
  const auto run = [&](const Parts& parts) { return differentiate(ctx, model, batch, loss, draws, parts); };
  Gradients task = run({.task = 1, .terms = 0, .only = {}});
  if (task.terms.empty()) return {};
  const bool penalty = model.experts().orthogonality == Orthogonality::penalty;
  const Gradients nothing = penalty ? run({}) : Gradients();
  const auto without_penalty = [&](Gradients& g) {
    if (!penalty) return;
    take_off(nothing.experts, g.experts);
    take_off(nothing.router, g.router);
  };
  without_penalty(task);
  std::vector<std::string> terms{""};
  if (task.terms.size() > 1) terms.insert(terms.end(), task.terms.begin(), task.terms.end());
  std::vector<TermPurity> all;
  for (const std::string& term : terms) {
    Gradients g = run({.task = 0, .terms = 1, .only = term});
    without_penalty(g);
    all.push_back({.term = term, .experts = compare(task.experts, g.experts), .router = compare(task.router, g.router)});
  }
  if (task.terms.size() == 1) {
    all.push_back(all[0]);
    all[1].term = task.terms[0];
  }
  return all;
}

std::vector<std::pair<std::string, double>> purity_values(const std::vector<TermPurity>& terms) {
  std::vector<std::pair<std::string, double>> values;
  for (const TermPurity& t : terms) {
    const std::string behind = t.term.empty() ? "" : "/" + t.term;
    for (const auto& [name, agreement] : {std::pair("experts", &t.experts), std::pair("router", &t.router)}) {
      if (agreement->cosine) values.emplace_back(fmt::format("purity_{}{}", name, behind), *agreement->cosine);
      if (agreement->norm_ratio) values.emplace_back(fmt::format("purity_ratio_{}{}", name, behind), *agreement->norm_ratio);
    }
  }
  return values;
}

}  // namespace ermoe
