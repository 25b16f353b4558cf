// The grouped GEMM's product over an expert's rows, dW_e (+)= dyᵀ x, for Hopper. There are few tiles of dW, so the rows of all
// experts are cut into parts of equal length, wherever experts end; a block takes one tile through one part, and the tiles of
// a part run side by side and share what they read through the L2. Of an expert that lies in several parts, all but the last
// leave their sums in scratch memory; the last waits for them and adds them in order, so the result does not depend on who was
// first. Blocks walk their experts from behind: what others wait for is done first. They wait for blocks of lower index alone,
// which the GPU starts earlier: nothing can wait for ever. The bias gradient, dyᵀ times a column of ones, comes along in the
// blocks of the first column of tiles, as one more product of eight columns.
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cuda {
namespace {

using namespace hopper;

constexpr int ones_bytes = 1024;

/// How the product is cut, chosen on the host, where the experts' numbers of rows are not known.
struct Cut {
  int tile_n = 256;
  int parts = 1;
  int down = 0, across = 0;  // tiles of one expert's dW

  __host__ __device__ int64_t tiles() const { return static_cast<int64_t>(down) * across; }
  int64_t blocks() const { return parts * tiles(); }
  int64_t slots() const { return blocks() - tiles(); }  // the last part leaves nothing behind
  int64_t sums() const { return slots() * tile_m * tile_n; }
  int64_t bias_sums() const { return slots() * tile_m; }
};

/// Weighs idle multiprocessors in the last wave against what each block and each way out costs. Times are in cycles, measured.
Cut cut_of(const Stream& stream, const GroupedLinearDims& d) {
  constexpr double a_block = 2500, a_way_out = 4000, an_addition = 3300;
  const auto experts = static_cast<double>(d.experts), slices = static_cast<double>(d.rows) / slice + experts / 2;
  Cut best;
  double best_time = 0;
  for (const int tile_n : {256, 192, 128}) {
    Cut cut{.tile_n = tile_n,
            .down = static_cast<int>((d.out + tile_m - 1) / tile_m),
            .across = static_cast<int>((d.in + tile_n - 1) / tile_n)};
    const double width = tile_n / 256.0, a_slice = 1280 * width * cost_of(tile_n);
    for (cut.parts = 1; cut.parts <= 32 && (cut.parts == 1 || slices >= 8 * cut.parts); ++cut.parts) {
      const double waves = std::ceil(static_cast<double>(cut.blocks()) / state_of(stream).multiprocessors), others = cut.parts - 1;
      const double ways_out = 1 + (experts - 1) / cut.parts;
      const double time =
          waves * (slices / cut.parts * a_slice + a_block + ways_out * a_way_out * width) + others / experts * an_addition * width;
      if (best_time > 0 && time >= best_time) continue;
      best_time = time;
      best = cut;
    }
  }
  return best;
}

/// What a block does: its part of one expert at a time, the last expert first.
struct Walk {
  const GroupedProduct<bf16>& p;
  const Cut& cut;
  int tile, part;
  int64_t slices = 0;  // of all experts
  int next_expert;
  int64_t next_end;  // the slices up to the end of `next_expert`

  int expert = 0, first = 0, rows = 0;  // the part's rows of one expert
  int first_part = 0;                   // where the expert begins
  bool last_part = false;               // and whether it ends here

  __device__ __forceinline__ Walk(const GroupedProduct<bf16>& product, const Cut& how)
      : p(product), cut(how), next_expert(static_cast<int>(product.dims.experts) - 1) {
    const int tiles = static_cast<int>(cut.tiles());
    part = static_cast<int>(blockIdx.x) / tiles;
    tile = static_cast<int>(blockIdx.x) - part * tiles;
    for (int e = 0; e <= next_expert; ++e) slices += slices_of(e);
    next_end = slices;
  }
  __device__ __forceinline__ int rows_of(int e) const {
    return rows_end(p.offsets, e, static_cast<int>(p.dims.rows)) - rows_begin(p.offsets, e);
  }
  __device__ __forceinline__ int slices_of(int e) const { return (rows_of(e) + slice - 1) / slice; }
  __device__ __forceinline__ int64_t begin_of(int q) const { return q * max(slices, int64_t{1}) / cut.parts; }

  __device__ __forceinline__ bool next() {
    const int64_t from = begin_of(part), to = begin_of(part + 1);
    for (; next_expert >= 0; --next_expert) {
      const int64_t end = next_end, begin = end - slices_of(next_expert), mark = max(end, int64_t{1});
      next_end = begin;
      last_part = from < mark && mark <= to;  // also of an expert without rows
      const int64_t first_slice = max(begin, from), last_slice = min(end, to);
      if (!last_part && first_slice >= last_slice) continue;
      expert = next_expert--;
      const int before = static_cast<int>(first_slice - begin) * slice;
      first = rows_begin(p.offsets, expert) + before;
      rows = max(0, min(rows_of(expert) - before, static_cast<int>(last_slice - first_slice) * slice));
      for (first_part = part; begin_of(first_part) > begin; --first_part) continue;
      return true;
    }
    return false;
  }
  __device__ __forceinline__ int row() const { return tile / cut.across * tile_m; }
  __device__ __forceinline__ int column() const { return tile % cut.across * cut.tile_n; }
  __device__ __forceinline__ int slot(int q) const { return q * static_cast<int>(cut.tiles()) + tile; }
};

template <typename R, int N>
__device__ __forceinline__ void produce(R& ring, Walk& walk, const CUtensorMap* a, const CUtensorMap* b) {
  prefetch_map(a);
  prefetch_map(b);
  const int row = walk.row(), column = walk.column();
  while (walk.next()) {
    for (int k = walk.first; k < walk.first + walk.rows; k += slice) {
      const uint32_t barrier = ring.open();
#pragma unroll
      for (int i = 0; i < tile_m / 64; ++i) copy_box(ring.a() + i * box_bytes, a, barrier, row + 64 * i, k);
#pragma unroll
      for (int j = 0; j < N / 64; ++j) copy_box(ring.b() + j * box_bytes, b, barrier, column + 64 * j, k);
      ring.advance();
    }
  }
}

/// Zeros in the lines of a stage from row `from` on: what was fetched there belongs to the next expert, and may be NaN.
template <typename R>
__device__ __forceinline__ void clear_lines(const R& ring, int from) {
  const int thread = static_cast<int>(threadIdx.x) - (threads - consumers), chunks = (slice - from) * 8;  // of 16 bytes
  for (int box = 0; box < R::stage_bytes / box_bytes; ++box)
    for (int i = thread; i < chunks; i += consumers)
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(ring.a() + box * box_bytes + from * 128 + i * 16), "r"(0) : "memory");
  fence_for_async_proxy();
  sync_threads<consumers>(1);
}

/// Scratch memory: what parts leave behind.
struct Scratch {
  float* sums = nullptr;       // (slots, tile), as the threads hold them
  float* bias_sums = nullptr;  // (slots, tile_m)
  int* flags = nullptr;        // (slots), not 0 once the slot is filled
};

template <bool Bias, int Sums>
__device__ __forceinline__ void leave_all(const float (&sum)[Sums], const float (&bias)[4], const Scratch& scratch, int slot) {
  if (Bias && keeps_bias()) {
    float* const own = scratch.bias_sums + slot * tile_m + own_row();
    __stcg(own, bias[0]);
    __stcg(own + 8, bias[2]);
  }
  leave_sums(sum, scratch.sums, scratch.flags, slot);
}

template <bool Bias, int Sums>
__device__ __forceinline__ void add_all(float (&sum)[Sums], float (&bias)[4], const Scratch& scratch, int slot) {
  add_sums(sum, scratch.sums, scratch.flags, slot);
  if (Bias && keeps_bias()) {
    const float* const own = scratch.bias_sums + slot * tile_m + own_row();
    bias[0] += __ldcg(own);
    bias[2] += __ldcg(own + 8);
  }
}

/// A row of the tile, of which `columns` are left: four lanes have two neighbours each of every eight.
template <int Sums>
__device__ __forceinline__ void write_row(const float (&sum)[Sums], int half, float* to, int columns, bool add, bool pairs) {
  const int own = threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < Sums / 4; ++j)
    write_pair(to + 8 * j + own, sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1], columns - 8 * j - own, add, pairs);
}

/// As bf16: lanes swap pairs with a neighbour, so that one has four of the first eight columns and the other four of the next,
/// and the four lanes together store 32 bytes at once. By the whole warp; `columns` is 0 where the lane has no row, else a
/// multiple of 8.
template <int Sums>
__device__ __forceinline__ void write_row(const float (&sum)[Sums], int half, bf16* to, int columns) {
  const int lane = threadIdx.x % 4, odd = lane % 2, own = 8 * odd + lane / 2 * 4;
  to += own;
  columns -= own;
#pragma unroll
  for (int j = 0; j < Sums / 4; j += 2) {
    const uint32_t first = pack_pair(sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1]);
    const uint32_t second = pack_pair(sum[4 * j + 4 + 2 * half], sum[4 * j + 5 + 2 * half]);
    const uint32_t other = __shfl_xor_sync(all_lanes, odd != 0 ? first : second, 1);
    if (8 * j < columns) *reinterpret_cast<uint2*>(to + 8 * j) = odd != 0 ? make_uint2(other, second) : make_uint2(first, other);
  }
}

template <typename Out, bool Bias, int Sums>
__device__ __forceinline__ void write_tile(const float (&sum)[Sums], const float (&bias)[4], const Walk& walk, bool pairs) {
  const GroupedProduct<bf16>& p = walk.p;
  const int row = walk.row() + own_row(), columns = static_cast<int>(p.dims.in) - walk.column();
  Out* const c = static_cast<Out*>(p.c) + (walk.expert * p.dims.out + row) * p.dims.in + walk.column();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool inside = row + 8 * half < p.dims.out;
    Out* const to = c + 8 * half * p.dims.in;
    if constexpr (sizeof(Out) == sizeof(bf16)) write_row(sum, half, to, inside ? columns : 0);
    if (!inside) continue;
    if constexpr (sizeof(Out) == sizeof(float)) write_row(sum, half, to, columns, p.mode == Accumulate::add, pairs);
    if (Bias && keeps_bias()) {
      float* const db = p.bias_sums.data + walk.expert * p.dims.out + row + 8 * half;
      *db = p.bias_sums.mode == Accumulate::add ? *db + bias[2 * half] : bias[2 * half];
    }
  }
}

template <typename Out, typename R, bool Bias, int N>
__device__ __forceinline__ void consume(R& ring, Walk& walk, const Scratch& scratch, bool pairs) {
  const int group = (static_cast<int>(threadIdx.x) - (threads - consumers)) / 128;
  const uint64_t ones = operand<Major::k>(ring.extra(), box_bytes);  // wherever it is read, it is 1
  float sum[N / 2], bias[4];
  while (walk.next()) {
#pragma unroll
    for (float& value : sum) value = 0;
    bias[0] = bias[1] = bias[2] = bias[3] = 0;
    settle(sum);
    settle(bias);
    if (walk.rows > 0)
      multiply_slices<Start::kept>(
          ring, group, (walk.rows + slice - 1) / slice, sum,
          [&](int s) {
            if (const int left = walk.rows - s * slice; left < slice) clear_lines(ring, left);
          },
          [&](uint64_t a, int) {
            if constexpr (Bias) multiply_async<Major::mn, Major::k>(bias, a, ones, 1);
          });
    if constexpr (Bias) settle(bias);
    if (walk.last_part) {
      for (int q = walk.first_part; q < walk.part; ++q)
        if (walk.begin_of(q) < walk.begin_of(q + 1)) add_all<Bias>(sum, bias, scratch, walk.slot(q));
      write_tile<Out, Bias>(sum, bias, walk, pairs);
    } else {
      leave_all<Bias>(sum, bias, scratch, walk.slot(walk.part));
    }
  }
}

/// Eight columns of 64 k, all 1, for the bias gradient.
template <typename R>
__device__ __forceinline__ void write_ones(const R& ring) {
  constexpr uint32_t two_ones = 0x3f803f80;
  if (threadIdx.x < ones_bytes / 4) asm volatile("st.shared.u32 [%0], %1;" ::"r"(ring.extra() + threadIdx.x * 4), "r"(two_ones) : "memory");
  fence_for_async_proxy();
}

template <typename Out, int N>
__global__ void __launch_bounds__(threads, 1)
    grouped_wgmma_weight_kernel(const GroupedProduct<bf16> p, const Cut cut, const Scratch scratch, bool pairs,
                                const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  using R = Ring<Product::weight, N, ones_bytes>;
  R ring(memory);
  write_ones(ring);
  ring.init();
  Walk walk(p, cut);
  if (threadIdx.x < threads - consumers) {
    give_up_registers<56>();
    if (threadIdx.x == 0) produce<R, N>(ring, walk, &a, &b);
  } else {
    take_registers<224>();
    if (p.bias_sums.data != nullptr && walk.column() == 0)
      consume<Out, R, true, N>(ring, walk, scratch, pairs);
    else
      consume<Out, R, false, N>(ring, walk, scratch, pairs);
  }
#else
  __trap();
#endif
}

template <typename Out, int N>
void launch(const Stream& stream, const GroupedProduct<bf16>& p, const Cut& cut, float* scratch) {
  constexpr auto kernel = grouped_wgmma_weight_kernel<Out, N>;
  constexpr int bytes = Ring<Product::weight, N, ones_bytes>::bytes;
  const GroupedLinearDims& d = p.dims;
  const CUtensorMap a = tensor_map({.data = p.a, .x = d.out, .y = d.rows, .box_y = slice});
  const CUtensorMap b = tensor_map({.data = p.b, .x = d.in, .y = d.rows, .box_y = slice});
  const bool pairs = reinterpret_cast<uintptr_t>(p.c) % sizeof(float2) == 0;
  const Scratch parts{
      .sums = scratch, .bias_sums = scratch + cut.sums(), .flags = reinterpret_cast<int*>(scratch + cut.sums() + cut.bias_sums())};
  if (cut.slots() > 0)
    cuda_check(cudaMemsetAsync(parts.flags, 0, static_cast<size_t>(cut.slots()) * sizeof(int), native(stream)), "cudaMemsetAsync");
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(cut.blocks()), threads, bytes, native(stream)>>>(p, cut, parts, pairs, a, b);
  cuda_check(cudaGetLastError(), "grouped_wgmma_weight");
}

}  // namespace

int64_t grouped_wgmma_weight_scratch(const Stream& stream, const GroupedLinearDims& dims) {
  const Cut cut = cut_of(stream, dims);
  return cut.sums() + cut.bias_sums() + cut.slots();
}

template <typename Out>
void grouped_wgmma_weight(const Stream& stream, const GroupedProduct<bf16>& p, float* scratch) {
  const Cut cut = cut_of(stream, p.dims);
  switch (cut.tile_n) {
    case 256: return launch<Out, 256>(stream, p, cut, scratch);
    case 192: return launch<Out, 192>(stream, p, cut, scratch);
    default: return launch<Out, 128>(stream, p, cut, scratch);
  }
}

template void grouped_wgmma_weight<float>(const Stream&, const GroupedProduct<bf16>&, float*);
template void grouped_wgmma_weight<bf16>(const Stream&, const GroupedProduct<bf16>&, float*);

}  // namespace ermoe::cuda
