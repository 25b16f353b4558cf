set(SOURCES
  file_io_test.cpp
  json_test.cpp
  safetensors_test.cpp
)
