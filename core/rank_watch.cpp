#include "core/rank_watch.h"

#include "core/error.h"
#include "core/rank_meeting.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <thread>

namespace ermoe {
namespace {

constexpr double beat_s = 0.25;
constexpr double last_word_s = 1;        // for what was sent last to be read
constexpr double others_speak_s = 0.25;  // a launcher ends all ranks once one has ended: leave them time to print their line
constexpr double cause_shows_s = 0.25;
constexpr double callback_s = 2;
constexpr double longest_pause_s = 1;  // more between two looks at the clock means that this process was stopped itself

using Kind = RankRecord::Kind;

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// What a rank says before it has said anything.
RankRecord starting(int rank) {
  RankRecord record;
  record.rank = rank;
  record.endless = 1;
  record.groups[0].id = RankWatch::world_group;
  record.groups[1].id = RankWatch::steps_group;
  put_text(record.phase, "starting");
  return record;
}

/// Runs `work` in a thread of its own and waits for it, but not longer than `seconds`.
void run_at_most(double seconds, std::function<void()> work) {
  const auto done = std::make_shared<std::promise<void>>();
  std::thread([done, work = std::move(work)] {
    try {
      work();
    } catch (...) {  // the fault that is being reported says more
    }
    done->set_value();
  }).detach();
  done->get_future().wait_for(std::chrono::duration<double>(seconds));
}

/// Past the locks and buffers of stdio, which a thread that hangs may hold.
void print_to_stderr(const std::string& line) { [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size()); }

}  // namespace

WatchLimits WatchOptions::limits() const {
  const double patience = std::max(timeout_s - 1, timeout_s / 2);  // the rest is for judging, telling and ending
  return {.patience_s = patience, .silence_s = std::min(std::max(timeout_s / 3, 5.0), patience)};
}

class RankWatch::Impl {
 public:
  explicit Impl(WatchOptions options)
      : options_(std::move(options)), limits_(options_.limits()), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    said_ = starting(options_.rank);
  }
  ~Impl() { end(Kind::goodbye, "", 0); }

  std::string invite();
  void admit(double seconds);
  void join(const std::string& invitation);

  void at(int64_t step, const char* phase, Patience patience);
  void belong(uint64_t group, uint64_t becomes);
  void enter(uint64_t group, const char* collective, uint64_t number, int64_t bytes);
  void leave();
  double seconds_in_collectives();
  void advise(const std::string& sentence);
  void on_fault(std::function<void()> callback);
  void end(Kind how, const std::string& sentence, int code);

 private:
  /// The other end of a connection: rank 0's to each rank, or a rank's to rank 0.
  struct Peer {
    RecordChannel channel;
    RankView view;
    double heard = 0;  // on `clock_`
  };
  bool leads() const { return options_.rank == 0; }
  RankRecord now();

  void run();
  void wait_for_news();
  void read(Peer& peer);
  void handle(Peer& peer, const RankRecord& record);
  void beat();
  void look();
  bool end_as_asked();
  void send_to_all(RankRecord record);
  void drain(double seconds);
  void tell_fault(Kind kind, const std::string& sentence, int code);
  bool stopping();
  void depart(const std::string& sentence, int code);

  const WatchOptions options_;
  const WatchLimits limits_;

  std::mutex mutex_;  // what the rank's own threads write: the fields down to `ending_`
  RankRecord said_;
  double phase_since_ = 0, ordinary_since_ = 0, came_ = 0;  // on `clock_`
  std::optional<double> entered_;                           // the collective in which this rank is, in seconds of the system's clock
  double in_collectives_ = 0;                               // seconds, without that one
  std::string advice_;
  std::function<void()> callback_;
  double ending_since_ = 0;
  std::optional<RankRecord> ending_;  // what to say last

  std::mutex end_mutex_;
  Socket wake_;  // written when `ending_` is set
  std::thread thread_;
  /// Seconds that this process ran. Those in which it was stopped do not count: nobody is accused of what it slept through.
  std::atomic<double> clock_{0};

  // Of the thread alone, once it runs.
  std::optional<RankDoor> door_;
  std::vector<Peer> peers_;
  double looked_ = 0, next_beat_ = 0;
  bool done_ = false;
};

// Meeting.

std::string RankWatch::Impl::invite() { return door_.emplace().invitation(); }

void RankWatch::Impl::admit(double seconds) {
  std::vector<RecordChannel> channels = door_->admit(options_.names, seconds, [this] { return now(); });
  for (int r = 1; r < options_.size(); ++r) peers_.push_back({std::move(channels[static_cast<size_t>(r)]), {.last = starting(r)}});
  door_.reset();
  thread_ = std::thread([this] { run(); });
}

void RankWatch::Impl::join(const std::string& invitation) {
  peers_.push_back({reach_rank_0(options_.names, options_.rank, invitation), {.last = starting(0)}});
  thread_ = std::thread([this] { run(); });
}

// What the rank's own threads say.

RankRecord RankWatch::Impl::now() {
  const std::lock_guard lock(mutex_);
  RankRecord record = said_;
  record.phase_s = clock_ - phase_since_;
  record.ordinary_s = clock_ - ordinary_since_;
  record.came_s = clock_ - came_;
  return record;
}

void RankWatch::Impl::at(int64_t step, const char* phase, Patience patience) {
  const std::lock_guard lock(mutex_);
  said_.step = step;
  put_text(said_.phase, phase);
  phase_since_ = clock_;
  if (said_.endless) ordinary_since_ = clock_;
  said_.endless = patience == Patience::endless;
}

/// Puts `becomes` where `group` stands in the table. More groups than it holds are not watched.
void RankWatch::Impl::belong(uint64_t group, uint64_t becomes) {
  const std::lock_guard lock(mutex_);
  const auto place = std::ranges::find(said_.groups, group, &RankRecord::Group::id);
  if (place != said_.groups.end()) *place = {.id = becomes, .entered = 0};
}

void RankWatch::Impl::enter(uint64_t group, const char* collective, uint64_t number, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  entered_ = seconds_now();
  const auto place = std::ranges::find(said_.groups, group, &RankRecord::Group::id);
  if (place == said_.groups.end()) return;
  place->entered = number;
  said_.group = group;
  said_.number = number;
  said_.bytes = bytes;
  put_text(said_.collective, collective);
  came_ = clock_;
}

void RankWatch::Impl::leave() {
  const std::lock_guard lock(mutex_);
  said_.group = 0;
  if (entered_) in_collectives_ += seconds_now() - *entered_;
  entered_.reset();
}

double RankWatch::Impl::seconds_in_collectives() {
  const std::lock_guard lock(mutex_);
  return in_collectives_;
}

void RankWatch::Impl::advise(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  advice_ = sentence;
}

void RankWatch::Impl::on_fault(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  callback_ = std::move(callback);
}

void RankWatch::Impl::end(Kind how, const std::string& sentence, int code) {
  const std::lock_guard once(end_mutex_);
  if (!thread_.joinable()) return;
  RankRecord last = now();
  last.kind = how;
  last.code = code;
  put_text(last.text, sentence);
  {
    const std::lock_guard lock(mutex_);
    ending_ = last;
    ending_since_ = seconds_now();
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.descriptor(), &one, sizeof one);
  thread_.join();
}

// The thread.

void RankWatch::Impl::run() {
  looked_ = seconds_now();
  while (!done_) {
    wait_for_news();
    const double time = seconds_now();
    clock_ = clock_ + std::min(time - looked_, longest_pause_s);
    looked_ = time;
    for (Peer& peer : peers_) read(peer);
    if (done_ || end_as_asked()) return;
    if (time < next_beat_) continue;
    next_beat_ = time + beat_s;
    beat();
    look();
  }
}

void RankWatch::Impl::wait_for_news() {
  std::vector<pollfd> entries{{wake_.descriptor(), POLLIN, 0}};
  for (const Peer& peer : peers_) {
    if (peer.channel.open()) entries.push_back({peer.channel.socket().descriptor(), POLLIN, 0});
  }
  const double left = std::clamp(next_beat_ - seconds_now(), 0.0, beat_s);
  ::poll(entries.data(), entries.size(), static_cast<int>(left * 1e3) + 1);
  uint64_t woken = 0;
  [[maybe_unused]] const ssize_t count = ::read(wake_.descriptor(), &woken, sizeof woken);
}

void RankWatch::Impl::read(Peer& peer) {
  if (!peer.channel.open() || done_) return;
  while (const std::optional<RankRecord> record = peer.channel.receive()) handle(peer, *record);
  if (peer.channel.open() || peer.view.left || done_) return;
  const std::string sentence = tell_death(options_.names, peer.view.last.rank, peer.view.last);
  leads() ? tell_fault(Kind::fault, sentence, 1) : depart(sentence, 1);
}

void RankWatch::Impl::handle(Peer& peer, const RankRecord& record) {
  if (done_ || record.rank != peer.view.last.rank) return;
  switch (record.kind) {
    case Kind::beat:
      peer.view.last = record;
      peer.heard = clock_;
      return;
    case Kind::goodbye:
      peer.view.last = record;
      peer.view.left = true;
      peer.channel.close();
      done_ = !leads();  // without rank 0 nobody is left to talk to
      return;
    case Kind::stop:
      peer.view.left = true;
      peer.channel.close();
      if (leads() && !stopping())
        tell_fault(Kind::ended, fmt::format("{} ended: {}", who(options_.names, record.rank), record.text.data()), record.code);
      return;
    case Kind::ended:
    case Kind::fault:
      if (leads()) return;
      peer.view.left = true;  // it goes now, and has said why
      if (record.kind == Kind::fault || !stopping()) depart(record.text.data(), record.code);
      return;
    case Kind::hello:
    case Kind::welcome: return;
  }
}

void RankWatch::Impl::beat() {
  send_to_all(now());
  for (Peer& peer : peers_) peer.channel.flush();
}

void RankWatch::Impl::look() {
  for (Peer& peer : peers_) peer.view.silent_s = clock_ - peer.heard;
  if (!leads()) {
    if (peers_[0].view.silent_s > limits_.silence_s) depart(tell_silence(options_.names, 0, peers_[0].view), 1);
    return;
  }
  std::vector<RankView> all{{.last = now()}};
  for (const Peer& peer : peers_) all.push_back(peer.view);
  if (const auto sentence = judge(all, options_.names, limits_)) tell_fault(Kind::fault, *sentence, 1);
}

/// Whether this rank fails by itself, and says so.
bool RankWatch::Impl::stopping() {
  const std::lock_guard lock(mutex_);
  return ending_ && ending_->kind == Kind::stop;
}

/// Says the last word where the rank has one. A rank that fails may do so because another one is gone: that is given time to show.
bool RankWatch::Impl::end_as_asked() {
  std::optional<RankRecord> last;
  {
    const std::lock_guard lock(mutex_);
    if (ending_ && (ending_->kind != Kind::stop || seconds_now() - ending_since_ > cause_shows_s)) last = ending_;
  }
  if (!last) return false;
  if (leads() && last->kind == Kind::stop) {
    last->kind = Kind::ended;
    put_text(last->text, fmt::format("{} ended: {}", who(options_.names, 0), last->text.data()));
  }
  send_to_all(*last);
  for (Peer& peer : peers_) peer.channel.end_sending();
  drain(last_word_s);
  return true;
}

void RankWatch::Impl::send_to_all(RankRecord record) {
  for (Peer& peer : peers_) peer.channel.send(record);
}

/// Reads and forgets until the others have closed: closing with unread bytes would take from them what was sent last.
void RankWatch::Impl::drain(double seconds) {
  for (const double deadline = seconds_now() + seconds; seconds_now() < deadline;) {
    const auto open = std::ranges::find_if(peers_, [](const Peer& peer) { return peer.channel.open(); });
    if (open == peers_.end()) return;
    wait_readable(open->channel.socket(), 0.02);
    for (Peer& peer : peers_) {
      peer.channel.flush();
      while (peer.channel.receive()) {
      }
    }
  }
}

/// Rank 0: tells all others and ends.
void RankWatch::Impl::tell_fault(Kind kind, const std::string& sentence, int code) {
  if (done_) return;
  RankRecord fault = now();
  fault.kind = kind;
  fault.code = code;
  put_text(fault.text, sentence);
  send_to_all(fault);
  depart(sentence, code);
}

void RankWatch::Impl::depart(const std::string& sentence, int code) {
  if (done_) return;
  done_ = true;
  const double began = seconds_now();
  std::string line;
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    line = fmt::format("{}: rank {} of {} ({}): {}{}{}\n", options_.program, options_.rank, options_.size(),
                       options_.names[static_cast<size_t>(options_.rank)].host, sentence, advice_.empty() ? "" : "; ", advice_);
    callback = callback_;
  }
  run_at_most(callback_s, [line, callback, print = !options_.leave] {
    if (print) print_to_stderr(line);
    if (callback) callback();
  });
  if (options_.leave) return options_.leave(line, code);
  drain(others_speak_s);
  std::this_thread::sleep_for(std::chrono::duration<double>(began + others_speak_s - seconds_now()));
  ::_exit(code);
}

// The handle.

RankWatch::RankWatch() = default;
RankWatch::~RankWatch() = default;

std::string RankWatch::invite(WatchOptions options) {
  impl_ = std::make_unique<Impl>(std::move(options));
  return impl_->invite();
}

void RankWatch::admit(double seconds) { impl_->admit(seconds); }

void RankWatch::join(WatchOptions options, const std::string& invitation) {
  impl_ = std::make_unique<Impl>(std::move(options));
  impl_->join(invitation);
}

void RankWatch::at(int64_t step, const char* phase, Patience patience) {
  if (impl_) impl_->at(step, phase, patience);
}

void RankWatch::belong(uint64_t group) {
  if (impl_) impl_->belong(0, group);
}

void RankWatch::quit(uint64_t group) {
  if (impl_) impl_->belong(group, 0);
}

void RankWatch::enter(uint64_t group, const char* collective, uint64_t number, int64_t bytes) {
  if (impl_) impl_->enter(group, collective, number, bytes);
}

void RankWatch::leave() {
  if (impl_) impl_->leave();
}

double RankWatch::seconds_in_collectives() const { return impl_ ? impl_->seconds_in_collectives() : 0; }

void RankWatch::advise(const std::string& sentence) {
  if (impl_) impl_->advise(sentence);
}

void RankWatch::on_fault(std::function<void()> callback) {
  if (impl_) impl_->on_fault(std::move(callback));
}

void RankWatch::stop(const std::string& sentence, int code) {
  stopped_ = true;
  if (impl_) impl_->end(Kind::stop, sentence, code);
}

void RankWatch::goodbye() {
  if (impl_) impl_->end(Kind::goodbye, "", 0);
}

bool RankWatch::stopped() const { return stopped_; }

}  // namespace ermoe
