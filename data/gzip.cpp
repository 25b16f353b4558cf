// Inflation by zlib, which verifies each member's checksum and length. See data/gzip.h.
#include "data/gzip.h"

#include "core/error.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

namespace ermoe {
namespace {

constexpr size_t piece = size_t{256} << 10;
// zlib counts in 32 bits.
constexpr size_t most_at_once = size_t{1} << 30;
// The most that deflate can shrink anything.
constexpr uint64_t max_ratio = 1032;
constexpr int gzip_format = 16 + MAX_WBITS;

}  // namespace

struct GzipReader::Stream {
  z_stream z{};
  Stream() { check(inflateInit2(&z, gzip_format) == Z_OK, "[gzip] zlib could not be set up"); }
  ~Stream() { inflateEnd(&z); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
};

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

GzipReader::GzipReader(const std::string& path) : name_(path), file_(path), source_size_(file_->size()) { begin(); }

GzipReader::GzipReader(std::string_view bytes, std::string name) : name_(std::move(name)), input_(bytes), source_size_(bytes.size()) {
  begin();
}

GzipReader::~GzipReader() = default;

void GzipReader::begin() {
  refill();
  if (is_gzip(input_)) stream_ = std::make_unique<Stream>();
}

/// Reads the file's next piece if the last one is used up; afterwards `input_` is empty only at the end.
void GzipReader::refill() {
  if (!input_.empty() || !file_) return;
  buffer_.resize(static_cast<size_t>(std::min<uint64_t>(piece, source_size_ - file_offset_)));
  file_->read(file_offset_, buffer_.data(), buffer_.size());
  file_offset_ += buffer_.size();
  input_ = buffer_;
}

size_t GzipReader::read(void* to, size_t bytes) {
  auto* out = static_cast<char*>(to);
  size_t done = 0;
  while (done < bytes && !finished_) done += compressed() ? inflate_some(out + done, bytes - done) : read_plain(out + done, bytes - done);
  position_ += done;
  return done;
}

size_t GzipReader::read_plain(char* to, size_t bytes) {
  refill();
  finished_ = input_.empty();
  const size_t n = std::min(bytes, input_.size());
  if (n > 0) std::memcpy(to, input_.data(), n);
  input_.remove_prefix(n);
  return n;
}

size_t GzipReader::inflate_some(char* to, size_t bytes) {
  refill();
  check_input(!input_.empty(), "{}: the gzip data ends too early, after {} bytes of content", name_, position_);
  z_stream& z = stream_->z;
  const auto offered = static_cast<uInt>(std::min(input_.size(), most_at_once));
  const auto wanted = static_cast<uInt>(std::min(bytes, most_at_once));
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_.data()));
  z.avail_in = offered;
  z.next_out = reinterpret_cast<Bytef*>(to);
  z.avail_out = wanted;
  const int result = inflate(&z, Z_NO_FLUSH);
  check_input(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, "{}: the gzip data is damaged: {}", name_,
              z.msg ? z.msg : "zlib cannot read on");
  input_.remove_prefix(offered - z.avail_in);
  if (result == Z_STREAM_END) end_member();
  return wanted - z.avail_out;
}

/// Behind a member comes another one, zeros, or the end.
void GzipReader::end_member() {
  refill();
  if (!input_.empty() && input_.front() == '\x1f') {
    check(inflateReset(&stream_->z) == Z_OK, "[gzip] zlib could not be reset");
    return;
  }
  for (; !input_.empty(); input_ = {}, refill())
    check_input(input_.find_first_not_of('\0') == std::string_view::npos, "{}: the gzip data is followed by something else", name_);
  finished_ = true;
}

void GzipReader::read_exactly(void* to, size_t bytes) {
  const uint64_t from = position_;
  const size_t done = read(to, bytes);
  check_input(done == bytes, "{}: its content ends after {} bytes where {} are needed", name_, from + done, from + bytes);
}

std::string GzipReader::read_rest(size_t max_bytes) {
  std::string content;
  content.reserve(std::min(expected_size(), max_bytes) + 1);
  // One byte beyond what should be there shows the end.
  for (size_t length = 0;;) {
    const size_t room = std::min(std::max(content.capacity() - length, piece), max_bytes + 1 - length);
    content.resize(length + room);
    const size_t n = read(content.data() + length, room);
    length += n;
    check_input(length <= max_bytes, "{}: its content is above the limit of {} bytes", name_, max_bytes);
    if (n < room) {
      content.resize(length);
      return content;
    }
  }
}

/// The size that a gzip file claims in its last four bytes, which may be a lie: a hint for reserving, bounded by what can be true.
size_t GzipReader::expected_size() const {
  if (!compressed()) return static_cast<size_t>(source_size_ - position_);
  unsigned char tail[4] = {};
  if (source_size_ < sizeof tail) return 0;
  if (file_)
    file_->read(source_size_ - sizeof tail, tail, sizeof tail);
  else
    std::memcpy(tail, input_.data() + input_.size() - sizeof tail, std::min(input_.size(), sizeof tail));
  const uint64_t claim = tail[0] | tail[1] << 8 | tail[2] << 16 | uint64_t{tail[3]} << 24;
  return static_cast<size_t>(std::min(claim, most_content()));
}

uint64_t GzipReader::most_content() const { return compressed() ? source_size_ * max_ratio : source_size_; }

std::string gunzip(std::string_view compressed, const std::string& name, size_t max_bytes) {
  GzipReader reader(compressed, name);
  check_input(reader.compressed(), "{}: is no gzip data", name);
  return reader.read_rest(max_bytes);
}

std::string gzipped(std::string_view bytes) {
  z_stream z{};
  check(deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, gzip_format, 8, Z_DEFAULT_STRATEGY) == Z_OK, "[gzip] zlib could not be set up");
  std::string out(deflateBound(&z, bytes.size()), '\0');
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  size_t left = bytes.size();
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  int result = Z_OK;
  while (result == Z_OK) {
    if (z.avail_in == 0) left -= z.avail_in = static_cast<uInt>(std::min(left, most_at_once));
    z.avail_out = static_cast<uInt>(std::min(out.size() - z.total_out, most_at_once));
    result = deflate(&z, left == 0 ? Z_FINISH : Z_NO_FLUSH);
  }
  out.resize(z.total_out);
  deflateEnd(&z);
  check(result == Z_STREAM_END, "[gzip] zlib could not compress {} bytes", bytes.size());
  return out;
}

std::string read_plain_or_gzip(const std::string& path, size_t max_bytes) { return GzipReader(path).read_rest(max_bytes); }

}  // namespace ermoe
