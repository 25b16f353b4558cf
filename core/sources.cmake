set(SOURCES
  allocator.cpp
  comm.cpp
  shape.cpp
  tensor.cpp
  workspace.cpp
)
