// JPEG files decoded by the engines that data-centre GPUs have for them, through nvJPEG. Read core/jpeg_engine.h first; next:
// cuda/runtime/jpeg_engine.cpp, the one file that sees nvJPEG.
#pragma once

#include "cuda/factory.h"

namespace ermoe::cuda {

/// None with the reason where the build has no nvJPEG or the GPU no such engine. Pixels come in memory from `page_locked`.
FoundJpegEngine find_jpeg_engine(const GpuInfo& gpu, std::unique_ptr<MemorySource> page_locked);

}  // namespace ermoe::cuda
