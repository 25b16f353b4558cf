// What the labels of a map of regions are called, and which of them a simulator planted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ermoe {

class RegionNames {
 public:
  /// Without a table: labels are called by their number.
  RegionNames() = default;
  /// `path`: a table with columns `label` and `name`, and perhaps `planted` (0 or 1), separated by tabs, or by commas where it ends in
  /// .csv. A file of the disk, or of the data set at `data`, a folder or an archive. Throws `InputError` that names it.
  RegionNames(const std::string& path, const std::string& data);

  /// "background" for 0 where the table does not say.
  std::string name(int64_t label) const;
  /// Ascending.
  const std::vector<int64_t>& planted() const { return planted_; }

 private:
  std::map<int64_t, std::string> names_;
  std::vector<int64_t> planted_;
};

}  // namespace ermoe
