// Both products of stiefel_products.h: a tile of C = A B, B symmetric, stays in registers and meets there what else its elements
// need. Memory bounds them, not products: 14 bytes an element for the step (A and the direction 2, q 4, three parts 6) and 12 for
// the update (three parts 6, of which hi is A, q 4, twin 2). So the copy engine alone talks to memory, and far ahead. Pieces of
// 64 x 64 elements pass through slots of shared memory: a thread, the porter, starts the copies into a slot; a consumer group
// waits for them, writes its results where their sources lay and says so; the porter sends them off and refills the slot. While
// the groups multiply, slots of the tile fill, and those of the tile before empty. Operands come by the ring of
// grouped_linear_hopper.cuh. Tiles of the same rows run at the same time, so that memory brings A once.
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"
#include "cuda/kernels/stiefel_products.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>
#include <type_traits>

namespace ermoe::cuda {
namespace {

using namespace hopper;  // where code for other GPUs is made too, that of what follows is not used

constexpr int piece = 64;                  // rows and columns
constexpr int columns = 128;               // of a tile: wider ones leave room for fewer slots
constexpr int slots = 5;                   // bytes under way that hide the products and memory's latency
constexpr int slot_bytes = 3 * box_bytes;  // 64 x 64 of float and of bf16, or of bf16 three times
constexpr int group_warps = consumer_warps / 2;

/// Both operands have k contiguous: B is its own transpose.
template <int N>
using Stages = Ring<Product::forward, N, slots*(slot_bytes + 16)>;

/// What the copy engine reads and writes. `wide` is q, whose floats count as two elements of bf16 each.
struct Maps {
  CUtensorMap a, b, wide, hi, lo, third_in, third_out;
};

/// Tiles in the order that blocks take them, and which pieces of the present one exist.
template <int N>
struct Walk {
  int m, n, across, down, tiles, index;
  int matrix = 0, row = 0, column = 0;  // where the tile begins
  int groups = 0, pieces = 0;           // pieces down, one a group, and across

  __device__ __forceinline__ explicit Walk(const ProductDims& d)
      : m(static_cast<int>(d.m)),
        n(static_cast<int>(d.n)),
        across((n + N - 1) / N),
        down((m + tile_m - 1) / tile_m),
        tiles(static_cast<int>(d.batch) * across * down),
        index(static_cast<int>(blockIdx.x)) {}

  __device__ __forceinline__ bool next() {
    if (index >= tiles) return false;
    const int rows = index / across;
    column = (index - rows * across) * N;
    matrix = rows / down;
    row = (rows - matrix * down) * tile_m;
    groups = m - row > piece ? 2 : 1;
    pieces = min(N / piece, (n - column + piece - 1) / piece);
    index += static_cast<int>(gridDim.x);
    return true;
  }
};

template <int N>
__device__ __forceinline__ void produce(Stages<N>& ring, const ProductDims& dims, const Maps& maps) {
  const int slices = static_cast<int>((dims.n + slice - 1) / slice);
  prefetch_map(&maps.a);
  prefetch_map(&maps.b);
  for (Walk<N> walk(dims); walk.next();) {
    for (int s = 0; s < slices; ++s) {
      const uint32_t barrier = ring.open();
      copy_box(ring.a(), &maps.a, barrier, s * slice, walk.row, walk.matrix);
      copy_box(ring.b(), &maps.b, barrier, s * slice, walk.column, walk.matrix);
      ring.advance();
    }
  }
}

/// A slot has two boxes of 32 floats or of 64 bf16, and a third one of bf16.
struct Slot {
  uint32_t data, arrived, done;
  int parity;

  template <int N>
  __device__ __forceinline__ Slot(const Stages<N>& ring, int index)
      : data(ring.extra() + index % slots * slot_bytes),
        arrived(ring.extra() + slots * slot_bytes + index % slots * 8),
        done(arrived + slots * 8),
        parity(index / slots % 2) {}
  __device__ __forceinline__ uint32_t third() const { return data + 2 * box_bytes; }
};

/// Pieces in the order of slots: those of a tile column by column.
template <int N>
struct Pieces {
  Walk<N> walk;
  int index = -1, of_tile = 0, row = 0, column = 0;

  __device__ __forceinline__ explicit Pieces(const ProductDims& d) : walk(d) {}

  __device__ __forceinline__ bool next() {
    if (++of_tile >= walk.groups * walk.pieces) {
      if (!walk.next()) return false;
      of_tile = 0;
    }
    row = walk.row + of_tile % walk.groups * piece;
    column = walk.column + of_tile / walk.groups * piece;
    ++index;
    return true;
  }
  /// Whether the second box of floats has elements of the matrix.
  __device__ __forceinline__ bool has_second_half() const { return walk.n - column > piece / 2; }
};

/// Floats become parts, or parts floats.
template <typename Work>
constexpr bool floats_arrive = std::is_same_v<Work, StepProduct>;

template <typename Work, int N>
__device__ __forceinline__ void bring(const Stages<N>& ring, const Pieces<N>& p, const Maps& maps) {
  const Slot slot(ring, p.index);
  const int z = p.walk.matrix;
  if constexpr (floats_arrive<Work>) {
    const bool both = p.has_second_half();
    barrier_arrive_expecting(slot.arrived, both ? slot_bytes : slot_bytes - box_bytes);
    copy_box(slot.data, &maps.wide, slot.arrived, 2 * p.column, p.row, z);
    if (both) copy_box(slot.data + box_bytes, &maps.wide, slot.arrived, 2 * p.column + piece, p.row, z);
  } else {
    barrier_arrive_expecting(slot.arrived, slot_bytes);
    copy_box(slot.data, &maps.hi, slot.arrived, p.column, p.row, z);
    copy_box(slot.data + box_bytes, &maps.lo, slot.arrived, p.column, p.row, z);
  }
  copy_box(slot.third(), &maps.third_in, slot.arrived, p.column, p.row, z);
}

template <typename Work, int N>
__device__ __forceinline__ void send(const Stages<N>& ring, const Pieces<N>& p, const Maps& maps, bool third) {
  const Slot slot(ring, p.index);
  const int z = p.walk.matrix;
  barrier_wait(slot.done, slot.parity);
  if constexpr (floats_arrive<Work>) {
    post_box(&maps.hi, slot.data, p.column, p.row, z);
    post_box(&maps.lo, slot.data + box_bytes, p.column, p.row, z);
  } else {
    post_box(&maps.wide, slot.data, 2 * p.column, p.row, z);
    if (p.has_second_half()) post_box(&maps.wide, slot.data + box_bytes, 2 * p.column + piece, p.row, z);
  }
  if (third) post_box(&maps.third_out, slot.third(), p.column, p.row, z);
  commit_posts();
}

/// Whether the consumers are done with a piece.
template <int N>
__device__ __forceinline__ bool finished(const Stages<N>& ring, int index) {
  const Slot slot(ring, index);
  return barrier_ended(slot.done, slot.parity);
}

/// The porter: one thread. It sends all that is finished before it waits for the slots to be read, once for all of them.
template <typename Work, int N>
__device__ __forceinline__ void carry(const Stages<N>& ring, const Work& work, const Maps& maps) {
  Pieces<N> coming(work.dims), going(work.dims);
  bool third = true;
  if constexpr (!floats_arrive<Work>) third = work.twin != nullptr;
  bool more = coming.next();
  for (int i = 0; i < slots && more; ++i, more = coming.next()) bring<Work>(ring, coming, maps);
  for (bool left = going.next(); left;) {
    int sent = 0;
    do {
      send<Work>(ring, going, maps, third);
      ++sent;
      left = going.next();
    } while (left && sent < slots && finished(ring, going.index));
    wait_posts_read();
    for (; sent > 0 && more; --sent, more = coming.next()) bring<Work>(ring, coming, maps);
  }
  wait_posts();
}

/// This thread's part of a piece: pairs of columns 8j + 2 (lane % 4), j < 8, of rows lane / 4 and that plus 8 of its warp's 16. Pair
/// 2j + h is sum[4j + 2h] and the next. Chunks of 16 bytes are permuted as TMA does it. What a warp has of a slot's three boxes are
/// the same bytes in either form, so it writes when all its lanes have read.
constexpr int pairs = 16;
__device__ __forceinline__ uint32_t narrow_at(int pair) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % group_warps * 16 + lane / 4 + pair % 2 * 8;
  return row * 128 + ((pair / 2 ^ (lane / 4)) << 4) + lane % 4 * 4;
}
__device__ __forceinline__ uint32_t wide_at(int pair) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % group_warps * 16 + lane / 4 + pair % 2 * 8, j = pair / 2;
  return j / 4 * box_bytes + row * 128 + (((j % 4 * 2 + lane % 4 / 2) ^ (lane / 4)) << 4) + lane % 2 * 8;
}
__device__ __forceinline__ uint32_t get_narrow(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ float2 get_wide(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void put(uint32_t address, uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}
__device__ __forceinline__ void put(uint32_t address, float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(v.x), "f"(v.y) : "memory");
}
__device__ __forceinline__ float2 widen_pair(uint32_t v) { return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000)); }

/// Of a thread's columns, what the way out multiplies by.
struct Factors {
  bool updated;
  float2 own[pairs / 2], scale[pairs / 2];
};
[[maybe_unused]] __device__ __forceinline__ Factors factors_of(const UpdateProduct& work, int matrix, int first) {
  Factors factors;
  factors.updated = work.updates[matrix] != 0;
  const int n = static_cast<int>(work.dims.n);
#pragma unroll
  for (int j = 0; j < pairs / 2; ++j) {
    const int column = first + 8 * j + static_cast<int>(threadIdx.x) % 4 * 2;
    const int64_t at = static_cast<int64_t>(matrix) * n + column;
    const bool wanted = factors.updated && column < n;
    factors.own[j] = wanted ? *reinterpret_cast<const float2*>(work.own + at) : float2{};
    factors.scale[j] = wanted ? *reinterpret_cast<const float2*>(work.scale + at) : float2{};
  }
  return factors;
}
struct NoFactors {};
[[maybe_unused]] __device__ __forceinline__ NoFactors factors_of(const StepProduct&, int, int) { return {}; }

/// A piece on its way out; `sum`: the product.
[[maybe_unused]] __device__ __forceinline__ void finish(const StepProduct& work, const Slot& slot, const float* sum, NoFactors) {
  float2 stepped[pairs];
#pragma unroll
  for (int i = 0; i < pairs; ++i) {
    const float2 q = get_wide(slot.data + wide_at(i)), along = widen_pair(get_narrow(slot.third() + narrow_at(i)));
    stepped[i].x = __fmaf_rn(-work.lr, along.x - sum[2 * i], q.x);
    stepped[i].y = __fmaf_rn(-work.lr, along.y - sum[2 * i + 1], q.y);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < pairs; ++i) {
    float2 left = stepped[i];
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const uint32_t taken = pack_pair(left.x, left.y);
      left.x -= widen_pair(taken).x;
      left.y -= widen_pair(taken).y;
      put(slot.data + part * box_bytes + narrow_at(i), taken);
    }
  }
}

[[maybe_unused]] __device__ __forceinline__ void finish(const UpdateProduct&, const Slot& slot, const float* sum, const Factors& factors) {
  float2 out[pairs];
#pragma unroll
  for (int i = 0; i < pairs; ++i) {
    const float2 hi = widen_pair(get_narrow(slot.data + narrow_at(i))), lo = widen_pair(get_narrow(slot.data + box_bytes + narrow_at(i)));
    const float2 rest = widen_pair(get_narrow(slot.third() + narrow_at(i))), own = factors.own[i / 2], scale = factors.scale[i / 2];
    out[i] = make_float2(hi.x + lo.x + rest.x, hi.y + lo.y + rest.y);
    if (factors.updated) out[i] = make_float2(out[i].x * own.x + sum[2 * i] * scale.x, out[i].y * own.y + sum[2 * i + 1] * scale.y);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < pairs; ++i) {
    put(slot.data + wide_at(i), out[i]);
    put(slot.third() + narrow_at(i), pack_pair(out[i].x, out[i].y));
  }
}

template <typename Work, int N>
__device__ __forceinline__ void consume(Stages<N>& ring, const Work& work) {
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, slices = static_cast<int>((work.dims.n + slice - 1) / slice);
  float sum[N / 2];
  int first = 0;  // piece of the tile
  for (Walk<N> walk(work.dims); walk.next(); first += walk.groups * walk.pieces) {
    __syncwarp();  // the products are all lanes' work, and a tile ends with work of the first alone
    multiply_slices<Start::cleared>(
        ring, group, slices, sum, [](int) {}, [](uint64_t, int) {});
    if (group >= walk.groups) continue;
#pragma unroll
    for (int p = 0; p < N / piece; ++p) {
      if (p >= walk.pieces) break;
      const auto factors = factors_of(work, walk.matrix, walk.column + p * piece);
      const Slot slot(ring, first + p * walk.groups + group);
      // The piece before in this slot may be the other group's, and still on its way: a parity tells two turns apart, not three.
      barrier_wait(slot.done, slot.parity ^ 1);
      barrier_wait(slot.arrived, slot.parity);
      finish(work, slot, sum + p * 32, factors);
      fence_for_async_proxy();
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(slot.done);
    }
  }
}

template <typename Work, int N>
__global__ void __launch_bounds__(threads, 1) product_kernel(const Work work, const __grid_constant__ Maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Stages<N> ring(memory);
  if (threadIdx.x == 0)
    for (int i = 0; i < slots; ++i) {
      barrier_init(Slot(ring, i).arrived, 1);
      barrier_init(Slot(ring, i).done, group_warps);
    }
  ring.init();
  if (threadIdx.x < threads - consumers) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce<N>(ring, work.dims, maps);
    if (threadIdx.x == 32) carry<Work, N>(ring, work, maps);
  } else {
    take_registers<232>();
    consume<Work, N>(ring, work);
  }
#else
  __trap();
#endif
}

template <typename Work, int N>
void launch(const Stream& stream, const Work& work, Maps maps, const bf16* b) {
  constexpr auto kernel = product_kernel<Work, N>;
  constexpr int bytes = Stages<N>::bytes;
  static_assert(Stages<N>::stages >= 3);
  const ProductDims& d = work.dims;
  maps.b = tensor_map({.data = b, .x = d.n, .y = d.n, .z = d.batch, .box_y = N});
  const int64_t tiles = d.batch * ((d.m + tile_m - 1) / tile_m) * ((d.n + N - 1) / N);
  const int64_t blocks = std::min<int64_t>(state_of(stream).multiprocessors, tiles);
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(work, maps);
  cuda_check(cudaGetLastError(), "stiefel_step");
}

CUtensorMap map_of(const ProductDims& d, const bf16* data, int rows = piece) {
  return tensor_map({.data = data, .x = d.n, .y = d.m, .z = d.batch, .box_y = rows});
}
CUtensorMap map_of(const ProductDims& d, const float* data) {
  return tensor_map({.data = reinterpret_cast<const bf16*>(data), .x = 2 * d.n, .y = d.m, .z = d.batch, .box_y = piece});
}

}  // namespace

void step_wgmma(const Stream& stream, const StepProduct& work) {
  const ProductDims& d = work.dims;
  if (d.batch * d.m * d.n == 0) return;
  const CUtensorMap third = map_of(d, work.direction);
  const Maps maps{.a = map_of(d, work.twin, tile_m),
                  .b = {},
                  .wide = map_of(d, work.q),
                  .hi = map_of(d, work.hi),
                  .lo = map_of(d, work.lo),
                  .third_in = third,
                  .third_out = third};
  launch<StepProduct, columns>(stream, work, maps, work.sym);
}

void update_wgmma(const Stream& stream, const UpdateProduct& work) {
  const ProductDims& d = work.dims;
  if (d.batch * d.m * d.n == 0) return;
  const Maps maps{.a = map_of(d, work.hi, tile_m),
                  .b = {},
                  .wide = map_of(d, work.q),
                  .hi = map_of(d, work.hi),
                  .lo = map_of(d, work.lo),
                  .third_in = map_of(d, work.rest),
                  .third_out = work.twin != nullptr ? map_of(d, work.twin) : CUtensorMap{}};
  launch<UpdateProduct, columns>(stream, work, maps, work.half);
}

}  // namespace ermoe::cuda
