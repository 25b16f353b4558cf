// How the GPUs of several ranks come together: they connect, and every pair of them shows that what one sends the other gets.
#include "core/error.h"
#include "core/gather.h"
#include "core/sockets.h"
#include "cuda/runtime/nccl_comm.h"

#if defined(ERMOE_WITH_NCCL)

#include <sstream>
#include <vector>

namespace ermoe::cuda {
namespace {

/// "rank 1 (hostB, GPU 0 NVIDIA H200)" of every rank. Throws where two ranks have one GPU.
std::vector<std::string> name_all(Communicator& host, const GpuInfo& gpu) {
  const std::string own = fmt::format("{} rank {} ({}, GPU {} {})", gpu.identity, host.rank(), host_name(), gpu.index, gpu.name);
  std::vector<std::string> names;
  std::vector<uint64_t> identities;
  for (const std::string& text : gather_texts(host, own)) {
    std::istringstream words(text);
    words >> identities.emplace_back() >> std::ws;
    std::getline(words, names.emplace_back());
  }
  for (size_t a = 0; a < names.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      check_input(identities[a] != identities[b], "{} and {} share one GPU: each rank wants one of its own", names[b], names[a]);
    }
  }
  return names;
}

/// What rank `from` sends rank `to` as the i-th byte of the test.
uint8_t test_byte(int64_t from, int64_t to, int64_t i) { return static_cast<uint8_t>(29 * from + 13 * to + 5 * i + 3); }

/// Every pair of ranks exchanges a few bytes.
void exchange_with_all(NcclCommunicator& comm, CachingAllocator& memory, const std::vector<std::string>& names) {
  constexpr int64_t bytes = 1024;
  const int64_t size = comm.size(), own = comm.rank();
  std::vector<uint8_t> sent(static_cast<size_t>(size * bytes));
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = test_byte(own, static_cast<int64_t>(i) / bytes, static_cast<int64_t>(i) % bytes);
  const Tensor to = Tensor::from<uint8_t>(memory, {size, bytes}, sent), from = Tensor::zeros(memory, {size, bytes}, DType::u8);
  const std::vector<int64_t> rows(static_cast<size_t>(size), 1);
  comm.all_to_all(to, rows, from, rows);
  comm.settle("first exchange");
  CachingAllocator host(make_host_source());
  const Tensor came = from.to(host);
  for (int64_t i = 0; i < size * bytes; ++i) {
    const int64_t sender = i / bytes;
    check(came.data<uint8_t>()[i] == test_byte(sender, own, i % bytes), "[nccl] what {} sent to {} came as something else",
          names[static_cast<size_t>(sender)], names[static_cast<size_t>(own)]);
  }
}

/// Each kind of collective once: NCCL connects for it when it first comes, which should not be in a step that is timed or recorded.
void warm_up(NcclCommunicator& comm, CachingAllocator& memory) {
  constexpr int64_t most = 65536;
  const int64_t size = comm.size();
  for (const int64_t n : {int64_t{1}, most}) {
    const Tensor all = Tensor::zeros(memory, {size * n}, DType::f32), own = Tensor::zeros(memory, {n}, DType::f32);
    std::vector<int64_t> rows(static_cast<size_t>(size), n);
    comm.all_reduce(all, ReduceOp::sum);
    comm.reduce_scatter(all, own, {});
    comm.all_gather(own, all, {});
    comm.broadcast(all, 0);
    comm.all_to_all(all, rows, all.clone(), rows);
    for (int64_t& r : rows) r = &r == &rows[0] ? n + 1 : n;
    const Tensor more = Tensor::zeros(memory, {size * n + 1}, DType::f32);
    const Tensor part = Tensor::zeros(memory, {rows[static_cast<size_t>(comm.rank())]}, DType::f32);
    comm.reduce_scatter(more, part, rows);
    comm.all_gather(part, more, rows);
  }
  comm.settle("first collectives");
}

}  // namespace

std::unique_ptr<Communicator> join_over_nccl(Communicator& host, RankWatch& watch, const GpuInfo& gpu, const Stream& stream,
                                             CachingAllocator& memory) {
  const std::vector<std::string> names = name_all(host, gpu);
  watch.at(-1, "connecting GPUs");  // unlike the rest of a start it ends within the time-out, or does not end
  std::unique_ptr<NcclCommunicator> comm;
  try {
    comm = std::make_unique<NcclCommunicator>(host, watch, gpu, stream);
    warm_up(*comm, memory);
  } catch (const Error& e) {
    fail("{} cannot join the other GPUs: {}", names[static_cast<size_t>(host.rank())], e.what());
  }
  exchange_with_all(*comm, memory, names);
  watch.at(-1, "starting", Patience::endless);
  return comm;
}

}  // namespace ermoe::cuda

#endif
