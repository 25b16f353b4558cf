// Contract of the kernels that find where captions end. Read next: ops/cpu/caption_ends.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct CaptionEndsDims {
  int64_t batch = 0, tokens = 0;  // B, W
  int64_t experts = 0;            // E
  int64_t end_token = 0;
};

namespace cpu {

/// index (B): the first of a caption's tokens (B, W) that is the end token, else the last; allow (B·W, E), may be null: 1 up to there.
void caption_ends(const CaptionEndsDims& dims, const int32_t* tokens, int32_t* index, uint8_t* allow);

}  // namespace cpu

namespace cuda {

void caption_ends(const Stream& stream, const CaptionEndsDims& dims, const int32_t* tokens, int32_t* index, uint8_t* allow);

}  // namespace cuda
}  // namespace ermoe
