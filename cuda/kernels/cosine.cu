// Cosines on the GPU, bound by memory: both vectors are read once, long ones again on the way back. A pair takes as many lanes as
// it has packs: 6 of 8 lanes at R 48 in bf16. Where the gradients' sums are wanted too, a block walks the pairs at steps that
// keep a thread in the same columns, so that sums gather in registers. Contract: ops/kernels/cosine.h.
#include "ops/kernels/cosine.h"

#include "cuda/device/index.cuh"
#include "cuda/device/row_group.cuh"
#include "cuda/device/sum_partials.cuh"
#include "ops/kernels/column_sum.h"

#include <algorithm>
#include <cfloat>

namespace ermoe::cuda {
namespace {

struct Moments {
  float ab = 0, aa = 0, bb = 0;

  /// False for a NaN: it has to show.
  __device__ bool zero() const { return aa < FLT_MIN || bb < FLT_MIN; }
  __device__ float cosine() const { return ab / (sqrtf(aa) * sqrtf(bb)); }

  template <int V>
  __device__ __forceinline__ void add(const Pack<float, V>& a, const Pack<float, V>& b) {
#pragma unroll
    for (int k = 0; k < V; ++k) ab += a.v[k] * b.v[k], aa += a.v[k] * a.v[k], bb += b.v[k] * b.v[k];
  }
  template <int Lanes>
  __device__ __forceinline__ void gather() {
    ab = group_sum<Lanes>(ab), aa = group_sum<Lanes>(aa), bb = group_sum<Lanes>(bb);
  }
};

/// da = other b + along_a a, db = other a + along_b b, for the gradient d of the cosine: d (b / (|a| |b|) - cos a / |a|²) and alike;
/// nothing where a vector is zero.
struct Slopes {
  float other = 0, along_a = 0, along_b = 0;

  __device__ Slopes(const Moments& m, float d) {
    if (m.zero()) return;
    other = d / (sqrtf(m.aa) * sqrtf(m.bb));
    along_a = -other * m.ab / m.aa, along_b = -other * m.ab / m.bb;
  }
};

/// A vector and the constant that is added to it; `shift` may be null.
template <typename T>
struct Vector {
  const T* v;
  const float* shift;

  __device__ Vector(const CosineOperand<T>& from, const CosineDims& dims, int64_t pair) : v(from.v + pair * dims.width), shift(from.shift) {
    if (shift != nullptr) shift += divide(pair, dims.shifts).column * dims.width;
  }
  template <int V>
  __device__ Pack<float, V> at(int64_t c) const {
    const auto in = load<V>(v + c);
    Pack<float, V> out{};
    if (shift != nullptr) out = load_floats<V>(shift + c);
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] += widen(in.v[k]);
    return out;
  }
};

/// A pair of vectors among a group of lanes. The first pack of each stays in registers: vectors of up to `Lanes` packs are read once.
template <int V, int Lanes, typename T>
struct Pair {
  Vector<T> a, b;
  int64_t width;
  Pack<float, V> x{}, y{};

  __device__ Pair(const CosineDims& dims, const CosineOperand<T>& left, const CosineOperand<T>& right, int64_t pair, bool valid)
      : a(left, dims, pair), b(right, dims, pair), width(valid ? dims.width : 0) {
    if (const int64_t c = first_column<V, Lanes>(); c < width) x = a.template at<V>(c), y = b.template at<V>(c);
  }

  /// fn(column, pack of a, pack of b) for this lane's packs.
  template <typename Fn>
  __device__ __forceinline__ void each(Fn&& fn) const {
    int64_t c = first_column<V, Lanes>();
    if (c < width) fn(c, x, y);
    for (c += Lanes * V; c < width; c += Lanes * V) fn(c, a.template at<V>(c), b.template at<V>(c));
  }

  __device__ __forceinline__ Moments moments() const {
    Moments m;
    each([&](int64_t, const auto& left, const auto& right) { m.add(left, right); });
    m.template gather<Lanes>();
    return m;
  }
};

template <typename T>
struct Forward {
  CosineDims dims;
  CosineOperand<T> a, b;
  float* s;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const Moments m = Pair<V, Lanes, T>(dims, a, b, pair, valid).moments();
    if (valid && threadIdx.x % Lanes == 0) s[pair] = m.zero() ? 0.0f : m.cosine();
  }
};

/// Both gradients of a pair while its vectors are at hand.
template <typename T>
struct Backward {
  CosineDims dims;
  CosineOperand<T> a, b;
  const float* ds;
  Destination<T> da, db;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const float d = valid ? ds[pair] : 0.0f;
    const Pair<V, Lanes, T> vectors(dims, a, b, pair, valid);
    const Slopes slopes(vectors.moments(), d);
    vectors.each([&](int64_t c, const auto& x, const auto& y) {
      float out[V];
      if (da.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = slopes.other * y.v[k] + slopes.along_a * x.v[k];
        write(da.data + pair * dims.width + c, out, da.mode);
      }
      if (db.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = slopes.other * x.v[k] + slopes.along_b * y.v[k];
        write(db.data + pair * dims.width + c, out, db.mode);
      }
    });
  }
};

constexpr int sums_threads = 256, sums_blocks = 3;  // an SM

template <typename T>
struct BackwardSums {
  CosineDims dims;
  CosineOperand<T> a, b;
  const float* ds;
  T *da, *db;
  float* partials;  // (a or b, blocks, S, R)
};

/// A thread's share of pairs that lie a whole number of rows of the shift apart. A vector is one pack a lane at most.
template <int V, int Lanes, typename T>
struct Walk {
  static constexpr int groups = sums_threads / Lanes;
  const BackwardSums<T>& work;
  const int column = static_cast<int>(first_column<V, Lanes>()), group = static_cast<int>(threadIdx.x) / Lanes;
  const bool used = column < work.dims.width;  // not where a vector has fewer packs than lanes
  Pack<float, V> shift_a{}, shift_b{};
  Pack<T, V> a{}, b{};  // of the pair to come
  float d = 0;
  float sums_a[V] = {}, sums_b[V] = {};

  __device__ explicit Walk(const BackwardSums<T>& w) : work(w) {
    const int64_t at = group % work.dims.shifts * work.dims.width + column;
    if (used && work.a.shift != nullptr) shift_a = load_floats<V>(work.a.shift + at);
    if (used && work.b.shift != nullptr) shift_b = load_floats<V>(work.b.shift + at);
  }
  /// `at`: of this lane's pack.
  __device__ __forceinline__ void fetch(int64_t pair, int64_t at) {
    if (!used || pair >= work.dims.pairs) return;
    d = work.ds[pair], a = load<V>(work.a.v + at), b = load<V>(work.b.v + at);
  }
  /// All lanes of a warp call it.
  __device__ __forceinline__ void step(int64_t pair, int64_t at, int64_t ahead) {
    Pack<float, V> x, y;
#pragma unroll
    for (int k = 0; k < V; ++k) x.v[k] = widen(a.v[k]) + shift_a.v[k], y.v[k] = widen(b.v[k]) + shift_b.v[k];
    const float own = d;
    fetch(pair + ahead, at + ahead * work.dims.width);
    Moments m;
    m.add(x, y);  // zeros in unused lanes
    m.template gather<Lanes>();
    if (!used || pair >= work.dims.pairs) return;
    const Slopes slopes(m, own);
    Pack<T, V> da, db;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      da.v[k] = narrow<T>(slopes.other * y.v[k] + slopes.along_a * x.v[k]);
      db.v[k] = narrow<T>(slopes.other * x.v[k] + slopes.along_b * y.v[k]);
      sums_a[k] += widen(da.v[k]), sums_b[k] += widen(db.v[k]);
    }
    store(work.da + at, da);
    store(work.db + at, db);
  }
  /// Adds up the groups of each row of the shift. `parts`: (groups, Lanes * V).
  __device__ __forceinline__ void leave(const float (&sums)[V], float* parts, float* out) const {
    constexpr int pitch = Lanes * V;
    const int width = static_cast<int>(work.dims.width), rows = static_cast<int>(work.dims.shifts);
    __syncthreads();  // what lay there has been read
#pragma unroll
    for (int k = 0; k < V; ++k) parts[group * pitch + column + k] = sums[k];
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += sums_threads) {
      float total = 0;
      for (int g = i / width; g < groups; g += rows) total += parts[g * pitch + i % width];
      out[i] = total;
    }
  }
};

template <int V, int Lanes, typename T>
__global__ void __launch_bounds__(sums_threads, sums_blocks) backward_sums_kernel(BackwardSums<T> work) {
  using W = Walk<V, Lanes, T>;
  __shared__ float parts[sums_threads * V];
  W walk(work);
  const int64_t step = static_cast<int64_t>(gridDim.x) * W::groups;
  int64_t first = static_cast<int64_t>(blockIdx.x) * W::groups, at = (first + walk.group) * work.dims.width + walk.column;
  walk.fetch(first + walk.group, at);
  for (; first < work.dims.pairs; first += step, at += step * work.dims.width) walk.step(first + walk.group, at, step);
  const int64_t columns = work.dims.shifts * work.dims.width;
  walk.leave(walk.sums_a, parts, work.partials + blockIdx.x * columns);
  walk.leave(walk.sums_b, parts, work.partials + (gridDim.x + blockIdx.x) * columns);
}

/// As many as are resident at once, of at least four pairs a thread.
int64_t sums_grid(const Stream& stream, const CosineDims& dims) {
  return std::clamp<int64_t>(dims.pairs / sums_threads, 1, int64_t{sums_blocks} * state_of(stream).multiprocessors);
}

/// False, and nothing is done, where vectors are not of packs, longer than a warp's, or a block would meet rows of the shift unequally.
template <typename T>
bool backward_with_sums(const Stream& stream, const BackwardSums<T>& work, float* sums_a, float* sums_b) {
  constexpr int V = pack_width<T>;
  const CosineDims& dims = work.dims;
  if (dims.width % V != 0 || dims.pairs == 0 || !all_aligned(work.a.v, work.a.shift, work.b.v, work.b.shift, work.da, work.db))
    return false;
  bool done = false;
  with_lanes<1>(dims.width / V, [&]<int Lanes>(std::integral_constant<int, Lanes>) {
    if (dims.width > Lanes * V || sums_threads / Lanes % dims.shifts != 0) return;
    const int64_t blocks = sums_grid(stream, dims);
    backward_sums_kernel<V, Lanes><<<static_cast<unsigned>(blocks), sums_threads, 0, native(stream)>>>(work);
    cuda_check(cudaGetLastError(), "cosine_backward_sums");
    sum_partials(
        stream,
        PartialSums<2>{blocks, dims.shifts * dims.width, work.partials, {{sums_a, Accumulate::overwrite}, {sums_b, Accumulate::overwrite}}},
        "cosine_backward_sums");
    done = true;
  });
  return done;
}

ColumnSumDims columns_of(const CosineDims& dims) {
  const int64_t columns = dims.shifts * dims.width;
  return {.rows = dims.pairs / std::max<int64_t>(1, dims.shifts), .cols = columns, .stride = columns};
}

}  // namespace

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s) {
  by_rows<T>(stream, dims.pairs, dims.width, Forward<T>{dims, a, b, s}, "cosine_forward", a.v, a.shift, b.v, b.shift);
}

template <typename T>
void cosine_backward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b,
                     const Master<T>* ds, Destination<T> da, Destination<T> db) {
  if (da.data == nullptr && db.data == nullptr) return;
  by_rows<T>(stream, dims.pairs, dims.width, Backward<T>{dims, a, b, ds, da, db}, "cosine_backward", a.v, a.shift, b.v, b.shift, da.data,
             db.data);
}

template <typename T>
void cosine_backward_sums(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b,
                          const Master<T>* ds, T* da, T* db, Master<T>* sums_a, Master<T>* sums_b, float* scratch) {
  if (backward_with_sums<T>(stream, {dims, a, b, ds, da, db, scratch}, sums_a, sums_b)) return;
  cosine_backward<T>(stream, dims, a, b, ds, {da, Accumulate::overwrite}, {db, Accumulate::overwrite});
  column_sum(stream, columns_of(dims), da, scratch, sums_a, Accumulate::overwrite);
  column_sum(stream, columns_of(dims), db, scratch, sums_b, Accumulate::overwrite);
}

int64_t cosine_sums_scratch(const Stream& stream, const CosineDims& dims) {
  return std::max(2 * sums_grid(stream, dims) * dims.shifts * dims.width, columns_of(dims).partials());
}

template void cosine_forward(const Stream&, const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, float*);
template void cosine_forward(const Stream&, const CosineDims&, const CosineOperand<bf16>&, const CosineOperand<bf16>&, float*);
template void cosine_backward(const Stream&, const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, const float*,
                              Destination<float>, Destination<float>);
template void cosine_backward(const Stream&, const CosineDims&, const CosineOperand<bf16>&, const CosineOperand<bf16>&, const float*,
                              Destination<bf16>, Destination<bf16>);
template void cosine_backward_sums(const Stream&, const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, const float*,
                                   float*, float*, float*, float*, float*);
template void cosine_backward_sums(const Stream&, const CosineDims&, const CosineOperand<bf16>&, const CosineOperand<bf16>&, const float*,
                                   bf16*, bf16*, float*, float*, float*);

}  // namespace ermoe::cuda
