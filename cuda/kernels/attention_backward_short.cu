// Attention's gradients for heads of few tokens, in one pass: a block holds all keys and values of one head, so no score is
// made twice. 10 B H T² Dh FLOPs, the least there is; qkv, y, dy are read once and dqkv written once. Two kinds of warps:
// - a key warp owns 16 keys. Queries come by; it adds to its dk and dv, in registers, and leaves dS in shared memory;
// - a helper fetches the queries to come, with their Σ dy·y, and makes dq = dS k of those that just went by: 16 queries are
//   one helper's, so every gradient has one writer. A helper has as much to multiply as a key warp where it serves four.
// All meet once a step of 48 queries. Contract: cuda/kernels/attention_paths.h. Read next: cuda/device/attention_mma.cuh.
#include "cuda/kernels/attention_paths.h"

#include "cuda/device/attention_mma.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int64_t fewest_tokens = 129;  // below, blocks of few warps lose to two kernels: 0.485 to 0.41 ms at T 65 on an H100
constexpr int step_tiles = 3, step_rows = step_tiles * owned_rows;  // queries that come by at a time
constexpr int most_warps = 16, most_groups = 13;                    // of a block; of 16 keys each
constexpr int ds_pitch = step_rows + 8;                             // dS lies transposed, a row a key

__host__ __device__ constexpr int groups_of(int64_t tokens) { return static_cast<int>((tokens + owned_rows - 1) / owned_rows); }
__host__ __device__ constexpr int helpers_of(int groups) { return (groups + 3) / 5; }
static_assert(most_groups + helpers_of(most_groups) == most_warps);

/// A block's shared memory, for `groups` times 16 keys.
template <int Dh>
struct Memory {
  static constexpr int pitch = HeadTile<Dh>::pitch, group = owned_rows * pitch, side = step_rows * pitch, ds_group = owned_rows * ds_pitch;
  float* statistics;  // (2 steps, 2, 48): lse in powers of two, and Σ dy·y
  bf16* ring;         // (ring_stages, 2, 48 rows): q and dy
  bf16* spare;        // (helpers, 16 rows): dq on its way out
  bf16 *k, *v;        // (groups, 16 rows)
  bf16* ds;           // (2 steps, groups, 16 keys, 48 queries)

  __device__ Memory(unsigned char* memory, int groups) {
    statistics = reinterpret_cast<float*>(memory);
    ring = reinterpret_cast<bf16*>(statistics + 2 * 2 * step_rows);
    spare = ring + ring_stages * 2 * side;
    k = spare + helpers_of(groups) * group;
    v = k + groups * group;
    ds = v + groups * group;
  }
  static size_t bytes(int groups) {
    return sizeof(float) * 2 * 2 * step_rows +
           sizeof(bf16) * (ring_stages * 2 * side + (helpers_of(groups) + 2 * groups) * group + 2 * groups * ds_group);
  }
};

/// Waits for all warps of the block, whichever their kind: they wait at different lines.
__device__ __forceinline__ void meet_block() { asm volatile("bar.sync 0;" ::: "memory"); }

/// Sixteen keys and sixteen queries: dv += Pᵀ dy, dk += dSᵀ q, and dSᵀ to `ds`. Rows of a product are keys, columns queries. A
/// query beyond the last has zeros for q, dy, lse and delta, and adds nothing; a key beyond the last, or ahead of its query where
/// that counts, is masked.
template <int Dh, bool Masked>
__device__ __forceinline__ void keys_meet(const LeftRows<Dh>& keys, const LeftRows<Dh>& values, uint32_t queries,
                                          const LaneOffsets<Dh>& lane, const float* statistics, bf16* to, int key, int query, int tokens,
                                          bool causal, float factor, float (&dk)[Dh / 8][4], float (&dv)[Dh / 8][4]) {
  const uint32_t dys = queries + 2 * Memory<Dh>::side;
  const int id = static_cast<int>(threadIdx.x) % warp_size;
  float p[2][4], ds[2][4];
  row_products(keys, queries, lane, p);
  row_products(values, dys, lane, ds);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto shift = load<2>(statistics + 8 * half + id % 4 * 2), delta = load<2>(statistics + step_rows + 8 * half + id % 4 * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[half][i] = exp2_of(p[half][i] * factor - shift.v[i % 2]);
      if constexpr (Masked) {
        const int row = key + id / 4 + i / 2 * 8, column = query + 8 * half + id % 4 * 2 + i % 2;
        if (row >= tokens || (causal && row > column)) p[half][i] = 0;
      }
      ds[half][i] = p[half][i] * (ds[half][i] - delta.v[i % 2]);
    }
  }
  const Weights weights(p), gradients(ds);
#pragma unroll
  for (int i = 0; i < 4; ++i) *reinterpret_cast<uint32_t*>(to + (id / 4 + i % 2 * 8) * ds_pitch + i / 2 * 8 + id % 4 * 2) = gradients.v[i];
  add_weighted_rows<Dh>(weights, dys, lane, dv);
  add_weighted_rows<Dh>(gradients, queries, lane, dk);
}

template <int Dh>
__device__ __forceinline__ void key_warp(const AttentionGradients& a, const WarpShare& share, const Memory<Dh>& memory, int groups) {
  using M = Memory<Dh>;
  const AttentionDims& d = a.d;
  const int tokens = static_cast<int>(d.tokens), steps = (groups + step_tiles - 1) / step_tiles;
  const bool causal = d.mask == AttentionMask::causal, ragged = share.first + owned_rows > tokens;
  const LaneOffsets<Dh> lane;
  const float scale = 1 / sqrtf(static_cast<float>(d.head_dim)), factor = log2_e * scale;
  bf16* const my_v = memory.v + share.warp * M::group;
  LeftRows<Dh> keys, values;
  float dk[Dh / 8][4] = {}, dv[Dh / 8][4] = {};
  wait_copies<0>();
  meet_block();
  keys.load(shared_address(memory.k + share.warp * M::group), lane), values.load(shared_address(my_v), lane);
  for (int i = 0; i < steps; ++i) {
    const uint32_t queries = shared_address(memory.ring + i % ring_stages * 2 * M::side);
    const float* const statistics = memory.statistics + i % 2 * 2 * step_rows;
    bf16* const ds = memory.ds + (i % 2 * groups + share.warp) * M::ds_group;
#pragma unroll 1
    for (int row = 0; row < step_rows; row += owned_rows) {
      const int query = i * step_rows + row;
      if (query >= tokens) break;
      if (causal && query < share.first) continue;
      const uint32_t at = queries + 2 * M::pitch * row;
      if (ragged || (causal && query == share.first))
        keys_meet<Dh, true>(keys, values, at, lane, statistics + row, ds + row, share.first, query, tokens, causal, factor, dk, dv);
      else
        keys_meet<Dh, false>(keys, values, at, lane, statistics + row, ds + row, share.first, query, tokens, causal, factor, dk, dv);
    }
    meet_block();
  }
  const int64_t width = d.heads * d.head_dim, stride = 3 * width;
  bf16* const to = share.head_of(d, a.dqkv, 1) + share.first * stride;  // by way of its own values, which no one else reads
  write_rows<Dh>(dk, scale, scale, my_v, to, stride, tokens - share.first, static_cast<int>(d.head_dim), a.mode);
  write_rows<Dh>(dv, 1, 1, my_v, to + width, stride, tokens - share.first, static_cast<int>(d.head_dim), a.mode);
}

/// What a helper warp does; `thread` counts the threads of all helpers.
template <int Dh>
struct Helper {
  using M = Memory<Dh>;
  const AttentionGradients& a;
  const WarpShare& share;
  const Memory<Dh>& memory;
  int groups, helpers, thread, tokens, head_dim;
  int64_t width, stride;

  /// Starts copies of a step's q and dy; beyond the last step, of nothing.
  __device__ __forceinline__ void fetch(int step) const {
    const int first = step * step_rows;
    if (first < tokens) {
      const int count = min(step_rows, tokens - first), rows = groups_of(count) * owned_rows;
      bf16* const to = memory.ring + step % ring_stages * 2 * M::side;
      copy_rows<Dh>(to, share.head_of(a.d, a.qkv, 0) + first * stride, stride, rows, count, head_dim, thread, helpers * warp_size);
      copy_rows<Dh>(to + M::side, share.head_of(a.d, a.dy) + first * width, width, rows, count, head_dim, thread, helpers * warp_size);
    }
    commit_copies();
  }

  /// lse and Σ dy·y of a step's queries; zeros beyond the last. A row is read 16 bytes a lane.
  __device__ __forceinline__ void make_statistics(int step) const {
    constexpr int pieces = Dh / 8;
    const int column = thread % pieces * 8;
    const bf16 *const y = share.head_of(a.d, a.y) + column, *const dy = share.head_of(a.d, a.dy) + column;
    float* const to = memory.statistics + step % 2 * 2 * step_rows;
#pragma unroll 4
    for (int row = thread / pieces; row < step_rows; row += helpers * warp_size / pieces) {
      const int query = step * step_rows + row;
      float sum = 0, lse = 0;
      if (query < tokens && column < head_dim) {
        const auto left = load<8>(dy + query * width), right = load<8>(y + query * width);
        lse = a.lse[share.pair * tokens + query] * log2_e;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += widen(left.v[i]) * widen(right.v[i]);
      }
#pragma unroll
      for (int distance = pieces / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(all_lanes, sum, distance);
      if (column == 0) to[row] = lse, to[step_rows + row] = sum;
    }
  }

  /// dq of this helper's share of a step's queries.
  __device__ __forceinline__ void make_dq(int step, float scale) const {
    const int helper = thread / warp_size;
    const LaneOffsets<Dh> lane;
    const int id = thread % warp_size;
    const uint32_t ds_lane = 2 * ((id & 15) * ds_pitch + (id >> 4) * 8), keys = shared_address(memory.k);
    const bool causal = a.d.mask == AttentionMask::causal;
#pragma unroll 1
    for (int row = 0; row < step_tiles; ++row) {
      const int tile = step * step_tiles + row;
      if (tile >= groups) break;
      if (tile % helpers != helper) continue;
      const uint32_t ds = shared_address(memory.ds + step % 2 * groups * M::ds_group + row * owned_rows) + ds_lane;
      const int seen = causal ? tile + 1 : groups;
      float dq[Dh / 8][4] = {};
#pragma unroll 2
      for (int g = 0; g < seen; ++g) {
        uint32_t m[4];
        load_matrices_transposed(m, ds + 2 * g * M::ds_group);
        Weights weights;
        weights.v[0] = m[0], weights.v[1] = m[2], weights.v[2] = m[1], weights.v[3] = m[3];
        add_weighted_rows<Dh>(weights, keys + 2 * g * M::group, lane, dq);
      }
      const int first = tile * owned_rows;
      write_rows<Dh>(dq, scale, scale, memory.spare + helper * M::group, share.head_of(a.d, a.dqkv, 0) + first * stride, stride,
                     tokens - first, head_dim, a.mode);
    }
  }

  __device__ __forceinline__ void run() const {
    const int steps = (groups + step_tiles - 1) / step_tiles;
    const float scale = 1 / sqrtf(static_cast<float>(head_dim));
    fetch(0);
    fetch(1);
    make_statistics(0);
    for (int i = 0; i <= steps; ++i) {
      wait_copies<1>();  // all but those of step i + 1
      meet_block();
      fetch(i + 2);
      if (i + 1 < steps) make_statistics(i + 1);
      if (i > 0) make_dq(i - 1, scale);
    }
    wait_copies<0>();
  }
};

template <int Dh>
__global__ void __launch_bounds__(most_warps* warp_size, 1) backward_kernel(AttentionGradients a) {
  extern __shared__ __align__(16) unsigned char bytes[];
  const AttentionDims& d = a.d;
  const WarpShare share(d, 1);
  const int tokens = static_cast<int>(d.tokens), head_dim = static_cast<int>(d.head_dim), thread = static_cast<int>(threadIdx.x);
  const int groups = groups_of(d.tokens), helpers = share.threads / warp_size - groups;
  const int64_t width = d.heads * d.head_dim, stride = 3 * width;
  const Memory<Dh> memory(bytes, groups);
  copy_rows<Dh>(memory.k, share.head_of(d, a.qkv, 1), stride, groups * owned_rows, tokens, head_dim, thread, share.threads);
  copy_rows<Dh>(memory.v, share.head_of(d, a.qkv, 2), stride, groups * owned_rows, tokens, head_dim, thread, share.threads);
  commit_copies();
  if (share.warp < groups)
    key_warp<Dh>(a, share, memory, groups);
  else
    Helper<Dh>{a, share, memory, groups, helpers, thread - groups * warp_size, tokens, head_dim, width, stride}.run();
}

template <typename Fn>
auto with_short_tile(int64_t head_dim, Fn&& fn) {
  return head_dim <= 32 ? fn(std::integral_constant<int, 32>{}) : fn(std::integral_constant<int, 64>{});
}

}  // namespace

bool attention_backward_fits_short(const Stream& stream, const AttentionDims& dims) {
  if (dims.head_dim % 8 != 0 || dims.head_dim > 64 || dims.tokens < fewest_tokens || dims.tokens > most_groups * owned_rows) return false;
  const auto bytes = [&]<int Dh>(std::integral_constant<int, Dh>) { return Memory<Dh>::bytes(groups_of(dims.tokens)); };
  return with_short_tile(dims.head_dim, bytes) <= state_of(stream).block_shared_bytes;
}

void attention_backward_short(const Stream& stream, const AttentionGradients& work) {
  const AttentionDims& dims = work.d;
  with_short_tile(dims.head_dim, [&]<int Dh>(std::integral_constant<int, Dh>) {
    const int groups = groups_of(dims.tokens);
    const size_t bytes = Memory<Dh>::bytes(groups);
    cuda_check(cudaFuncSetAttribute(backward_kernel<Dh>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               "cudaFuncSetAttribute");
    const auto threads = static_cast<unsigned>((groups + helpers_of(groups)) * warp_size);
    backward_kernel<Dh><<<static_cast<unsigned>(dims.batch * dims.heads), threads, bytes, native(stream)>>>(work);
    cuda_check(cudaGetLastError(), "attention_backward");
  });
}

}  // namespace ermoe::cuda
