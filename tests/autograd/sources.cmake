set(SOURCES
  parameter_test.cpp
  tape_test.cpp
)
