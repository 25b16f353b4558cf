set(SOURCES
  device_test.cpp
  grouped_linear_speed_test.cpp
  grouped_linear_test.cpp
  mlp_speed_test.cpp
)
