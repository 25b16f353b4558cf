set(SOURCES
  empty.cpp
)
set(PROGRAMS
)
