set(SOURCES
  collectives.cpp
  main.cpp
)
