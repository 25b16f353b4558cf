set(SOURCES
  attention_test.cpp
  gelu_test.cpp
  linear_test.cpp
)
