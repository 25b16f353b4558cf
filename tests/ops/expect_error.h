// A wrong shape must be refused by a message that names the op and both shapes.
#pragma once

#include "core/error.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace ermoe::testing {

/// Runs `fn`, which must throw an Error whose message contains every one of `parts`.
template <typename Fn>
void expect_error(Fn&& fn, std::initializer_list<const char*> parts) {
  try {
    fn();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in '" << message << "'";
  }
}

}  // namespace ermoe::testing
