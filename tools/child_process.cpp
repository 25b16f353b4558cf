#include "tools/child_process.h"

#include "core/error.h"
#include "core/file_io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace ermoe {
namespace {

Descriptor open_log(const std::string& path, int how) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644));
  check(file.valid(), "{}: cannot be written: {}", path, std::strerror(errno));
  return file;
}

/// In the child, between fork and exec, where only calls that the system promises to be safe there may be made.
[[noreturn]] void become(char* const* argv, int out, int err, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // who started it is gone already
  for (const int number : {SIGINT, SIGTERM, SIGUSR1}) ::signal(number, SIG_DFL);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0 || ::dup2(out, STDOUT_FILENO) < 0 || ::dup2(err, STDERR_FILENO) < 0) ::_exit(127);
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::string& out, const std::string& err) {
  check(!command.empty(), "[child] no command");
  const Descriptor errors = open_log(err, O_APPEND);
  const Descriptor output = out == err ? Descriptor() : open_log(out, O_TRUNC);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  check(pid_ >= 0, "{}: cannot be started: {}", command[0], std::strerror(errno));
  if (pid_ == 0) become(argv.data(), output.valid() ? output.get() : errors.get(), errors.get(), parent);
}

ChildProcess::~ChildProcess() {
  if (ended()) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildProcess::ended() {
  if (code_) return code_;
  int status = 0;
  const pid_t found = ::waitpid(pid_, &status, WNOHANG);
  if (found < 0 && errno != EINTR) code_ = 127;  // someone else waited for it
  if (found == pid_) code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return code_;
}

void ChildProcess::signal(int number) {
  if (!ended()) ::kill(pid_, number);
}

std::string sibling_program(const std::string& name) {
  std::error_code error;
  const std::string path = (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / name).string();
  check_input(!error && ::access(path.c_str(), X_OK) == 0, "{} is not beside this program, which starts it", name);
  return path;
}

}  // namespace ermoe
