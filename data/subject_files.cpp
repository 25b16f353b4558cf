#include "data/subject_files.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/pieces.h"

#include <algorithm>
#include <filesystem>

namespace ermoe {

namespace {

constexpr size_t largest_table = size_t{256} << 20;

std::string plain(const std::string& path) { return std::filesystem::path(path).lexically_normal().generic_string(); }

/// `path` as the tree would call it, were it one of its files.
std::string tree_path(const FileTree& files, const std::string& path) {
  std::string root = plain(files.root());
  if (!root.ends_with('/')) root += '/';
  const std::string whole = plain(path);
  return whole.starts_with(root) ? whole.substr(root.size()) : whole;
}

std::optional<size_t> highest_table(const FileTree& files) {
  const auto& paths = files.paths();
  std::optional<size_t> best;
  const auto depth = [&](size_t i) { return std::count(paths[i].begin(), paths[i].end(), '/'); };
  for (size_t i = 0; i < paths.size(); ++i)
    if (base_name(paths[i]) == "participants.tsv" && (!best || depth(i) < depth(*best))) best = i;
  return best;
}

/// True for sub-ID/anat/sub-ID_*T1w.nii[.gz], with a folder ses-* between them or without.
bool is_bids_volume(const std::vector<std::string_view>& parts) {
  const size_t n = parts.size();
  if (n < 3 || n > 4 || !parts[0].starts_with("sub-") || parts[n - 2] != "anat") return false;
  if (n == 4 && !parts[1].starts_with("ses-")) return false;
  const std::string_view leaf = parts[n - 1];
  return leaf.starts_with(std::string(parts[0]) + "_") && (leaf.ends_with("_T1w.nii") || leaf.ends_with("_T1w.nii.gz"));
}

}  // namespace

SubjectTableFile open_subject_table(const FileTree& files, const std::string& path) {
  const auto file = path.empty() ? highest_table(files) : find_file(files, tree_path(files, path));
  check_input(file || !path.empty(), "{}: there is no participants.tsv in it; say which table has the ages", files.root());
  if (!file) return {.name = path, .folder = {}, .text = read_file(path, largest_table)};
  const std::string& inside = files.paths()[*file];
  return {.name = files.name(*file),
          .folder = inside.substr(0, inside.size() - base_name(inside).size()),
          .text = files.read(*file, largest_table)};
}

std::string_view bare_subject(std::string_view id) { return id.starts_with("sub-") ? id.substr(4) : id; }

std::string subject_in_path(std::string_view path) {
  for (const std::string_view part : pieces_of(path, '/'))
    if (part.starts_with("sub-")) return std::string(part.substr(0, part.find_first_of("_.")));
  return std::string(path);
}

SubjectFinder::SubjectFinder(const FileTree& files, std::string folder) : files_(files), folder_(std::move(folder)) { list_bids(); }

void SubjectFinder::list_bids() {
  const auto& paths = files_.paths();
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!paths[i].starts_with(folder_)) continue;
    const auto parts = pieces_of(std::string_view(paths[i]).substr(folder_.size()), '/');
    if (is_bids_volume(parts)) bids_[std::string(bare_subject(parts[0]))].push_back(i);
  }
}

std::optional<size_t> SubjectFinder::find(const std::string& path) const {
  if (const auto beside = find_file(files_, plain(folder_ + path))) return beside;
  return find_file(files_, tree_path(files_, path));
}

std::optional<size_t> SubjectFinder::find_bids(std::string_view subject) {
  const auto at = bids_.find(bare_subject(subject));
  if (at == bids_.end()) return std::nullopt;
  if (at->second.size() > 1 && several_++ == 0) first_chosen_ = at->second.front();
  return at->second.front();
}

std::string SubjectFinder::choices() const {
  if (several_ == 0) return {};
  return fmt::format("{} of the subjects have several T1w volumes: the first by name is taken, for example {}", several_,
                     printable(path(first_chosen_)));
}

}  // namespace ermoe
