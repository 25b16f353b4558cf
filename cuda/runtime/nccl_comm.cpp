#include "cuda/runtime/nccl_comm.h"

#include "core/error.h"

#if !defined(ERMOE_WITH_NCCL)

namespace ermoe::cuda {

bool has_nccl() { return false; }

std::unique_ptr<Communicator> join_over_nccl(Communicator&, RankWatch&, const GpuInfo&, const Stream&, CachingAllocator&) {
  fail_input("train.device: this build has no NCCL, over which the GPUs of several ranks work together; build it with NCCL, or set cpu");
}

}  // namespace ermoe::cuda

#else

#include "core/comm_checks.h"
#include "core/hash.h"
#include "core/sockets.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/comm_stream.h"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <string_view>
#include <thread>
#include <vector>

namespace ermoe::cuda {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::i64: return ncclInt64;
    case DType::u8: return ncclUint8;
  }
  fail("[nccl] {} cannot be sent", name_of(dtype));
}

/// What a call comes to, also where NCCL goes on with it in a thread of its own. A call that waits for another rank is seen by the watch,
/// which ends the process from its own thread.
ncclResult_t settled(ncclComm_t comm, ncclResult_t status) {
  for (int asked = 0; status == ncclInProgress; ++asked) {
    if (asked < 1000) {
      std::this_thread::yield();  // it takes some microseconds
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    const ncclResult_t fault = ncclCommGetAsyncError(comm, &status);
    if (fault != ncclSuccess) return fault;
  }
  return status;
}

}  // namespace

bool has_nccl() { return true; }

struct NcclCommunicator::Handle {
  ncclComm_t comm = nullptr;

  Handle() = default;
  /// Where this rank fails, the others do not come to the end that they would have together.
  ~Handle() {
    if (comm == nullptr) return;
    const bool orderly = std::uncaught_exceptions() == 0 && settled(comm, ncclCommFinalize(comm)) == ncclSuccess;
    if (orderly) {
      ncclCommDestroy(comm);
    } else {
      ncclCommAbort(comm);
    }
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

struct NcclCommunicator::Shared {
  Shared(const GpuInfo& gpu, const Stream& engine) : device{Device::Kind::cuda, gpu.index}, stream(engine) {}

  const Device device;
  CommStream stream;
  bool grouping = false;
  std::vector<ncclComm_t> grouped;  // what takes part in the group
};

struct NcclCommunicator::Watched {
  RankWatch& watch;
  Watched(NcclCommunicator& comm, const char* name, size_t bytes) : watch(comm.watch_) {
    watch.enter(comm.group_, name, ++comm.number_, static_cast<int64_t>(bytes));
  }
  ~Watched() { watch.leave(); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
};

NcclCommunicator::NcclCommunicator(Communicator& host, RankWatch& watch, const GpuInfo& gpu, const Stream& stream)
    : NcclCommunicator(nullptr, host, watch, std::make_shared<Shared>(gpu, stream)) {}

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> own, Communicator& host, RankWatch& watch, std::shared_ptr<Shared> shared)
    : own_(std::move(own)), host_(host), watch_(watch), shared_(std::move(shared)), handle_(std::make_unique<Handle>()) {
  connect();
}

NcclCommunicator::~NcclCommunicator() {
  if (std::uncaught_exceptions() == 0) cudaStreamSynchronize(shared_->stream.get());
  watch_.quit(group_);
}

/// Throws `Error` unless `status` is success or on the way to it: "[nccl] ncclGroupEnd: unhandled cuda error: … (nccl_comm.cpp:41 on HOST,
/// rank 3)".
void NcclCommunicator::require(int status, const char* api, const std::source_location& where) const {
  if (status == ncclSuccess || status == ncclInProgress) return;
  std::string_view file = where.file_name();
  file.remove_prefix(file.find_last_of('/') + 1);
  const char* last = ncclGetLastError(handle_->comm);
  const std::string more = last != nullptr && *last != '\0' ? fmt::format(": {}", last) : "";
  fail("[nccl] {}: {}{} ({}:{} on {}, rank {})", api, ncclGetErrorString(static_cast<ncclResult_t>(status)), more, file, where.line(),
       host_name(), rank());
}

void NcclCommunicator::connect() {
  ncclUniqueId id{};
  if (rank() == 0) require(ncclGetUniqueId(&id), "ncclGetUniqueId");
  CachingAllocator memory(make_host_source());
  const Tensor text = Tensor::empty(memory, {static_cast<int64_t>(sizeof id)}, DType::u8);
  std::memcpy(text.raw(), &id, sizeof id);
  host_.broadcast(text, 0);
  std::memcpy(&id, text.raw(), sizeof id);
  // All members know it and nobody else has it; small numbers are the watch's own.
  group_ = fnv1a(std::as_bytes(std::span(&id, 1))) | uint64_t{1} << 63;
  watch_.belong(group_);
  const Watched watched(*this, "connecting GPUs", 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;  // else every group is handed to a thread of NCCL's: 60 us more, while a GPU that waited for the host idles
  const ncclResult_t status = ncclCommInitRankConfig(&handle_->comm, size(), id, rank(), &config);
  require(settled(handle_->comm, status), "ncclCommInitRankConfig");
}

/// Whether the tensors are a matter of the host's communicator.
bool NcclCommunicator::on_host(const char* name, const Tensor& a, const Tensor& b) const {
  check(a.device() == b.device(), "[{}] {} {} and {} {} lie on different devices", name, name_of(a.dtype()), a.shape().str(),
        name_of(b.dtype()), b.shape().str());
  if (!a.device().is_cuda()) return true;
  check(a.device() == shared_->device, "[{}] {} {} lies on GPU {}, and this rank's is GPU {}", name, name_of(a.dtype()), a.shape().str(),
        a.device().index, shared_->device.index);
  return false;
}

/// What NCCL is told inside of `work` is one group, which begins when it is whole.
void NcclCommunicator::run_group(const std::function<void()>& work) {
  Shared& all = *shared_;
  all.stream.fork();
  require(ncclGroupStart(), "ncclGroupStart");
  all.grouping = true;
  try {
    work();
  } catch (...) {
    all.grouping = false;
    ncclGroupEnd();
    throw;
  }
  all.grouping = false;
  require(ncclGroupEnd(), "ncclGroupEnd");
  for (ncclComm_t comm : all.grouped) require(settled(comm, ncclInProgress), "ncclGroupEnd");
  all.grouped.clear();
}

/// One collective, which `calls` tells NCCL: at once, or as a part of what is started.
void NcclCommunicator::queue(const char* name, size_t bytes, const std::function<void()>& calls) {
  Shared& all = *shared_;
  const auto told = [&] {
    if (std::ranges::find(all.grouped, handle_->comm) == all.grouped.end()) all.grouped.push_back(handle_->comm);
    calls();
  };
  if (all.grouping) return told();
  const Watched watched(*this, name, bytes);
  all.grouped.clear();
  run_group(told);
  all.stream.join();
}

void NcclCommunicator::start(const std::function<void()>& work) {
  check(!shared_->grouping, "[nccl] start inside of start");
  const Watched watched(*this, "started together", 0);
  shared_->grouped.clear();
  run_group(work);
}

void NcclCommunicator::wait() {
  check(!shared_->grouping, "[nccl] wait inside of start");
  shared_->stream.join();
}

void NcclCommunicator::settle(const char* name) {
  const Watched watched(*this, name, 0);
  wait();
  cuda_check(cudaStreamSynchronize(shared_->stream.engine()), "cudaStreamSynchronize");
}

std::unique_ptr<Communicator> NcclCommunicator::split(int colour) {
  check(!shared_->grouping, "[nccl] split inside of start");
  std::unique_ptr<Communicator> part = host_.split(colour);
  Communicator& members = *part;
  return std::unique_ptr<Communicator>(new NcclCommunicator(std::move(part), members, watch_, shared_));
}

// Collectives. A group of NCCL's has the pieces that a collective of uneven rows is made of.

/// The rows of each rank in the tensor of all rows.
struct NcclCommunicator::Pieces {
  std::vector<int64_t> counts;  // elements
  std::vector<std::byte*> data;
  bool even = true;

  Pieces(const Tensor& all, std::span<const int64_t> rows) {
    const int64_t row = all.shape()[0] > 0 ? all.numel() / all.shape()[0] : 0;
    std::byte* at = all.raw();
    for (const int64_t n : rows) {
      counts.push_back(n * row);
      data.push_back(at);
      at += counts.back() * static_cast<int64_t>(size_of(all.dtype()));
      even = even && n == rows[0];
    }
  }
};

void NcclCommunicator::all_reduce(const Tensor& t, ReduceOp op) {
  if (on_host("all_reduce", t, t)) return host_.all_reduce(t, op);
  queue("all_reduce", t.bytes(), [&] {
    require(ncclAllReduce(t.raw(), t.raw(), static_cast<size_t>(t.numel()), type_of(t.dtype()), op == ReduceOp::sum ? ncclSum : ncclMax,
                          handle_->comm, shared_->stream.get()),
            "ncclAllReduce");
  });
}

void NcclCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) {
  if (on_host("reduce_scatter", in, out)) return host_.reduce_scatter(in, out, rows);
  const Pieces pieces(in, rows_of_ranks("reduce_scatter", out, in, rows, rank(), size()));
  const ncclDataType_t type = type_of(in.dtype());
  queue("reduce_scatter", in.bytes(), [&] {
    const cudaStream_t stream = shared_->stream.get();
    if (pieces.even) {
      const auto count = static_cast<size_t>(pieces.counts[0]);
      return require(ncclReduceScatter(in.raw(), out.raw(), count, type, ncclSum, handle_->comm, stream), "ncclReduceScatter");
    }
    for (int w = 0; w < size(); ++w) {
      const auto i = static_cast<size_t>(w);
      if (pieces.counts[i] == 0) continue;
      void* const to = w == rank() ? out.raw() : nullptr;
      require(ncclReduce(pieces.data[i], to, static_cast<size_t>(pieces.counts[i]), type, ncclSum, w, handle_->comm, stream), "ncclReduce");
    }
  });
}

void NcclCommunicator::all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) {
  if (on_host("all_gather", in, out)) return host_.all_gather(in, out, rows);
  const Pieces pieces(out, rows_of_ranks("all_gather", in, out, rows, rank(), size()));
  const ncclDataType_t type = type_of(in.dtype());
  queue("all_gather", out.bytes(), [&] {
    const cudaStream_t stream = shared_->stream.get();
    if (pieces.even) {
      const auto count = static_cast<size_t>(pieces.counts[0]);
      return require(ncclAllGather(in.raw(), out.raw(), count, type, handle_->comm, stream), "ncclAllGather");
    }
    for (int w = 0; w < size(); ++w) {
      const auto i = static_cast<size_t>(w);
      if (pieces.counts[i] == 0) continue;
      const void* const from = w == rank() ? in.raw() : pieces.data[i];
      require(ncclBroadcast(from, pieces.data[i], static_cast<size_t>(pieces.counts[i]), type, w, handle_->comm, stream), "ncclBroadcast");
    }
  });
}

void NcclCommunicator::broadcast(const Tensor& t, int root) {
  if (on_host("broadcast", t, t)) return host_.broadcast(t, root);
  check_root(root, size());
  queue("broadcast", t.bytes(), [&] {
    require(ncclBroadcast(t.raw(), t.raw(), static_cast<size_t>(t.numel()), type_of(t.dtype()), root, handle_->comm, shared_->stream.get()),
            "ncclBroadcast");
  });
}

/// What a rank sends itself goes through NCCL too: a copy beside it took 158 us for 64 MiB on two H200, this takes 138.
void NcclCommunicator::all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv,
                                  std::span<const int64_t> recv_rows) {
  if (on_host("all_to_all", send, recv)) return host_.all_to_all(send, send_rows, recv, recv_rows);
  row_of_exchange(send, send_rows, recv, recv_rows, size());
  const Pieces from(send, send_rows), to(recv, recv_rows);
  const auto self = static_cast<size_t>(rank());
  check(from.counts[self] == to.counts[self], "[all_to_all] rank {} sends itself {} rows and expects {}", self, send_rows[self],
        recv_rows[self]);
  const ncclDataType_t type = type_of(send.dtype());
  queue("all_to_all", send.bytes(), [&] {
    const cudaStream_t stream = shared_->stream.get();
    for (int step = 0; step < size(); ++step) {
      const int target = (rank() + step) % size(), source = (rank() + size() - step) % size();
      const auto t = static_cast<size_t>(target), s = static_cast<size_t>(source);
      if (from.counts[t] > 0) {
        require(ncclSend(from.data[t], static_cast<size_t>(from.counts[t]), type, target, handle_->comm, stream), "ncclSend");
      }
      if (to.counts[s] > 0) {
        require(ncclRecv(to.data[s], static_cast<size_t>(to.counts[s]), type, source, handle_->comm, stream), "ncclRecv");
      }
    }
  });
}

/// As `all_to_all`; a block without rows is known to be one at both ends.
void NcclCommunicator::exchange_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv,
                                       std::span<const RowBlock> receives) {
  if (on_host("exchange_blocks", send, recv)) return host_.exchange_blocks(send, sends, recv, receives);
  check_blocks(send, sends, recv, receives, rank(), size());
  const ncclDataType_t type = type_of(send.dtype());
  const int64_t width = send.shape().with(0, 1).numel(), element = static_cast<int64_t>(size_of(send.dtype()));
  const auto count = [&](const RowBlock& b) { return static_cast<size_t>(b.rows * width); };
  const auto place = [&](const Tensor& t, const RowBlock& b) { return t.raw() + b.begin * width * element; };
  queue("exchange_blocks", send.bytes(), [&] {
    const cudaStream_t stream = shared_->stream.get();
    for (const RowBlock& b : sends) {
      if (b.rows > 0) require(ncclSend(place(send, b), count(b), type, b.rank, handle_->comm, stream), "ncclSend");
    }
    for (const RowBlock& b : receives) {
      if (b.rows > 0) require(ncclRecv(place(recv, b), count(b), type, b.rank, handle_->comm, stream), "ncclRecv");
    }
  });
}

}  // namespace ermoe::cuda

#endif
