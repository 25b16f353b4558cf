set(SOURCES
  empty.cpp
)
