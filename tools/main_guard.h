// The only place that catches: it turns whatever a program throws into one line on stderr and an exit code.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace ermoe {

/// Runs `body` and returns its exit code; 2 for a user's mistake (InputError), 1 for any other failure. The message is
/// one line that starts with the program's name. Then `tell`, where given, takes the message without that name, and the code:
/// other ranks want to know.
int guard_main(std::string_view program, const std::function<int()>& body,
               const std::function<void(const std::string& message, int code)>& tell = {});

}  // namespace ermoe
