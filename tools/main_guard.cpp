#include "tools/main_guard.h"

#include "core/error.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>

namespace ermoe {
namespace {

void complain(std::string_view program, const std::string& message) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", std::string(program).c_str(), message.c_str());
}

std::string on_one_line(std::string message) {
  std::replace_if(
      message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return message;
}

}  // namespace

int guard_main(std::string_view program, const std::function<int()>& body,
               const std::function<void(const std::string& message, int code)>& tell) {
  std::string message;
  int code = 1;
  try {
    return body();
  } catch (const InputError& e) {
    message = on_one_line(e.what());
    code = 2;
  } catch (const std::bad_alloc&) {
    message = "out of memory";
  } catch (const std::exception& e) {
    message = on_one_line(e.what());
  } catch (...) {
    message = "failed for an unknown reason";
  }
  complain(program, message);
  if (tell) tell(message, code);
  return code;
}

}  // namespace ermoe
