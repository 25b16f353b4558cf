// Where the captions of a data set stand: which files of a tree hold them, and the readers of each layout. Only data/captions.cpp and
// the readers include this; read data/caption_builder.h first.
#pragma once

#include "data/caption_builder.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// The files of a tree that hold its captions, by their names and, where a name says little, by their beginning.
struct FoundCaptions {
  std::vector<size_t> files;  // of the tree; none: it has no captions file
  std::string note;           // a sentence about other captions files, where some are left alone
};

FoundCaptions find_caption_files(const FileTree& tree);
/// Throws `InputError` where several are found and do not name a part each, so that one of them must be meant.
void check_one_is_meant(const FileTree& tree, const FoundCaptions& found);

/// Reads file i of a tree; with Flickr8k.token.txt, the lists of its parts as well (Flickr_8k.trainImages.txt, …).
CaptionFile read_caption_file(const FileTree& tree, size_t i);
/// Part and folder as its path within the tree says.
CaptionFile caption_file(std::string name, std::string_view path, std::string text);

/// What `add_captions` would read as a table or as JSON of captions: by a table's first line, by keys near the beginning of JSON.
bool looks_like_captions(std::string_view path, std::string_view text);

/// Hands each entry of a file to `builder`. Throws `InputError` as `open_captions` says.
void add_captions(const CaptionFile& file, CaptionBuilder& builder);
void add_caption_json(const CaptionFile& file, CaptionBuilder& builder);
void add_caption_table(const CaptionFile& file, CaptionBuilder& builder);

/// True where a first line names a column of images and one of captions (and none of labels), or is a row of Flickr8k.token.txt.
bool is_caption_table(std::string_view text);

/// True where images have a .txt file, or a .json that speaks of captions, of the same key, and none has a .cls.
bool is_caption_shard(const FileTree& shard);
void add_caption_shards(const Trees& shards, CaptionBuilder& builder);

}  // namespace ermoe
