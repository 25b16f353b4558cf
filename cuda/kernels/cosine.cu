// Cosines on the GPU, bound by memory: both vectors are read once, long ones again on the way back. A pair takes as many lanes as
// it has packs: 6 of 8 lanes at R 48 in bf16. Where sizes allow it, a block walks the pairs at steps that keep a thread in the same
// columns: the shift stays in registers, the next pair is fetched ahead, and the gradients' sums gather in registers too.
// Contract: ops/kernels/cosine.h.
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

constexpr int walk_threads = 256, forward_blocks = 5, sums_blocks = 3;  // blocks an SM

template <typename T>
struct WalkInputs {
  CosineDims dims;
  CosineOperand<T> a, b;
  const float* ds;  // null on the way forward
};

/// A thread's share of pairs that lie a whole number of rows of the shift apart. A vector is one pack a lane at most.
template <int V, int Lanes, typename T>
struct Walk {
  static constexpr int groups = walk_threads / Lanes;
  const WalkInputs<T>& in;
  const int column = static_cast<int>(first_column<V, Lanes>()), group = static_cast<int>(threadIdx.x) / Lanes;
  const bool used = column < in.dims.width;  // not where a vector has fewer packs than lanes
  Pack<float, V> shift_a{}, shift_b{};
  Pack<T, V> a{}, b{};  // of the pair to come
  float d = 0;
  Pack<float, V> x, y;  // the present pair

  __device__ explicit Walk(const WalkInputs<T>& inputs) : in(inputs) {
    const int64_t at = group % in.dims.shifts * in.dims.width + column;
    if (used && in.a.shift != nullptr) shift_a = load_floats<V>(in.a.shift + at);
    if (used && in.b.shift != nullptr) shift_b = load_floats<V>(in.b.shift + at);
  }
  /// `at`: of this lane's pack.
  __device__ __forceinline__ void fetch(int64_t pair, int64_t at) {
    if (!used || pair >= in.dims.pairs) return;
    if (in.ds != nullptr) d = in.ds[pair];
    a = load<V>(in.a.v + at), b = load<V>(in.b.v + at);
  }
  /// Sets x and y from what was fetched, and starts on the pair `ahead`. All lanes of a warp call it.
  __device__ __forceinline__ Moments turn(int64_t pair, int64_t at, int64_t ahead) {
#pragma unroll
    for (int k = 0; k < V; ++k) x.v[k] = widen(a.v[k]) + shift_a.v[k], y.v[k] = widen(b.v[k]) + shift_b.v[k];
    fetch(pair + ahead, at + ahead * in.dims.width);
    Moments m;
    m.add(x, y);  // zeros in unused lanes
    m.template gather<Lanes>();
    return m;
  }
  /// fn(pair, index of this lane's pack, pairs to the next) for all of a thread's pairs; a block's threads all take as many turns.
  template <typename Fn>
  __device__ __forceinline__ void each(Fn&& fn) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * groups;
    int64_t first = static_cast<int64_t>(blockIdx.x) * groups, at = (first + group) * in.dims.width + column;
    fetch(first + group, at);
    for (; first < in.dims.pairs; first += step, at += step * in.dims.width) fn(first + group, at, step);
  }
};

template <int V, int Lanes, typename T>
__global__ void __launch_bounds__(walk_threads, forward_blocks) forward_walk_kernel(WalkInputs<T> in, float* s) {
  Walk<V, Lanes, T> walk(in);
  walk.each([&](int64_t pair, int64_t at, int64_t step) {
    const Moments m = walk.turn(pair, at, step);
    if (threadIdx.x % Lanes == 0 && pair < in.dims.pairs) s[pair] = m.zero() ? 0.0f : m.cosine();
  });
}

template <typename T>
struct BackwardOutputs {
  T *da, *db;
  float* partials;  // (a or b, blocks, S, R)
};

/// Adds up the groups of each row of the shift. `parts`: (groups, Lanes * V).
template <int V, int Lanes>
__device__ __forceinline__ void leave_sums(const CosineDims& dims, const float (&sums)[V], float* parts, float* out) {
  constexpr int pitch = Lanes * V, groups = walk_threads / Lanes;
  const int width = static_cast<int>(dims.width), rows = static_cast<int>(dims.shifts);
  __syncthreads();  // what lay there has been read
#pragma unroll
  for (int k = 0; k < V; ++k) parts[static_cast<int>(threadIdx.x) * V + k] = sums[k];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += walk_threads) {
    float total = 0;
    for (int g = i / width; g < groups; g += rows) total += parts[g * pitch + i % width];
    out[i] = total;
  }
}

template <int V, int Lanes, typename T>
__global__ void __launch_bounds__(walk_threads, sums_blocks) backward_sums_kernel(WalkInputs<T> in, BackwardOutputs<T> out) {
  __shared__ float parts[walk_threads * V];
  Walk<V, Lanes, T> walk(in);
  float sums_a[V] = {}, sums_b[V] = {};
  walk.each([&](int64_t pair, int64_t at, int64_t step) {
    const float d = walk.d;
    const Slopes slopes(walk.turn(pair, at, step), d);
    if (!walk.used || pair >= in.dims.pairs) return;
    Pack<T, V> da, db;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      da.v[k] = narrow<T>(slopes.other * walk.y.v[k] + slopes.along_a * walk.x.v[k]);
      db.v[k] = narrow<T>(slopes.other * walk.x.v[k] + slopes.along_b * walk.y.v[k]);
      sums_a[k] += widen(da.v[k]), sums_b[k] += widen(db.v[k]);
    }
    store(out.da + at, da);
    store(out.db + at, db);
  });
  const int64_t columns = in.dims.shifts * in.dims.width;
  leave_sums<V, Lanes>(in.dims, sums_a, parts, out.partials + blockIdx.x * columns);
  leave_sums<V, Lanes>(in.dims, sums_b, parts, out.partials + (gridDim.x + blockIdx.x) * columns);
}

/// As many blocks as are resident at once, but no more than one for so many pairs as it has threads.
int64_t walk_grid(const Stream& stream, const CosineDims& dims, int blocks) {
  return std::clamp<int64_t>(dims.pairs / walk_threads, 1, int64_t{blocks} * state_of(stream).multiprocessors);
}

/// Calls fn(integral constants of the pack's width and the lanes of a pair) where pairs can be walked: vectors are of packs, none longer
/// than a warp's, and blocks meet rows of the shift equally.
template <typename T, typename Fn, typename... Pointers>
bool walk(const WalkInputs<T>& in, Fn&& fn, Pointers... pointers) {
  constexpr int V = pack_width<T>;
  const CosineDims& dims = in.dims;
  if (dims.width % V != 0 || dims.pairs == 0 || !all_aligned(in.a.v, in.a.shift, in.b.v, in.b.shift, pointers...)) return false;
  bool done = false;
  with_lanes<1>(dims.width / V, [&]<int Lanes>(std::integral_constant<int, Lanes> lanes) {
    done = dims.width <= Lanes * V && walk_threads / Lanes % dims.shifts == 0;
    if (done) fn(std::integral_constant<int, V>{}, lanes);
  });
  return done;
}

/// False, and nothing is done, where pairs cannot be walked.
template <typename T>
bool backward_with_sums(const Stream& stream, const WalkInputs<T>& in, const BackwardOutputs<T>& out, float* sums_a, float* sums_b) {
  const auto launch = [&]<int V, int Lanes>(std::integral_constant<int, V>, std::integral_constant<int, Lanes>) {
    const int64_t blocks = walk_grid(stream, in.dims, sums_blocks);
    backward_sums_kernel<V, Lanes><<<static_cast<unsigned>(blocks), walk_threads, 0, native(stream)>>>(in, out);
    cuda_check(cudaGetLastError(), "cosine_backward_sums");
    const Destination<float> a{sums_a, Accumulate::overwrite}, b{sums_b, Accumulate::overwrite};
    sum_partials(stream, PartialSums<2>{blocks, in.dims.shifts * in.dims.width, out.partials, {a, b}}, "cosine_backward_sums");
  };
  return walk(in, launch, out.da, out.db);
}

ColumnSumDims columns_of(const CosineDims& dims) {
  const int64_t columns = dims.shifts * dims.width;
  return {.rows = dims.pairs / std::max<int64_t>(1, dims.shifts), .cols = columns, .stride = columns};
}

}  // namespace

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s) {
  const WalkInputs<T> in{dims, a, b, nullptr};
  const auto launch = [&]<int V, int Lanes>(std::integral_constant<int, V>, std::integral_constant<int, Lanes>) {
    const auto blocks = static_cast<unsigned>(walk_grid(stream, dims, forward_blocks));
    forward_walk_kernel<V, Lanes><<<blocks, walk_threads, 0, native(stream)>>>(in, s);
    cuda_check(cudaGetLastError(), "cosine_forward");
  };
  if (walk(in, launch)) return;
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
  if (backward_with_sums<T>(stream, {dims, a, b, ds}, {da, db, scratch}, sums_a, sums_b)) return;
  cosine_backward<T>(stream, dims, a, b, ds, {da, Accumulate::overwrite}, {db, Accumulate::overwrite});
  column_sum(stream, columns_of(dims), da, scratch, sums_a, Accumulate::overwrite);
  column_sum(stream, columns_of(dims), db, scratch, sums_b, Accumulate::overwrite);
}

int64_t cosine_sums_scratch(const Stream& stream, const CosineDims& dims) {
  return std::max(2 * walk_grid(stream, dims, sums_blocks) * dims.shifts * dims.width, columns_of(dims).partials());
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
