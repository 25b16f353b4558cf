set(SOURCES
  corrupt_safetensors_test.cpp
)
