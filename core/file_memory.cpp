#include "core/file_memory.h"

#include "core/error.h"
#include "core/file_io.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace ermoe {
namespace {

class FileSource final : public MemorySource {
 public:
  explicit FileSource(std::string folder) : folder_(std::move(folder)) {
    const Descriptor probe = nameless();
    check_input(probe.valid(), "{}: no file can be made in it: {}", folder_, std::strerror(errno));
  }

  Device device() const override { return {}; }
  Stream stream() const override { return {}; }

  void* allocate(size_t bytes) override {
    const Descriptor file = nameless();
    if (!file.valid() || bytes > available() || ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)) != 0) return nullptr;
    void* const block = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    return block == MAP_FAILED ? nullptr : block;
  }
  void release(void* block, size_t bytes) noexcept override { ::munmap(block, bytes); }
  size_t available() const override {
    struct statvfs disk {};
    return ::statvfs(folder_.c_str(), &disk) == 0 ? static_cast<size_t>(disk.f_bavail) * disk.f_frsize : 0;
  }

  void upload(void* to, const void* host, size_t bytes) override { host_->upload(to, host, bytes); }
  void download(void* host, const void* from, size_t bytes) override { host_->download(host, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { host_->copy(to, from, bytes); }
  void set(void* to, uint8_t byte, size_t bytes) override { host_->set(to, byte, bytes); }

 private:
  Descriptor nameless() const {
    std::string path = folder_ + "/.ermoe-XXXXXX";
    Descriptor file(::mkostemp(path.data(), O_CLOEXEC));
    if (file.valid()) ::unlink(path.c_str());
    return file;
  }

  std::string folder_;
  const std::unique_ptr<MemorySource> host_ = make_host_source();  // whose copies are these
};

}  // namespace

std::unique_ptr<MemorySource> make_file_source(const std::string& folder) { return std::make_unique<FileSource>(folder); }

bool lies_in_memory(const std::string& folder) {
  struct statfs disk {};
  return ::statfs(folder.c_str(), &disk) == 0 && disk.f_type == TMPFS_MAGIC;
}

}  // namespace ermoe
