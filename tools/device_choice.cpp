#include "tools/device_choice.h"

#include "core/error.h"
#include "core/gather.h"
#include "core/gpu_generations.h"
#include "core/sockets.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

namespace ermoe {
namespace {

/// Why none of what was found can be used.
std::string reason_without(const FoundGpus& found) {
  if (!found.fault.empty()) return "the GPU driver failed: " + found.fault;
  if (found.gpus.empty()) return "no GPU was found";
  const GpuInfo& gpu = found.gpus[0];
  return fmt::format("{}{} has compute capability {}.{}, and this build has code for generations {} alone (ERMOE_GPUS)",
                     found.gpus.size() > 1 ? fmt::format("none of {} GPUs can be used: ", found.gpus.size()) : "", gpu.name, gpu.major,
                     gpu.minor, found.built_for);
}

std::vector<GpuInfo> usable(const FoundGpus& found) {
  std::vector<GpuInfo> gpus;
  std::ranges::copy_if(found.gpus, std::back_inserter(gpus), [&](const GpuInfo& g) { return runs_on(found.built_for, g.major, g.minor); });
  return gpus;
}

DeviceDecision without_gpu(DeviceChoice choice, const std::string& reason) {
  check_input(choice != DeviceChoice::cuda, "train.device: cuda was asked for, but {}", reason);
  return {.gpu = {}, .note = reason};
}

/// How many ranks a host has, and how many GPUs they see together.
struct HostCount {
  size_t ranks = 0, gpus = 0;
};

HostCount count_on(const std::string& host, const std::vector<RankGpus>& ranks) {
  HostCount count;
  std::set<uint64_t> gpus;
  for (const RankGpus& r : ranks) {
    if (r.host != host) continue;
    ++count.ranks;
    gpus.insert(r.gpus.begin(), r.gpus.end());
  }
  count.gpus = gpus.size();
  return count;
}

/// Each rank's place in its own list of GPUs. A launcher may show all of a host's GPUs to each rank, or to each its own.
std::vector<std::optional<size_t>> share_out(const std::vector<RankGpus>& ranks) {
  std::set<std::pair<std::string, uint64_t>> taken;
  std::vector<std::optional<size_t>> places;
  for (const RankGpus& r : ranks) {
    const auto mine = std::ranges::find_if(r.gpus, [&](uint64_t gpu) { return taken.emplace(r.host, gpu).second; });
    places.emplace_back();
    if (mine != r.gpus.end()) places.back() = static_cast<size_t>(mine - r.gpus.begin());
  }
  return places;
}

/// Why rank `rank`, which has no GPU of its own, has none.
std::string reason_of_rank(size_t rank, const std::vector<RankGpus>& ranks) {
  const RankGpus& r = ranks[rank];
  if (r.gpus.empty()) {
    const bool nobody = std::ranges::all_of(ranks, [](const RankGpus& any) { return any.gpus.empty(); });
    return nobody ? r.reason : fmt::format("on rank {} ({}) {}", rank, r.host, r.reason);
  }
  const HostCount count = count_on(r.host, ranks);
  return fmt::format("each rank wants a GPU of its own, and {} has {} ranks and {} GPU{} that can be used", r.host, count.ranks, count.gpus,
                     count.gpus == 1 ? "" : "s");
}

std::string text_of(const RankGpus& r) { return fmt::format("{} {} {} {}", r.host, r.gpus.size(), fmt::join(r.gpus, " "), r.reason); }

RankGpus parsed(const std::string& text) {
  std::istringstream words(text);
  RankGpus r;
  size_t count = 0;
  words >> r.host >> count;
  r.gpus.resize(count);
  for (uint64_t& gpu : r.gpus) words >> gpu;
  std::getline(words >> std::ws, r.reason);
  return r;
}

}  // namespace

DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found) {
  if (choice == DeviceChoice::cpu) return {};
  const std::vector<GpuInfo> gpus = usable(found);
  if (gpus.empty()) return without_gpu(choice, reason_without(found));
  DeviceDecision decision{.gpu = gpus[0].index, .note = {}};
  if (found.gpus.size() > 1)
    decision.note =
        fmt::format("GPU {} of {}: a process uses one, CUDA_VISIBLE_DEVICES says which it may see", gpus[0].index, found.gpus.size());
  return decision;
}

RankGpus gpus_of_rank(DeviceChoice choice, const FoundGpus& found, const std::string& host) {
  RankGpus r{.host = host, .gpus = {}, .reason = {}};
  if (choice == DeviceChoice::cpu) {
    r.reason = "the CPU was asked for";
  } else if (!found.can_join) {
    r.reason = "this build has no NCCL, over which GPUs of several ranks work together";
  } else {
    for (const GpuInfo& gpu : usable(found)) r.gpus.push_back(gpu.identity);
    if (r.gpus.empty()) r.reason = reason_without(found);
  }
  return r;
}

DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found, int rank, const std::vector<RankGpus>& ranks) {
  if (choice == DeviceChoice::cpu) return {};
  const std::vector<std::optional<size_t>> places = share_out(ranks);
  const auto without = std::ranges::find(places, std::optional<size_t>());
  if (without != places.end()) return without_gpu(choice, reason_of_rank(static_cast<size_t>(without - places.begin()), ranks));
  const auto own = static_cast<size_t>(rank);
  DeviceDecision decision{.gpu = usable(found)[*places[own]].index, .note = {}};
  const HostCount count = count_on(ranks[own].host, ranks);
  if (count.gpus > count.ranks)
    decision.note =
        fmt::format("{} of the {} GPUs of {}: a rank uses one, and so many ranks run there", count.ranks, count.gpus, ranks[own].host);
  return decision;
}

DeviceDecision decide_device(DeviceChoice choice, Communicator* ranks) {
#if defined(ERMOE_WITH_CUDA)
  const FoundGpus found = choice == DeviceChoice::cpu ? FoundGpus{} : find_gpus();
#else
  check_input(choice != DeviceChoice::cuda, "train.device: this build computes on the CPU; leave it out or set it to cpu");
  const FoundGpus found;
  choice = DeviceChoice::cpu;
#endif
  if (ranks == nullptr || ranks->size() == 1) return decide_device(choice, found);
  std::vector<RankGpus> all;
  for (const std::string& text : gather_texts(*ranks, text_of(gpus_of_rank(choice, found, host_name())))) all.push_back(parsed(text));
  return decide_device(choice, found, ranks->rank(), all);
}

}  // namespace ermoe
