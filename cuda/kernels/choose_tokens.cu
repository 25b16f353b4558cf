// Choosing tokens on the GPU: a block has one expert's column of one group. Scores become whole numbers in the same order, and four
// passes over them fix the wanted one's eight bits each, from the highest down, by counting; a last pass marks what lies above it and,
// in the order of tokens, as many of its equals as are left. Only whole numbers are counted, so the choice is the CPU's. A column is
// read five times, from the second-level cache but once; a few blocks do it all, so time is that of the reads in flight, some ten
// microseconds a pass for 65,536 tokens. Contract: ops/kernels/choose_tokens.h.
#include "ops/kernels/choose_tokens.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 1024, warps = threads / 32;
constexpr int digits = 256;  // of a key, four a key

/// One expert's scores of one group.
struct Column {
  const float* scores;
  const uint8_t* allow;
  int64_t stride;

  /// Grows with the score; 0 for what is never taken, which no finite score has. -0 is 0.
  __device__ unsigned key(int64_t token) const {
    const float score = scores[token * stride] + 0.0f;
    if (!isfinite(score) || (allow != nullptr && allow[token * stride] == 0)) return 0;
    const unsigned bits = __float_as_uint(score);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  }
};

/// The key that the last of those taken has, and how many of its equals are taken.
struct Cut {
  unsigned key;
  int equals;
};

/// The `wanted`-th largest key, 1 <= wanted <= n.
__device__ Cut find_cut(const Column& column, int n, int wanted) {
  __shared__ int at_least[digits];  // keys with a digit, then with that or a higher one
  __shared__ Cut cut;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) cut = {0, wanted};
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (thread < digits) at_least[thread] = 0;
    __syncthreads();
    const unsigned known = shift == 24 ? 0 : ~0u << (shift + 8), prefix = cut.key;
    const int left = cut.equals;
    for (int begin = 0; begin < n; begin += threads) {
      const unsigned key = begin + thread < n ? column.key(begin + thread) : 0;
      const bool counts = begin + thread < n && (key & known) == prefix;
      const int digit = counts ? static_cast<int>(key >> shift & (digits - 1)) : -1;
      const unsigned peers = __match_any_sync(0xffffffffu, digit);  // most scores share their highest digits
      if (counts && (peers & ((1u << (thread % 32)) - 1)) == 0) atomicAdd(&at_least[digit], __popc(peers));
    }
    __syncthreads();
    for (int step = 1; step < digits; step *= 2) {
      const int add = thread + step < digits ? at_least[thread + step] : 0;
      __syncthreads();
      if (thread < digits) at_least[thread] += add;
      __syncthreads();
    }
    if (thread < digits) {
      const int above = thread + 1 < digits ? at_least[thread + 1] : 0;
      if (at_least[thread] >= left && above < left) cut = {prefix | static_cast<unsigned>(thread) << shift, left - above};
    }
    __syncthreads();
  }
  return cut;
}

/// Marks the keys above the cut and the first of those at it.
__device__ void mark(const Column& column, int n, const Cut& cut, uint8_t* taken) {
  __shared__ int in_warp[warps];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int before = 0;  // equals in the rounds before this one
  for (int begin = 0; begin < n; begin += threads) {
    const int token = begin + static_cast<int>(threadIdx.x);
    const unsigned key = token < n ? column.key(token) : 0;
    const bool equal = key == cut.key && key != 0;
    const unsigned equals = __ballot_sync(0xffffffffu, equal);
    if (threadIdx.x % 32 == 0) in_warp[warp] = __popc(equals);
    __syncthreads();
    int rank = before + __popc(equals & ((1u << (threadIdx.x % 32)) - 1));
    for (int w = 0; w < warps; ++w) {
      if (w < warp) rank += in_warp[w];
      before += in_warp[w];
    }
    if (token < n) taken[token * column.stride] = key > cut.key || (equal && rank < cut.equals) ? 1 : 0;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads) choose_kernel(ChoiceDims dims, const float* scores, const uint8_t* allow, uint8_t* taken) {
  const int64_t group = blockIdx.x / dims.experts, expert = blockIdx.x % dims.experts, first = group * dims.group * dims.experts + expert;
  const int64_t n = min(dims.group, dims.tokens - group * dims.group), wanted = (dims.each * n + dims.experts - 1) / dims.experts;
  const Column column{scores + first, allow == nullptr ? nullptr : allow + first, dims.experts};
  const Cut cut = find_cut(column, static_cast<int>(n), static_cast<int>(wanted));
  mark(column, static_cast<int>(n), cut, taken + first);
}

}  // namespace

template <typename T>
void choose_tokens(const Stream& stream, const ChoiceDims& dims, const T* scores, const uint8_t* allow, uint8_t* taken) {
  if (dims.tokens == 0) return;
  choose_kernel<<<static_cast<unsigned>(dims.groups() * dims.experts), threads, 0, native(stream)>>>(dims, scores, allow, taken);
  cuda_check(cudaGetLastError(), "choose_tokens");
}

template void choose_tokens(const Stream&, const ChoiceDims&, const float*, const uint8_t*, uint8_t*);

}  // namespace ermoe::cuda
