// What tests of the routing scores and of the projection under them share: sizes, and the mean that is taken off.
#pragma once

#include "tests/ops/op_case.h"

namespace ermoe::testing {

inline Tensor mean_of(const ExecContext& ctx, DType dtype, int64_t width, uint64_t key) {
  return random_input(ctx, {{width}}, master_of(dtype), RngKey{key});
}

inline const std::vector<OpInput> ragged = {{.shape = {11, 7}}, {.shape = {5, 3, 7}}};
inline const std::vector<OpInput> ragged_pair = {{.shape = {11, 7}}, {.shape = {11, 7}}, {.shape = {5, 3, 7}}};
inline const std::vector<OpInput> large_pair = {{.shape = {130, 19}}, {.shape = {130, 19}}, {.shape = {8, 5, 19}}};

}  // namespace ermoe::testing
