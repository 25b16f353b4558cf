set(SOURCES
  collectives.cpp
  communicator_checks.cpp
  gpu_collectives.cpp
  main.cpp
  slices.cpp
)
