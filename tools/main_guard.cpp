#include "tools/main_guard.h"

#include "core/error.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>

namespace ermoe {
namespace {

void complain(std::string_view program, std::string message) {
  std::replace_if(
      message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", std::string(program).c_str(), message.c_str());
}

}  // namespace

int guard_main(std::string_view program, const std::function<int()>& body) {
  try {
    return body();
  } catch (const InputError& e) {
    complain(program, e.what());
    return 2;
  } catch (const std::bad_alloc&) {
    complain(program, "out of memory");
  } catch (const std::exception& e) {
    complain(program, e.what());
  } catch (...) {
    complain(program, "failed for an unknown reason");
  }
  return 1;
}

}  // namespace ermoe
