set(SOURCES
  checkpoint_store.cpp
  config_rules.cpp
)
