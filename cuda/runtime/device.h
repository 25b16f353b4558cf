// GPUs: which there are, and which one this thread talks to. Read next: cuda/factory.h.
#pragma once

#include "cuda/factory.h"

namespace ermoe::cuda {

/// Number of GPUs; throws `Error` where there is no usable driver.
int device_count();

/// Properties of GPU `index`.
GpuInfo device_info(int index);

/// Makes GPU `index` the calling thread's current one for as long as it lives, then the one before.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace ermoe::cuda
