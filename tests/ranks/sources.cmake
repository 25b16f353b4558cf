set(SOURCES
  collectives.cpp
  main.cpp
  slices.cpp
)
