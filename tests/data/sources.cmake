set(SOURCES
  corrupt_safetensors_test.cpp
  corrupt_test.cpp
  decode_test.cpp
  gzip_test.cpp
  resize_test.cpp
  tar_test.cpp
)
