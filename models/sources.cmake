set(SOURCES
  config_rules.cpp
  empty.cpp
  checkpoint_store.cpp
)
