// How well images and captions find each other: recall at K, ranks, rsum, as reports on Flickr and COCO give them (Karpathy & Fei-Fei,
// "Deep visual-semantic alignments for generating image descriptions", arXiv 1412.2306; rsum: Faghri et al., "VSE++", arXiv 1707.05612).
//
// The rank of a query is 1 + how many candidates that do not belong to it score at least as much as the best one that does. So an image
// finds what it looks for where ANY of its captions is in the top K, and its other captions are not in each other's way. No rule here can
// flatter: a candidate that scores the same counts as ahead, the same up to the rounding of a product of two features of length 1
// (`equal_scores`), so that a model whose features have all collapsed into one is last and not first; and a score that is not a number
// lies behind all others: behind none where it belongs to the query.
#pragma once

#include "core/tensor.h"

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

constexpr float equal_scores = 1e-6f;  // scores no further apart are the same

/// Of all queries of one direction.
struct RankFigures {
  double recall_1 = 0, recall_5 = 0, recall_10 = 0;  // shares of queries, 0 to 1
  double median_rank = 0;                            // from 1; of two middle ones the mean
  double mean_rank = 0;
};

struct RetrievalMetrics {
  int64_t images = 0, captions = 0;
  RankFigures to_text;      // images look for their captions
  RankFigures to_image;     // captions look for their image
  int64_t not_numbers = 0;  // scores of an image and a caption that are NaN

  /// Σ of the six recalls in percent: 600 at best.
  double rsum() const;
};

/// image (I, P) and text (C, P): features of length 1, f32, on the host; caption c belongs to image owner[c] (C, in any order). Each image
/// has a caption at least. Scores are made in blocks of at most 16 MiB, in the memory of the images' allocator. Throws `Error` for shapes
/// that do not fit, owners that are no image, and images without a caption.
RetrievalMetrics retrieval_metrics(const Tensor& image, const Tensor& text, std::span<const int64_t> owner);

/// All images together, and where there are 5,000 or more also the mean over five folds of 1,000, the first 5,000 in their order: the
/// "5K" and "1K" of COCO's test images.
struct RetrievalReport {
  RetrievalMetrics all;
  std::optional<RetrievalMetrics> folds;  // images, captions and NaN are those of all five
};

RetrievalReport retrieval_report(const Tensor& image, const Tensor& text, std::span<const int64_t> owner);

/// What one caption finds among the images: the rank of its own, as above, and the one with the largest score (-1: no score is a number).
struct FoundImage {
  int64_t rank = 0, top = -1;
};

/// Of each caption (C). Arguments and faults as above.
std::vector<FoundImage> found_images(const Tensor& image, const Tensor& text, std::span<const int64_t> owner);

/// What a log or a JSON object takes: "i2t_r1" … "t2i_mean_rank", "rsum"; recalls in percent.
std::vector<std::pair<std::string, double>> retrieval_values(const RetrievalMetrics& metrics);

/// A table for people, a line a direction, and a sentence where scores are not numbers.
std::string describe(const RetrievalReport& report);

}  // namespace ermoe
