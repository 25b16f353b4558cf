#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

/// The elements of an input that are nudged: all of them, or a random choice.
std::vector<int64_t> choose(int64_t numel, int64_t probes, RngKey key) {
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < std::min(numel, probes); ++i) {
    const auto random = uniform_int(key, static_cast<uint64_t>(i), static_cast<uint64_t>(numel));
    chosen.push_back(numel <= probes ? i : static_cast<int64_t>(random));
  }
  return chosen;
}

}  // namespace

GradcheckResult gradcheck(const ExecContext& ctx, const GradcheckFn& fn, std::span<const Tensor> inputs, int64_t probes) {
  Tape tape;
  std::vector<Variable> leaves, constants;
  for (const Tensor& input : inputs) {
    check(input.dtype() == DType::f64, "[gradcheck] wants f64 inputs but got {}", name_of(input.dtype()));
    leaves.push_back(tape.leaf(input));
    constants.emplace_back(input);
  }
  const Variable y = fn(ctx.with_tape(&tape), leaves);
  Tensor cotangent = ctx.empty(y.shape(), DType::f64);
  for (int64_t i = 0; i < y.value.numel(); ++i) cotangent.data<double>()[i] = normal(ctx.rng.fold(1), static_cast<uint64_t>(i));
  const double scale = std::abs(dot(y.value, cotangent));
  tape.backward(ctx, y, cotangent.clone());

  const ExecContext no_tape = ctx.with_tape(nullptr);
  GradcheckResult result;
  for (size_t k = 0; k < inputs.size(); ++k) {
    double* x = inputs[k].data<double>();
    const Tensor grad = tape.grad(leaves[k]);
    struct Probe {
      int64_t element;
      double numeric, analytic;
    };
    std::vector<Probe> seen;
    // Below this, a gradient is rounding noise of the difference quotient itself.
    double largest = 1e-5 * std::max(scale, 1.0);
    for (int64_t element : choose(inputs[k].numel(), probes, ctx.rng.fold(2 + k))) {
      const double before = x[element];
      const double h = 1e-5 * std::max(1.0, std::abs(before));
      x[element] = before + h;
      const double up = dot(fn(no_tape, constants).value, cotangent);
      x[element] = before - h;
      const double down = dot(fn(no_tape, constants).value, cotangent);
      x[element] = before;
      seen.push_back({element, (up - down) / (2 * h), grad.defined() ? grad.data<double>()[element] : 0.0});
      largest = std::max({largest, std::abs(seen.back().numeric), std::abs(seen.back().analytic)});
    }
    for (const Probe& p : seen) {
      const double error = std::abs(p.numeric - p.analytic) / largest;
      if (!(error > result.worst) && !std::isnan(error)) continue;
      result.worst = std::isnan(error) ? INFINITY : error;
      result.where = fmt::format("input {} element {}: numeric {}, analytic {}", k, p.element, p.numeric, p.analytic);
    }
  }
  return result;
}

}  // namespace ermoe
