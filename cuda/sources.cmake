set(SOURCES
  kernels/gelu.cu
  runtime/check.cpp
  runtime/device.cpp
)
