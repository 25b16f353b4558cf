set(SOURCES
  gradcheck.cpp
  parameter.cpp
  recompute.cpp
  tape.cpp
)
