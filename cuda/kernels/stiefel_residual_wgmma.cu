// The residual on Hopper: one block a multiprocessor walks tiles of 128 x 128, each group of consumers 64 rows of them. A matrix
// of hi and lo is (m, n), so both operands of qᵀq have their rows or columns contiguous. On the diagonal they are the same
// memory, fetched once; the second group leaves out the square that mirrors one of the first's, and threads sum lo·lo.
// A tile leaves as boxes in shared memory, it and its mirror image, which the copy engine writes while products go on; the
// judge's sums are taken from there, a line a thread. Groups wait for each other only where a stage is given back.
// Tiles seldom divide by the blocks. Less than two a block are cut into ranges of equal cost, walked from behind: a block
// begins with the first rows of a tile and leaves their sums in scratch memory for the block that ends with the tile's last
// rows. So blocks read the same rows of a matrix at about the same time, and nobody waits. The order of all sums is fixed.
// What it computes: stiefel_residual.h.
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"
#include "cuda/kernels/stiefel_residual.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>
#include <limits>

namespace ermoe::cuda {
namespace {

using namespace hopper;  // where code for other GPUs is made too, that of what follows is not used

constexpr int tile = Residual::wide_tile;
static_assert(tile == tile_m);
constexpr int rows_a_slice = 32, rows_a_piece = 2 * rows_a_slice;  // of q: what a stage holds, and what tiles are cut into
[[maybe_unused]] constexpr int slices_a_round = 4;                 // after them the sums leave the tensor cores
constexpr int line_bytes = 64 * 2, load_bytes = rows_a_slice * line_bytes, operand_bytes = tile / 64 * load_bytes;
constexpr int store_bytes = 64 * line_bytes, group_bytes = 4 * store_bytes;

/// A stage has hi and lo of 32 rows of q, at the tile's rows and at its columns. Behind the stages each group stages its part of
/// a tile and of the mirror image.
using Stages = Ring<Product::weight, tile, 2 * group_bytes>;
static_assert(Stages::stage_bytes == 4 * operand_bytes && Stages::stages >= 4);

/// Of a piece: on the diagonal a quarter of the products is left out.
constexpr int diagonal_cost = 3, other_cost = 4;

/// Tiles of the upper triangle of one matrix, row by row.
struct Triangle {
  int across = 0;  // tiles
  int pieces = 0;  // of a tile

  ERMOE_HD int cost(int i, int j) const { return pieces * (i == j ? diagonal_cost : other_cost); }
  ERMOE_HD int row_cost(int i) const { return cost(i, i) + (across - 1 - i) * cost(0, 1); }
  ERMOE_HD int tiles() const { return across * (across + 1) / 2; }
  ERMOE_HD int matrix_cost() const { return across * cost(0, 0) + (tiles() - across) * cost(0, 1); }
};

/// Who does what. 31 bits count the pieces of all the matrices that a GPU's memory holds.
struct Deal {
  Triangle triangle;
  int tiles = 0;             // of all matrices
  int shared = 0;            // the first of them, cut into one range a block; the others are taken whole, in turn
  unsigned shared_cost = 0;  // of the products of those; times the blocks it is below 2³²

  /// The first piece of a block's range, counted through all tiles.
  __device__ __forceinline__ int range_begin(int block) const {
    int cost = static_cast<int>(static_cast<unsigned>(block) * shared_cost / gridDim.x);
    int piece = cost / triangle.matrix_cost() * triangle.tiles() * triangle.pieces;
    cost %= triangle.matrix_cost();
    for (int i = 0; i < triangle.across; ++i) {
      if (cost < triangle.cost(i, i)) return piece + cost / diagonal_cost;
      if (cost < triangle.row_cost(i)) return piece + triangle.pieces + (cost - triangle.cost(i, i)) / other_cost;
      cost -= triangle.row_cost(i);
      piece += (triangle.across - i) * triangle.pieces;
    }
    return piece;
  }
};

/// A block's parts of tiles, its range from behind.
struct Walk {
  const Deal& deal;
  int begin, end;  // what is left of the range
  int turn = 0;    // of whole tiles

  int tile = 0;
  int first = 0, last = 0;  // pieces of it

  __device__ __forceinline__ explicit Walk(const Deal& d)
      : deal(d), begin(d.range_begin(static_cast<int>(blockIdx.x))), end(d.range_begin(static_cast<int>(blockIdx.x) + 1)) {}

  __device__ __forceinline__ bool next() {
    const int pieces = deal.triangle.pieces, block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    if (end > begin) {
      tile = (end - 1) / pieces;
      const int start = tile * pieces;
      first = max(begin - start, 0);
      last = end - start;
      end = start + first;
      return true;
    }
    // One further along in each turn, so that no block meets tiles on the diagonal alone.
    tile = deal.shared + turn * blocks + (block + turn) % blocks;
    first = 0;
    last = pieces;
    ++turn;
    return tile < deal.tiles;
  }
};

/// A tile's place.
struct Place {
  int matrix;
  int i = 0, j;  // tiles down and across

  __device__ __forceinline__ Place(const Triangle& triangle, int tile) : matrix(tile / triangle.tiles()) {
    int rest = tile - matrix * triangle.tiles();
    for (; rest >= triangle.across - i; ++i) rest -= triangle.across - i;
    j = i + rest;
  }
};

[[maybe_unused]] __device__ __forceinline__ void produce(Stages& ring, const Deal& deal, const CUtensorMap* hi, const CUtensorMap* lo) {
  prefetch_map(hi);
  prefetch_map(lo);
  for (Walk walk(deal); walk.next();) {
    const Place place(deal.triangle, walk.tile);
    const int sides = place.i == place.j ? 1 : 2;
    for (int k = walk.first * rows_a_piece; k < walk.last * rows_a_piece; k += rows_a_slice) {
      const uint32_t barrier = ring.open(sides * 2 * operand_bytes);
      for (int side = 0; side < sides; ++side) {
        const int column = (side == 0 ? place.i : place.j) * tile;
        const uint32_t to = ring.a() + side * 2 * operand_bytes;
#pragma unroll
        for (int box = 0; box < tile / 64; ++box) {
          copy_box(to + box * load_bytes, hi, barrier, column + box * 64, k, place.matrix);
          copy_box(to + operand_bytes + box * load_bytes, lo, barrier, column + box * 64, k, place.matrix);
        }
      }
      ring.advance();
    }
  }
}

/// A consumer, and its group of 64 rows of the tile. On the diagonal the second group leaves out the 64 columns before its rows:
/// it has N = 64 columns, all else N = 128.
__device__ __forceinline__ int consumer() { return static_cast<int>(threadIdx.x) - (threads - consumers); }
/// The shuffle tells the compiler that a warp's lanes agree. All of them must take part: never where some lanes alone pass.
[[maybe_unused]] __device__ __forceinline__ int own_group() { return __shfl_sync(all_lanes, consumer() / 128, 0); }
/// Of the group's four warps; it has 16 rows.
[[maybe_unused]] __device__ __forceinline__ int own_warp() { return __shfl_sync(all_lanes, consumer() / 32 % 4, 0); }

__device__ __forceinline__ int barrier_of(int group) { return 2 + group; }
[[maybe_unused]] __device__ __forceinline__ void sync_group(int group) { sync_threads<128>(barrier_of(group)); }

/// Adds the squares of a slice of lo at the group's rows of a tile: thread 8 k + c takes columns 8 c to 8 c + 7 of rows k, k + 16.
[[maybe_unused]] __device__ __forceinline__ void add_squares(uint32_t lo, float (&squares)[8]) {
  const int chunk = consumer() % 8, k = consumer() / 8 % 16;
  const uint32_t from = lo + k * line_bytes + (chunk ^ (k & 7)) * 16;
#pragma unroll
  for (int l = 0; l < rows_a_slice / 16; ++l) {
    const uint4 eight = load_shared(from + l * 16 * line_bytes);
    const auto& pack = reinterpret_cast<const Pack<bf16, 8>&>(eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) squares[i] += widen(pack.v[i]) * widen(pack.v[i]);
  }
}

/// recent = the three products of the ring's present stage, or += where `keep` is not 0.
template <bool Diagonal, int Sums>
__device__ __forceinline__ void multiply_slice(const Stages& ring, int group, float (&recent)[Sums], int keep) {
  constexpr Major mn = Major::mn;
  constexpr bool second = Sums == 32;  // the diagonal's second group
  const uint32_t rows = group * load_bytes, columns = Diagonal ? (second ? load_bytes : 0) : 2 * operand_bytes;
  const uint64_t hi_i = operand<mn>(ring.a() + rows, load_bytes), hi_j = operand<mn>(ring.a() + columns, load_bytes);
  const uint64_t lo_i = operand<mn>(ring.a() + operand_bytes + rows, load_bytes);
  const uint64_t lo_j = operand<mn>(ring.a() + operand_bytes + columns, load_bytes);
  multiply_fence();
#pragma unroll
  for (int k = 0; k < rows_a_slice / 16; ++k) {
    multiply_async<mn, mn>(recent, step<mn>(hi_i, k), step<mn>(hi_j, k), keep + k);
    multiply_async<mn, mn>(recent, step<mn>(hi_i, k), step<mn>(lo_j, k), 1);
    multiply_async<mn, mn>(recent, step<mn>(lo_i, k), step<mn>(hi_j, k), 1);
  }
  multiply_commit();
}

/// sum = Σ_k q(k, i) q(k, j) over so many slices.
template <bool Diagonal, int Sums>
__device__ __forceinline__ void multiply(Stages& ring, int group, int slices, float (&sum)[Sums], float (&squares)[8]) {
  float recent[Sums];
#pragma unroll
  for (float& value : sum) value = 0;
  for (int done = 0; done < slices; done += slices_a_round) {
    const int round = min(slices_a_round, slices - done);
    int before = 0;
    for (int s = 0; s < round; ++s) {
      barrier_wait(ring.full(ring.stage), ring.parity);
      multiply_slice<Diagonal>(ring, group, recent, s > 0);
      if constexpr (Diagonal) {  // every lane has read its squares before one gives the stage back
        add_squares(ring.a() + operand_bytes + group * load_bytes, squares);
        settle(squares);
        __syncwarp();
      }
      multiply_wait<1>();
      if (s > 0) ring.release(before);
      before = ring.stage;
      ring.advance();
    }
    multiply_wait<0>();
    settle(recent);
    ring.release(before);
#pragma unroll
    for (int i = 0; i < Sums; ++i) sum[i] += recent[i];
  }
}

/// fn(row and column within the group's N columns, index of the sum) for this thread's elements on the diagonal of a tile that
/// lies there: two of the 16 x 16 where the warp's rows are.
template <int Sums, typename Fn>
__device__ __forceinline__ void each_of_corner(Fn&& fn) {
  const int lane = threadIdx.x % 32, warp = own_warp();
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (j / 2 == warp) {
#pragma unroll
      for (int c = 0; c < 4; ++c) fn(warp * 16 + lane / 4 + c / 2 * 8, j * 8 + lane % 4 * 2 + c % 2, 4 * j + c);
    }
}

/// lo·lo joins the sums on the diagonal; by way of the group's memory, 4 warps by 64 columns.
template <int Sums>
__device__ __forceinline__ void join_squares(const float (&squares)[8], float (&sum)[Sums], int group, float* memory) {
  float* const to = memory + own_warp() * 64 + threadIdx.x % 8 * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float own = squares[i] + __shfl_xor_sync(all_lanes, squares[i], 8);
    own += __shfl_xor_sync(all_lanes, own, 16);
    if (threadIdx.x % 32 < 8) to[i] = own;
  }
  sync_group(group);
  each_of_corner<Sums>([&](int row, int column, int at) {
    if (row != column) return;
#pragma unroll
    for (int warp = 0; warp < 4; ++warp) sum[at] += memory[warp * 64 + column];
  });
  sync_group(group);
}

/// One bf16 of a staged box of 64 x 64.
[[maybe_unused]] __device__ __forceinline__ void put(uint32_t box, int line, int column, float value) {
  const uint32_t to = box + line * line_bytes + (((column / 8) ^ (line & 7)) << 4) + column % 8 * 2;
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(narrow<bf16>(value).bits) : "memory");
}

/// Stages ½R of the group's rows: boxes 0 and 1 for its columns, 2 and 3 for their mirror images. On the diagonal box 0 is its
/// own mirror image, of what lies above its diagonal; columns from 64 on are as elsewhere.
template <bool Diagonal, int Sums>
__device__ __forceinline__ void stage_half(const float (&sum)[Sums], uint32_t staging) {
  const int lane = threadIdx.x % 32, matrix = lane / 8, i = lane % 8, warp = own_warp();
#pragma unroll
  for (int j = 0; j < Sums / 4; j += 2) {
    const bool mirrored = Diagonal && j < 8;
    if (mirrored && j <= 2 * warp) continue;
    uint32_t pair[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) pair[p] = pack_pair(-0.5f * sum[4 * j + 2 * p], -0.5f * sum[4 * j + 2 * p + 1]);
    const int box = j / 8, line = warp * 16 + matrix % 2 * 8 + i, across = j % 8 + matrix / 2;
    store_matrices(staging + box * store_bytes + line * line_bytes + ((across ^ i) << 4), pair[0], pair[1], pair[2], pair[3]);
    const int mirror_line = across * 8 + i, mirror_across = warp * 2 + matrix % 2;
    store_matrices_transposed(staging + (mirrored ? 0 : 2 + box) * store_bytes + mirror_line * line_bytes + ((mirror_across ^ i) << 4),
                              pair[0], pair[1], pair[2], pair[3]);
  }
  if constexpr (Diagonal)
    each_of_corner<Sums>([&](int row, int column, int at) {
      if (column < row) return;
      put(staging, row, column, row == column ? 0.0f : -0.5f * sum[at]);
      put(staging, column, row, row == column ? 0.0f : -0.5f * sum[at]);
    });
}

/// By one thread of each group: what lies beyond the matrix is left out by the copy engine.
template <bool Diagonal, int Sums>
__device__ __forceinline__ void store_half(const CUtensorMap* half, const Place& place, int group, uint32_t staging) {
  const int z = place.matrix, i = place.i * tile + group * 64, j = Diagonal ? i : place.j * tile;
  post_box(half, staging, j, i, z);
  if constexpr (Sums == 64) post_box(half, staging + store_bytes, j + 64, i, z);
  if constexpr (!Diagonal) post_box(half, staging + 2 * store_bytes, i, j, z);
  if constexpr (Sums == 64) post_box(half, staging + 3 * store_bytes, i, j + 64, z);
  commit_posts();
}

/// The parts of one line of a staged box, which is row `row` and block `block` of R.
[[maybe_unused]] __device__ __forceinline__ void write_partials(const Residual& work, int matrix, uint32_t box, int line, int row,
                                                                int block) {
  float squares = 0, sums = 0, largest = 0;
#pragma unroll
  for (int chunk = 0; chunk < 8; ++chunk) {
    const uint4 eight = load_shared(box + line * line_bytes + ((chunk ^ (line & 7)) << 4));
    const auto& pack = reinterpret_cast<const Pack<bf16, 8>&>(eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float value = fabsf(widen(pack.v[i]));
      squares += value * value;
      sums += value;
      largest = fmaxf(largest, value);
    }
  }
  if (row >= work.n || block >= work.blocks()) return;
  work.partials[work.partial_at(matrix, Residual::squares, block, row)] = 4 * squares;
  work.partials[work.partial_at(matrix, Residual::sums, block, row)] = 2 * sums;
  work.partials[work.partial_at(matrix, Residual::largest, block, row)] = 2 * largest;
}

/// Those of all lines that the group has staged: a thread takes one of two boxes, then one of their mirror images.
template <bool Diagonal, int Sums>
__device__ __forceinline__ void write_partials(const Residual& work, const Place& place, int group, uint32_t staging) {
  const int line = consumer() % 64, second = consumer() / 64 % 2;
  const int i = place.i * 2 + group, j = Diagonal ? i : place.j * 2;  // the group's first blocks
  if (Sums == 64 || second == 0) write_partials(work, place.matrix, staging + second * store_bytes, line, i * 64 + line, j + second);
  if (!Diagonal || (Sums == 64 && second == 1))
    write_partials(work, place.matrix, staging + (2 + second) * store_bytes, line, (j + second) * 64 + line, i);
}

/// What blocks leave for one another.
struct Scratch {
  float* sums = nullptr;  // (blocks, groups, half a tile), as the threads hold them
  int* flags = nullptr;   // (blocks, groups), not 0 once the slot is filled
};

/// A part of a tile by one group, and where it is the tile's last, the tile's way out.
template <bool Diagonal, int Columns>
__device__ __forceinline__ void take(Stages& ring, const Residual& work, const Walk& walk, const Place& place, int group,
                                     const Scratch& scratch, unsigned char* memory, const CUtensorMap* half) {
  float sum[Columns / 2], squares[8] = {};
  const int pieces = walk.deal.triangle.pieces;
  multiply<Diagonal>(ring, group, (walk.last - walk.first) * (rows_a_piece / rows_a_slice), sum, squares);
  const bool issues = consumer() % 128 == 0;
  if (issues) wait_posts_read();  // of the tile before
  sync_group(group);
  if constexpr (Diagonal) join_squares(squares, sum, group, reinterpret_cast<float*>(memory));
  const int block = static_cast<int>(blockIdx.x);
  const auto sums_of = [&](int b) { return scratch.sums + (2 * b + group) * (tile * tile / 2); };
  const auto flag_of = [&](int b) { return scratch.flags + 2 * b + group; };
  if (walk.last < pieces) return leave_sums<128>(sum, sums_of(block), flag_of(block), 0, barrier_of(group));
  for (int begin = walk.first, other = block; begin > 0;) {
    --other;
    add_sums<128>(sum, sums_of(other), flag_of(other), 0, barrier_of(group));
    begin = walk.deal.range_begin(other) - walk.tile * pieces;
  }
  if constexpr (Diagonal)
    each_of_corner<Columns / 2>([&](int row, int column, int at) {
      const int i = place.i * tile + group * 64 + row;
      if (row == column && i < work.n) work.diagonal[place.matrix * work.n + i] = 1 - sum[at];
    });
  const uint32_t staging = ring.extra() + group * group_bytes;
  stage_half<Diagonal>(sum, staging);
  fence_for_async_proxy();
  sync_group(group);
  if (issues) store_half<Diagonal, Columns / 2>(half, place, group, staging);
  write_partials<Diagonal, Columns / 2>(work, place, group, staging);
}

struct Maps {
  CUtensorMap hi, lo, half;
};

__global__ void __launch_bounds__(threads, 1)
    residual_wgmma_kernel(const Residual work, const Deal deal, const Scratch scratch, const __grid_constant__ Maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Stages ring(memory);
  ring.init();
  if (threadIdx.x < threads - consumers) {
    give_up_registers<56>();
    if (threadIdx.x == 0) produce(ring, deal, &maps.hi, &maps.lo);
  } else {
    take_registers<224>();
    const int group = own_group();
    unsigned char* const staging = memory + (ring.extra() - shared_address(memory)) + group * group_bytes;
    for (Walk walk(deal); walk.next();) {
      __syncwarp();  // the tile before ended with work of some lanes alone, and products take whole warps
      const Place place(deal.triangle, walk.tile);
      if (place.i != place.j)
        take<false, 128>(ring, work, walk, place, group, scratch, staging, &maps.half);
      else if (group == 0)
        take<true, 128>(ring, work, walk, place, group, scratch, staging, &maps.half);
      else
        take<true, 64>(ring, work, walk, place, group, scratch, staging, &maps.half);
    }
    if (consumer() % 128 == 0) wait_posts_read();
  }
#else
  __trap();
#endif
}

/// Tiles are cut where taking them whole would leave blocks idle for longer than sums take to hand over, about 3 pieces.
Deal deal_of(const Residual& work, int blocks, bool room) {
  const Triangle triangle{.across = static_cast<int>((work.n + tile - 1) / tile),
                          .pieces = static_cast<int>((work.m + rows_a_piece - 1) / rows_a_piece)};
  Deal deal{.triangle = triangle, .tiles = static_cast<int>(work.batch) * triangle.tiles()};
  const int rest = deal.tiles % blocks;
  const bool idle = rest > 0 && (blocks - rest) * triangle.pieces > 3 * blocks;
  if (!room || !idle) return deal;
  const int shared = deal.tiles < blocks ? deal.tiles : blocks + rest;
  int64_t cost = int64_t{shared / triangle.tiles()} * triangle.matrix_cost();
  int left = shared % triangle.tiles();
  for (int i = 0; left > 0; ++i)
    for (int j = i; j < triangle.across && left > 0; ++j, --left) cost += triangle.cost(i, j);
  if (cost * blocks > std::numeric_limits<unsigned>::max()) return deal;
  deal.shared = shared;
  deal.shared_cost = static_cast<unsigned>(cost);
  return deal;
}

}  // namespace

void residual_wgmma(const Stream& stream, const Residual& work) {
  constexpr int64_t slot_size = tile * tile;
  const int multiprocessors = state_of(stream).multiprocessors;
  const bool room = work.spare_size >= multiprocessors * (slot_size + 2);
  const Deal deal = deal_of(work, multiprocessors, room);
  const int most = deal.shared > 0 ? std::max(1, deal.shared * deal.triangle.pieces / 4) : deal.tiles;
  const int blocks = std::min(most, multiprocessors);
  const Scratch scratch{.sums = work.spare, .flags = reinterpret_cast<int*>(work.spare + blocks * slot_size)};
  if (deal.shared > 0)
    cuda_check(cudaMemsetAsync(scratch.flags, 0, static_cast<size_t>(2 * blocks) * sizeof(int), native(stream)), "cudaMemsetAsync");
  const Maps maps{.hi = tensor_map({.data = work.hi, .x = work.n, .y = work.m, .z = work.batch, .box_y = rows_a_slice}),
                  .lo = tensor_map({.data = work.lo, .x = work.n, .y = work.m, .z = work.batch, .box_y = rows_a_slice}),
                  .half = tensor_map({.data = work.half, .x = work.n, .y = work.n, .z = work.batch})};
  constexpr int bytes = Stages::bytes;
  cuda_check(cudaFuncSetAttribute(residual_wgmma_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  residual_wgmma_kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(work, deal, scratch, maps);
  cuda_check(cudaGetLastError(), "stiefel_residual");
}

}  // namespace ermoe::cuda
