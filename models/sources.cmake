set(SOURCES
  config_rules.cpp
  empty.cpp
)
