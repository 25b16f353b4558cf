// Whether memory and undefined behaviour are watched, which makes tests ten times slower.
#pragma once

#include <gtest/gtest.h>

namespace ermoe::testing {

/// Under sanitizers every path has to run, but not often: what is counted over many repetitions is counted in the plain build.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

}  // namespace ermoe::testing

/// Skips a test of statistics, whose code others run too.
#define ERMOE_STATISTICS() \
  if (::ermoe::testing::sanitized) GTEST_SKIP() << "statistics of many, which the build without sanitizers checks"
