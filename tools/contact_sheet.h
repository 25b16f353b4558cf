// Images that were found for words, as one HTML page that opens from its file and asks nothing of a network: sections of small pictures
// with rank, score and file name. Names and queries may hold anything. Who finds them: tools/query.h.
#pragma once

#include "data/dataset.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

struct SheetImage {
  int64_t rank = 1;
  float score = 0;
  std::string name;
  std::string picture;  // a data: URI; empty where the file could not be read again
};

struct SheetSection {
  std::string query;
  std::vector<SheetImage> images;  // best first
};

struct ContactSheet {
  std::vector<SheetSection> sections;  // one at least
  std::string source;                  // what was searched and by what, a sentence
};

/// The whole page. Throws `Error` without a section.
std::string contact_sheet_page(const ContactSheet& sheet);

/// What every page begins with.
constexpr std::string_view sheet_beginning = "<!doctype html";

/// Whether a page may be written at `path` after `searched`, files by their names, were searched. Throws `InputError`, one sentence: for a
/// folder, one that is missing on the way, a file that is searched, and one that exists and does not begin as a page does.
void check_sheet(const std::string& path, const ImageDataset& searched);

/// Pixels a side of the sheet's pictures: twice what a column is wide, for screens with fine pixels.
constexpr int64_t sheet_picture_side = 384;

/// Image i as a data: URI with at most `side` pixels a side, never enlarged: JPEG, or PNG where it is tiny. Throws `InputError` that names
/// the file where it cannot be read.
std::string thumbnail(const ImageDataset& images, int64_t i, int64_t side);

}  // namespace ermoe
