// The residual on Hopper: one block a multiprocessor walks tiles of 128 x 128. A matrix of hi and lo is (m, n), so both
// operands of qᵀq have their rows or columns contiguous, and on the diagonal they are the same memory, fetched once. There
// lo·lo is summed by the threads, beside the products: it would cost a fourth product for 128 elements.
// Tiles seldom divide by the blocks. Less than two a block are cut into ranges of equal length, walked from behind: a block
// begins with the first rows of a tile and leaves their sums in scratch memory for the block that ends with the tile's last
// rows. So blocks read the same rows of a matrix at about the same time, and nobody waits. The order of all sums is fixed.
// What it computes: stiefel_residual.h.
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"
#include "cuda/kernels/stiefel_residual.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

using namespace hopper;  // where code for other GPUs is made too, that of what follows is not used

constexpr int tile = Residual::wide_j;
static_assert(tile == Residual::tile_i && tile == tile_m);
constexpr int operand_bytes = tile / 64 * box_bytes;
constexpr int staging_bytes = tile * tile * 2;
constexpr int round_rows = 2 * slice;  // of q: after them the sums leave the tensor cores

/// A stage has hi and lo of 64 rows of q, at the tile's rows and at its columns.
using Stages = Ring<Product::weight, 3 * tile, staging_bytes>;
static_assert(Stages::stage_bytes == 4 * operand_bytes && Stages::stages >= 3);

/// Who does what.
struct Deal {
  int64_t tiles = 0;   // of all matrices
  int64_t shared = 0;  // the first of them, cut into one range a block; the others are taken whole, in turn
  int rounds = 0;      // of a tile

  __device__ __forceinline__ int64_t range_begin(int64_t block) const { return block * shared * rounds / gridDim.x; }
};

/// A block's pieces of tiles, its range from behind.
struct Walk {
  const Deal& deal;
  int64_t begin, end;  // what is left of the range
  int64_t whole;       // the next whole tile

  int64_t tile = 0;
  int first = 0, last = 0;  // rounds of it

  __device__ __forceinline__ explicit Walk(const Deal& d)
      : deal(d), begin(d.range_begin(blockIdx.x)), end(d.range_begin(blockIdx.x + 1)), whole(d.shared + blockIdx.x) {}

  __device__ __forceinline__ bool next() {
    const bool in_range = end > begin;
    if (!in_range && whole >= deal.tiles) return false;
    tile = in_range ? (end - 1) / deal.rounds : whole;
    const int64_t start = tile * deal.rounds;
    first = in_range ? static_cast<int>(max(begin - start, int64_t{0})) : 0;
    last = in_range ? static_cast<int>(end - start) : deal.rounds;
    if (in_range)
      end = start + first;
    else
      whole += gridDim.x;
    return true;
  }
};

/// A tile of the upper triangle; row by row.
struct Place {
  int64_t matrix;
  int i, j;  // tiles down and across

  __device__ __forceinline__ Place(const Residual& work, int64_t tile) : i(0) {
    const int across = static_cast<int>(work.column_tiles()), of_matrix = across * (across + 1) / 2;
    matrix = tile / of_matrix;
    int rest = static_cast<int>(tile - matrix * of_matrix);
    for (; rest >= across - i; ++i) rest -= across - i;
    j = i + rest;
  }
};

[[maybe_unused]] __device__ __forceinline__ void produce(Stages& ring, const Residual& work, const Deal& deal, const CUtensorMap* hi,
                                                         const CUtensorMap* lo) {
  prefetch_map(hi);
  prefetch_map(lo);
  for (Walk walk(deal); walk.next();) {
    const Place place(work, walk.tile);
    const int matrix = static_cast<int>(place.matrix), sides = place.i == place.j ? 1 : 2;
    for (int k = walk.first * round_rows; k < walk.last * round_rows; k += slice) {
      const uint32_t barrier = ring.open(sides * 2 * operand_bytes);
      for (int side = 0; side < sides; ++side) {
        const int column = (side == 0 ? place.i : place.j) * tile;
        const uint32_t to = ring.a() + side * 2 * operand_bytes;
#pragma unroll
        for (int box = 0; box < tile / 64; ++box) {
          copy_box(to + box * box_bytes, hi, barrier, column + box * 64, k, matrix);
          copy_box(to + operand_bytes + box * box_bytes, lo, barrier, column + box * 64, k, matrix);
        }
      }
      ring.advance();
    }
  }
}

using Sums = float[tile / 2];

/// fn(row, column, index of its sum) for this thread's elements of a tile. The thread's index is read where it is used, so that
/// the compiler does not keep what follows from it in registers while the products run.
template <typename Fn>
__device__ __forceinline__ void each_element(Fn&& fn) {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  const int row = (thread - (threads - consumers)) / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
#pragma unroll
  for (int j = 0; j < tile / 8; ++j)
#pragma unroll
    for (int c = 0; c < 4; ++c) fn(row + c / 2 * 8, column + j * 8 + c % 2, 4 * j + c);
}
__device__ __forceinline__ int consumer() { return static_cast<int>(threadIdx.x) - (threads - consumers); }

/// Adds the squares of a slice of lo: thread 16 k + c takes columns 8 c to 8 c + 7 of rows k, k + 16, ….
[[maybe_unused]] __device__ __forceinline__ void add_squares(uint32_t lo, float (&squares)[8]) {
  const int chunk = consumer() % 16, k = consumer() / 16;
  const uint32_t from = lo + chunk / 8 * box_bytes + k * 128 + ((chunk % 8) ^ (k & 7)) * 16;
#pragma unroll
  for (int l = 0; l < slice / 16; ++l) {
    const uint4 eight = load_shared(from + l * 16 * 128);
    const auto& pack = reinterpret_cast<const Pack<bf16, 8>&>(eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) squares[i] += widen(pack.v[i]) * widen(pack.v[i]);
  }
}

/// sum = Σ_k q(k, i) q(k, j) over so many rounds.
template <bool Diagonal>
__device__ __forceinline__ void multiply(Stages& ring, int rounds, Sums& sum, float (&squares)[8]) {
  constexpr Major mn = Major::mn;
  const uint32_t rows = consumer() / 128 * box_bytes, columns = Diagonal ? 0 : 2 * operand_bytes;
  Sums recent;
#pragma unroll
  for (float& value : sum) value = 0;
  for (int round = 0; round < rounds; ++round) {
    int before = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      barrier_wait(ring.full(ring.stage), ring.parity);
      const uint64_t hi_i = operand<mn>(ring.a() + rows, box_bytes), hi_j = operand<mn>(ring.a() + columns, box_bytes);
      const uint64_t lo_i = operand<mn>(ring.a() + operand_bytes + rows, box_bytes);
      const uint64_t lo_j = operand<mn>(ring.a() + operand_bytes + columns, box_bytes);
      multiply_fence();
#pragma unroll
      for (int k = 0; k < slice / 16; ++k) {
        multiply_async<mn, mn>(recent, step<mn>(hi_i, k), step<mn>(hi_j, k), half + k);  // the first starts anew
        multiply_async<mn, mn>(recent, step<mn>(hi_i, k), step<mn>(lo_j, k), 1);
        multiply_async<mn, mn>(recent, step<mn>(lo_i, k), step<mn>(hi_j, k), 1);
      }
      multiply_commit();
      if constexpr (Diagonal) add_squares(ring.a() + operand_bytes, squares);
      if (half == 0) {
        before = ring.stage;
        ring.advance();
      }
    }
    if constexpr (Diagonal) {  // every lane has read its squares before one gives the stages back
      settle(squares);
      __syncwarp();
    }
    multiply_wait<1>();
    ring.release(before);
    multiply_wait<0>();
    settle(recent);
    ring.release(ring.stage);
    ring.advance();
#pragma unroll
    for (int i = 0; i < tile / 2; ++i) sum[i] += recent[i];
  }
}

/// Shared memory behind the stages: first numbers, then bf16 of a tile.
struct Staging {
  float totals[Residual::parts][consumer_warps][tile];  // of the columns over a warp's rows
  float squares[consumer_warps][tile];
};
static_assert(sizeof(Staging) <= staging_bytes);

/// lo·lo joins the sums on the diagonal.
[[maybe_unused]] __device__ __forceinline__ void join_squares(const float (&squares)[8], Sums& sum, Staging& staging) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float own = squares[i] + __shfl_xor_sync(all_lanes, squares[i], 16);
    if (threadIdx.x % 32 < 16) staging.squares[consumer() / 32][threadIdx.x % 16 * 8 + i] = own;
  }
  sync_threads<consumers>(1);
  each_element([&](int row, int column, int at) {
    if (row != column) return;
    for (int warp = 0; warp < consumer_warps; ++warp) sum[at] += staging.squares[warp][column];
  });
}

/// Of 2 · Half values a lane keeps those of one half, merged with its partner's.
template <int Half>
__device__ __forceinline__ void fold(int part, float (&value)[32], int distance) {
  const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
  for (int q = 0; q < Half; ++q) {
    const float keep = upper ? value[q + Half] : value[q], give = upper ? value[q] : value[q + Half];
    value[q] = Residual::merge(part, keep, __shfl_xor_sync(all_lanes, give, distance));
  }
}

/// The tile's sums over rows and columns, for the judge.
[[maybe_unused]] __device__ __forceinline__ void write_partials(const Residual& work, const Place& place, const Sums& sum,
                                                                Staging& staging) {
  const int lane = threadIdx.x % 32, i0 = place.i * tile, j0 = place.j * tile, n = static_cast<int>(work.n);
  float* const partials = work.partials + place.matrix * Residual::parts * work.part_size();
#pragma unroll
  for (int part = 0; part < Residual::parts; ++part) {
    float own[2] = {}, value[32];
#pragma unroll
    for (int q = 0; q < 32; ++q) {
      const float upper = Residual::weigh(part, sum[q / 2 * 4 + q % 2]), lower = Residual::weigh(part, sum[q / 2 * 4 + q % 2 + 2]);
      own[0] = Residual::merge(part, own[0], upper);
      own[1] = Residual::merge(part, own[1], lower);
      value[q] = Residual::merge(part, upper, lower);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      for (int distance = 1; distance < 4; distance *= 2)
        own[h] = Residual::merge(part, own[h], __shfl_xor_sync(all_lanes, own[h], distance));
      const int row = i0 + own_row() + 8 * h;
      if (lane % 4 == 0 && row < n) partials[part * work.part_size() + place.j * work.n + row] = own[h];
    }
    fold<16>(part, value, 16);
    fold<8>(part, value, 8);
    fold<4>(part, value, 4);
#pragma unroll
    for (int q = 0; q < 4; ++q)  // the lane's columns are 16 (lane / 4) + 8 (q / 2) + 2 (lane % 4) + q % 2
      staging.totals[part][consumer() / 32][lane / 4 * 16 + q / 2 * 8 + lane % 4 * 2 + q % 2] = value[q];
  }
  sync_threads<consumers>(1);
  for (int at = consumer(); at < Residual::parts * tile; at += consumers) {
    const int part = at / tile, column = at % tile;
    float total = staging.totals[part][0][column];
#pragma unroll
    for (int warp = 1; warp < consumer_warps; ++warp) total = Residual::merge(part, total, staging.totals[part][warp][column]);
    if (j0 + column < n) partials[part * work.part_size() + (work.column_tiles() + place.i) * work.n + j0 + column] = total;
  }
  sync_threads<consumers>(1);
}

/// Byte of an element of a staged tile: lines of 128, their chunks of 8 permuted so that both ways to fill it, and to read it, meet
/// no bank twice.
__device__ __forceinline__ int staged(int row, int column) { return row * tile * 2 + (((column / 8) ^ (row & 7)) << 4) + column % 8 * 2; }

[[maybe_unused]] __device__ __forceinline__ void write_staged(const Residual& work, int64_t matrix, int i0, int j0,
                                                              const unsigned char* staging) {
  const int n = static_cast<int>(work.n), column = consumer() % 16 * 8;
  sync_threads<consumers>(1);
#pragma unroll
  for (int l = 0; l < tile / 16; ++l) {
    const int row = consumer() / 16 + l * 16;
    if (i0 + row < n && j0 + column < n)
      *reinterpret_cast<uint4*>(work.half + (matrix * n + i0 + row) * n + j0 + column) =
          *reinterpret_cast<const uint4*>(staging + staged(row, column));
  }
  sync_threads<consumers>(1);
}

/// ½R without its diagonal, and its mirror image.
template <bool Diagonal>
__device__ __forceinline__ void write_half(const Residual& work, const Place& place, const Sums& sum, unsigned char* staging) {
  const auto put = [&](int row, int column, float value) { *reinterpret_cast<bf16*>(staging + staged(row, column)) = narrow<bf16>(value); };
  each_element([&](int row, int column, int at) {
    if constexpr (Diagonal) {
      if (column > row) put(row, column, -0.5f * sum[at]);
      if (column >= row) put(column, row, column > row ? -0.5f * sum[at] : 0.0f);
    } else if (at % 2 == 0) {
      *reinterpret_cast<uint32_t*>(staging + staged(row, column)) = pack_pair(-0.5f * sum[at], -0.5f * sum[at + 1]);
    }
  });
  write_staged(work, place.matrix, place.i * tile, place.j * tile, staging);
  if constexpr (Diagonal) return;
  each_element([&](int row, int column, int at) { put(column, row, -0.5f * sum[at]); });
  write_staged(work, place.matrix, place.j * tile, place.i * tile, staging);
}

/// What blocks leave for one another.
struct Scratch {
  float* sums = nullptr;  // (blocks, tile), as the threads hold them
  int* flags = nullptr;   // (blocks), not 0 once the slot is filled
};

template <bool Diagonal>
__device__ __forceinline__ void take(Stages& ring, const Residual& work, const Walk& walk, const Place& place, const Scratch& scratch,
                                     unsigned char* memory) {
  Sums sum;
  float squares[8] = {};
  auto& staging = *reinterpret_cast<Staging*>(memory);
  multiply<Diagonal>(ring, walk.last - walk.first, sum, squares);
  if constexpr (Diagonal) join_squares(squares, sum, staging);
  const int block = static_cast<int>(blockIdx.x);
  if (walk.last < walk.deal.rounds) return leave_sums(sum, scratch.sums, scratch.flags, block);
  for (int64_t begin = walk.first, other = block; begin > 0;) {
    add_sums(sum, scratch.sums, scratch.flags, static_cast<int>(--other));
    begin = walk.deal.range_begin(other) - walk.tile * walk.deal.rounds;
  }
  if constexpr (Diagonal) {
    const int64_t first = place.i * tile;
    each_element([&](int row, int column, int at) {
      if (row == column && first + row < work.n) work.diagonal[place.matrix * work.n + first + row] = 1 - sum[at];
      if (column <= row) sum[at] = 0;  // belongs to its mirror image
    });
  }
  write_partials(work, place, sum, staging);
  write_half<Diagonal>(work, place, sum, memory);
}

__global__ void __launch_bounds__(threads, 1)
    residual_wgmma_kernel(const Residual work, const Deal deal, const Scratch scratch, const __grid_constant__ CUtensorMap hi,
                          const __grid_constant__ CUtensorMap lo) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Stages ring(memory);
  ring.init();
  if (threadIdx.x < threads - consumers) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce(ring, work, deal, &hi, &lo);
  } else {
    take_registers<232>();
    unsigned char* const staging = memory + (ring.extra() - shared_address(memory));
    for (Walk walk(deal); walk.next();) {
      const Place place(work, walk.tile);
      if (place.i == place.j)
        take<true>(ring, work, walk, place, scratch, staging);
      else
        take<false>(ring, work, walk, place, scratch, staging);
    }
  }
#else
  __trap();
#endif
}

/// Tiles are cut where taking them whole would leave blocks idle for longer than sums take to hand over, about 1½ rounds.
Deal deal_of(const Residual& work, int64_t blocks, bool room) {
  const int64_t across = work.column_tiles(), tiles = work.batch * across * (across + 1) / 2, rest = tiles % blocks;
  Deal deal{.tiles = tiles, .rounds = static_cast<int>((work.m + round_rows - 1) / round_rows)};
  const bool idle = rest > 0 && 2 * (blocks - rest) * deal.rounds > 3 * blocks;
  if (room && idle) deal.shared = tiles < blocks ? tiles : blocks + rest;
  return deal;
}

}  // namespace

void residual_wgmma(const Stream& stream, const Residual& work) {
  constexpr int64_t slot_size = tile * tile;
  const int64_t multiprocessors = state_of(stream).multiprocessors;
  const bool room = work.spare_size >= multiprocessors * (slot_size + 1);
  Deal deal = deal_of(work, multiprocessors, room);
  const int64_t most = deal.shared > 0 ? deal.shared * deal.rounds / 2 : deal.tiles;
  const int64_t blocks = std::clamp<int64_t>(most, 1, multiprocessors);
  const Scratch scratch{.sums = work.spare, .flags = reinterpret_cast<int*>(work.spare + blocks * slot_size)};
  if (deal.shared > 0)
    cuda_check(cudaMemsetAsync(scratch.flags, 0, static_cast<size_t>(blocks) * sizeof(int), native(stream)), "cudaMemsetAsync");
  const CUtensorMap hi = tensor_map({.data = work.hi, .x = work.n, .y = work.m, .z = work.batch});
  const CUtensorMap lo = tensor_map({.data = work.lo, .x = work.n, .y = work.m, .z = work.batch});
  constexpr int bytes = Stages::bytes;
  cuda_check(cudaFuncSetAttribute(residual_wgmma_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  residual_wgmma_kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(work, deal, scratch, hi, lo);
  cuda_check(cudaGetLastError(), "stiefel_residual");
}

}  // namespace ermoe::cuda
