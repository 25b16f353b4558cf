set(SOURCES
  kernels/flat.cu
  kernels/gelu.cu
  runtime/check.cpp
  runtime/device.cpp
  runtime/gpu.cpp
)
