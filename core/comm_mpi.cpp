#include "core/comm_mpi.h"

#include "core/comm_checks.h"
#include "core/reduce_parts.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <source_location>
#include <string_view>

namespace ermoe {
namespace {

constexpr int64_t tiny_bytes = 4096;  // up to here one exchange with everybody is quicker than two of pieces

/// Throws `Error` unless `status` is success: "[mpi] MPI_Bcast: MPI_ERR_TRUNCATE: message truncated (comm_mpi.cpp:41 on HOST, rank 3)".
void mpi_check(int status, const char* api, const std::source_location& where = std::source_location::current()) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown fault";
  int length = 0, rank = -1;
  MPI_Error_string(status, text, &length);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::string_view file = where.file_name();
  file.remove_prefix(file.find_last_of('/') + 1);
  fail("[mpi] {}: {} ({}:{} on {}, rank {})", api, text, file, where.line(), host_name(), rank);
}

void require_host(const char* name, const Tensor& t) {
  check(t.defined(), "[{}] an undefined tensor", name);
  check(!t.device().is_cuda(), "[{}] MPI moves tensors of the host, and {} {} lies on a GPU", name, name_of(t.dtype()), t.shape().str());
}

/// A number for the part `colour` of a group that all of its members compute alike.
uint64_t part_of(uint64_t group, uint64_t number, int colour) {
  uint64_t mixed = group;
  for (const uint64_t next : {number, static_cast<uint64_t>(colour)}) {
    mixed = (mixed ^ next) * 0x9e3779b97f4a7c15;
    mixed ^= mixed >> 29;
  }
  return std::max<uint64_t>(mixed, RankWatch::steps_group + 1);
}

int local_rank_of_world() {
  MPI_Comm host = MPI_COMM_NULL;
  int rank = 0;
  mpi_check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
  mpi_check(MPI_Comm_rank(host, &rank), "MPI_Comm_rank");
  mpi_check(MPI_Comm_free(&host), "MPI_Comm_free");
  return rank;
}

}  // namespace

MpiProcess::MpiProcess() {
  int running = 0, provided = 0;
  mpi_check(MPI_Initialized(&running), "MPI_Initialized");
  check(running == 0, "[mpi] MPI was started already in this process");
  mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

MpiProcess::~MpiProcess() {
  if (!abandoned_) MPI_Finalize();
}

struct MpiCommunicator::Handle {
  MPI_Comm comm = MPI_COMM_NULL;
  std::vector<MPI_Request> requests;
  std::vector<MPI_Status> statuses;
  std::vector<int> sources, sizes;  // of the receiving ones, which come first

  explicit Handle(MPI_Comm c) : comm(c) {}
  ~Handle() {
    int over = 0;
    MPI_Finalized(&over);
    // It may wait for the other members, which are gone where this rank fails.
    if (comm != MPI_COMM_WORLD && over == 0 && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

struct MpiCommunicator::Watched {
  RankWatch& watch;
  Watched(MpiCommunicator& comm, const char* name, size_t bytes) : watch(comm.watch_) {
    watch.enter(comm.group_, name, ++comm.number_, static_cast<int64_t>(bytes));
  }
  ~Watched() { watch.leave(); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
};

std::unique_ptr<MpiCommunicator> MpiCommunicator::world(RankWatch& watch, MpiPieces pieces) {
  return std::unique_ptr<MpiCommunicator>(
      new MpiCommunicator(std::make_unique<Handle>(MPI_COMM_WORLD), RankWatch::world_group, watch, pieces));
}

MpiCommunicator::MpiCommunicator(std::unique_ptr<Handle> handle, uint64_t group, RankWatch& watch, MpiPieces pieces)
    : handle_(std::move(handle)), watch_(watch), pieces_(pieces), group_(group) {
  mpi_check(MPI_Comm_rank(handle_->comm, &rank_), "MPI_Comm_rank");
  mpi_check(MPI_Comm_size(handle_->comm, &size_), "MPI_Comm_size");
  if (group == RankWatch::world_group) local_rank_ = local_rank_of_world();
  const auto ranks = static_cast<size_t>(size_);
  to_.resize(ranks);
  from_.resize(ranks);
  parts_.resize(ranks);
}

MpiCommunicator::~MpiCommunicator() {
  if (group_ != RankWatch::world_group) watch_.quit(group_);
}

std::byte* MpiCommunicator::scratch(int64_t bytes) {
  if (scratch_.size() < static_cast<size_t>(bytes)) scratch_.resize(static_cast<size_t>(bytes));
  return scratch_.data();
}

/// Moves `to_[w]` to each rank w and `from_[w]` from it; what this rank sends itself is copied.
void MpiCommunicator::exchange() {
  const auto self = static_cast<size_t>(rank_);
  check(to_[self].bytes == from_[self].bytes, "[exchange] rank {} sends itself {} bytes and expects {}", rank_, to_[self].bytes,
        from_[self].bytes);
  int64_t most = 0;
  for (const std::vector<Piece>* pieces : {&to_, &from_}) {
    for (const Piece& piece : *pieces) most = std::max(most, piece.bytes);
  }
  if (to_[self].bytes > 0 && to_[self].data != from_[self].data) {
    std::memmove(from_[self].data, to_[self].data, static_cast<size_t>(to_[self].bytes));
  }
  // Each pair has as many messages as its bytes need, at least an empty one, so that sizes that do not agree are seen.
  for (int64_t round = 0; round == 0 || round * pieces_.message < most; ++round) {
    start_round(round);
    finish_round();
  }
}

void MpiCommunicator::start_round(int64_t round) {
  Handle& mpi = *handle_;
  mpi.requests.clear();
  mpi.sources.clear();
  mpi.sizes.clear();
  const int tag = static_cast<int>(number_ & 0x7fff);  // another collective's messages must not be taken for this one's
  const int64_t begin = round * pieces_.message;
  const auto due = [&](const Piece& piece) { return round == 0 || piece.bytes > begin; };
  const auto size = [&](const Piece& piece) { return static_cast<int>(std::min(piece.bytes - begin, pieces_.message)); };
  for (int i = 1; i < size_; ++i) {
    const int source = (rank_ + size_ - i) % size_;
    const Piece& piece = from_[static_cast<size_t>(source)];
    if (!due(piece)) continue;
    mpi.sources.push_back(source);
    mpi.sizes.push_back(size(piece));
    MPI_Request& request = mpi.requests.emplace_back(MPI_REQUEST_NULL);
    mpi_check(MPI_Irecv(piece.data + begin, size(piece), MPI_BYTE, source, tag, mpi.comm, &request), "MPI_Irecv");
  }
  for (int i = 1; i < size_; ++i) {
    const int target = (rank_ + i) % size_;
    const Piece& piece = to_[static_cast<size_t>(target)];
    if (!due(piece)) continue;
    MPI_Request& request = mpi.requests.emplace_back(MPI_REQUEST_NULL);
    mpi_check(MPI_Isend(piece.data + begin, size(piece), MPI_BYTE, target, tag, mpi.comm, &request), "MPI_Isend");
  }
}

void MpiCommunicator::finish_round() {
  Handle& mpi = *handle_;
  mpi.statuses.resize(mpi.requests.size());
  const int status = MPI_Waitall(static_cast<int>(mpi.requests.size()), mpi.requests.data(), mpi.statuses.data());
  if (status == MPI_ERR_IN_STATUS) {
    for (const MPI_Status& one : mpi.statuses) {
      if (one.MPI_ERROR != MPI_ERR_PENDING) mpi_check(one.MPI_ERROR, "MPI_Waitall");
    }
  }
  mpi_check(status, "MPI_Waitall");
  for (size_t i = 0; i < mpi.sources.size(); ++i) {
    int came = 0;
    mpi_check(MPI_Get_count(&mpi.statuses[i], MPI_BYTE, &came), "MPI_Get_count");
    check(came == mpi.sizes[i], "[exchange] rank {} got {} bytes from rank {} and expected {}: the ranks disagree about a size", rank_,
          came, mpi.sources[i], mpi.sizes[i]);
  }
}

void MpiCommunicator::all_reduce(const Tensor& t, ReduceOp op) {
  require_host("all_reduce", t);
  const Watched watched(*this, "all_reduce", t.bytes());
  const auto element = static_cast<int64_t>(size_of(t.dtype()));
  if (static_cast<int64_t>(t.bytes()) <= tiny_bytes) {
    gather_tiny(t);
    return reduce_parts(t.dtype(), op, parts_, t.raw(), t.numel());
  }
  const int64_t step = std::max<int64_t>(size_, pieces_.reduction / element);
  for (int64_t begin = 0; begin < t.numel(); begin += step) {
    all_reduce_piece(t.raw() + begin * element, std::min(step, t.numel() - begin), t.dtype(), op);
  }
}

/// Everybody's values into `parts_`.
void MpiCommunicator::gather_tiny(const Tensor& t) {
  const auto bytes = static_cast<int64_t>(t.bytes());
  std::byte* all = scratch(bytes * size_);
  for (int w = 0; w < size_; ++w) parts_[static_cast<size_t>(w)] = all + w * bytes;
  if (bytes == 0) return;
  const int count = static_cast<int>(bytes);
  mpi_check(MPI_Allgather(t.raw(), count, MPI_BYTE, all, count, MPI_BYTE, handle_->comm), "MPI_Allgather");
}

/// Rank w reduces elements [count*w/W, count*(w+1)/W) and sends the result to all.
void MpiCommunicator::all_reduce_piece(std::byte* data, int64_t count, DType dtype, ReduceOp op) {
  const auto element = static_cast<int64_t>(size_of(dtype));
  const auto begin_of = [&](int w) { return count * w / size_; };
  const auto slice_of = [&](int w) { return Piece{data + begin_of(w) * element, (begin_of(w + 1) - begin_of(w)) * element}; };
  for (int w = 0; w < size_; ++w) to_[static_cast<size_t>(w)] = slice_of(w);
  const Piece own = slice_of(rank_);
  receive_parts(own.data, own.bytes);
  reduce_parts(dtype, op, parts_, own.data, own.bytes / element);
  for (int w = 0; w < size_; ++w) {
    to_[static_cast<size_t>(w)] = own;
    from_[static_cast<size_t>(w)] = slice_of(w);
  }
  exchange();
}

/// Sends what `to_` says and receives everybody's part of a reduction into `parts_`; this rank's lies at `own` already.
void MpiCommunicator::receive_parts(std::byte* own, int64_t bytes) {
  std::byte* all = scratch(bytes * size_);
  for (int w = 0; w < size_; ++w) {
    Piece& piece = from_[static_cast<size_t>(w)];
    piece = {w == rank_ ? own : all + w * bytes, bytes};
    parts_[static_cast<size_t>(w)] = piece.data;
  }
  exchange();
}

void MpiCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) {
  require_host("reduce_scatter", out);
  require_host("reduce_scatter", in);
  const std::vector<int64_t> each = rows_of_ranks("reduce_scatter", out, in, rows, rank_, size_);
  const Watched watched(*this, "reduce_scatter", in.bytes());
  const auto element = static_cast<int64_t>(size_of(in.dtype()));
  const int64_t width = in.shape()[0] > 0 ? in.numel() / in.shape()[0] : 0, most = *std::ranges::max_element(each) * width;
  const int64_t step = std::max<int64_t>(1, pieces_.reduction / element / size_);
  for (int64_t begin = 0; begin < most; begin += step) {
    const auto left = [&](size_t w) { return std::clamp<int64_t>(each[w] * width - begin, 0, step); };
    int64_t first = 0;
    for (size_t w = 0; w < each.size(); first += each[w++] * width) to_[w] = {in.raw() + (first + begin) * element, left(w) * element};
    const int64_t own = left(static_cast<size_t>(rank_));
    receive_parts(to_[static_cast<size_t>(rank_)].data, own * element);
    reduce_parts(in.dtype(), ReduceOp::sum, parts_, out.raw() + begin * element, own);
  }
}

void MpiCommunicator::all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) {
  require_host("all_gather", in);
  require_host("all_gather", out);
  const std::vector<int64_t> each = rows_of_ranks("all_gather", in, out, rows, rank_, size_);
  const Watched watched(*this, "all_gather", out.bytes());
  const int64_t row = out.shape()[0] > 0 ? static_cast<int64_t>(out.bytes()) / out.shape()[0] : 0;
  std::byte* to = out.raw();
  for (size_t w = 0; w < each.size(); ++w) {
    to_[w] = {in.raw(), static_cast<int64_t>(in.bytes())};
    from_[w] = {to, each[w] * row};
    to += from_[w].bytes;
  }
  exchange();
}

void MpiCommunicator::broadcast(const Tensor& t, int root) {
  require_host("broadcast", t);
  check_root(root, size_);
  const Watched watched(*this, "broadcast", t.bytes());
  const auto bytes = static_cast<int64_t>(t.bytes());
  for (int64_t begin = 0; begin < bytes; begin += pieces_.message) {
    const auto count = static_cast<int>(std::min(pieces_.message, bytes - begin));
    mpi_check(MPI_Bcast(t.raw() + begin, count, MPI_BYTE, root, handle_->comm), "MPI_Bcast");
  }
}

void MpiCommunicator::all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv,
                                 std::span<const int64_t> recv_rows) {
  require_host("all_to_all", send);
  require_host("all_to_all", recv);
  const int64_t row = row_of_exchange(send, send_rows, recv, recv_rows, size_) * static_cast<int64_t>(size_of(send.dtype()));
  const Watched watched(*this, "all_to_all", send.bytes());
  std::byte* from = send.raw();
  std::byte* to = recv.raw();
  for (size_t w = 0; w < static_cast<size_t>(size_); ++w) {
    to_[w] = {from, send_rows[w] * row};
    from_[w] = {to, recv_rows[w] * row};
    from += to_[w].bytes;
    to += from_[w].bytes;
  }
  exchange();
}

void MpiCommunicator::barrier() {
  const Watched watched(*this, "barrier", 0);
  mpi_check(MPI_Barrier(handle_->comm), "MPI_Barrier");
}

std::unique_ptr<Communicator> MpiCommunicator::split(int colour) {
  check(colour >= 0, "[split] colour {}", colour);
  const Watched watched(*this, "split", 0);
  MPI_Comm part = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(handle_->comm, colour, rank_, &part), "MPI_Comm_split");
  mpi_check(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  const uint64_t group = part_of(group_, number_, colour);
  std::unique_ptr<MpiCommunicator> comm(new MpiCommunicator(std::make_unique<Handle>(part), group, watch_, pieces_));
  comm->local_rank_ = local_rank_;
  watch_.belong(group);
  return comm;
}

}  // namespace ermoe
