#include "core/rank_judge.h"

#include <fmt/format.h>

#include <algorithm>

namespace ermoe {
namespace {

bool on_gpu(const RankRecord& record) { return record.group == RankRecord::steps_group; }

/// "all_reduce number 212", "a step on the GPU": what a rank waits in.
std::string collective(const RankRecord& record) {
  if (on_gpu(record)) return record.collective.data();  // its number is the step's, which is said anyway
  return fmt::format("{} number {}", record.collective.data(), record.number);
}

/// One question to what all ranks said.
class Judge {
 public:
  Judge(std::span<const RankView> ranks, std::span<const RankName> names, const WatchLimits& limits)
      : ranks_(ranks), names_(names), limits_(limits) {}

  std::optional<std::string> silence() const {
    for (int r = 0; r < size(); ++r) {
      if (!at(r).left && at(r).silent_s > limits_.silence_s) return tell_silence(names_, r, at(r));
    }
    return std::nullopt;
  }

  std::optional<std::string> disagreement() const {
    for (int r = 1; r < size(); ++r) {
      for (int q = 0; q < r && said(r).inside(); ++q) {
        if (said(q).group != said(r).group || said(q).number != said(r).number || said(q).collective == said(r).collective) continue;
        return fmt::format("rank {} came to {} while {} came to {}: they no longer run the same program", q, collective(said(q)),
                           who(names_, r), collective(said(r)));
      }
    }
    return std::nullopt;
  }

  std::optional<std::string> waiting() const {
    for (int r = 0; r < size(); ++r) {
      if (at(r).left || !said(r).inside() || said(r).came_s <= limits_.patience_s) continue;
      const std::vector<int> late = missing(r);
      for (const int m : late) {
        if (auto sentence = about_missing(r, m)) return sentence;
      }
      if (late.empty() && together_s(said(r)) > limits_.patience_s) return does_not_end(r);
    }
    return std::nullopt;
  }

 private:
  int size() const { return static_cast<int>(ranks_.size()); }
  const RankView& at(int rank) const { return ranks_[static_cast<size_t>(rank)]; }
  const RankRecord& said(int rank) const { return at(rank).last; }

  /// The members that have not come to where `waiter` waits.
  std::vector<int> missing(int waiter) const {
    std::vector<int> late;
    for (int m = 0; m < size(); ++m) {
      const std::optional<uint64_t> entered = said(m).entered(said(waiter).group);
      if (m != waiter && entered && *entered < said(waiter).number) late.push_back(m);
    }
    return late;
  }

  /// For how long all members have been in the collective that `waiter` waits in, or beyond it. At the least: of one that has come to later
  /// ones since, only the last is known. What `waiter` said may be older than what the member that came last said.
  double together_s(const RankRecord& waiter) const {
    double least = waiter.came_s;
    for (const RankView& one : ranks_) {
      if (one.last.entered(waiter.group)) least = std::min(least, one.last.came_s + one.silent_s);
    }
    return least;
  }

  /// Whom `waiter` really waits for: `late` may itself wait in another collective for a third rank.
  std::optional<std::string> about_missing(int waiter, int late) const {
    const int first = late;
    std::vector<bool> seen(ranks_.size(), false);
    while (said(late).inside() && !at(late).left) {
      seen[static_cast<size_t>(late)] = true;
      const std::vector<int> next = missing(late);
      if (next.empty()) return std::nullopt;  // it is in a collective that may still end
      late = next.front();
      if (late == waiter || seen[static_cast<size_t>(late)]) return wait_for_each_other(waiter, first);
    }
    const RankRecord& last = said(late);
    if (at(late).left) return fmt::format("{} has ended, and {}", who(names_, late), waits(waiter));
    if (last.endless || last.ordinary_s <= limits_.patience_s) return std::nullopt;
    return fmt::format("{} hangs: it has been {}, for {:.0f} s, and {}", who(names_, late), doing(last), last.phase_s, waits(waiter));
  }

  std::string waits(int rank) const {
    return fmt::format("rank {} has waited {:.0f} s in {}", rank, said(rank).came_s, collective(said(rank)));
  }

  std::string wait_for_each_other(int a, int b) const {
    return fmt::format("{} waits in {} and {} in {}: they wait for each other", who(names_, a), collective(said(a)), who(names_, b),
                       collective(said(b)));
  }

  std::string does_not_end(int rank) const {
    const RankRecord& last = said(rank);
    if (on_gpu(last)) {
      return fmt::format(
          "{} has been {}, for {:.0f} s, where every rank has come: a GPU or what connects them hangs, or the step takes longer than the "
          "time-out allows for",
          who(names_, rank), doing(last), last.came_s);
    }
    return fmt::format(
        "{} has been {}, for {:.0f} s ({} bytes), where every rank has come: the network between the hosts fails, or is slower than "
        "the time-out allows for",
        who(names_, rank), doing(last), last.came_s, last.bytes);
  }

  std::span<const RankView> ranks_;
  std::span<const RankName> names_;
  const WatchLimits& limits_;
};

}  // namespace

std::string who(std::span<const RankName> names, int rank) {
  const RankName& name = names[static_cast<size_t>(rank)];
  return fmt::format("rank {} ({}, process {})", rank, name.host, name.process);
}

std::string doing(const RankRecord& record) {
  std::string text = record.step < 0 ? "before the first step" : fmt::format("in step {}", record.step);
  if (record.phase[0] != '\0') text += fmt::format(", {}", record.phase.data());
  if (record.inside() && !on_gpu(record)) text += ", in " + collective(record);
  return text;
}

std::string tell_death(std::span<const RankName> names, int rank, const RankRecord& last) {
  return fmt::format("{} died {}", who(names, rank), doing(last));
}

std::string tell_silence(std::span<const RankName> names, int rank, const RankView& view) {
  return fmt::format("{} was last heard of {:.0f} s ago, {}: it is stopped, or its host or the network to it is gone", who(names, rank),
                     view.silent_s, doing(view.last));
}

std::optional<std::string> judge(std::span<const RankView> ranks, std::span<const RankName> names, const WatchLimits& limits) {
  const Judge now(ranks, names, limits);
  if (auto sentence = now.silence()) return sentence;
  if (auto sentence = now.disagreement()) return sentence;
  return now.waiting();
}

}  // namespace ermoe
