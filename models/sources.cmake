# A router is one file, which need not be named here.
file(GLOB ROUTERS RELATIVE ${CMAKE_CURRENT_LIST_DIR} CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/router_*.cpp)

set(SOURCES
  added_losses.cpp
  average.cpp
  checkpoint.cpp
  checkpoint_store.cpp
  config_rules.cpp
  cp_layer.cpp
  direct_buckets.cpp
  expert_share.cpp
  expert_travel.cpp
  experts.cpp
  gathered_parameter.cpp
  grad_sync.cpp
  layers.cpp
  matrix_bundle.cpp
  module.cpp
  moe.cpp
  optim.cpp
  purity.cpp
  recorded_step.cpp
  regression_metrics.cpp
  regions.cpp
  router.cpp
  ${ROUTERS}
  routing_metrics.cpp
  saved_slices.cpp
  summary.cpp
  svd.cpp
  task_loss.cpp
  train_step.cpp
  upcycle.cpp
  vit.cpp
  weights.cpp
)
