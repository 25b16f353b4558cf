// Files, with every fault turned into one sentence that names the file. Reading refuses what is no regular file (a pipe would
// hang, a device never ends); writing is atomic: whoever looks sees the old file or the new one, never a part, even after a crash.
// Read next: core/safetensors.h, models/checkpoint_store.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace ermoe {

/// `text` as it may stand in a one-line message: control characters and bytes above ASCII as \xNN, at most about 80 characters.
std::string printable(std::string_view text);

/// An open file, closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  /// Closes; false where the system reports a fault (a late write error). `errno` says which.
  bool reset() noexcept;

 private:
  int fd_;
};

/// A regular file open for reading at any offset. Safe to use from several threads.
class FileReader {
 public:
  /// Throws `InputError` where `path` cannot be opened or is no regular file.
  explicit FileReader(std::string path);

  const std::string& path() const { return path_; }
  /// Bytes when it was opened.
  uint64_t size() const { return size_; }
  /// Fills `to` with `bytes` bytes from `offset`. Throws `InputError` where the file ends before.
  void read(uint64_t offset, void* to, size_t bytes) const;

 private:
  friend std::string read_file(const std::string& path, size_t max_bytes);
  /// As many bytes as there are, up to `bytes`.
  size_t read_some(uint64_t offset, void* to, size_t bytes) const;

  std::string path_;
  Descriptor file_;
  uint64_t size_ = 0;
};

/// Writes a file from front to end. Until `close` returns, nothing is promised about its content.
class FileWriter {
 public:
  /// Creates or empties `path`. Throws `InputError` where that is impossible.
  explicit FileWriter(std::string path);

  const std::string& path() const { return path_; }
  uint64_t written() const { return written_; }
  /// Throws `Error` with the system's reason (disk full, quota, file too large).
  void write(const void* bytes, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  /// Forces the content to the disk and closes. Throws `Error` where either fails.
  void close();

 private:
  std::string path_;
  Descriptor file_;
  uint64_t written_ = 0;
};

/// A file of known length that several processes write at once, each its own bytes. Until every one's `close` returned, nothing is
/// promised about its content.
class PartWriter {
 public:
  /// One that writes nothing.
  PartWriter() = default;
  /// Creates or empties `path` and makes it `bytes` long. Throws `InputError` where it cannot be created, `Error` where it cannot be so
  /// long; then it is removed.
  static PartWriter create(const std::string& path, uint64_t bytes);
  /// Opens what another process created. Throws `InputError`.
  static PartWriter open(const std::string& path);

  /// Bytes when it was opened.
  uint64_t size() const { return size_; }
  /// Writes at `offset`. Throws `Error` with the system's reason (disk full, quota, file too large).
  void write(uint64_t offset, const void* bytes, size_t count) const;
  /// Forces what was written to the disk and closes. Throws `Error` where either fails.
  void close();

 private:
  PartWriter(std::string path, Descriptor file, uint64_t size) : path_(std::move(path)), file_(std::move(file)), size_(size) {}

  std::string path_;
  Descriptor file_;
  uint64_t size_ = 0;
};

/// The whole file. Throws `InputError` where it is missing, no regular file or longer than `max_bytes`.
std::string read_file(const std::string& path, size_t max_bytes);

/// Whether there is anything at `path`; false too where that cannot be told.
bool path_exists(const std::string& path);

/// Replaces `path` by `bytes` atomically and durably: written beside it, synced, renamed. On failure the old file stays, the new
/// one is removed, and `Error` (or `InputError`, where the folder cannot be written) says why.
void write_file(const std::string& path, std::string_view bytes);

/// CRC-32 (zlib's) of bytes, continuing that of those before them.
uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t before = 0);

/// CRC-32 of what `first` is of, followed by `bytes` bytes which `second` is of.
uint32_t joined_crc32(uint32_t first, uint32_t second, uint64_t bytes);

/// CRC-32 (zlib's) of a file's content, in 1 MiB pieces. Throws `InputError` where it cannot be read.
uint32_t file_crc32(const std::string& path);

/// Forces a file's content, or a folder's entries, to the disk. Throws `Error` where that fails.
void sync_path(const std::string& path);

/// Renames within one file system; replaces a file, never a folder that has content. Throws `Error`.
void rename_path(const std::string& from, const std::string& to);

}  // namespace ermoe
