// Searching among images with words: features of both by a dual encoder, and which of them lie closest. A folder is gone through once for
// all queries, and of its images nothing is kept but features; those on a contact sheet are read again.
// Read next: tools/nearest.h, tools/contact_sheet.h, tools/ermoe_predict.cpp.
#pragma once

#include "data/text/tokenizer.h"
#include "models/dual_encoder.h"
#include "tools/contact_sheet.h"
#include "tools/engine.h"
#include "tools/nearest.h"
#include "tools/run_config.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ermoe {

/// A dual encoder that was loaded, and what its run says of its inputs.
struct Searcher {
  Engine& engine;
  DualEncoder& model;
  const Tokenizer& tokenizer;
  const RunConfig& config;
  int threads = 1;  // that read images
  WarnFn note = {};
};

/// Throws InputError, one sentence that begins with `name`, for what cannot be searched for: nothing, blanks alone, 10,000 characters or
/// more, bytes that are no UTF-8.
void check_words(const std::string& words, const std::string& name);

/// The captions in a text file, one a line, without blanks at their ends; empty lines are left out. Throws InputError that names the file,
/// and the line where one is at fault, or where there is none or more than 1,000,000.
std::vector<std::string> read_captions_file(const std::string& path);

/// Features (Q, P) f32 on the host, each of length 1. One note says of texts that are longer than the model reads: the first, and how many.
Tensor text_features(const Searcher& searcher, const std::vector<std::string>& texts);

/// Matches of each query among the images, best first; indices are those of `images`.
struct Found {
  std::vector<std::vector<Match>> matches;  // one list a query
  int64_t unread = 0;                       // images that could not be read; each was named by a note
};

/// The `count` images closest to each query. Holds a feature an image, whatever their number.
Found find_images(const Searcher& searcher, const std::vector<std::string>& queries, const ImageDataset& images, int64_t count);

/// Takes an image's index and its best captions, best first.
using CaptionsFn = std::function<void(int64_t image, const std::vector<Match>& captions)>;

/// The `count` captions closest to each image, image by image. Returns how many images could not be read; each is named by a note.
int64_t find_captions(const Searcher& searcher, const std::vector<std::string>& captions, const ImageDataset& images, int64_t count,
                      const CaptionsFn& fn);

/// The contact sheet of what was found, its pictures read once more. `source`: what was searched, and by what. `note` names files that
/// cannot be read again; `unread` counts them, each once.
struct FoundSheet {
  ContactSheet sheet;
  int64_t unread = 0;
};
FoundSheet sheet_of(const std::vector<std::string>& queries, const Found& found, const ImageDataset& images, const std::string& source,
                    const WarnFn& note);

}  // namespace ermoe
