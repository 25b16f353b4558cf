set(SOURCES
  gelu_test.cpp
)
