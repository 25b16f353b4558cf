set(SOURCES
  checkpoint_store_test.cpp
)
