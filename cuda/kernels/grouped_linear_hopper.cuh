// What Hopper's kernels of the grouped GEMM and of the residual share: a block of three warpgroups, of which the first fetches
// and the other two multiply. A ring of stages in shared memory lies between them: the producer's one thread waits until a
// stage is empty and starts its bulk copies; they complete on the stage's `full` barrier, where the consumers wait; each of
// their eight warps arrives at `empty` when its products are done. A tile is 128 rows (64 a consumer) by N columns, a stage
// 64 k of it. Blocks that share a tile add up what the others left in scratch memory.
// Read next: grouped_linear_wgmma.cu, grouped_linear_wgmma_weight.cu, stiefel_residual_wgmma.cu.
#pragma once

#include "cuda/device/tma.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/kernels/grouped_linear.cuh"

namespace ermoe::cuda::hopper {

inline constexpr int threads = 384, consumers = 256, consumer_warps = 8;
inline constexpr int tile_m = 128, slice = 64;
inline constexpr int box_bytes = 64 * slice * 2;  // 64 rows or columns by 64 k
inline constexpr int most_shared_memory = 227 * 1024;

/// Time of a tile per column and k beside one of 256 columns: narrow ones fetch more for each product.
inline double cost_of(int tile_n) { return tile_n == 256 ? 1 : tile_n == 192 ? 1.04 : 1.15; }

/// The width of tiles that wastes least on `columns` columns.
inline int columns_a_tile(int64_t columns) {
  const auto cost = [&](int n) { return static_cast<double>((columns + n - 1) / n * n) * cost_of(n); };
  int best = 256;
  for (int n : {192, 128})
    if (cost(n) < cost(best)) best = n;
  return best;
}

/// The ring in shared memory; `Extra`: bytes behind it that a kernel wants for itself.
template <Product P, int N, int Extra>
struct Ring {
  static constexpr Major a_major = a_has_contiguous_k<P> ? Major::k : Major::mn;
  static constexpr Major b_major = b_has_contiguous_k<P> ? Major::k : Major::mn;
  static constexpr int a_bytes = tile_m / 64 * box_bytes, stage_bytes = a_bytes + N / 64 * box_bytes;
  static constexpr int alignment = 1024;  // of what the 128-byte swizzle writes
  static constexpr int stages = (most_shared_memory - alignment - Extra - 256) / stage_bytes;
  static constexpr int bytes = alignment + stages * stage_bytes + Extra + stages * 16;

  uint32_t base = 0;  // stages, extra, full barriers, empty barriers
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ explicit Ring(const void* memory) : base((shared_address(memory) + alignment - 1) / alignment * alignment) {}

  __device__ __forceinline__ uint32_t extra() const { return base + stages * stage_bytes; }
  __device__ __forceinline__ uint32_t full(int s) const { return extra() + Extra + s * 8; }
  __device__ __forceinline__ uint32_t empty(int s) const { return full(stages) + s * 8; }
  __device__ __forceinline__ uint32_t a() const { return base + stage * stage_bytes; }
  __device__ __forceinline__ uint32_t b() const { return a() + a_bytes; }

  /// By the whole block, once.
  __device__ __forceinline__ void init() const {
    if (threadIdx.x == 0) {
      for (int s = 0; s < stages; ++s) {
        barrier_init(full(s), 1);
        barrier_init(empty(s), consumer_warps);
      }
      barrier_publish_inits();
    }
    __syncthreads();
  }
  __device__ __forceinline__ void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  /// The producer's turn: waits for the present stage to be empty and announces what will come.
  __device__ __forceinline__ uint32_t open(int coming = stage_bytes) const {
    barrier_wait(empty(stage), parity ^ 1);
    barrier_arrive_expecting(full(stage), coming);
    return full(stage);
  }
  __device__ __forceinline__ void release(int s) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty(s));
  }
};

/// Whether sums start from what their registers hold, or from nothing.
enum class Start { kept, cleared };

/// sum = A B over `slices` > 0 stages, or sum += A B, by consumer `group` (0 or 1). `prepare(s)` runs when slice s has arrived,
/// and `also(a, keep)` issues further products of A's next 16 k.
template <Start From, typename R, int Sums, typename Prepare, typename Also>
__device__ __forceinline__ void multiply_slices(R& ring, int group, int slices, float (&sum)[Sums], Prepare&& prepare, Also&& also) {
  int before = 0;
  for (int s = 0; s < slices; ++s) {
    barrier_wait(ring.full(ring.stage), ring.parity);
    prepare(s);
    const uint64_t a = operand<R::a_major>(ring.a() + group * box_bytes, box_bytes), b = operand<R::b_major>(ring.b(), box_bytes);
    multiply_fence();
#pragma unroll
    for (int k = 0; k < slice / 16; ++k) {
      multiply_async<R::a_major, R::b_major>(sum, step<R::a_major>(a, k), step<R::b_major>(b, k), From == Start::kept ? 1 : s + k);
      also(step<R::a_major>(a, k), s + k);
    }
    multiply_commit();
    multiply_wait<1>();  // the products of the slice before are done
    if (s > 0) ring.release(before);
    before = ring.stage;
    ring.advance();
  }
  multiply_wait<0>();
  settle(sum);
  ring.release(before);
}

/// This consumer's row within a tile; it holds sums of row + 8 too. Of the eight equal columns that a product with ones has,
/// the first lane of four keeps one: d[0] and d[2].
__device__ __forceinline__ int own_row() { return (static_cast<int>(threadIdx.x) / 32 - 4) * 16 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ bool keeps_bias() { return threadIdx.x % 4 == 0; }

/// A thread's place among the consumers, or in its group of so many.
template <int Team = consumers>
__device__ __forceinline__ unsigned place_in_team() {
  const unsigned consumer = threadIdx.x - (threads - consumers);
  return Team == consumers ? consumer : consumer % Team;
}

/// A thread's part of the sums that a slot of scratch memory holds.
template <int Team, int Sums>
__device__ __forceinline__ float4* place_of(float* sums, int slot) {
  return reinterpret_cast<float4*>(sums + static_cast<int64_t>(slot) * Sums * Team) + place_in_team<Team>();
}

/// Leaves the sums of the consumers, or of one group of them, and whatever else they stored before, in a slot, and raises its flag.
/// `barrier` is theirs.
template <int Team = consumers, int Sums>
__device__ __forceinline__ void leave_sums(const float (&sum)[Sums], float* sums, int* flags, int slot, int barrier = 1) {
  float4* const to = place_of<Team, Sums>(sums, slot);
#pragma unroll
  for (int i = 0; i < Sums / 4; ++i) __stcg(to + i * Team, make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]));
  __threadfence();
  sync_threads<Team>(barrier);
  if (place_in_team<Team>() == 0) asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flags + slot), "r"(1) : "memory");
}

/// Waits for a slot's flag and adds its sums. To wait for blocks of lower index alone is safe: the GPU starts them earlier.
template <int Team = consumers, int Sums>
__device__ __forceinline__ void add_sums(float (&sum)[Sums], float* sums, const int* flags, int slot, int barrier = 1) {
  if (place_in_team<Team>() == 0) {
    for (Patience patience;; patience.lose()) {
      uint32_t set = 0;
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(set) : "l"(flags + slot) : "memory");
      if (set != 0) break;
    }
  }
  sync_threads<Team>(barrier);
  const float4* const from = place_of<Team, Sums>(sums, slot);
#pragma unroll
  for (int i = 0; i < Sums / 4; ++i) {
    const float4 more = __ldcg(from + i * Team);
    sum[4 * i] += more.x;
    sum[4 * i + 1] += more.y;
    sum[4 * i + 2] += more.z;
    sum[4 * i + 3] += more.w;
  }
}

/// Two bf16 in a register, the first in its lower half.
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

__device__ __forceinline__ void store_shared(uint32_t address, const uint4& v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/// Eight bf16 of C, `change(i, value)` applied to each.
template <typename Change>
__device__ __forceinline__ uint4 change_each(uint4 chunk, Change&& change) {
  uint32_t* const pairs = &chunk.x;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    pairs[i] = pack_pair(change(2 * i, __uint_as_float(pairs[i] << 16)), change(2 * i + 1, __uint_as_float(pairs[i] & 0xffff0000)));
  return chunk;
}

}  // namespace ermoe::cuda::hopper
