#include "core/ranks.h"

#if defined(ERMOE_WITH_MPI)
#include "core/comm_mpi.h"
#include "core/gather.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>
#endif

namespace ermoe {

#if defined(ERMOE_WITH_MPI)
namespace {

constexpr double least_start_s = 60;  // to start all ranks takes this long on a large machine
constexpr double admit_s = 30;        // of it, for connections of the watch

/// Ends the process with a line where what it guards has not ended in time: nobody watches over the start and the end of MPI.
class Deadline {
 public:
  Deadline(std::string line, double seconds)
      : thread_([this, line = std::move(line), seconds] {
          std::unique_lock lock(mutex_);
          if (over_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return kept_; })) return;
          [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
          ::_exit(1);
        }) {}
  ~Deadline() {
    {
      const std::lock_guard lock(mutex_);
      kept_ = true;
    }
    over_.notify_all();
    thread_.join();
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  bool kept_ = false;
  std::thread thread_;  // last: it uses the others
};

/// What rank `from` sends rank `to` as the i-th byte of the test.
uint8_t test_byte(int64_t from, int64_t to, int64_t i) { return static_cast<uint8_t>(31 * from + 17 * to + 7 * i + 1); }

/// "ranks    4 on 2 hosts" and a line for each host.
std::string describe(const std::vector<RankName>& names, const std::vector<int>& local_ranks) {
  std::map<std::string, std::pair<std::string, std::string>> hosts;
  for (size_t r = 0; r < names.size(); ++r) {
    auto& [ranks, locals] = hosts[names[r].host];
    ranks += fmt::format(" {}", r);
    locals += fmt::format(" {}", local_ranks[r]);
  }
  std::string text = fmt::format("ranks    {} on {} host{}; each reaches each\n", names.size(), hosts.size(), hosts.size() == 1 ? "" : "s");
  for (const auto& [host, lists] : hosts) text += fmt::format("         {}: ranks{}, there{}\n", host, lists.first, lists.second);
  return text;
}

/// srun starts processes without MPI's help unless it is told to: Open MPI would then end them itself, with a page of text.
void require_process_manager(const Launch& launch) {
  if (!std::string_view(launch.variable).starts_with("SLURM")) return;
  const auto set = [](const char* name) { return std::getenv(name) != nullptr; };
  check_input(
      set("PMIX_RANK") || set("PMIX_NAMESPACE") || set("PMI_RANK") || set("PMI_FD"),
      "{}={} says that this is one of several processes, but Slurm gave MPI no way to find the others; start it with srun --mpi=pmix",
      launch.variable, launch.processes);
}

}  // namespace

Ranks::~Ranks() {
  if (!mpi_) return;
  if (std::uncaught_exceptions() > 0 && !watch_.stopped()) watch_.stop("by an error", 1);
  if (!watch_.stopped()) {
    try {
      world_->barrier();
    } catch (const std::exception& e) {
      watch_.stop(e.what(), 1);
    }
  }
  if (watch_.stopped()) {
    mpi_->abandon();
    return;
  }
  watch_.goodbye();
  const Deadline end("MPI does not end: another rank failed at its very end\n", least_start_s);
  world_.reset();
  mpi_.reset();
}

std::unique_ptr<Ranks> Ranks::join(const std::string& program, double timeout_s) {
  std::unique_ptr<Ranks> ranks(new Ranks);
  const std::optional<Launch> launch = find_launch();
  if (launch && launch->processes > 1) ranks->meet(program, timeout_s, *launch);
  return ranks;
}

void Ranks::meet(const std::string& program, double timeout_s, const Launch& launch) {
  require_process_manager(launch);
  const double limit = std::max(timeout_s, least_start_s);
  const std::string late =
      fmt::format("{}: process {} on {} has waited {:.0f} s for the other ranks to start\n", program, ::getpid(), host_name(), limit);
  const Deadline start(late, limit);
  auto mpi = std::make_shared<MpiProcess>();
  auto world = MpiCommunicator::world(watch_);
  check_input(world->size() == launch.processes,
              "{}={} says that this is one of several processes, but MPI found {}: another MPI's launcher started it; use that of the MPI "
              "it was built with, or under Slurm srun --mpi=pmix",
              launch.variable, launch.processes, world->size());
  mpi_ = std::move(mpi);
  WatchOptions options{.program = program, .rank = world->rank(), .names = {}, .timeout_s = timeout_s, .leave = {}};
  std::vector<int> local_ranks;
  for (const std::string& text : gather_texts(*world, fmt::format("{} {} {}", ::getpid(), world->local_rank(), host_name()))) {
    std::istringstream words(text);
    words >> options.names.emplace_back().process >> local_ranks.emplace_back() >> options.names.back().host;
  }
  world_ = std::move(world);
  start_watch(options);
  try {
    exchange_with_all(options);
  } catch (const std::exception& e) {
    watch_.stop(e.what(), 1);
    throw;
  }
  if (options.rank == 0) std::fputs(describe(options.names, local_ranks).c_str(), stderr);
}

/// All ranks meet for the watch, or all throw the same sentence.
void Ranks::start_watch(WatchOptions options) {
  std::string trouble;
  const int rank = options.rank;
  const std::string invitation = broadcast_text(*world_, rank == 0 ? watch_.invite(options) : "");
  try {
    if (rank == 0) {
      watch_.admit(admit_s);
    } else {
      watch_.join(options, invitation);
    }
  } catch (const InputError& e) {
    trouble = e.what();
  }
  std::vector<std::string> troubles = gather_texts(*world_, trouble);
  std::ranges::rotate(troubles, troubles.begin() + 1);  // rank 0 only knows who did not come, that one knows why
  for (const std::string& text : troubles) {
    if (text.empty()) continue;
    watch_.goodbye();  // all ranks know
    throw InputError(text);
  }
}

/// Every pair of ranks exchanges a few bytes.
void Ranks::exchange_with_all(const WatchOptions& options) {
  constexpr int64_t bytes = 16;
  CachingAllocator memory(make_host_source());
  const int64_t size = world_->size(), own = options.rank;
  const Tensor to = Tensor::empty(memory, {size, bytes}, DType::u8), from = Tensor::zeros(memory, {size, bytes}, DType::u8);
  for (int64_t i = 0; i < size * bytes; ++i) to.data<uint8_t>()[i] = test_byte(own, i / bytes, i % bytes);
  const std::vector<int64_t> rows(static_cast<size_t>(size), 1);
  world_->all_to_all(to, rows, from, rows);
  for (int64_t i = 0; i < size * bytes; ++i) {
    const auto sender = static_cast<int>(i / bytes);
    check(from.data<uint8_t>()[i] == test_byte(sender, own, i % bytes), "[ranks] what {} sent to {} came as something else",
          who(options.names, sender), who(options.names, options.rank));
  }
}

#else

Ranks::~Ranks() = default;

std::unique_ptr<Ranks> Ranks::join(const std::string&, double) {
  refuse_silent_multi_launch();
  return std::unique_ptr<Ranks>(new Ranks);
}

#endif

}  // namespace ermoe
