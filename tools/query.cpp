#include "tools/query.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/caption_text.h"
#include "data/text/caption.h"
#include "tools/evaluation.h"
#include "tools/given_images.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace ermoe {
namespace {

constexpr size_t most_captions_bytes = size_t{64} << 20;
constexpr int64_t most_captions = 1'000'000;

ExecContext evaluation_context(const Engine& engine) {
  ExecContext ctx = engine.ctx.with_tape(nullptr);
  ctx.mode = Mode::eval;
  return ctx;
}

/// Rows of `rows` (B, P) to those of `all` from `first` on.
void put_rows(const Tensor& rows, const Tensor& all, int64_t first) {
  std::memcpy(all.data<float>() + first * all.shape()[1], rows.data<float>(), rows.bytes());
}

int64_t image_features(const Searcher& searcher, const ImageDataset& images,
                       const std::function<void(const std::vector<int64_t>& samples, const Tensor& features)>& fn) {
  const ExecContext ctx = evaluation_context(searcher.engine);
  return for_each_given_batch(searcher.engine, searcher.config, images, searcher.threads, searcher.note,
                              [&](const std::vector<int64_t>& samples, const Variable& batch) {
                                ForwardPass pass;
                                fn(samples, floats_on_host(ctx, searcher.model.image_features(ctx, batch, pass).value));
                              });
}

void note_if_not_numbers(const Searcher& searcher, const std::vector<Match>& matches, bool& told) {
  if (told || matches.empty() || !std::isnan(matches.back().score)) return;
  searcher.note("some scores are not numbers, and rank last: the model's weights are of no use, or too large for its precision");
  told = true;
}

/// One note, however many they are: a file of captions may have a million.
void note_if_cut(const Searcher& searcher, const std::vector<std::string>& texts) {
  const auto cut = [&](const std::string& text) { return searcher.tokenizer.cuts(text); };
  const auto first = std::ranges::find_if(texts, cut);
  if (first == texts.end()) return;
  const auto more = std::count_if(first + 1, texts.end(), cut);
  const std::string subject =
      more > 0 ? fmt::format("\"{}\" and {} more are", printable(*first), more) : fmt::format("\"{}\" is", printable(*first));
  searcher.note(fmt::format("{} longer than the {} tokens that the model reads: {} not searched for", subject, searcher.tokenizer.length(),
                            more > 0 ? "their ends are" : "its end is"));
}

}  // namespace

void check_words(const std::string& words, const std::string& name) {
  if (const auto fault = check_caption(words)) fail_input("{} {}", name, *fault);
  const int64_t characters = utf8_characters(words).value_or(0);
  check_input(characters < caption_limit, "{} has {} characters, and {} are the most", name, characters, caption_limit - 1);
}

std::vector<std::string> read_captions_file(const std::string& path) {
  const std::string text = read_file(path, most_captions_bytes);
  std::string_view rest = text;
  if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
  std::vector<std::string> captions;
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string caption(trimmed(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (caption.empty()) continue;
    check_words(caption, fmt::format("{}, line {}", path, line));
    check_input(std::ssize(captions) < most_captions, "{}: holds more than {} captions, and so many are the most", path, most_captions);
    captions.push_back(caption);
  }
  check_input(!captions.empty(), "{}: holds no caption; one a line is expected", path);
  return captions;
}

Tensor text_features(const Searcher& searcher, const std::vector<std::string>& texts) {
  const ExecContext ctx = evaluation_context(searcher.engine);
  const ExecContext& host = searcher.engine.host_ctx();
  const auto total = std::ssize(texts), most = evaluation_batch(searcher.config.train);
  note_if_cut(searcher, texts);
  const Tensor all = Tensor::empty(*host.allocator, {total, searcher.model.config().retrieval.projection}, DType::f32, "text features");
  for (int64_t first = 0; first < total; first += most) {
    const int64_t here = std::min(most, total - first);
    const std::vector<std::string_view> views(texts.begin() + first, texts.begin() + first + here);
    const Tensor tokens = Tensor::empty(*host.allocator, {here, searcher.tokenizer.length()}, DType::i32, "tokens");
    searcher.tokenizer.encode_batch(views, tokens.data<int32_t>());
    ForwardPass pass;
    put_rows(floats_on_host(ctx, searcher.model.text_features(ctx, on_device_of(ctx, tokens), pass).value), all, first);
  }
  return all;
}

Found find_images(const Searcher& searcher, const std::vector<std::string>& queries, const ImageDataset& images, int64_t count) {
  const Tensor words = text_features(searcher, queries);
  const Tensor all = Tensor::empty(*searcher.engine.host_ctx().allocator, {images.size(), words.shape()[1]}, DType::f32, "image features");
  std::vector<int64_t> read;  // whose rows these are: broken images have none
  Found found;
  found.unread = image_features(searcher, images, [&](const std::vector<int64_t>& samples, const Tensor& features) {
    put_rows(features, all, std::ssize(read));
    read.insert(read.end(), samples.begin(), samples.end());
  });
  found.matches = nearest(words, all.slice(0, std::ssize(read)), count);
  bool told = false;
  for (std::vector<Match>& matches : found.matches) {
    for (Match& match : matches) match.index = read[static_cast<size_t>(match.index)];
    note_if_not_numbers(searcher, matches, told);
  }
  return found;
}

int64_t find_captions(const Searcher& searcher, const std::vector<std::string>& captions, const ImageDataset& images, int64_t count,
                      const CaptionsFn& fn) {
  const Tensor words = text_features(searcher, captions);
  bool told = false;
  return image_features(searcher, images, [&](const std::vector<int64_t>& samples, const Tensor& features) {
    const auto matches = nearest(features, words, count);
    for (size_t b = 0; b < samples.size(); ++b) {
      note_if_not_numbers(searcher, matches[b], told);
      fn(samples[b], matches[b]);
    }
  });
}

FoundSheet sheet_of(const std::vector<std::string>& queries, const Found& found, const ImageDataset& images, const std::string& source,
                    const WarnFn& note) {
  FoundSheet made{.sheet = {.sections = {}, .source = source}};
  std::map<int64_t, std::string> pictures;  // an image that several queries found is read once
  const auto picture_of = [&](int64_t image) -> const std::string& {
    const auto [place, added] = pictures.try_emplace(image);
    if (added) {
      try {
        place->second = thumbnail(images, image, sheet_picture_side);
      } catch (const InputError& fault) {
        note(fault.what());
        ++made.unread;
      }
    }
    return place->second;
  };
  for (size_t q = 0; q < queries.size(); ++q) {
    SheetSection& section = made.sheet.sections.emplace_back(SheetSection{.query = queries[q], .images = {}});
    for (const Match& match : found.matches[q])
      section.images.push_back({.rank = std::ssize(section.images) + 1,
                                .score = match.score,
                                .name = images.name(match.index),
                                .picture = picture_of(match.index)});
  }
  return made;
}

}  // namespace ermoe
