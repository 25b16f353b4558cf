set(SOURCES
  dense_wgmma_test.cpp
  device_test.cpp
  grouped_linear_speed_test.cpp
  grouped_linear_test.cpp
  mlp_speed_test.cpp
  stiefel_residual_test.cpp
)
