// How ranks write one file together (write_slices). All of them know who writes which elements of which tensor (`Claim`), so each finds the
// same faults, and the same messages to send, without being told.
#include "core/file_io.h"
#include "core/flat.h"
#include "core/gather.h"
#include "core/hash.h"
#include "core/saved_slice.h"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <random>
#include <tuple>

namespace ermoe {
namespace {

constexpr int64_t chunk_bytes = int64_t{16} << 20;       // converted, brought to the host and written at a time
constexpr int64_t travelling_bytes = int64_t{64} << 20;  // on their way to rank 0 at a time, of all ranks
constexpr int64_t least_travelling_bytes = int64_t{1} << 20;

/// A piece that a rank writes.
struct Claim {
  int64_t rank = 0;
  int64_t tensor = 0;            // of the list
  int64_t first = 0, count = 0;  // elements of it
};

/// A part of a piece that is small enough to be handled at once.
struct Chunk {
  size_t claim = 0;
  int64_t begin = 0, count = 0;  // elements of the claim
};

/// What stands in a stretch of the file.
struct Checksum {
  uint64_t offset = 0, bytes = 0;
  uint64_t crc = 0;
};

std::vector<Chunk> chunks_of(std::span<const Claim> claims, std::span<const TensorSpec> specs, int64_t most_bytes) {
  std::vector<Chunk> chunks;
  for (size_t c = 0; c < claims.size(); ++c) {
    const int64_t most = most_bytes / static_cast<int64_t>(size_of(specs[static_cast<size_t>(claims[c].tensor)].dtype));
    for (int64_t begin = 0; begin < claims[c].count; begin += most) chunks.push_back({c, begin, std::min(most, claims[c].count - begin)});
  }
  return chunks;
}

/// Throws "PATH: blocks.1.moe.experts.U1 (8, 384, 64): element 49152, in row 2 of 8, is FAULT": with experts in rows, of which expert.
[[noreturn]] void fail_at(const std::string& path, const TensorSpec& spec, int64_t element, const std::string& fault) {
  std::string row;
  if (spec.shape.rank() > 1) row = fmt::format(", in row {} of {},", element / (spec.shape.numel() / spec.shape[0]), spec.shape[0]);
  fail("{}: {} {}: element {}{} is {}", path, spec.name, spec.shape.str(), element, row, fault);
}

/// Every element of every tensor is written by exactly one.
void check_claims(const std::string& path, std::span<const TensorSpec> specs, std::vector<Claim> claims) {
  std::ranges::sort(claims, {}, [](const Claim& c) { return std::tuple(c.tensor, c.first, c.rank); });
  auto next = claims.begin();
  for (size_t t = 0; t < specs.size(); ++t) {
    int64_t covered = 0, writer = 0;
    for (; next != claims.end() && next->tensor == static_cast<int64_t>(t); ++next) {
      if (next->first < covered) fail_at(path, specs[t], next->first, fmt::format("written by rank {} and by rank {}", writer, next->rank));
      if (next->first > covered) break;
      covered = next->first + next->count;
      writer = next->rank;
    }
    if (covered < specs[t].shape.numel()) fail_at(path, specs[t], covered, "written by no rank");
  }
}

std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

class SliceWriter {
 public:
  SliceWriter(const std::string& path, Communicator& ranks, SliceRoute route) : path_(path), ranks_(ranks), route_(route) {}
  uint32_t write(std::span<const SavedSlice> slices, const SafetensorsFile::Metadata& metadata);

 private:
  void list(std::span<const SavedSlice> slices);
  void gather_claims();
  void open();
  bool finds_file(const std::string& token);
  void write_own();
  void send_through_rank_0();
  void send_round(size_t round, const std::vector<std::vector<Chunk>>& chunks, const Tensor& send, const Tensor& recv);
  void attempt(const std::function<void()>& work);
  uint32_t checksum();

  Tensor content(const SavedSlice& slice, int64_t begin, int64_t count);
  uint64_t offset_of(const Claim& claim, int64_t begin) const;
  uint64_t bytes_of(const Claim& claim, int64_t count) const { return static_cast<uint64_t>(count) * size_of(spec_of(claim).dtype); }
  const TensorSpec& spec_of(const Claim& claim) const { return specs_[static_cast<size_t>(claim.tensor)]; }
  bool first() const { return ranks_.rank() == 0; }
  bool finds(int rank) const { return finds_[static_cast<size_t>(rank)] != 0; }
  std::string token_path() const { return path_ + ".token"; }
  std::vector<Claim>& own_claims() { return claims_[static_cast<size_t>(ranks_.rank())]; }

  const std::string path_;
  Communicator& ranks_;
  const SliceRoute route_;
  CachingAllocator host_{make_host_source()};
  std::vector<TensorSpec> specs_;
  SafetensorsLayout layout_;
  std::vector<const SavedSlice*> own_;      // what this rank writes, as its claims
  std::vector<std::vector<Claim>> claims_;  // of each rank
  std::vector<uint8_t> finds_;              // each rank, the very file
  std::vector<Checksum> checksums_;         // of this rank's claims
  PartWriter file_;
  bool created_ = false;
  std::exception_ptr trouble_;  // of this rank, while chunks travel
};

uint32_t SliceWriter::write(std::span<const SavedSlice> slices, const SafetensorsFile::Metadata& metadata) {
  all_or_none(ranks_, [&] {
    list(slices);
    layout_ = lay_out(specs_, metadata);
  });
  gather_claims();
  try {
    open();
    all_or_none(ranks_, [&] { write_own(); });
    send_through_rank_0();
    return checksum();
  } catch (...) {
    file_ = {};  // some file systems keep a file that is removed while it is open
    if (created_) ::unlink(path_.c_str());
    if (created_) ::unlink(token_path().c_str());
    throw;
  }
}

/// The tensors, and what this rank writes of them.
void SliceWriter::list(std::span<const SavedSlice> slices) {
  std::map<std::string_view, size_t> places;
  claims_.resize(static_cast<size_t>(ranks_.size()));
  for (const SavedSlice& slice : slices) {
    const auto [place, fresh] = places.emplace(slice.name, specs_.size());
    if (fresh) specs_.push_back({slice.name, slice.stored, slice.whole});
    const TensorSpec& spec = specs_[place->second];
    const int64_t count = slice.part.numel();  // 0 where it is undefined
    check(spec.dtype == slice.stored && spec.shape == slice.whole, "{}: {} is listed as {} {} and as {} {}", path_, slice.name,
          name_of(spec.dtype), spec.shape.str(), name_of(slice.stored), slice.whole.str());
    check(slice.first >= 0 && slice.first <= slice.whole.numel() && count <= slice.whole.numel() - slice.first,
          "{}: {} {} has no elements {} to {}", path_, slice.name, slice.whole.str(), slice.first, slice.first + count);
    if (!slice.writes || count == 0) continue;
    own_.push_back(&slice);
    own_claims().push_back({ranks_.rank(), static_cast<int64_t>(place->second), slice.first, count});
  }
}

void SliceWriter::gather_claims() {
  const std::vector<uint64_t> hashes = gather_from_all(ranks_, std::vector{fnv1a(std::as_bytes(std::span(layout_.head)))});
  for (size_t rank = 1; rank < hashes.size(); ++rank)
    check(hashes[rank] == hashes[0], "{}: rank {} lists other tensors than rank 0", path_, rank);
  const std::vector<Claim> all = gather_from_all(ranks_, own_claims());
  check_claims(path_, specs_, all);
  own_claims().clear();
  for (const Claim& claim : all) claims_[static_cast<size_t>(claim.rank)].push_back(claim);
}

/// Rank 0 makes the file, and beside it, for as long as the others look for it, one with a text that nobody could guess: what lies at the
/// same path on another host need not be the same file. They do not read the file itself: of pages that were read some network file
/// systems write back more than was changed.
void SliceWriter::open() {
  std::string token;
  all_or_none(ranks_, [&] {
    if (!first()) return;
    file_ = PartWriter::create(path_, layout_.bytes);
    created_ = true;
    if (ranks_.size() == 1) return;
    token = random_token();
    FileWriter beside(token_path());
    beside.write(token);
    beside.close();
  });
  token = broadcast_text(ranks_, token);
  finds_ = gather_from_all(ranks_, std::vector{uint8_t{first() || finds_file(token)}});
  if (first() && ranks_.size() > 1) ::unlink(token_path().c_str());
}

bool SliceWriter::finds_file(const std::string& token) {
  try {
    if (route_ == SliceRoute::through_rank_0 || read_file(token_path(), 100) != token) return false;
    file_ = PartWriter::open(path_);
    if (file_.size() == layout_.bytes) return true;
  } catch (const InputError&) {
  }
  file_ = {};
  return false;
}

/// Elements of a piece as the file has them, on the host.
Tensor SliceWriter::content(const SavedSlice& slice, int64_t begin, int64_t count) {
  Tensor t = slice.part.window(begin, {count});
  if (t.dtype() != slice.stored) {
    const Tensor stored = Tensor::empty(t.allocator(), t.shape(), slice.stored, "checkpoint");
    convert(t, stored);
    t = stored;
  }
  return t.device().is_cuda() ? t.to(host_, "checkpoint") : t;
}

uint64_t SliceWriter::offset_of(const Claim& claim, int64_t begin) const {
  return layout_.tensors.at(spec_of(claim).name).offset + bytes_of(claim, claim.first + begin);
}

void SliceWriter::write_own() {
  const bool others_send = std::ranges::count(finds_, 0) > 0;
  try {
    if (first()) file_.write(0, layout_.head.data(), layout_.head.size());
    if (!finds(ranks_.rank())) return;
    const std::vector<Claim>& claims = own_claims();
    checksums_.resize(claims.size());
    for (const Chunk& chunk : chunks_of(claims, specs_, chunk_bytes)) {
      const Tensor t = content(*own_[chunk.claim], chunk.begin, chunk.count);
      file_.write(offset_of(claims[chunk.claim], chunk.begin), t.raw(), t.bytes());
      checksums_[chunk.claim].crc = crc32_of({t.raw(), t.bytes()}, static_cast<uint32_t>(checksums_[chunk.claim].crc));
    }
    if (!first() || !others_send) file_.close();
  } catch (...) {
    file_ = {};
    throw;
  }
}

/// One round after the other, each rank that does not find the file sends its next chunk.
void SliceWriter::send_through_rank_0() {
  const int64_t senders = std::ranges::count(finds_, 0);
  if (senders == 0) return;
  const int64_t most = std::max(least_travelling_bytes, travelling_bytes / senders);
  std::vector<std::vector<Chunk>> chunks(claims_.size());
  size_t rounds = 0;
  for (size_t rank = 0; rank < claims_.size(); ++rank) {
    if (finds_[rank] == 0) chunks[rank] = chunks_of(claims_[rank], specs_, most);
    rounds = std::max(rounds, chunks[rank].size());
  }
  Tensor send, recv;
  all_or_none(ranks_, [&] {
    checksums_.resize(own_claims().size());
    send = Tensor::empty(host_, {finds(ranks_.rank()) ? 0 : most}, DType::u8, "checkpoint");
    recv = Tensor::empty(host_, {first() ? most * senders : 0}, DType::u8, "checkpoint");
  });
  for (size_t round = 0; round < rounds; ++round) send_round(round, chunks, send, recv);
  all_or_none(ranks_, [&] {
    if (trouble_) file_ = {};
    if (trouble_) std::rethrow_exception(trouble_);
    if (first()) file_.close();
  });
}

/// `work`, unless something failed before. What fails is told when all rounds are over: nobody may leave while others send.
void SliceWriter::attempt(const std::function<void()>& work) {
  try {
    if (!trouble_) work();
  } catch (...) {
    trouble_ = std::current_exception();
  }
}

/// `chunks` of each rank that sends; `send` and `recv` have room for one of this rank's and one of everybody's.
void SliceWriter::send_round(size_t round, const std::vector<std::vector<Chunk>>& chunks, const Tensor& send, const Tensor& recv) {
  const auto self = static_cast<size_t>(ranks_.rank());
  std::vector<int64_t> to(chunks.size(), 0), from(chunks.size(), 0);
  const auto bytes = [&](size_t rank) {
    if (round >= chunks[rank].size()) return int64_t{0};
    const Chunk& chunk = chunks[rank][round];
    return static_cast<int64_t>(bytes_of(claims_[rank][chunk.claim], chunk.count));
  };
  int64_t coming = 0;
  for (size_t rank = 0; first() && rank < chunks.size(); ++rank) coming += from[rank] = bytes(rank);
  to[0] = bytes(self);
  attempt([&] {
    if (to[0] == 0) return;
    const Chunk& chunk = chunks[self][round];
    const Tensor t = content(*own_[chunk.claim], chunk.begin, chunk.count);
    std::copy_n(t.raw(), t.bytes(), send.raw());
    uint64_t& crc = checksums_[chunk.claim].crc;
    crc = crc32_of({t.raw(), t.bytes()}, static_cast<uint32_t>(crc));
  });
  ranks_.all_to_all(send.window(0, {to[0]}), to, recv.window(0, {coming}), from);
  attempt([&] {
    const std::byte* next = recv.raw();
    for (size_t rank = 0; rank < chunks.size(); ++rank) {
      if (from[rank] == 0) continue;
      const Chunk& chunk = chunks[rank][round];
      file_.write(offset_of(claims_[rank][chunk.claim], chunk.begin), next, static_cast<size_t>(from[rank]));
      next += from[rank];
    }
  });
}

/// Of the whole file, put together from those of its pieces.
uint32_t SliceWriter::checksum() {
  const std::vector<Claim>& claims = own_claims();
  for (size_t c = 0; c < claims.size(); ++c) {
    checksums_[c].offset = offset_of(claims[c], 0);
    checksums_[c].bytes = bytes_of(claims[c], claims[c].count);
  }
  if (first()) checksums_.push_back({0, layout_.head.size(), crc32_of(std::as_bytes(std::span(layout_.head)))});
  std::vector<Checksum> all = gather_from_all(ranks_, checksums_);
  std::ranges::sort(all, {}, &Checksum::offset);
  uint32_t crc = 0;
  for (const Checksum& piece : all) crc = joined_crc32(crc, static_cast<uint32_t>(piece.crc), piece.bytes);
  return crc;
}

}  // namespace

uint32_t write_slices(const std::string& path, std::span<const SavedSlice> slices, Communicator& ranks,
                      const SafetensorsFile::Metadata& metadata, SliceRoute route) {
  return SliceWriter(path, ranks, route).write(slices, metadata);
}

}  // namespace ermoe
