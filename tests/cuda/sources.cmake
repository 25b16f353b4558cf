set(SOURCES
  device_test.cpp
  gelu_test.cpp
)
