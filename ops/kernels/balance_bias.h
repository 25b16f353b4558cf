// Contract of the kernels that count loads and move biases against them. Read next: ops/cpu/balance_bias.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe::cpu {

/// loads += counts.
template <typename T>
void add_counts(int64_t experts, const int32_t* counts /* (E) */, T* loads /* (E) */);

/// bias_e += rate · sign(Σ loads - E load_e), in double, where whole numbers are exact.
template <typename T>
void move_biases(int64_t experts, const T* loads /* (E) */, double rate, T* bias /* (E) */);

}  // namespace ermoe::cpu

namespace ermoe::cuda {

/// Loads and biases are float on a GPU.
template <typename T>
void add_counts(const Stream& stream, int64_t experts, const int32_t* counts, T* loads);
template <typename T>
void move_biases(const Stream& stream, int64_t experts, const T* loads, double rate, T* bias);

}  // namespace ermoe::cuda
