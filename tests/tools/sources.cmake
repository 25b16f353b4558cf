set(SOURCES
  config_check_test.cpp
  config_io_test.cpp
  config_table_test.cpp
)
