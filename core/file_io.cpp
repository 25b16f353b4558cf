#include "core/file_io.h"

#include "core/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

namespace ermoe {
namespace {

constexpr size_t piece = size_t{1} << 20;

std::string system_reason(int error) { return std::strerror(error); }

std::string folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr size_t limit = 80;
  std::string result;
  for (const char c : text) {
    if (result.size() >= limit) return result + "...";
    if (c >= ' ' && c <= '~')
      result += c;
    else
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return result;
}

bool Descriptor::reset() noexcept {
  const int fd = std::exchange(fd_, -1);
  return fd < 0 || ::close(fd) == 0;
}

FileReader::FileReader(std::string path) : path_(std::move(path)) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
  file_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  check_input(file_.valid(), "{}: cannot be opened: {}", path_, system_reason(errno));
  struct stat info {};
  check_input(::fstat(file_.get(), &info) == 0, "{}: cannot be read: {}", path_, system_reason(errno));
  check_input(!S_ISDIR(info.st_mode), "{}: is a folder, not a file", path_);
  check_input(S_ISREG(info.st_mode), "{}: is not a regular file", path_);
  size_ = static_cast<uint64_t>(info.st_size);
}

size_t FileReader::read_some(uint64_t offset, void* to, size_t bytes) const {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::pread(file_.get(), static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    check_input(n >= 0, "{}: cannot be read: {}", path_, system_reason(errno));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

void FileReader::read(uint64_t offset, void* to, size_t bytes) const {
  const size_t done = read_some(offset, to, bytes);
  check_input(done == bytes, "{}: ends after {} bytes where {} are needed", path_, offset + done, offset + bytes);
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  file_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  check_input(file_.valid(), "{}: cannot be created: {}", path_, system_reason(errno));
}

void FileWriter::write(const void* bytes, size_t count) {
  check(file_.valid(), "{}: written after it was closed", path_);
  for (size_t done = 0; done < count;) {
    const ssize_t n = ::write(file_.get(), static_cast<const char*>(bytes) + done, count - done);
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, "{}: cannot be written beyond {} bytes: {}", path_, written_, system_reason(errno));
    done += static_cast<size_t>(n);
    written_ += static_cast<uint64_t>(n);
  }
}

void FileWriter::close() {
  check(::fsync(file_.get()) == 0 || errno == EINVAL, "{}: cannot be written to the disk: {}", path_, system_reason(errno));
  check(file_.reset(), "{}: cannot be closed: {}", path_, system_reason(errno));
}

PartWriter PartWriter::create(const std::string& path, uint64_t bytes) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  check_input(file.valid(), "{}: cannot be created: {}", path, system_reason(errno));
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    const std::string reason = system_reason(errno);
    file.reset();
    ::unlink(path.c_str());
    fail("{}: cannot be made {} bytes long: {}", path, bytes, reason);
  }
  return {path, std::move(file), bytes};
}

PartWriter PartWriter::open(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  const bool sound = file.valid() && ::fstat(file.get(), &info) == 0;
  check_input(sound, "{}: cannot be opened for writing: {}", path, system_reason(errno));
  check_input(S_ISREG(info.st_mode), "{}: is not a regular file", path);
  return {path, std::move(file), static_cast<uint64_t>(info.st_size)};
}

void PartWriter::write(uint64_t offset, const void* bytes, size_t count) const {
  check(file_.valid(), "{}: written while it is not open", path_);
  for (size_t done = 0; done < count;) {
    const ssize_t n = ::pwrite(file_.get(), static_cast<const char*>(bytes) + done, count - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, "{}: cannot be written beyond {} bytes: {}", path_, offset + done, system_reason(errno));
    done += static_cast<size_t>(n);
  }
}

void PartWriter::close() {
  check(::fsync(file_.get()) == 0 || errno == EINVAL, "{}: cannot be written to the disk: {}", path_, system_reason(errno));
  check(file_.reset(), "{}: cannot be closed: {}", path_, system_reason(errno));
}

bool path_exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string read_file(const std::string& path, size_t max_bytes) {
  const FileReader file(path);
  check_input(file.size() <= max_bytes, "{}: {} bytes, above the limit of {}", path, file.size(), max_bytes);
  // One byte more than it should have shows the end. Files of /proc say that they are empty, and a log may grow meanwhile.
  std::string content;
  size_t length = 0, step = file.size() + 1;
  do {
    content.resize(std::min(length + step, max_bytes + 1));
    length += file.read_some(length, content.data() + length, content.size() - length);
    check_input(length <= max_bytes, "{}: above the limit of {} bytes", path, max_bytes);
    step = piece;
  } while (length == content.size());
  content.resize(length);
  return content;
}

void write_file(const std::string& path, std::string_view bytes) {
  const std::string beside = fmt::format("{}.{}.partial", path, ::getpid());
  try {
    FileWriter file(beside);
    file.write(bytes);
    file.close();
    rename_path(beside, path);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  sync_path(folder_of(path));
}

uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t before) {
  return static_cast<uint32_t>(::crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

uint32_t joined_crc32(uint32_t first, uint32_t second, uint64_t bytes) {
  return static_cast<uint32_t>(::crc32_combine(first, second, static_cast<z_off_t>(bytes)));
}

uint32_t file_crc32(const std::string& path) {
  const FileReader file(path);
  std::vector<std::byte> buffer(std::min<uint64_t>(piece, file.size()));
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < file.size(); offset += buffer.size()) {
    const auto bytes = static_cast<size_t>(std::min<uint64_t>(buffer.size(), file.size() - offset));
    file.read(offset, buffer.data(), bytes);
    crc = crc32_of(std::span(buffer).first(bytes), crc);
  }
  return crc;
}

void sync_path(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  check(file.valid(), "{}: cannot be opened: {}", path, system_reason(errno));
  // Some file systems cannot sync a folder and say EINVAL; there is nothing better to be had from them.
  check(::fsync(file.get()) == 0 || errno == EINVAL, "{}: cannot be written to the disk: {}", path, system_reason(errno));
}

void rename_path(const std::string& from, const std::string& to) {
  check(std::rename(from.c_str(), to.c_str()) == 0, "{}: cannot be renamed to {}: {}", from, to, system_reason(errno));
}

}  // namespace ermoe
