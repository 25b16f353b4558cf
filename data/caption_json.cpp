// Captions in JSON, three layouts: COCO's {"images", "annotations"}, Karpathy's {"images": [{"sentences"}]}, and a list of images. Keys
// that are not needed (tokens, licences, addresses) are read past. Read data/caption_files.h first.
#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "data/caption_files.h"

#include <nlohmann/json.hpp>

namespace ermoe {

namespace {

using nlohmann::json;

/// COCO's 123,287 images with five captions each are about 2 million values of these keys, in 144 MB of Karpathy's file.
JsonLimits limits() {
  return {.max_bytes = size_t{1} << 30,
          .max_depth = 16,
          .max_values = 8'000'000,
          .keys = {"images", "annotations", "id", "image_id", "file_name", "filename", "filepath", "image", "split", "sentences", "raw",
                   "caption", "captions"}};
}

/// The list below a key. Throws where it is absent or none.
const json& list_at(const json& object, const char* key, const std::string& where) {
  const auto at = object.find(key);
  check_input(at != object.end(), "{}: there is no \"{}\"", where, key);
  check_input(at->is_array(), "{}: \"{}\" is no list", where, key);
  return *at;
}

/// The text below the first of `keys` that there is; nothing where there is none.
std::optional<std::string> text_at(const json& object, std::initializer_list<const char*> keys, const CaptionPlace& place) {
  for (const char* key : keys) {
    const auto at = object.find(key);
    if (at == object.end() || at->is_null()) continue;
    check_input(at->is_string(), "{}: \"{}\" is no text", place.text(), key);
    return at->get<std::string>();
  }
  return std::nullopt;
}

std::string needed_text(const json& object, std::initializer_list<const char*> keys, const CaptionPlace& place) {
  auto text = text_at(object, keys, place);
  check_input(text.has_value(), "{}: there is no \"{}\"", place.text(), *keys.begin());
  return *std::move(text);
}

/// A number or a text that names an image.
std::string id_at(const json& object, const char* key, const CaptionPlace& place) {
  const auto at = object.find(key);
  check_input(at != object.end(), "{}: there is no \"{}\"", place.text(), key);
  check_input(at->is_string() || at->is_number_integer(), "{}: \"{}\" is no whole number and no text", place.text(), key);
  return at->is_string() ? at->get<std::string>() : at->dump();
}

void check_object(const json& value, const CaptionPlace& place) {
  check_input(value.is_object(), "{}: is no object with keys", place.text());
}

/// Captions below a key: one text, a list of texts, or a list of objects with a text under "raw".
std::vector<std::string> captions_of(const json& value, const char* key, const CaptionPlace& place) {
  if (value.is_string()) return {value.get<std::string>()};
  check_input(value.is_array(), "{}: \"{}\" is no list", place.text(), key);
  std::vector<std::string> captions;
  for (const json& one : value) {
    if (one.is_object()) {
      captions.push_back(needed_text(one, {"raw", "caption"}, place));
      continue;
    }
    check_input(one.is_string(), "{}: \"{}\" holds something that is no text", place.text(), key);
    captions.push_back(one.get<std::string>());
  }
  return captions;
}

/// Images that bring their captions: Karpathy's and lists.
void add_images(const json& images, const CaptionFile& file, CaptionBuilder& builder) {
  CaptionPlace place{file.name, "image", 0};
  for (const json& image : images) {
    ++place.number;
    check_object(image, place);
    CaptionEntry entry;
    entry.image = needed_text(image, {"filename", "file_name", "image", "filepath"}, place);
    if (image.contains("filename")) entry.above = text_at(image, {"filepath"}, place).value_or("");
    if (const auto split = text_at(image, {"split"}, place)) entry.part = part_of_split(*split, place, entry.image);
    const char* key = image.contains("sentences") ? "sentences" : image.contains("captions") ? "captions" : "caption";
    const auto captions = image.find(key);
    check_input(captions != image.end(), "{}: the image \"{}\" has no \"captions\" and no \"sentences\"", place.text(),
                printable(entry.image));
    entry.kind = captions->is_string() ? EntryKind::row : EntryKind::whole;
    entry.captions = captions_of(*captions, key, place);
    builder.add(file, place, entry);
  }
}

/// COCO's images and annotations, joined by "image_id".
void add_coco(const json& images, const json& annotations, const CaptionFile& file, CaptionBuilder& builder) {
  std::vector<CaptionEntry> entries(images.size());
  std::unordered_map<std::string, size_t> by_id;
  CaptionPlace place{file.name, "image", 0};
  for (const json& image : images) {
    ++place.number;
    check_object(image, place);
    CaptionEntry& entry = entries[by_id.size()];
    entry.image = needed_text(image, {"file_name", "filename"}, place);
    entry.kind = EntryKind::whole;
    const std::string id = id_at(image, "id", place);
    check_input(by_id.emplace(id, by_id.size()).second, "{}: a second image with the id {}", place.text(), printable(id));
  }
  CaptionPlace annotation{file.name, "annotation", 0};
  for (const json& one : annotations) {
    ++annotation.number;
    check_object(one, annotation);
    const std::string id = id_at(one, "image_id", annotation);
    std::string caption = needed_text(one, {"caption"}, annotation);
    const auto at = by_id.find(id);
    if (at == by_id.end())
      builder.miss(annotation, "image_id " + id);
    else
      entries[at->second].captions.push_back(std::move(caption));
  }
  place.number = 0;
  for (const CaptionEntry& entry : entries) {
    ++place.number;
    builder.add(file, place, entry);
  }
}

}  // namespace

void add_caption_json(const CaptionFile& file, CaptionBuilder& builder) {
  const auto marked = with_wrong_bytes_marked(file.text);
  const json document = parse_json(marked ? *marked : file.text, file.name, limits());
  if (document.is_array()) return add_images(document, file, builder);
  check_input(document.is_object(), "{}: neither a list of images nor an object with \"images\"", file.name);
  const json& images = list_at(document, "images", file.name);
  if (document.contains("annotations")) return add_coco(images, list_at(document, "annotations", file.name), file, builder);
  check_input(
      images.empty() || (images.front().is_object() && (images.front().contains("sentences") || images.front().contains("captions"))),
      "{}: there are no \"annotations\" (COCO), and the first of the \"images\" has no \"sentences\" (Karpathy)", file.name);
  add_images(images, file, builder);
}

}  // namespace ermoe
