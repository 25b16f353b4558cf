// Another program, started and watched. It dies with the process that started it, whatever kills that; the terminal's signals do not reach
// it (it has a process group of its own), so whoever started it passes on what it should hear of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace ermoe {

class ChildProcess {
 public:
  /// Starts `command` (a path, then its arguments). What it prints goes into the files `out` (anew) and `err` (at its end); the same path
  /// for both: all of it at the end of that file. Throws `Error` with the system's reason.
  ChildProcess(const std::vector<std::string>& command, const std::string& out, const std::string& err);
  /// Kills it where it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Its exit code once it has ended, 128 + the signal's number where one ended it; nothing before. Does not wait.
  std::optional<int> ended();
  /// Sends a signal, unless it has ended.
  void signal(int number);

 private:
  pid_t pid_ = -1;
  std::optional<int> code_;
};

/// The path of the program `name` beside this one. Throws InputError where it is not there.
std::string sibling_program(const std::string& name);

}  // namespace ermoe
