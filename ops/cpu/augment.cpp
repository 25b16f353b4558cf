// Crop, flip, normalisation and erasing on the CPU: one pass, a table look-up a value.
#include "ops/kernels/augment.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

/// One row of one channel. Columns [begin, end) of the output have a source pixel; `source` points at the first one's.
void fill_row(const float* table, const uint8_t* source, int64_t step, int64_t begin, int64_t end, int64_t side, float* row) {
  std::fill(row, row + begin, table[0]);
  for (int64_t x = begin; x < end; ++x) row[x] = table[source[(x - begin) * step]];
  std::fill(row + end, row + side, table[0]);
}

void erase(const Rectangle& box, int64_t side, float* plane) {
  for (int64_t y = box.top; y < box.top + box.height; ++y) std::fill_n(plane + y * side + box.left, box.width, 0.0f);
}

/// image (channels, S, S) from pixels (S, S, channels).
void augment_image(const AugmentDims& dims, const PixelTable& table, const Placement& place, const uint8_t* pixels, float* image) {
  const int64_t side = dims.side, channels = dims.channels;
  // Column x has its source at origin + x (or origin - x): inside for 0 <= that < S.
  const int64_t origin = place.mirrored ? side - 1 + place.right : place.right;
  const int64_t step = place.mirrored ? -channels : channels;
  const int64_t first = place.mirrored ? origin - side + 1 : -origin;
  const int64_t begin = std::clamp<int64_t>(first, 0, side), end = std::clamp<int64_t>(first + side, 0, side);
  for (int64_t c = 0; c < channels; ++c) {
    float* plane = image + c * side * side;
    for (int64_t y = 0; y < side; ++y) {
      const int64_t from = y + place.down;
      float* row = plane + y * side;
      if (from < 0 || from >= side || begin >= end) {
        std::fill_n(row, side, table.value[c][0]);
        continue;
      }
      const int64_t column = place.mirrored ? origin - begin : origin + begin;
      const uint8_t* source = pixels + (from * side + column) * channels + c;
      fill_row(table.value[c], source, step, begin, end, side, row);
    }
    erase(place.erased, side, plane);
  }
}

}  // namespace

void augment(const AugmentDims& dims, const PixelTable& table, const uint8_t* pixels, float* images) {
  const int64_t size = dims.side * dims.side * dims.channels;
#pragma omp parallel for schedule(static) if (dims.batch * size > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) augment_image(dims, table, draw_placement(dims, b), pixels + b * size, images + b * size);
}

}  // namespace ermoe::cpu
