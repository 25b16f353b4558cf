#include "core/allocator.h"

#include "core/error.h"
#include "core/free_memory.h"

#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace ermoe {
namespace {

constexpr size_t huge_page = size_t{2} << 20;
constexpr size_t alignment = 64;

size_t physical_memory() { return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

class HostSource final : public MemorySource {
 public:
  Device device() const override { return {}; }
  Stream stream() const override { return {}; }

  void* allocate(size_t bytes) override {
    // The system promises more than it has and ends the process later; what cannot fit is refused while a message can still be given.
    if (bytes > physical_memory()) return nullptr;
    const bool large = bytes >= huge_page;
    void* block = std::aligned_alloc(large ? huge_page : alignment, bytes);
    if (block != nullptr && large) madvise(block, bytes, MADV_HUGEPAGE);  // a hint: failure costs speed only
    return block;
  }

  void release(void* block, size_t) noexcept override { std::free(block); }
  size_t available() const override { return free_memory(); }

  void upload(void* to, const void* host, size_t bytes) override { copy(to, host, bytes); }
  void download(void* host, const void* from, size_t bytes) override { copy(host, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memmove(to, from, bytes);
  }
  void set(void* to, uint8_t byte, size_t bytes) override {
    if (bytes > 0) std::memset(to, byte, bytes);
  }
};

/// Small blocks to 512 B, large ones to 1/8 of their power of two (at least 4 KiB), so that nearly equal
/// sizes share a free list entry; blocks of 2 MiB and more to whole huge pages, as aligned_alloc wants.
size_t round_size(size_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes <= 8192) return (bytes + 511) / 512 * 512;
  size_t step = 4096;
  while (step * 16 <= bytes) step *= 2;
  const size_t rounded = (bytes + step - 1) / step * step;
  return rounded < huge_page ? rounded : (rounded + huge_page - 1) / huge_page * huge_page;
}

bool wants_exact_blocks(Device device) {
  const char* memory = std::getenv("ERMOE_GPU_MEMORY");
  return device.is_cuda() && memory != nullptr && std::string_view(memory) == "exact";
}

}  // namespace

std::unique_ptr<MemorySource> make_host_source() { return std::make_unique<HostSource>(); }

CachingAllocator::CachingAllocator(std::unique_ptr<MemorySource> source, Fill fill)
    : source_(std::move(source)),
      device_(source_->device()),
      exact_(wants_exact_blocks(device_)),
      fill_(exact_ ? Fill::none : fill) {}  // what is filled counts as written

CachingAllocator::~CachingAllocator() { trim(); }

Block CachingAllocator::allocate(size_t bytes, const char* scope) {
  const size_t wanted = exact_ ? std::max<size_t>(bytes, 1) : round_size(bytes);
  std::unique_lock lock(mutex_);
  Block block{nullptr, wanted, scope};
  const auto it = free_.lower_bound(wanted);
  if (it != free_.end() && it->first <= 2 * wanted) {
    block.bytes = it->first;
    block.data = it->second;
    free_.erase(it);
  } else {
    block.data = take_from_source(wanted, scope, lock);
  }
  stats_.live += block.bytes;
  stats_.peak = std::max(stats_.peak, stats_.live);
  live_by_scope_[scope] += block.bytes;
  if (fill_ == Fill::poison) source_->set(block.data, 0xff, block.bytes);
  return block;
}

void CachingAllocator::release(const Block& block) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.live -= block.bytes;
  live_by_scope_[block.scope] -= block.bytes;
  if (exact_) {
    source_->release(block.data, block.bytes);
    stats_.reserved -= block.bytes;
    return;
  }
  free_.emplace(block.bytes, block.data);
}

void* CachingAllocator::take_from_source(size_t bytes, const char* scope, std::unique_lock<std::mutex>& lock) {
  stats_.source_calls += 1;
  void* data = source_->allocate(bytes);
  for (CachingAllocator* giver : {this, other_}) {
    if (data != nullptr || giver == nullptr) continue;
    lock.unlock();  // the two may wait for each other
    giver->give_back();
    lock.lock();
    data = source_->allocate(bytes);
  }
  if (data == nullptr) {
    lock.unlock();
    refuse(bytes, scope);
  }
  stats_.reserved += bytes;
  return data;
}

void CachingAllocator::refuse(size_t bytes, const char* scope) const {
  const auto mib = [](size_t n) { return static_cast<double>(n) / 1048576.0; };
  size_t live = stats().live;
  std::map<std::string, size_t> merged;
  for (const auto& [name, used] : users()) merged[name] += used;
  if (other_ != nullptr) {
    live += other_->stats().live;
    for (const auto& [name, used] : other_->users()) merged[name] += used;
  }
  std::vector<std::pair<std::string, size_t>> sorted(merged.begin(), merged.end());
  std::ranges::sort(sorted, [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string largest;
  for (size_t i = 0; i < std::min<size_t>(5, sorted.size()); ++i)
    largest += fmt::format("{}{} {:.1f} MiB", i > 0 ? ", " : "", sorted[i].first, mib(sorted[i].second));
  throw OutOfMemory(fmt::format("[memory] out of memory on the {}: {:.1f} MiB wanted for {}, {:.1f} MiB free, {:.1f} MiB in use{}",
                                device_.is_cuda() ? "GPU" : "CPU", mib(bytes), scope, mib(source_->available()), mib(live),
                                largest.empty() ? "" : fmt::format(" (largest: {})", largest)));
}

void CachingAllocator::share(CachingAllocator& a, CachingAllocator& b) {
  a.other_ = &b;
  b.other_ = &a;
}

std::shared_ptr<const void> CachingAllocator::keep_cache(std::function<void()> let_go) {
  const std::lock_guard lock(mutex_);
  const auto keeper = keepers_.insert(keepers_.end(), std::move(let_go));
  return {&*keeper, [this, keeper](const void*) {
            const std::lock_guard ending(mutex_);
            keepers_.erase(keeper);
          }};
}

void CachingAllocator::give_back() {
  std::unique_lock lock(mutex_);
  const std::list<std::function<void()>> keepers = keepers_;  // each may take itself off the list
  lock.unlock();
  for (const auto& let_go : keepers) let_go();
  trim();
}

AllocatorStats CachingAllocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

std::vector<std::pair<std::string, size_t>> CachingAllocator::users() const {
  std::map<std::string, size_t> merged;  // the same literal may have several addresses
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [scope, bytes] : live_by_scope_)
      if (bytes > 0) merged[scope] += bytes;
  }
  std::vector<std::pair<std::string, size_t>> sorted(merged.begin(), merged.end());
  std::ranges::sort(sorted, [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

void CachingAllocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak = stats_.live;
}

void CachingAllocator::trim() {
  const std::lock_guard lock(mutex_);
  if (!keepers_.empty()) return;
  for (const auto& [size, data] : free_) {
    source_->release(data, size);
    stats_.reserved -= size;
  }
  free_.clear();
}

}  // namespace ermoe
