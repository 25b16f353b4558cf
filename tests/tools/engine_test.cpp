// An engine's threads are what was asked for: in OpenBLAS's OpenMP build, setting its number sets everybody's.
#include "tools/engine.h"

#include <cblas.h>
#include <gtest/gtest.h>
#include <omp.h>

namespace ermoe {
namespace {

TEST(Engine, UsesTheThreadsAskedFor) {
  const int before = omp_get_max_threads();
  for (const int threads : {3, 1, 2}) {
    const Engine engine(threads, 1, DeviceChoice::cpu);
    EXPECT_EQ(omp_get_max_threads(), threads);
    int joined = 0;
#pragma omp parallel reduction(+ : joined)
    ++joined;
    EXPECT_EQ(joined, threads);
#if defined(OPENBLAS_VERSION)
    EXPECT_EQ(openblas_get_num_threads(), 1);
#endif
    EXPECT_EQ(omp_get_max_threads(), threads);
  }
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace ermoe
