// The losses over pairs as their formulas stand, in double: all pairs in one place, every logit kept.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace ermoe::testing {

struct PairProblem {
  int64_t pairs = 0, width = 0;
  std::vector<double> image, text;  // (pairs, width)
  double log_scale = 0, bias = 0;
};

/// Loss and gradients.
struct PairAnswer {
  double loss = 0;
  std::vector<double> image, text;
  double log_scale = 0, bias = 0;
};

/// e^s I Tᵀ + β, image by text.
inline std::vector<double> pair_logits(const PairProblem& p, double bias) {
  std::vector<double> logits;
  for (int64_t i = 0; i < p.pairs; ++i)
    for (int64_t j = 0; j < p.pairs; ++j) {
      double dot = 0;
      for (int64_t k = 0; k < p.width; ++k)
        dot += p.image[static_cast<size_t>(i * p.width + k)] * p.text[static_cast<size_t>(j * p.width + k)];
      logits.push_back(std::exp(p.log_scale) * dot + bias);
    }
  return logits;
}

/// From dloss/dlogits (pairs, pairs) to the gradients of everything that logits are made of.
inline void pull_back_logits(const PairProblem& p, const std::vector<double>& logits, const std::vector<double>& slopes, double bias,
                             PairAnswer& answer) {
  answer.image.assign(p.image.size(), 0);
  answer.text.assign(p.text.size(), 0);
  for (int64_t i = 0; i < p.pairs; ++i)
    for (int64_t j = 0; j < p.pairs; ++j) {
      const auto at = static_cast<size_t>(i * p.pairs + j);
      answer.log_scale += slopes[at] * (logits[at] - bias);
      answer.bias += slopes[at];
      for (int64_t k = 0; k < p.width; ++k) {
        const auto ik = static_cast<size_t>(i * p.width + k), jk = static_cast<size_t>(j * p.width + k);
        answer.image[ik] += slopes[at] * std::exp(p.log_scale) * p.text[jk];
        answer.text[jk] += slopes[at] * std::exp(p.log_scale) * p.image[ik];
      }
    }
}

inline PairAnswer contrastive_reference(const PairProblem& p) {
  const std::vector<double> logits = pair_logits(p, 0);
  const auto n = static_cast<size_t>(p.pairs);
  std::vector<double> slopes(logits.size(), 0);
  PairAnswer answer;
  for (const bool by_text : {false, true})
    for (size_t i = 0; i < n; ++i) {
      const auto at = [&](size_t j) { return by_text ? j * n + i : i * n + j; };
      double largest = logits[at(0)], sum = 0;
      for (size_t j = 0; j < n; ++j) largest = std::max(largest, logits[at(j)]);
      for (size_t j = 0; j < n; ++j) sum += std::exp(logits[at(j)] - largest);
      answer.loss += (largest + std::log(sum) - logits[at(i)]) / (2.0 * static_cast<double>(n));
      for (size_t j = 0; j < n; ++j)
        slopes[at(j)] += (std::exp(logits[at(j)] - largest) / sum - (i == j ? 1 : 0)) / (2.0 * static_cast<double>(n));
    }
  pull_back_logits(p, logits, slopes, 0, answer);
  return answer;
}

inline PairAnswer sigmoid_pair_reference(const PairProblem& p) {
  const std::vector<double> logits = pair_logits(p, p.bias);
  const auto n = static_cast<size_t>(p.pairs);
  std::vector<double> slopes(logits.size(), 0);
  PairAnswer answer;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      const double z = i == j ? 1 : -1, probability = 1 / (1 + std::exp(-z * logits[i * n + j]));
      answer.loss -= std::log(probability) / static_cast<double>(n);
      slopes[i * n + j] = -z * (1 - probability) / static_cast<double>(n);
    }
  pull_back_logits(p, logits, slopes, p.bias, answer);
  return answer;
}

}  // namespace ermoe::testing
