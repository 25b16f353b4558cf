// Sorting slots by expert on the GPU: a stable counting sort in two launches. The first counts each block's slots by expert. In
// the second every block adds up what comes before it, then ranks its own slots: within a warp by comparing ids, within the block
// by counts that the warps have stored. Only integers are added, so the result is that of the CPU. It moves 24 bytes a slot: the
// floor is the two launches. Experts are taken in tiles, so that their number has no limit. Contract: ops/kernels/routing_plan.h.
#include "ops/kernels/routing_plan.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int warp_slots = 128, block_slots = warps * warp_slots;
constexpr int tile = 256;  // experts at a time: one a thread

/// The order in which slots are counted.
enum class Order {
  by_token,  // slot 0 of token 0, slot 1 of token 0, …
  by_slot,   // slot 0 of all tokens in the order of their claims, then slot 1 of all
};

template <Order O>
__device__ int64_t slot_at(const RoutingPlanDims& dims, int64_t i) {
  if (O == Order::by_token) return i;
  const int64_t place = i % dims.tokens;
  return (dims.order == nullptr ? place : dims.order[place]) * dims.slots + i / dims.tokens;
}

/// The id of the i-th slot less `first`, where that lies in [0, tile) and below the number of experts; else -1.
template <Order O>
__device__ int id_in_tile(const RoutingPlanDims& dims, const int32_t* ids, int64_t i, int64_t first) {
  if (i >= dims.tokens * dims.slots) return -1;
  const int64_t id = ids[slot_at<O>(dims, i)];
  return id >= first && id < first + tile && id < dims.experts ? static_cast<int>(id - first) : -1;
}

/// The warp's lanes that hold the same id.
__device__ unsigned peers_of(int id) { return __match_any_sync(0xffffffffu, id); }
__device__ unsigned lanes_below() { return (1u << (threadIdx.x % 32)) - 1; }

template <Order O>
__global__ void __launch_bounds__(threads) count_kernel(RoutingPlanDims dims, const int32_t* ids, int32_t* block_counts) {
  __shared__ int count[tile];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * block_slots;
  for (int64_t first = 0; first < dims.experts; first += tile) {
    count[threadIdx.x] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < block_slots; i += threads) {
      const int id = id_in_tile<O>(dims, ids, begin + i, first);
      const unsigned peers = peers_of(id);
      if (id >= 0 && (peers & lanes_below()) == 0) atomicAdd(&count[id], __popc(peers));
    }
    __syncthreads();
    if (first + threadIdx.x < dims.experts) block_counts[blockIdx.x * dims.experts + first + threadIdx.x] = count[threadIdx.x];
    __syncthreads();
  }
}

/// What a block knows about the experts of a tile.
struct Tile {
  int total[tile];        // slots of each expert
  int before[tile];       // of those, in blocks before this one
  int scan[tile];         // inclusive sums of `total`
  int next[warps][tile];  // in each warp: how many the warps before it hold, then how far it is
};

/// Fills `total` and `before` from all blocks' counts, `scan` and `next` for this block.
template <Order O>
__device__ void survey(const RoutingPlanDims& dims, const int32_t* ids, const int32_t* block_counts, int64_t first, Tile& t) {
  const int e = static_cast<int>(threadIdx.x), width = static_cast<int>(min(static_cast<int64_t>(tile), dims.experts - first));
  t.total[e] = t.before[e] = 0;
  for (int w = 0; w < warps; ++w) t.next[w][e] = 0;
  __syncthreads();
  for (int64_t i = e; i < static_cast<int64_t>(gridDim.x) * width; i += threads) {
    const int64_t block = i / width;
    const int at = static_cast<int>(i % width), count = block_counts[block * dims.experts + first + at];
    if (count == 0) continue;
    atomicAdd(&t.total[at], count);
    if (block < blockIdx.x) atomicAdd(&t.before[at], count);
  }
  const int warp = e / 32;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * block_slots + warp * warp_slots;
  for (int i = e % 32; i < warp_slots; i += 32) {
    const int id = id_in_tile<O>(dims, ids, begin + i, first);
    const unsigned peers = peers_of(id);
    if (id >= 0 && (peers & lanes_below()) == 0) t.next[warp][id] += __popc(peers);  // one lane an id, one warp a row
    __syncwarp();
  }
  __syncthreads();
  int sum = 0;
  for (int w = 0; w < warps; ++w) {
    const int own = t.next[w][e];
    t.next[w][e] = sum;
    sum += own;
  }
  t.scan[e] = t.total[e];
  __syncthreads();
  for (int step = 1; step < tile; step *= 2) {
    const int add = e >= step ? t.scan[e - step] : 0;
    __syncthreads();
    t.scan[e] += add;
    __syncthreads();
  }
}

/// Calls visit(slot, id in the tile, how many slots of the same expert come before it) for this block's slots, in any order. `id` is -1 for
/// a slot of another tile or of nobody.
template <Order O, typename Visit>
__device__ void rank_slots(const RoutingPlanDims& dims, const int32_t* ids, int64_t first, Tile& t, const Visit& visit) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * block_slots + warp * warp_slots;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < warp_slots; i += 32) {
    const int id = id_in_tile<O>(dims, ids, begin + i, first);
    const unsigned peers = peers_of(id);
    const int rank = id < 0 ? 0 : t.before[id] + t.next[warp][id] + __popc(peers & lanes_below());
    __syncwarp();
    if (id >= 0 && (peers & lanes_below()) == 0) t.next[warp][id] += __popc(peers);
    __syncwarp();
    if (begin + i < dims.tokens * dims.slots) visit(slot_at<O>(dims, begin + i), id, rank);
  }
}

__global__ void __launch_bounds__(threads)
    plan_kernel(RoutingPlanDims dims, const int32_t* ids, const int32_t* block_counts, RoutingPlanBuffers plan) {
  __shared__ Tile t;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * block_slots;
  const int e = static_cast<int>(threadIdx.x);
  int base = 0;  // rows of the experts before this tile
  for (int64_t first = 0; first < dims.experts; first += tile) {
    survey<Order::by_token>(dims, ids, block_counts, first, t);
    if (blockIdx.x == 0 && first + e < dims.experts) {
      plan.counts[first + e] = t.total[e];
      plan.offsets[first + e + 1] = static_cast<int32_t>(min(static_cast<int64_t>(base + t.scan[e]), dims.rows));
      if (first + e == 0) plan.offsets[0] = 0;
    }
    rank_slots<Order::by_token>(dims, ids, first, t, [&](int64_t slot, int id, int rank) {
      if (id < 0) {
        if (ids[slot] < 0 || ids[slot] >= dims.experts) plan.slot_row[slot] = -1;
        return;
      }
      const int row = base + t.scan[id] - t.total[id] + rank;
      plan.slot_row[slot] = row < dims.rows ? row : -1;
      if (row >= dims.rows) return;
      plan.row_slot[row] = static_cast<int32_t>(slot);
      plan.row_token[row] = static_cast<int32_t>(slot / dims.slots);
    });
    __syncthreads();
    base += t.scan[tile - 1];
    __syncthreads();
  }
  for (int64_t row = begin + e; row < begin + block_slots && row < dims.rows; row += threads)
    if (row >= base) plan.row_slot[row] = plan.row_token[row] = -1;
}

__global__ void __launch_bounds__(threads)
    capacity_kernel(RoutingPlanDims dims, int64_t capacity, int32_t* ids, const int32_t* block_counts) {
  __shared__ Tile t;
  for (int64_t first = 0; first < dims.experts; first += tile) {
    survey<Order::by_slot>(dims, ids, block_counts, first, t);
    rank_slots<Order::by_slot>(dims, ids, first, t, [&](int64_t slot, int id, int rank) {
      if (id >= 0 && rank >= capacity) ids[slot] = -1;
    });
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads) rotate_kernel(RoutingPlanDims dims, const int32_t* ids, int32_t* moved) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (slot >= dims.tokens * dims.slots) return;
  const int64_t id = ids[slot];
  moved[slot] = static_cast<int32_t>(id < 0 ? id : (id + 1) % dims.experts);
}

__global__ void __launch_bounds__(threads) turn_kernel(RoutingPlanDims dims, int64_t each, int32_t* ids) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (slot < dims.tokens * dims.slots) ids[slot] = static_cast<int32_t>(slot / each % dims.experts);
}

unsigned blocks_of(const RoutingPlanDims& dims) { return blocks_for(dims.tokens * dims.slots, block_slots); }

}  // namespace

int64_t routing_plan_scratch(const RoutingPlanDims& dims) { return blocks_of(dims) * dims.experts; }

void make_plan(const Stream& stream, const RoutingPlanDims& dims, const int32_t* ids, const RoutingPlanBuffers& plan, int32_t* scratch) {
  if (dims.tokens * dims.slots == 0) {
    cuda_check(cudaMemsetAsync(plan.counts, 0, static_cast<size_t>(dims.experts) * sizeof(int32_t), native(stream)), "make_plan");
    cuda_check(cudaMemsetAsync(plan.offsets, 0, static_cast<size_t>(dims.experts + 1) * sizeof(int32_t), native(stream)), "make_plan");
    return;
  }
  count_kernel<Order::by_token><<<blocks_of(dims), threads, 0, native(stream)>>>(dims, ids, scratch);
  cuda_check(cudaGetLastError(), "make_plan: counts");
  plan_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, ids, scratch, plan);
  cuda_check(cudaGetLastError(), "make_plan");
}

void limit_capacity(const Stream& stream, const RoutingPlanDims& dims, int64_t capacity, int32_t* ids, int32_t* scratch) {
  if (dims.tokens * dims.slots == 0) return;
  count_kernel<Order::by_slot><<<blocks_of(dims), threads, 0, native(stream)>>>(dims, ids, scratch);
  cuda_check(cudaGetLastError(), "limit_capacity: counts");
  capacity_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, capacity, ids, scratch);
  cuda_check(cudaGetLastError(), "limit_capacity");
}

void rotate_experts(const Stream& stream, const RoutingPlanDims& dims, const int32_t* ids, int32_t* moved) {
  if (dims.tokens * dims.slots == 0) return;
  rotate_kernel<<<blocks_for(dims.tokens * dims.slots, threads), threads, 0, native(stream)>>>(dims, ids, moved);
  cuda_check(cudaGetLastError(), "rotate_experts");
}

void ids_in_turn(const Stream& stream, const RoutingPlanDims& dims, int64_t each, int32_t* ids) {
  if (dims.tokens * dims.slots == 0) return;
  turn_kernel<<<blocks_for(dims.tokens * dims.slots, threads), threads, 0, native(stream)>>>(dims, each, ids);
  cuda_check(cudaGetLastError(), "ids_in_turn");
}

}  // namespace ermoe::cuda
