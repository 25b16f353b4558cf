set(SOURCES
  gelu_test.cpp
  linear_test.cpp
)
