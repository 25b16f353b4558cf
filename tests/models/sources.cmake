set(SOURCES
  checkpoint_store_test.cpp
  moe_test.cpp
  optim_test.cpp
  train_step_test.cpp
  vit_test.cpp
  weights_test.cpp
)
