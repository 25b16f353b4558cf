// Contract of the variation of volumes in one pass, the draws that every backend shares, and what it makes of one voxel. Where a voxel
// comes from is reckoned in whole numbers of 2^-24 voxels, so that every backend takes the same neighbours and the same label.
// Read next: ops/cpu/augment_volume.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cmath>
#include <cstdint>

namespace ermoe {

struct AugmentVolumeDims {
  int64_t batch = 0, channels = 0;
  int64_t size[3] = {};                     // nx, ny, nz
  double shift = 0, rotate = 0, scale = 0;  // voxels, radians, share
  double gain = 0, gamma = 0, bias = 0, noise = 0;
  bool flip = false;
  int64_t first = 0;  // number of the first volume among those of all ranks
  RngKey key;

  ERMOE_HD int64_t voxels() const { return size[0] * size[1] * size[2]; }
};

inline constexpr int place_bits = 24;  // of the part of a voxel: as many as a float has
inline constexpr int64_t one_voxel = int64_t{1} << place_bits;
inline constexpr int bias_terms = 9;

/// What was drawn for one volume.
struct VolumeDraw {
  int64_t map[3][4];  // output voxel (x, y, z, 1) to its place in the source, in 2^-24 voxels
  float gain = 1, gamma = 1, noise = 0;
  float bias[bias_terms] = {};
  bool biased = false;
  RngKey noise_key;
};

/// Evenly in [-1, 1), from one random word.
ERMOE_HD inline double either_way(uint32_t word) { return 2 * static_cast<double>(uniform(word)) - 1; }
/// A factor from 1/(1 + share) to 1 + share, its logarithm drawn evenly.
ERMOE_HD inline double factor_of(double share, uint32_t word) { return std::exp(either_way(word) * std::log1p(share)); }

/// m = a · m, both (3, 3), where `a` turns by `angle` in the plane of axes p and q.
ERMOE_HD inline void turn(double (&m)[3][3], int p, int q, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  for (int j = 0; j < 3; ++j) {
    const double mp = m[p][j], mq = m[q][j];
    m[p][j] = c * mp - s * mq;
    m[q][j] = s * mp + c * mq;
  }
}

/// The map around the grid's middle: mirrored, turned, scaled, shifted.
ERMOE_HD inline void draw_map(const AugmentVolumeDims& dims, RngKey key, int64_t (&map)[3][4]) {
  const Random4 moves = philox(key, uint64_t{0}), turns = philox(key, uint64_t{1});
  const double step = 1 / factor_of(dims.scale, turns.x[3]);
  const bool mirrored = dims.flip && uniform(moves.x[3]) < 0.5f;
  double m[3][3] = {{mirrored ? -step : step, 0, 0}, {0, step, 0}, {0, 0, step}};
  for (int axis = 0; axis < 3; ++axis) turn(m, (axis + 1) % 3, (axis + 2) % 3, dims.rotate * either_way(turns.x[axis]));
  for (int i = 0; i < 3; ++i) {
    double start = 0.5 * static_cast<double>(dims.size[i] - 1) - dims.shift * either_way(moves.x[i]);
    for (int j = 0; j < 3; ++j) {
      start -= m[i][j] * 0.5 * static_cast<double>(dims.size[j] - 1);
      map[i][j] = std::llround(m[i][j] * static_cast<double>(one_voxel));
    }
    map[i][3] = std::llround(start * static_cast<double>(one_voxel));
  }
}

/// The draws of volume b.
ERMOE_HD inline VolumeDraw draw_volume(const AugmentVolumeDims& dims, int64_t b) {
  const RngKey key = dims.key.fold(static_cast<uint64_t>(dims.first + b));
  VolumeDraw draw;
  draw_map(dims, key, draw.map);
  const Random4 r = philox(key, uint64_t{2});
  draw.gain = static_cast<float>(factor_of(dims.gain, r.x[0]));
  draw.gamma = static_cast<float>(factor_of(dims.gamma, r.x[1]));
  draw.noise = static_cast<float>(dims.noise) * uniform(r.x[2]);
  draw.biased = dims.bias > 0;
  for (int i = 0; i < bias_terms; ++i)
    draw.bias[i] = static_cast<float>(dims.bias * either_way(philox(key, static_cast<uint64_t>(3 + i / 4)).x[i % 4]));
  draw.noise_key = key.fold(0);
  return draw;
}

/// Where an output voxel comes from.
struct SourcePlace {
  int64_t at[3];  // in 2^-24 voxels
};

ERMOE_HD inline SourcePlace source_of(const VolumeDraw& draw, int64_t x, int64_t y, int64_t z) {
  SourcePlace place;
  for (int i = 0; i < 3; ++i) place.at[i] = draw.map[i][0] * x + draw.map[i][1] * y + draw.map[i][2] * z + draw.map[i][3];
  return place;
}

/// The voxel nearest to a place; -1 beyond the grid.
ERMOE_HD inline int64_t nearest_voxel(const AugmentVolumeDims& dims, const SourcePlace& place) {
  int64_t v[3];
  for (int i = 0; i < 3; ++i) {
    v[i] = (place.at[i] + one_voxel / 2) >> place_bits;
    if (v[i] < 0 || v[i] >= dims.size[i]) return -1;
  }
  return v[0] + dims.size[0] * (v[1] + dims.size[1] * v[2]);
}

/// Trilinear between the eight voxels around a place; those beyond the grid are 0.
ERMOE_HD inline float trilinear(const AugmentVolumeDims& dims, const float* volume, const SourcePlace& place) {
  int64_t low[3];
  float part[3];
  for (int i = 0; i < 3; ++i) {
    low[i] = place.at[i] >> place_bits;
    part[i] = static_cast<float>(place.at[i] - (low[i] << place_bits)) / static_cast<float>(one_voxel);
    if (low[i] < -1 || low[i] >= dims.size[i]) return 0;
  }
  const auto voxel = [&](int64_t x, int64_t y, int64_t z) {
    const bool inside = x >= 0 && x < dims.size[0] && y >= 0 && y < dims.size[1] && z >= 0 && z < dims.size[2];
    return inside ? volume[x + dims.size[0] * (y + dims.size[1] * z)] : 0.0f;
  };
  const auto along_x = [&](int64_t y, int64_t z) {
    const float a = voxel(low[0], y, z), b = voxel(low[0] + 1, y, z);
    return a + part[0] * (b - a);
  };
  const auto along_y = [&](int64_t z) {
    const float a = along_x(low[1], z), b = along_x(low[1] + 1, z);
    return a + part[1] * (b - a);
  };
  const float a = along_y(low[2]), b = along_y(low[2] + 1);
  return a + part[2] * (b - a);
}

/// The field at a voxel. Coordinates go from -1 to 1 along each side; over the grid the field's logarithm is 0 on average.
ERMOE_HD inline float bias_at(const AugmentVolumeDims& dims, const VolumeDraw& draw, int64_t x, int64_t y, int64_t z) {
  const auto place = [](int64_t i, int64_t n) { return n > 1 ? 2 * static_cast<float>(i) / static_cast<float>(n - 1) - 1 : 0.0f; };
  const float u = place(x, dims.size[0]), v = place(y, dims.size[1]), w = place(z, dims.size[2]), third = 1.0f / 3;
  const float* const c = draw.bias;
  return std::exp(c[0] * u + c[1] * v + c[2] * w + c[3] * (u * u - third) + c[4] * (v * v - third) + c[5] * (w * w - third) + c[6] * u * v +
                  c[7] * u * w + c[8] * v * w);
}

/// What becomes of an intensity. `index`: number of the voxel among those of all channels of its volume.
ERMOE_HD inline float vary(float value, const VolumeDraw& draw, float field, int64_t index) {
  if (value == 0) return 0;  // the background
  value *= draw.gain;
  if (draw.gamma != 1) value = std::copysign(std::pow(std::fabs(value), draw.gamma), value);
  value *= field;
  if (draw.noise > 0) value += draw.noise * static_cast<float>(normal(draw.noise_key, static_cast<uint64_t>(index)));
  return value;
}

namespace cpu {

/// varied (B, C, nz, ny, nx) from volumes; where there are labels (B, nz, ny, nx), of 4 bytes whatever they mean, moved from them.
void augment_volume(const AugmentVolumeDims& dims, const float* volumes, const uint32_t* labels /* or null */, float* varied,
                    uint32_t* moved /* or null */);

}  // namespace cpu

namespace cuda {

void augment_volume(const Stream& stream, const AugmentVolumeDims& dims, const float* volumes, const uint32_t* labels, float* varied,
                    uint32_t* moved);

}  // namespace cuda
}  // namespace ermoe
