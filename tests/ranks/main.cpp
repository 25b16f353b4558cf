// What several ranks can do and what happens when one fails, under mpirun. tests/ranks.sh starts it and looks at what it prints and
// how it ends.
//   ermoe_tests_ranks collectives | gpu-collectives
//   ermoe_tests_ranks slices FOLDER
//   ermoe_tests_ranks fault WHAT WHO WHERE [TIME-OUT]    WHAT: kill stop inside hang throw misuse exit stuck long none
#include "core/ranks.h"
#include "tests/ranks/collectives.h"
#include "tests/ranks/slices.h"
#include "tools/main_guard.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace ermoe;

struct Fault {
  std::string what, where;
  int who = 0;
  double timeout_s = 6;
};

void wait_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// One collective, or half a minute outside of any.
void meet(Communicator& comm, CachingAllocator& memory, const std::string& where) {
  const Tensor t = Tensor::zeros(memory, {comm.size(), 1000}, DType::f32);
  const std::vector<int64_t> rows(static_cast<size_t>(comm.size()), 1);
  if (where == "all_reduce") return comm.all_reduce(t, ReduceOp::sum);
  if (where == "all_to_all") return comm.all_to_all(t, rows, t.clone(), rows);
  if (where == "barrier") return comm.barrier();
  check_input(where == "outside", "{} is no place", where);
  wait_s(30);
}

void fail_as(const Fault& fault, RankWatch& watch) {
  std::printf("fault at %.3f of process %d\n", std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(),
              static_cast<int>(::getpid()));
  std::fflush(stdout);
  if (fault.what == "kill" || fault.what == "stuck") std::raise(SIGKILL);
  if (fault.what == "stop") std::raise(SIGSTOP);
  if (fault.what == "hang") wait_s(30);
  if (fault.what == "throw") fail("the disk is full");
  if (fault.what == "misuse") fail_input("data.path: nothing lies there");
  if (fault.what == "exit") std::exit(0);
  if (fault.what == "inside") {  // dies while it waits in a collective to which the next rank does not come
    std::thread([] {
      wait_s(0.6);
      std::raise(SIGKILL);
    }).detach();
  }
  if (fault.what == "long") {
    watch.at(3, "checkpoint", Patience::endless);
    wait_s(1.5 * fault.timeout_s);
    watch.at(3, "forward");
  }
}

int run_fault(Ranks& ranks, const Fault& fault) {
  CachingAllocator memory(make_host_source());
  Communicator& comm = ranks.world();
  RankWatch& watch = ranks.watch();
  watch.advise("the last checkpoint is whole");
  if (fault.what == "stuck") watch.on_fault([] { wait_s(30); });
  for (int step = 1; step <= 3; ++step) {
    watch.at(step, "forward");
    wait_s(0.01);
    watch.at(step, "backward");
    if (step == 3 && comm.rank() == fault.who) {
      wait_s(0.6);  // until the others wait
      fail_as(fault, watch);
    }
    if (step == 3 && fault.what == "inside" && comm.rank() == (fault.who + 1) % comm.size()) wait_s(30);
    meet(comm, memory, step == 3 ? fault.where : "all_reduce");
  }
  return 0;
}

int run(const std::vector<std::string>& words, std::unique_ptr<Ranks>& ranks) {
  const bool on_gpus = words.size() == 1 && words[0] == "gpu-collectives";
  const bool collectives = on_gpus || (words.size() == 1 && words[0] == "collectives");
  const bool slices = words.size() == 2 && words[0] == "slices", faulty = words.size() >= 4 && words[0] == "fault";
  check_input(collectives || slices || faulty, "say collectives, gpu-collectives, slices FOLDER, or fault WHAT WHO WHERE [TIME-OUT]");
  Fault fault;
  if (faulty) {
    fault = {.what = words[1], .where = words[3], .who = std::atoi(words[2].c_str())};
    if (words.size() > 4) fault.timeout_s = std::atof(words[4].c_str());
  }
  // A launcher asks the other ranks to end as soon as one has failed; training takes that for a wish to end after the step.
  std::signal(SIGTERM, SIG_IGN);
  ranks = Ranks::join("ranks", faulty ? fault.timeout_s : 60);
  if (slices) return testing::check_slices(*ranks, words[1]);
  if (on_gpus) return testing::check_gpu_collectives(*ranks);
  return collectives ? testing::check_collectives(*ranks) : run_fault(*ranks, fault);
}

}  // namespace

int main(int argc, char** argv) {
  std::unique_ptr<ermoe::Ranks> ranks;
  return ermoe::guard_main(
      "ranks", [&] { return run(std::vector<std::string>(argv + 1, argv + argc), ranks); },
      [&](const std::string& message, int code) {
        if (ranks) ranks->watch().stop(message, code);
      });
}
