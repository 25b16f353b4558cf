#include "tests/ranks/slices.h"

#include "core/flat.h"
#include "core/gather.h"
#include "core/rng.h"
#include "core/saved_slice.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace ermoe::testing {
namespace {

namespace fs = std::filesystem;

/// A tensor of the files.
struct Whole {
  std::string name;
  Shape shape;
  DType stored = DType::f32;
};

const std::vector<Whole> small_ones{
    {"experts", {8, 5, 7}},         {"bias", {13}},  {"scalar", {}},       {"none", {0, 3}}, {"moments", {6, 11}, DType::f64},
    {"narrow", {101}, DType::bf16}, {"one", {1, 1}}, {"wide", {3, 70'001}}};

/// Value i of a tensor, which is the same number in each of the dtypes.
float value(const Whole& whole, int64_t i) {
  const auto bits = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15 + whole.name.size() * 0xbf58476d1ce4e5b9;
  return static_cast<float>(bf16(static_cast<float>(static_cast<int64_t>(bits >> 40)) - 8e6f));
}

class Checks {
 public:
  Checks(Communicator& ranks, std::string folder)
      : ranks_(ranks), folder_(std::move(folder)), memory_(make_host_source(), Fill::poison), path_(folder_ + "/pieces") {}

  int run() {
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      what_ = fmt::format("pieces {}", seed);
      const std::vector<SavedSlice> pieces = random_pieces(small_ones, seed);
      same_file(small_ones, pieces, path_, SliceRoute::direct);
      reads_back(seed);
      same_file(small_ones, pieces, path_, SliceRoute::through_rank_0);
    }
    large();
    other_hosts();
    mistakes();
    a_rank_that_cannot_write();
    a_full_disk();
    return failed_;
  }

 private:
  bool first() const { return ranks_.rank() == 0; }
  bool last() const { return ranks_.rank() == ranks_.size() - 1; }

  void expect(bool holds, const std::string& claim) {
    if (holds) return;
    ++failed_;
    std::printf("FAILED  rank %d, %s: %s\n", ranks_.rank(), what_.c_str(), claim.c_str());
  }

  /// Elements [begin, end), held as `dtype`.
  Tensor elements(const Whole& whole, int64_t begin, int64_t end, DType dtype) {
    const Tensor single = Tensor::empty(memory_, {end - begin}, DType::f32), t = Tensor::empty(memory_, {end - begin}, dtype);
    for (int64_t i = begin; i < end; ++i) single.data<float>()[i - begin] = value(whole, i);
    convert(single, t);
    return t;
  }
  SavedSlice piece(const Whole& whole, int64_t begin, int64_t end, DType dtype = DType::f32) {
    return {.name = whole.name, .whole = whole.shape, .first = begin, .part = elements(whole, begin, end, dtype), .stored = whole.stored};
  }

  /// Where a tensor is cut, how each piece is held and by whom: the same on all ranks.
  template <typename Fn>
  void for_pieces(const Whole& whole, uint64_t seed, Fn&& fn) const {
    const RngKey key = RngKey{seed}.fold(whole.name.size()).fold(static_cast<uint64_t>(whole.shape.numel()));
    const auto W = static_cast<uint64_t>(ranks_.size());
    const auto numel = static_cast<uint64_t>(whole.shape.numel());
    std::vector<int64_t> cuts{0, whole.shape.numel()};
    for (uint64_t c = 0; c < uniform_int(key, 0, 3 * W); ++c) cuts.push_back(static_cast<int64_t>(uniform_int(key.fold(1), c, numel + 1)));
    std::ranges::sort(cuts);
    for (size_t c = 0; c + 1 < cuts.size(); ++c) {
      const DType dtype = std::array{DType::f32, DType::f64, DType::bf16}[uniform_int(key.fold(2), c, 3)];
      const auto writer = static_cast<int>(uniform_int(key.fold(3), c, W)), reader = static_cast<int>(uniform_int(key.fold(4), c, W));
      fn(cuts[c], cuts[c + 1], dtype, writer, reader);
    }
  }

  std::vector<SavedSlice> random_pieces(const std::vector<Whole>& wholes, uint64_t seed) {
    std::vector<SavedSlice> pieces;
    for (const Whole& whole : wholes) {
      std::vector<SavedSlice> own{{.name = whole.name, .whole = whole.shape, .stored = whole.stored}};
      for_pieces(whole, seed, [&](int64_t begin, int64_t end, DType dtype, int writer, int reader) {
        if (writer != ranks_.rank() && reader != ranks_.rank()) return;
        own.push_back(piece(whole, begin, end, dtype));
        own.back().writes = writer == ranks_.rank();
      });
      std::ranges::reverse(own);
      pieces.insert(pieces.end(), own.begin(), own.end());
    }
    return pieces;
  }

  /// Ranks write together what rank 0 writes alone.
  void same_file(const std::vector<Whole>& wholes, const std::vector<SavedSlice>& pieces, const std::string& path, SliceRoute route) {
    const SafetensorsFile::Metadata metadata{{"format", "ermoe"}};
    const uint32_t crc = write_slices(path, pieces, ranks_, metadata, route);
    if (first()) {
      std::vector<SavedSlice> whole_ones;
      for (const Whole& whole : wholes) whole_ones.push_back(piece(whole, 0, whole.shape.numel()));
      SelfCommunicator alone;
      const std::string expected = folder_ + "/whole";
      const uint32_t expected_crc = write_slices(expected, whole_ones, alone, metadata);
      expect(read_file(path, 1 << 30) == read_file(expected, 1 << 30), "the file is another than that of one rank");
      expect(expected_crc == file_crc32(expected), "the checksum of one rank");
      expect(!fs::exists(path + ".token"), "something was left beside the file");
    }
    expect(crc == file_crc32(path_), "the checksum");
    ranks_.barrier();
  }

  void reads_back(uint64_t seed) {
    std::vector<SavedSlice> to = random_pieces(small_ones, seed + 100), expected = to;
    for (SavedSlice& slice : to) {
      if (!slice.part.defined()) continue;
      slice.part = slice.part.clone();
      zero(slice.part);
    }
    read_slices(SafetensorsFile::open(path_), to, Unlisted::refused);
    for (size_t i = 0; i < to.size(); ++i) {
      if (!to[i].part.defined()) continue;
      expect(std::memcmp(to[i].part.raw(), expected[i].part.raw(), to[i].part.bytes()) == 0, "other bits of " + to[i].name);
    }
    ranks_.barrier();
  }

  /// A piece that is written, and travels, in several chunks.
  void large() {
    what_ = "large";
    const Whole whole{"large", {7'000'001}};
    std::vector<SavedSlice> pieces{{.name = "large", .whole = whole.shape}};
    if (first()) pieces.push_back(piece(whole, 7'000'000, 7'000'001));
    if (last()) pieces.push_back(piece(whole, 0, 7'000'000));
    same_file({whole}, pieces, path_, SliceRoute::direct);
    same_file({whole}, pieces, path_, SliceRoute::through_rank_0);
  }

  /// Some ranks do not find the file, or another one at its path: as on hosts that do not share the run folder.
  void other_hosts() {
    what_ = "hosts with folders of their own";
    const std::vector<SavedSlice> pieces = random_pieces(small_ones, 50);
    const bool here = ranks_.rank() % 2 == 0;
    same_file(small_ones, pieces, here ? path_ : folder_ + "/nowhere/pieces", SliceRoute::direct);
    const std::string other = fmt::format("{}/other-{}", folder_, ranks_.rank());
    std::string stale;
    if (!here) {
      stale = std::string(fs::file_size(path_), 'x');
      write_file(other, stale);
      write_file(other + ".token", "0123456789abcdef0123456789abcdef");
    }
    ranks_.barrier();
    same_file(small_ones, pieces, here ? path_ : other, SliceRoute::direct);
    if (!here) expect(read_file(other, 1 << 30) == stale, "wrote into a file of another host");
  }

  /// All ranks throw, and all the same sentence, which holds `text`; no file is left.
  void all_refuse(const std::vector<SavedSlice>& pieces, const std::string& path, SliceRoute route, const std::string& text) {
    std::string sentence = "nothing was refused";
    try {
      write_slices(path, pieces, ranks_, {}, route);
    } catch (const Error& e) {
      sentence = e.what();
    }
    const std::vector<std::string> sentences = gather_texts(ranks_, sentence);
    expect(sentences[0] == sentence, fmt::format("\"{}\" where rank 0 says \"{}\"", sentence, sentences[0]));
    expect(sentence.find(text) != std::string::npos, sentence);
    expect(!fs::exists(path) && !fs::exists(path + ".token"), "a file was left");
    ranks_.barrier();
  }

  void mistakes() {
    what_ = "mistakes";
    if (first()) fs::remove(path_);
    ranks_.barrier();
    const Whole experts{"experts", {8, 10}};
    const int W = ranks_.size();
    for (int who = 0; who < W; ++who) {  // that rank leaves out or repeats one element of its share
      const auto share = [&](int64_t before, int64_t after) {
        const int64_t begin = 80 * ranks_.rank() / W, end = 80 * (ranks_.rank() + 1) / W;
        const bool own = ranks_.rank() == who;
        return std::vector<SavedSlice>{piece(experts, begin - (own ? before : 0), end - (own ? after : 0))};
      };
      const int64_t end = 80 * (who + 1) / W, begin = 80 * who / W;
      const std::string hole = fmt::format("experts (8, 10): element {}, in row {} of 8, is written by no rank", end - 1, (end - 1) / 10);
      all_refuse(share(0, 1), path_, SliceRoute::direct, hole);
      if (who == 0) continue;
      const std::string twice =
          fmt::format("element {}, in row {} of 8, is written by rank {} and by rank {}", begin - 1, (begin - 1) / 10, who - 1, who);
      all_refuse(share(1, 0), path_, SliceRoute::direct, twice);
    }
    if (W == 1) return;
    std::vector<SavedSlice> pieces{{.name = last() ? "a" : "b", .whole = {0}}};
    all_refuse(pieces, path_, SliceRoute::direct, fmt::format("rank {} lists other tensors than rank 0", W - 1));
    pieces = {{.name = "a", .whole = {5}, .first = last() ? 6 : 0}};
    all_refuse(pieces, path_, SliceRoute::direct, fmt::format("rank {}: {}: a (5) has no elements 6 to 6", W - 1, path_));
    pieces = {piece({"a", {5}}, 0, first() ? 5 : 0)};
    all_refuse(pieces, folder_ + "/nowhere/pieces", SliceRoute::direct, "rank 0: " + folder_ + "/nowhere/pieces: cannot be created");
  }

  std::vector<SavedSlice> shares(const Whole& whole) {
    const int64_t numel = whole.shape.numel(), W = ranks_.size();
    return {piece(whole, numel * ranks_.rank() / W, numel * (ranks_.rank() + 1) / W)};
  }

  /// As on a full disk of one rank's own: it can write nothing.
  void a_rank_that_cannot_write() {
    std::signal(SIGXFSZ, SIG_IGN);
    const std::vector<SavedSlice> pieces = shares({"w", {1000, 10}});
    for (int who = 0; who < ranks_.size(); ++who) {
      what_ = fmt::format("rank {} cannot write", who);
      rlimit old{};
      ::getrlimit(RLIMIT_FSIZE, &old);
      const rlimit none{0, old.rlim_max};
      std::fflush(stdout);  // which may be a file
      if (ranks_.rank() == who) ::setrlimit(RLIMIT_FSIZE, &none);
      std::string text, refused;
      try {
        write_slices(path_, pieces, ranks_);
      } catch (const Error& e) {
        text = e.what();
      }
      try {
        write_slices(path_, pieces, ranks_, {}, SliceRoute::through_rank_0);
      } catch (const Error& e) {
        refused = e.what();
      }
      ::setrlimit(RLIMIT_FSIZE, &old);
      expect(text.find("File too large") != std::string::npos, "direct: " + text);
      expect(who == 0 ? refused.find("File too large") != std::string::npos : refused.empty(), "through rank 0: " + refused);
      for (const std::string& sentence : {text, refused})
        expect(gather_texts(ranks_, sentence)[0] == sentence, sentence + " at one rank alone");
      expect(fs::exists(path_) == (who > 0), "what is left of the file");
      ranks_.barrier();
    }
    if (first()) fs::remove(path_);
    ranks_.barrier();
  }

  void a_full_disk() {
    what_ = "a full disk";
    const std::string disk = folder_ + "/disk";
    std::string mounted;
    if (first()) {
      fs::create_directory(disk);
      if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1m") == 0) mounted = disk;
    }
    if (broadcast_text(ranks_, mounted).empty()) {
      if (first()) std::printf("skipped: a small disk can only be mounted by root\n");
      return;
    }
    const std::vector<SavedSlice> pieces = shares({"w", {1000, 1000}});
    all_refuse(pieces, disk + "/pieces", SliceRoute::direct, "No space left");
    all_refuse(pieces, disk + "/pieces", SliceRoute::through_rank_0, "No space left");
    const Whole fits{"w", {100, 1000}};
    write_slices(disk + "/pieces", shares(fits), ranks_);
    ranks_.barrier();
    if (first()) expect(::umount(disk.c_str()) == 0, "cannot be unmounted");
  }

  Communicator& ranks_;
  std::string folder_;
  CachingAllocator memory_;
  std::string path_, what_;
  int failed_ = 0;
};

}  // namespace

int check_slices(Ranks& ranks, const std::string& folder) {
  Communicator& world = ranks.world();
  ranks.watch().at(1, "checking");
  int failed = 0;
  for (const int n : gather_from_all(world, std::vector{Checks(world, folder).run()})) failed += n;
  if (world.rank() == 0) std::printf("%d ranks: %d checks failed\n", world.size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace ermoe::testing
