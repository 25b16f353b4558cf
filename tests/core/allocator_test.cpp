// The caching allocator: reuse, accounting, poison, and what happens when the source runs dry.
#include "core/allocator.h"

#include "core/error.h"
#include "core/rng.h"
#include "core/workspace.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

namespace ermoe::testing {
namespace {

/// Host memory from the system; how much of it there is, its kind decides.
class HostMemory : public MemorySource {
 public:
  Device device() const override { return {}; }
  Stream stream() const override { return {}; }
  void upload(void* to, const void* host, size_t bytes) override { source_->upload(to, host, bytes); }
  void download(void* host, const void* from, size_t bytes) override { source_->download(host, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { source_->copy(to, from, bytes); }
  void set(void* to, uint8_t byte, size_t bytes) override { source_->set(to, byte, bytes); }

 protected:
  const std::unique_ptr<MemorySource> source_ = make_host_source();
};

/// Host memory of a limited size that checks what it gets back, and may pass for a GPU's.
class LimitedSource final : public HostMemory {
 public:
  explicit LimitedSource(size_t limit, std::map<void*, size_t>& out, Device device = {}) : limit_(limit), out_(out), device_(device) {}
  Device device() const override { return device_; }
  size_t available() const override { return limit_ - held_; }
  void* allocate(size_t bytes) override {
    if (held_ + bytes > limit_) return nullptr;
    void* block = source_->allocate(bytes);
    held_ += bytes;
    out_[block] = bytes;
    return block;
  }
  void release(void* block, size_t bytes) noexcept override {
    EXPECT_EQ(out_[block], bytes) << "given back with another size";
    out_.erase(block);
    held_ -= bytes;
    source_->release(block, bytes);
  }

 private:
  size_t limit_, held_ = 0;
  std::map<void*, size_t>& out_;
  Device device_;
};

TEST(Allocator, ReusesFreedBlocks) {
  CachingAllocator allocator(make_host_source());
  const Block first = allocator.allocate(10'000, "a");
  allocator.release(first);
  const Block again = allocator.allocate(9'900, "b");
  EXPECT_EQ(again.data, first.data);
  EXPECT_EQ(allocator.stats().source_calls, 1);
  const Block small = allocator.allocate(100, "c");
  EXPECT_EQ(allocator.stats().source_calls, 2);
  allocator.release(again);
  const Block tiny = allocator.allocate(200, "d");
  EXPECT_NE(tiny.data, again.data) << "a block far too large was taken";
  allocator.release(small);
  allocator.release(tiny);
}

TEST(Allocator, TakesTheBestFit) {
  CachingAllocator allocator(make_host_source());
  const Block large = allocator.allocate(16'000, "x"), fitting = allocator.allocate(12'000, "x");
  allocator.release(large);
  allocator.release(fitting);
  const Block got = allocator.allocate(11'900, "x");
  EXPECT_EQ(got.data, fitting.data);
  allocator.release(got);
}

TEST(Allocator, ARepeatedStepNeverAsksTheSourceAgain) {
  CachingAllocator allocator(make_host_source());
  int64_t after_first = 0;
  for (int step = 0; step < 5; ++step) {
    std::vector<Block> blocks;
    for (uint64_t i = 0; i < 200; ++i) blocks.push_back(allocator.allocate(1 + uniform_int(RngKey{1}, i, 200'000), "step"));
    for (const Block& block : blocks) allocator.release(block);
    if (step == 0) after_first = allocator.stats().source_calls;
  }
  EXPECT_EQ(allocator.stats().source_calls, after_first);
}

TEST(Allocator, CountsLivePeakReserved) {
  CachingAllocator allocator(make_host_source());
  const Block a = allocator.allocate(1000, "a"), b = allocator.allocate(5000, "b");
  EXPECT_EQ(allocator.stats().live, a.bytes + b.bytes);
  allocator.release(a);
  EXPECT_EQ(allocator.stats().live, b.bytes);
  EXPECT_EQ(allocator.stats().peak, a.bytes + b.bytes);
  EXPECT_EQ(allocator.stats().reserved, a.bytes + b.bytes);
  allocator.reset_peak();
  EXPECT_EQ(allocator.stats().peak, b.bytes);
  EXPECT_EQ(allocator.users(), (std::vector<std::pair<std::string, size_t>>{{"b", b.bytes}}));
  allocator.trim();
  EXPECT_EQ(allocator.stats().reserved, b.bytes);
  allocator.release(b);
  allocator.trim();
  EXPECT_EQ(allocator.stats().reserved, 0u);
  EXPECT_EQ(allocator.stats().live, 0u);
}

TEST(Allocator, BlocksAreAlignedLargeEnoughAndApart) {
  CachingAllocator allocator(make_host_source());
  std::map<std::byte*, size_t> blocks;
  std::vector<Block> held;
  for (uint64_t i = 0; i < 300; ++i) {
    const size_t bytes = i % 50 == 0 ? (size_t{2} << 20) + i : uniform_int(RngKey{2}, i, 50'000);
    held.push_back(allocator.allocate(bytes, "x"));
    EXPECT_GE(held.back().bytes, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(held.back().data) % 64, 0u);
    std::memset(held.back().data, 1, held.back().bytes);
    blocks[static_cast<std::byte*>(held.back().data)] = held.back().bytes;
  }
  std::byte* end = nullptr;
  for (const auto& [begin, bytes] : blocks) {
    EXPECT_GE(begin, end);
    end = begin + bytes;
  }
  EXPECT_EQ(blocks.size(), held.size());
  for (const Block& block : held) allocator.release(block);
}

TEST(Allocator, PoisonFillsEveryBlockAlsoAReusedOne) {
  CachingAllocator allocator(make_host_source(), Fill::poison);
  for (int round = 0; round < 2; ++round) {
    const Block block = allocator.allocate(4096, "x");
    const auto* bytes = static_cast<const unsigned char*>(block.data);
    for (size_t i = 0; i < block.bytes; ++i) ASSERT_EQ(bytes[i], 0xff);
    std::memset(block.data, 0, block.bytes);
    allocator.release(block);
  }
  EXPECT_EQ(allocator.stats().source_calls, 1);
}

TEST(Allocator, GivesItsCacheBackBeforeItFails) {
  std::map<void*, size_t> out;
  {
    CachingAllocator allocator(std::make_unique<LimitedSource>(100'000, out));
    const Block a = allocator.allocate(20'000, "kept");
    allocator.release(allocator.allocate(60'000, "cached"));
    const Block b = allocator.allocate(70'000, "large");  // fits only without the cached block, which is too small for it
    try {
      allocator.allocate(30'000, "hopeful");
      ADD_FAILURE() << "more than there is";
    } catch (const Error& e) {
      const std::string what = e.what();
      EXPECT_NE(what.find("wanted for hopeful"), std::string::npos) << what;
      EXPECT_LT(what.find("large 0.1 MiB"), what.find("kept 0.0 MiB")) << what;
    }
    EXPECT_EQ(allocator.stats().live, a.bytes + b.bytes);
    allocator.release(a);
    allocator.release(b);
  }
  EXPECT_TRUE(out.empty()) << "the source did not get everything back";
}

/// Two sources of one memory of `limit` bytes.
class SharedSource final : public HostMemory {
 public:
  SharedSource(size_t limit, size_t& held) : limit_(limit), held_(held) {}
  size_t available() const override { return limit_ - held_; }
  void* allocate(size_t bytes) override {
    if (held_ + bytes > limit_) return nullptr;
    held_ += bytes;
    return source_->allocate(bytes);
  }
  void release(void* block, size_t bytes) noexcept override {
    held_ -= bytes;
    source_->release(block, bytes);
  }

 private:
  size_t limit_;
  size_t& held_;
};

constexpr size_t mebibyte = 1048576;

struct SharedMemory {
  SharedMemory() { CachingAllocator::share(first, second); }
  size_t held = 0;
  CachingAllocator first{std::make_unique<SharedSource>(8 * mebibyte, held)}, second{std::make_unique<SharedSource>(8 * mebibyte, held)};
};

TEST(Allocator, TheOtherOfADeviceGivesItsCacheBackBeforeOneFails) {
  SharedMemory memory;
  for (int round = 0; round < 2; ++round) {  // either way
    memory.second.release(memory.second.allocate(6 * mebibyte, "cached"));
    const Block block = memory.first.allocate(4 * mebibyte, "x");
    EXPECT_EQ(memory.second.stats().reserved, 0u);
    memory.first.release(block);
    const Block back = memory.second.allocate(6 * mebibyte, "y");
    EXPECT_EQ(memory.first.stats().reserved, 0u);
    memory.second.release(back);
  }
}

TEST(Allocator, RefusesInOneSentenceWithWhatIsFreeAndTheUsersOfBoth) {
  SharedMemory memory;
  const Block a = memory.first.allocate(2 * mebibyte, "weights"), b = memory.second.allocate(4 * mebibyte, "gelu"),
              c = memory.second.allocate(1 * mebibyte, "weights");
  try {
    memory.first.allocate(6 * mebibyte, "attention");
    ADD_FAILURE() << "more than there is";
  } catch (const OutOfMemory& e) {
    EXPECT_STREQ(e.what(),
                 "[memory] out of memory on the CPU: 6.0 MiB wanted for attention, 1.0 MiB free, 7.0 MiB in use "
                 "(largest: gelu 4.0 MiB, weights 3.0 MiB)");
  }
  memory.first.release(a);
  memory.second.release(b);
  memory.second.release(c);
}

TEST(Allocator, AKeptCacheStaysUntilItsKeeperLetsGo) {
  SharedMemory memory;
  bool stubborn = true;
  std::shared_ptr<const void> keeper = memory.second.keep_cache([&] {
    if (!stubborn) keeper.reset();
  });
  const Block recorded = memory.second.allocate(6 * mebibyte, "recorded");
  memory.second.release(recorded);
  memory.second.trim();
  EXPECT_EQ(memory.second.stats().reserved, recorded.bytes);
  EXPECT_THROW(memory.first.allocate(4 * mebibyte, "x"), OutOfMemory);
  EXPECT_EQ(memory.second.stats().reserved, recorded.bytes);
  stubborn = false;
  memory.first.release(memory.first.allocate(4 * mebibyte, "x"));
  EXPECT_EQ(keeper, nullptr);
  EXPECT_EQ(memory.second.stats().reserved, 0u);
}

TEST(Allocator, ExactBlocksOfAGpuHaveTheSizeAskedForAndGoStraightBack) {
  setenv("ERMOE_GPU_MEMORY", "exact", 1);
  std::map<void*, size_t> out;
  {
    CachingAllocator gpu(std::make_unique<LimitedSource>(1'000'000, out, Device{Device::Kind::cuda, 0}), Fill::poison),
        host(make_host_source());
    EXPECT_TRUE(gpu.exact());
    EXPECT_FALSE(host.exact());
    EXPECT_EQ(gpu.fill(), Fill::none);
    const Block block = gpu.allocate(832, "x");
    EXPECT_EQ(out.at(block.data), 832u);
    gpu.release(block);
    EXPECT_TRUE(out.empty());
    EXPECT_EQ(gpu.stats().reserved, 0u);
    Workspace workspace(gpu);
    {
      const auto first = workspace.borrow<float>(16), second = workspace.borrow<float>(48);
      EXPECT_EQ(out.at(first.data()), 64u);
      EXPECT_EQ(out.at(second.data()), 192u);
    }
    EXPECT_TRUE(out.empty()) << "loans that ended";
  }
  unsetenv("ERMOE_GPU_MEMORY");
  EXPECT_FALSE(CachingAllocator(std::make_unique<LimitedSource>(1, out, Device{Device::Kind::cuda, 0})).exact());
}

TEST(Allocator, ThreadsMayShareIt) {
  CachingAllocator allocator(make_host_source());
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&allocator, t] {
      for (uint64_t i = 0; i < 2000; ++i) {
        const Block block = allocator.allocate(1 + uniform_int(RngKey{t}, i, 20'000), "thread");
        std::memset(block.data, static_cast<int>(t), block.bytes);
        EXPECT_EQ(static_cast<const unsigned char*>(block.data)[block.bytes - 1], t);
        allocator.release(block);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allocator.stats().live, 0u);
}

}  // namespace
}  // namespace ermoe::testing
