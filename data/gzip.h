// Reading files that may be gzip-compressed, whole or as a stream, without trusting them: a stream that is cut off, fails its
// checksum or is followed by something else is refused, and nothing grows beyond the size that the caller allows.
// Built on core/file_io.h; read next: data/tar.h.
#pragma once

#include "core/file_io.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ermoe {

/// A text's characters as bytes, for functions that take bytes.
inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// True where the bytes begin as a gzip stream does.
bool is_gzip(std::string_view bytes);

/// Reads from front to end what is in a file: inflated where it is gzip (of one or several members, zero padding allowed behind
/// the last), as it stands elsewhere. Not for several threads at once.
class GzipReader {
 public:
  /// Throws `InputError` where `path` cannot be opened or is no regular file.
  explicit GzipReader(const std::string& path);
  /// Reads `bytes`, which must outlive the reader; messages call them `name`.
  GzipReader(std::string_view bytes, std::string name);
  ~GzipReader();
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;

  const std::string& name() const { return name_; }
  /// Whether the source is gzip.
  bool compressed() const { return stream_ != nullptr; }
  /// The most bytes of content that the source can hold: its size, or what deflate could have made so small.
  uint64_t most_content() const;
  /// Bytes given out so far.
  uint64_t position() const { return position_; }

  /// Fills `to` with the next `bytes` bytes; fewer only at the end, which has then been verified. Throws `InputError` on damage.
  size_t read(void* to, size_t bytes);
  /// As `read`, but throws `InputError` where the content ends before.
  void read_exactly(void* to, size_t bytes);
  /// Everything that is left. Throws `InputError` where that is more than `max_bytes`.
  std::string read_rest(size_t max_bytes);

 private:
  struct Stream;

  void begin();
  void refill();
  size_t read_plain(char* to, size_t bytes);
  size_t inflate_some(char* to, size_t bytes);
  void end_member();
  size_t expected_size() const;

  std::string name_;
  std::optional<FileReader> file_;  // none where the source is memory
  std::string buffer_;              // the piece of the file that is being read
  std::string_view input_;          // what is left of that piece, or of the memory
  uint64_t file_offset_ = 0;        // behind the piece in buffer_
  uint64_t source_size_ = 0;
  std::unique_ptr<Stream> stream_;  // none where the source is not gzip
  bool finished_ = false;
  uint64_t position_ = 0;
};

/// The content of a gzip stream in memory. Throws `InputError` naming `name` where it is damaged, no gzip, or more than `max_bytes`.
std::string gunzip(std::string_view compressed, const std::string& name, size_t max_bytes);

/// `bytes` as one gzip member, which carries no name and no time: the same bytes give the same member.
std::string gzipped(std::string_view bytes);

/// The whole content of a file, inflated where it is gzip. Throws `InputError` where it is missing, damaged, or more than `max_bytes`.
std::string read_plain_or_gzip(const std::string& path, size_t max_bytes);

}  // namespace ermoe
