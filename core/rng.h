// Random numbers without state: Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A number depends on its key and its index alone, so it is the same bits on any thread, rank or device, and a
// recomputed layer draws what it drew before. Header-only: the CUDA kernels include it too.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define ERMOE_HD __host__ __device__
#else
#define ERMOE_HD
#endif

namespace ermoe {

/// Names one stream of random numbers. `fold` makes a child stream: seed → step → layer → op.
struct RngKey {
  uint64_t value = 0;

  /// splitmix64's finaliser over key and id; distinct ids give unrelated streams.
  ERMOE_HD RngKey fold(uint64_t id) const {
    uint64_t z = value + 0x9e3779b97f4a7c15ull * (id + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return {z ^ (z >> 31)};
  }
};

/// A key whose last fold is a number that lies in the memory of the device that draws: work that was recorded once draws
/// anew each time it runs.
struct DrawKey {
  RngKey key;
  const int64_t* number = nullptr;  // null: `key` as it is

  ERMOE_HD DrawKey(RngKey plain) : key(plain) {}
  ERMOE_HD DrawKey(RngKey k, const int64_t* n) : key(k), number(n) {}
  ERMOE_HD RngKey resolve() const { return number ? key.fold(static_cast<uint64_t>(*number)) : key; }
};

struct Random4 {
  uint32_t x[4];
};

/// Four independent 32-bit words for (key, counter).
ERMOE_HD inline Random4 philox(RngKey key, Random4 counter) {
  uint32_t k0 = static_cast<uint32_t>(key.value), k1 = static_cast<uint32_t>(key.value >> 32);
  uint32_t c0 = counter.x[0], c1 = counter.x[1], c2 = counter.x[2], c3 = counter.x[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// Four independent 32-bit words for (key, index).
ERMOE_HD inline Random4 philox(RngKey key, uint64_t index) {
  return philox(key, Random4{{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}});
}

/// Uniform in [0, 1) with 24 bits.
ERMOE_HD inline float uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// One uniform number in [0, 1) for (key, index).
ERMOE_HD inline float uniform(RngKey key, uint64_t index) { return uniform(philox(key, index).x[0]); }

/// Uniform integer in [0, n), n < 2^32 (multiply-shift; bias below n/2^32).
ERMOE_HD inline uint64_t uniform_int(RngKey key, uint64_t index, uint64_t n) { return (uint64_t{philox(key, index).x[0]} * n) >> 32; }

/// One standard normal number for (key, index), by Box-Muller in double so that CPU and GPU round alike.
ERMOE_HD inline double normal(RngKey key, uint64_t index) {
  const Random4 r = philox(key, index);
  const double u1 = (static_cast<double>(r.x[0]) + 0.5) * 0x1p-32;
  const double u2 = (static_cast<double>(r.x[1]) + 0.5) * 0x1p-32;
  return std::sqrt(-2.0 * std::log(u1)) * std::cos(6.283185307179586 * u2);
}

}  // namespace ermoe
