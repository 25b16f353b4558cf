#include "tools/caption_inspection.h"

#include "core/error.h"
#include "data/captions.h"
#include "tools/image_looks.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Least, mean and most of something.
struct Range {
  int64_t least = INT64_MAX, most = 0, count = 0;
  double sum = 0;

  void add(int64_t value) {
    least = std::min(least, value);
    most = std::max(most, value);
    sum += static_cast<double>(value);
    ++count;
  }
  std::string text() const {
    return fmt::format("{} to {}, mean {:.1f}", least, most, sum / static_cast<double>(std::max<int64_t>(count, 1)));
  }
};

int64_t characters(const std::string& caption) {
  return std::ranges::count_if(caption, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

int64_t words(const std::string& caption) {
  int64_t count = 0;
  bool within = false;
  for (const char c : caption) {
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    count += !blank && !within ? 1 : 0;
    within = !blank;
  }
  return count;
}

/// A caption as it may stand on a line: without control characters, at most about 100 characters.
std::string one_line(const std::string& caption) {
  constexpr size_t most = 100;
  std::string text;
  for (const char c : caption) {
    const bool begins_character = (static_cast<uint8_t>(c) & 0xc0) != 0x80;
    if (text.size() >= most && begins_character) return text + " …";
    text += static_cast<uint8_t>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return text;
}

std::string part_lines(const char* name, const CaptionDataset& set) {
  Range captions, letters, length;
  for (int64_t i = 0; i < set.size(); ++i) captions.add(std::ssize(set.captions(i)));
  for (const std::string& caption : set.all_captions()) {
    letters.add(characters(caption));
    length.add(words(caption));
  }
  std::string text =
      fmt::format("  {:<10} {} images, {} captions; an image has {}\n", name, set.size(), set.all_captions().size(), captions.text());
  return text + fmt::format("             captions of {} words ({} characters)\n", length.text(), letters.text());
}

std::string first_lines(const CaptionDataset& set) {
  constexpr int64_t most_images = 2;
  std::string text;
  for (int64_t i = 0; i < std::min(set.size(), most_images); ++i) {
    text += fmt::format("  {}\n", set.name(i));
    for (const std::string& caption : set.captions(i)) text += fmt::format("    {}\n", one_line(caption));
  }
  return text;
}

}  // namespace

std::optional<Inspection> inspect_captions(const std::string& path, Look look, int threads, const WarnFn& note) {
  if (!holds_captions(path)) return std::nullopt;
  const CaptionSplits splits = open_captions(path, {.training = TrainingPart::optional, .warn = note});
  const CaptionDataset& first = splits.train ? *splits.train : *splits.test;
  ImageSizes sizes;
  std::string text;
  int64_t images = 0;
  for (const auto& [name, set] : {std::pair{"training", splits.train.get()}, std::pair{"evaluation", splits.test.get()}}) {
    if (set == nullptr) continue;
    text += part_lines(name, *set);
    images += set->size();
    look_at_images(*set, look, threads, sizes);
  }
  return Inspection{text + sizes.line(images) + first_lines(first), sizes.fault()};
}

}  // namespace ermoe
