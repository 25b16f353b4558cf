// Where the table and the volumes of a study lie among its files. Only data/subject_table.cpp includes this.
#pragma once

#include "data/file_tree.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

struct SubjectTableFile {
  std::string name;    // for messages
  std::string folder;  // of the tree, in which it lies: empty, or with a '/' at its end; empty too where it lies outside
  std::string text;
};

/// Reads the file `path` of the tree or else of the disk; for an empty one, the participants.tsv of the tree that lies highest.
/// Throws `InputError` where there is none.
SubjectTableFile open_subject_table(const FileTree& files, const std::string& path);

/// "sub-01" and "01" are one subject: "01".
std::string_view bare_subject(std::string_view id);
/// Who a path is of where nothing else says it: its part "sub-…", or all of it.
std::string subject_in_path(std::string_view path);

class SubjectFinder {
 public:
  /// `files` must outlive it. `folder` (of the tree) is where the table lies: paths are relative to it, and BIDS subjects lie in it.
  SubjectFinder(const FileTree& files, std::string folder);

  /// The file of that path, relative to the table's folder, to the tree, or absolute.
  std::optional<size_t> find(const std::string& path) const;
  /// The first by name of the subject's T1w volumes.
  std::optional<size_t> find_bids(std::string_view subject);
  bool has_bids() const { return !bids_.empty(); }
  const std::string& path(size_t file) const { return files_.paths()[file]; }
  const std::string& root() const { return files_.root(); }
  /// A sentence about the subjects so far of whom `find_bids` had several volumes; empty where there was none.
  std::string choices() const;

 private:
  void list_bids();

  const FileTree& files_;
  std::string folder_;
  std::map<std::string, std::vector<size_t>, std::less<>> bids_;  // bare subject -> files, in order
  int64_t several_ = 0;
  size_t first_chosen_ = 0;
};

}  // namespace ermoe
