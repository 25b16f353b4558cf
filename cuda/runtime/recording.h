// Work on a stream recorded as a CUDA graph: launched at once and without gaps ever after. Read next: cuda/runtime/recording.cpp.
#pragma once

#include "cuda/factory.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {

/// See `Gpu::record`.
std::unique_ptr<Recording> record(StreamState& state, const std::function<void()>& work);
/// See `Gpu::record_if`.
void record_if(StreamState& state, const int32_t* flag, const std::function<void()>& work);

/// The condition that `handle` stands for becomes *flag != 0.
void set_condition(cudaStream_t stream, cudaGraphConditionalHandle handle, const int32_t* flag);

}  // namespace ermoe::cuda
