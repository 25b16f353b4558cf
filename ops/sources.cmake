set(SOURCES
  cpu/blas.cpp
  cpu/gelu.cpp
  gelu.cpp
)
