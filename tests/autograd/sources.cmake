set(SOURCES
  tape_test.cpp
)
