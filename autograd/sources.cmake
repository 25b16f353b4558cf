set(SOURCES
  gradcheck.cpp
  memory/parameter_arena.cpp
  parameter.cpp
  recompute.cpp
  tape.cpp
)
