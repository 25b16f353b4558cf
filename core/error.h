// The one error style: exceptions that carry one sentence saying what is wrong and where.
// Everything throws through `check` or `fail`; only `main` catches. Read next: core/shape.h.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace ermoe {

/// A failure with a message fit for the user. The program exits with code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The user's own mistake (a flag, a config key, an input file). The program exits with code 2.
class InputError : public Error {
 public:
  using Error::Error;
};

/// A device has no more memory. Whoever knows what the user could do about it catches this and says so.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// Throws `Error`. Messages of ops start with their tag: `[layer_norm] x (…, D=384) but weight (192)`.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> message, Args&&... args) {
  throw Error(fmt::format(message, std::forward<Args>(args)...));
}

/// Throws `InputError`: name the file or the key, then the fault.
template <typename... Args>
[[noreturn]] void fail_input(fmt::format_string<Args...> message, Args&&... args) {
  throw InputError(fmt::format(message, std::forward<Args>(args)...));
}

/// Throws `Error` unless `ok`. The message is only formatted on failure.
template <typename... Args>
void check(bool ok, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) [[unlikely]]
    fail(message, std::forward<Args>(args)...);
}

/// Throws `InputError` unless `ok`.
template <typename... Args>
void check_input(bool ok, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) [[unlikely]]
    fail_input(message, std::forward<Args>(args)...);
}

}  // namespace ermoe
