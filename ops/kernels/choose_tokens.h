// Contract of the kernel by which experts choose tokens. Read next: ops/cpu/choose_tokens.cpp.
#pragma once

#include "core/device.h"

#include <algorithm>
#include <cstdint>

namespace ermoe {

struct ChoiceDims {
  int64_t tokens = 0;   // N
  int64_t experts = 0;  // E
  int64_t group = 0;    // tokens that are chosen among together; the last group may have fewer
  int64_t each = 0;     // c: experts a token on average, at most E

  int64_t groups() const { return (tokens + group - 1) / group; }
  /// Tokens of group g.
  int64_t size_of(int64_t g) const { return std::min(group, tokens - g * group); }
  /// Of n tokens an expert takes c·n/E, rounded up; never more than n.
  int64_t taken_of(int64_t n) const { return (each * n + experts - 1) / experts; }
  /// Tokens that all experts take at most, counted as often as they are taken.
  int64_t rows() const {
    int64_t sum = 0;
    for (int64_t g = 0; g < groups(); ++g) sum += experts * taken_of(size_of(g));
    return sum;
  }
};

namespace cpu {

/// See `choose_tokens` for the rules. `allow` may be null.
template <typename T>
void choose_tokens(const ChoiceDims& dims, const T* scores /* (N,E) */, const uint8_t* allow /* (N,E) */, uint8_t* taken /* (N,E) */);

}  // namespace cpu

namespace cuda {

/// Scores are float on a GPU, whatever the rest of the model computes in.
template <typename T>
void choose_tokens(const Stream& stream, const ChoiceDims& dims, const T* scores, const uint8_t* allow, uint8_t* taken);

}  // namespace cuda
}  // namespace ermoe
