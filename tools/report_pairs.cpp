#include "tools/report_pairs.h"

#include "core/error.h"
#include "tools/contact_sheet.h"
#include "tools/nearest.h"
#include "tools/report_page.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

constexpr int64_t shown_images = 5, picture_side = 160;

ordered_json direction(const RankFigures& f) {
  return {{"recall_1", brief(f.recall_1)},
          {"recall_5", brief(f.recall_5)},
          {"recall_10", brief(f.recall_10)},
          {"median_rank", brief(f.median_rank)},
          {"mean_rank", brief(f.mean_rank)}};
}

/// Looks up what captions find, and collects pictures on the way.
class Finder {
 public:
  Finder(const PairFeatures& features, const CaptionDataset& captions)
      : features_(features), captions_(captions), pictures_(ordered_json::object()) {
    // Images that could not be read have no rows: a caption's number in the data set is not its row here.
    for (const int64_t sample : features.samples)
      for (int64_t c = captions.first_caption(sample); c < captions.first_caption(sample + 1); ++c) texts_.push_back(c);
    for (const FoundImage& found : found_images(features.image, features.text, features.owners)) places_.push_back(found.rank);
    check(std::ssize(texts_) == std::ssize(features.owners), "[report] {} captions and {} features of them", texts_.size(),
          features.owners.size());
  }

  int64_t count() const { return std::ssize(texts_); }

  /// Of each caption's own image.
  const std::vector<int64_t>& places() const { return places_; }

  ordered_json describe(int64_t caption) {
    const int64_t own = features_.owners[static_cast<size_t>(caption)];
    ordered_json best = ordered_json::array();
    const auto closest = nearest(features_.text.slice(caption, caption + 1), features_.image, shown_images);
    for (const Match& match : closest.front()) best.push_back({{"image", picture(match.index)}, {"score", brief(match.score)}});
    return {{"caption", captions_.all_captions()[static_cast<size_t>(texts_[static_cast<size_t>(caption)])]},
            {"own", picture(own)},
            {"place", places_[static_cast<size_t>(caption)]},
            {"best", std::move(best)}};
  }

  ordered_json pictures() { return std::move(pictures_); }

 private:
  /// The number of the image in a row of features, whose picture is there from now on.
  int64_t picture(int64_t row) {
    const int64_t sample = features_.samples[static_cast<size_t>(row)];
    ordered_json& one = pictures_[std::to_string(sample)];
    if (one.is_null()) {
      one = {{"name", captions_.name(sample)}, {"image", ""}};
      try {
        one["image"] = thumbnail(captions_, sample, picture_side);
      } catch (const InputError&) {  // it was read a moment ago
      }
    }
    return sample;
  }

  const PairFeatures& features_;
  const CaptionDataset& captions_;
  std::vector<int64_t> places_;
  std::vector<int64_t> texts_;  // by row of features: which caption of the data set
  ordered_json pictures_;
};

}  // namespace

ordered_json report_recall(const RetrievalReport& report) {
  ordered_json out{
      {"captions", report.all.captions}, {"to_text", direction(report.all.to_text)}, {"to_image", direction(report.all.to_image)}};
  out["rsum"] = brief(report.all.rsum());
  if (report.folds)
    out["folds"] = {{"to_text", direction(report.folds->to_text)},
                    {"to_image", direction(report.folds->to_image)},
                    {"rsum", brief(report.folds->rsum())}};
  return out;
}

ordered_json report_found(const PairFeatures& features, const CaptionDataset& captions, int64_t count) {
  Finder finder(features, captions);
  const int64_t total = finder.count(), shown = std::min(count, total);
  ordered_json out{{"chosen", ordered_json::array()}, {"worst", ordered_json::array()}};
  for (int64_t k = 0; k < shown; ++k) out["chosen"].push_back(finder.describe(k * total / shown));
  std::vector<int64_t> last(static_cast<size_t>(total));
  std::iota(last.begin(), last.end(), int64_t{0});
  std::ranges::stable_sort(last, std::ranges::greater{}, [&](int64_t c) { return finder.places()[static_cast<size_t>(c)]; });
  for (int64_t k = 0; k < shown; ++k)
    if (const int64_t c = last[static_cast<size_t>(k)]; finder.places()[static_cast<size_t>(c)] > 1)
      out["worst"].push_back(finder.describe(c));
  out["pictures"] = finder.pictures();
  return out;
}

}  // namespace ermoe
