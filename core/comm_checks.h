// What a collective is asked to do, checked before anything is sent: one place and one wording for every communicator.
#pragma once

#include "core/comm.h"
#include "core/tensor.h"

#include <cstdint>
#include <span>
#include <vector>

namespace ermoe {

/// Throws `Error` unless `root` is one of `size` ranks.
void check_root(int root, int size);

/// How many rows each rank has of `many`, of which `one` is rank `rank`'s: as `rows` says, or equally many where it is empty. Throws
/// `Error` with `collective`, dtypes and shapes where they do not fit together.
std::vector<int64_t> rows_of_ranks(const char* collective, const Tensor& one, const Tensor& many, std::span<const int64_t> rows, int rank,
                                   int size);

/// Elements of one row of an all_to_all. Throws `Error` where the two tensors' rows differ, or rows do not add up.
int64_t row_of_exchange(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t> recv_rows,
                        int size);

/// Throws `Error` where the two tensors' rows differ, a block does not lie in its tensor or names none of `size` ranks, or what `rank`,
/// this one, sends itself is not what it expects.
void check_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv, std::span<const RowBlock> receives, int rank,
                  int size);

}  // namespace ermoe
