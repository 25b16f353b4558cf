// Reading tar archives, plain or gzip-compressed, as data sets come in: an index of the regular files, then each file at random.
// Names are keys for lookup and never paths on the disk, so an archive cannot reach outside itself. Nothing is ever unpacked.
// Built on data/gzip.h; the data sources (ImageFolder, webdataset, CIFAR) read from it.
#pragma once

#include "core/file_io.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// A regular file inside an archive.
struct TarEntry {
  std::string name;     // as stored, without leading "./"
  uint64_t offset = 0;  // of its first byte in the archive (in the inflated archive, where that is compressed)
  uint64_t size = 0;    // bytes
};

/// What an archive may cost.
struct TarLimits {
  uint64_t max_inflated_bytes = uint64_t{2} << 30;  // a compressed archive is kept in memory, inflated: at most this much
  uint64_t max_entry_bytes = uint64_t{1} << 30;     // of one file given out by `read`
};

/// True where the first 512 bytes are a tar header with a right checksum.
bool is_tar(std::string_view head);

/// An archive: ustar, GNU (long names, large sizes) and PAX (path, size). Safe to use from several threads once built.
class TarReader {
 public:
  /// Indexes the archive. A plain one stays on the disk and costs memory for its names only; a compressed one is inflated into memory.
  /// Throws `InputError` where the file cannot be read, is no tar archive, is cut off (the two zero blocks at its end count), has a wrong
  /// checksum, holds sparse or multi-volume members, or is larger than `limits` allow.
  explicit TarReader(const std::string& path, TarLimits limits = {});

  const std::string& path() const { return path_; }
  /// The regular files in archive order. Where a name occurs again the last one counts, as in unpacking, in the place of the first.
  const std::vector<TarEntry>& entries() const { return entries_; }
  /// The file of that name, or none.
  const TarEntry* find(std::string_view name) const;
  /// A file's content. Throws `InputError` where it is above the limit, or the archive has shrunk since.
  std::string read(const TarEntry& entry) const;
  /// How messages name a file of this archive: `archive.tar: folder/name`, fit for a terminal whatever the name holds.
  std::string label(const TarEntry& entry) const;

 private:
  friend class TarIndexer;
  uint64_t size() const { return file_ ? file_->size() : content_.size(); }
  void read_at(uint64_t offset, void* to, size_t bytes) const;
  void index_names();

  std::string path_;
  TarLimits limits_;
  std::optional<FileReader> file_;  // a plain archive
  std::string content_;             // or an inflated one
  std::vector<TarEntry> entries_;
  std::vector<size_t> by_name_;  // indices into entries_, sorted by name
};

}  // namespace ermoe
