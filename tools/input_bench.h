// How fast images reach a model: decoding on one core and on all, variation on the device, and all of it as training does it.
// Read next: tools/input_bench.cpp.
#pragma once

#include "tools/engine.h"

#include <cstdint>
#include <string>

namespace ermoe {

struct InputBench {
  std::string path;
  int64_t images = 2000;  // read in each part at least
  int64_t size = 224;     // pixels a side
  int64_t batch = 128;
  int threads = 1;
  DecoderChoice decoder = DecoderChoice::auto_;
};

/// Measures with the training images at `path`, their random-resized crops, flips, RandAugment and erasing. One line a part,
/// in images a second.
std::string bench_input(Engine& engine, const InputBench& settings);

}  // namespace ermoe
