// The grouped GEMM's product over an expert's rows, dW_e (+)= dyᵀ x, for Hopper. There are few tiles of dW, so an expert's
// rows are cut into parts of about equal length, a block each; tiles of one part run side by side and share what they read
// through the L2. All parts of a tile but the last leave their sums in scratch memory; the last waits for them and adds
// them in order, so the result does not depend on who was first. It waits for blocks of lower index alone, which the
// GPU starts earlier: nothing can wait for ever. The bias gradient, dyᵀ times a column of ones, comes along in the blocks of
// the first column of tiles, as one more product of eight columns.
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
  int part_rows = 0;         // rows of a part at most, whole slices
  int down = 0, across = 0;  // tiles of one expert's dW
  int64_t parts = 0;         // blocks for one tile of every expert, at most
  int64_t waiting = 0;       // of them, those that leave sums behind, at most

  int64_t tiles() const { return static_cast<int64_t>(down) * across; }
  int64_t slots() const { return waiting * tiles(); }
  int64_t sums() const { return slots() * tile_m * tile_n; }
  int64_t bias_sums() const { return slots() * tile_m; }
};

/// Weighs idle multiprocessors in the last wave against the traffic of the sums (about 4 % of the time a part).
Cut cut_of(const Stream& stream, const GroupedLinearDims& d) {
  const auto units_a_wave = static_cast<double>(state_of(stream).multiprocessors);
  const double mean_rows = static_cast<double>(d.rows) / static_cast<double>(d.experts);
  Cut best;
  double best_rate = 0;
  int best_parts = 1;
  for (const int tile_n : {256, 192, 128}) {
    const int64_t down = (d.out + tile_m - 1) / tile_m, across = (d.in + tile_n - 1) / tile_n;
    for (int parts = 1; parts <= 16 && (parts == 1 || mean_rows >= 512.0 * parts); ++parts) {
      const double units = static_cast<double>(d.experts * down * across * parts), waves = std::ceil(units / units_a_wave);
      const double used = static_cast<double>(d.in) / static_cast<double>(across * tile_n);
      const double rate = used * units / (waves * units_a_wave) / cost_of(tile_n) - 0.04 * (parts - 1);
      if (rate <= best_rate) continue;
      best_rate = rate;
      best_parts = parts;
      best = {.tile_n = tile_n, .down = static_cast<int>(down), .across = static_cast<int>(across)};
    }
  }
  const double rows = best_parts == 1 ? 2 * mean_rows : 1.15 * mean_rows / best_parts;  // loads differ a little
  best.part_rows = std::max(512, static_cast<int>(std::ceil(rows / slice)) * slice);
  best.waiting = d.rows / best.part_rows;
  best.parts = best.waiting + d.experts;
  return best;
}

/// What a block does.
struct Unit {
  int expert = 0, row = 0, column = 0;  // the tile
  int first = 0, rows = 0;              // its part of the expert's rows
  int part = 0, parts = 0;              // parts == 0: nothing to do
  int slot = 0;                         // of part 0's sums; the next part's is `stride` behind
  int stride = 0;
};

template <int N>
__device__ __forceinline__ Unit find_unit(const GroupedProduct<bf16>& p, const Cut& cut) {
  const int tiles = cut.down * cut.across;
  int index = static_cast<int>(blockIdx.x), waiting = 0;
  for (int e = 0; e < static_cast<int>(p.dims.experts); ++e) {
    const int begin = rows_begin(p.offsets, e), rows = rows_end(p.offsets, e, static_cast<int>(p.dims.rows)) - begin;
    const int parts = max(1, (rows + cut.part_rows - 1) / cut.part_rows);
    if (index < parts * tiles) {
      const int part = index / tiles, tile = index % tiles, slices = (rows + slice - 1) / slice;
      const int from = part * slices / parts * slice, to = min(rows, (part + 1) * slices / parts * slice);
      return {.expert = e,
              .row = tile / cut.across * tile_m,
              .column = tile % cut.across * N,
              .first = begin + from,
              .rows = to - from,
              .part = part,
              .parts = parts,
              .slot = waiting * tiles + tile,
              .stride = tiles};
    }
    index -= parts * tiles;
    waiting += parts - 1;
  }
  return {};
}

template <typename R, int N>
__device__ __forceinline__ void produce(R& ring, const Unit& u, const CUtensorMap* a, const CUtensorMap* b) {
  prefetch_map(a);
  prefetch_map(b);
  for (int k = 0; k < u.rows; k += slice) {
    const uint32_t barrier = ring.open();
#pragma unroll
    for (int i = 0; i < tile_m / 64; ++i) copy_box(ring.a() + i * box_bytes, a, barrier, u.row + 64 * i, u.first + k);
#pragma unroll
    for (int j = 0; j < N / 64; ++j) copy_box(ring.b() + j * box_bytes, b, barrier, u.column + 64 * j, u.first + k);
    ring.advance();
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

template <bool Bias, int Sums>
__device__ __forceinline__ void write_tile(const float (&sum)[Sums], const float (&bias)[4], const GroupedProduct<bf16>& p, const Unit& u,
                                           bool pairs) {
  const int row = u.row + own_row(), column = u.column + threadIdx.x % 4 * 2;
  const int64_t pitch = p.dims.in;
  float* const c = static_cast<float*>(p.c) + (u.expert * p.dims.out + row) * pitch + column;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (row + 8 * half >= p.dims.out) continue;
#pragma unroll
    for (int j = 0; j < Sums / 4; ++j)
      write_pair(c + 8 * half * pitch + 8 * j, sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1], static_cast<int>(pitch) - column - 8 * j,
                 p.mode == Accumulate::add, pairs);
    if (Bias && keeps_bias()) {
      float* const to = p.bias_sums.data + u.expert * p.dims.out + row + 8 * half;
      *to = p.bias_sums.mode == Accumulate::add ? *to + bias[2 * half] : bias[2 * half];
    }
  }
}

template <typename R, bool Bias, int N>
__device__ __forceinline__ void consume(R& ring, const GroupedProduct<bf16>& p, const Unit& u, const Scratch& scratch, bool pairs) {
  float sum[N / 2], bias[4];
  if (u.rows > 0) {
    const int group = (static_cast<int>(threadIdx.x) - (threads - consumers)) / 128;
    const uint64_t ones = operand<Major::k>(ring.extra(), box_bytes);  // wherever it is read, it is 1
    multiply_slices<Start::cleared>(
        ring, group, (u.rows + slice - 1) / slice, sum,
        [&](int s) {
          if (const int left = u.rows - s * slice; left < slice) clear_lines(ring, left);
        },
        [&](uint64_t a, int keep) {
          if constexpr (Bias) multiply_async<Major::mn, Major::k>(bias, a, ones, keep);
        });
    if constexpr (Bias) settle(bias);
  } else {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) sum[i] = 0;
    bias[0] = bias[2] = 0;
  }
  if (u.part + 1 < u.parts) return leave_all<Bias>(sum, bias, scratch, u.slot + u.part * u.stride);
  for (int part = 0; part + 1 < u.parts; ++part) add_all<Bias>(sum, bias, scratch, u.slot + part * u.stride);
  write_tile<Bias>(sum, bias, p, u, pairs);
}

/// Eight columns of 64 k, all 1, for the bias gradient.
template <typename R>
__device__ __forceinline__ void write_ones(const R& ring) {
  constexpr uint32_t two_ones = 0x3f803f80;
  if (threadIdx.x < ones_bytes / 4) asm volatile("st.shared.u32 [%0], %1;" ::"r"(ring.extra() + threadIdx.x * 4), "r"(two_ones) : "memory");
  fence_for_async_proxy();
}

template <int N>
__global__ void __launch_bounds__(threads, 1)
    grouped_wgmma_weight_kernel(const GroupedProduct<bf16> p, const Cut cut, const Scratch scratch, bool pairs,
                                const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  using R = Ring<Product::weight, N, ones_bytes>;
  const Unit unit = find_unit<N>(p, cut);
  if (unit.parts == 0) return;
  R ring(memory);
  write_ones(ring);
  ring.init();
  if (threadIdx.x < threads - consumers) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce<R, N>(ring, unit, &a, &b);
  } else {
    take_registers<232>();
    if (p.bias_sums.data != nullptr && unit.column == 0)
      consume<R, true, N>(ring, p, unit, scratch, pairs);
    else
      consume<R, false, N>(ring, p, unit, scratch, pairs);
  }
#else
  __trap();
#endif
}

template <int N>
void launch(const Stream& stream, const GroupedProduct<bf16>& p, const Cut& cut, float* scratch) {
  constexpr auto kernel = grouped_wgmma_weight_kernel<N>;
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
  kernel<<<static_cast<unsigned>(cut.parts * cut.tiles()), threads, bytes, native(stream)>>>(p, cut, parts, pairs, a, b);
  cuda_check(cudaGetLastError(), "grouped_wgmma_weight");
}

}  // namespace

int64_t grouped_wgmma_weight_scratch(const Stream& stream, const GroupedLinearDims& dims) {
  const Cut cut = cut_of(stream, dims);
  return cut.sums() + cut.bias_sums() + cut.slots();
}

void grouped_wgmma_weight(const Stream& stream, const GroupedProduct<bf16>& p, float* scratch) {
  const Cut cut = cut_of(stream, p.dims);
  switch (cut.tile_n) {
    case 256: return launch<256>(stream, p, cut, scratch);
    case 192: return launch<192>(stream, p, cut, scratch);
    default: return launch<128>(stream, p, cut, scratch);
  }
}

}  // namespace ermoe::cuda
