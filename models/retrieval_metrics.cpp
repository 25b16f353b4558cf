#include "models/retrieval_metrics.h"

#include "ops/cpu/blas.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ermoe {
namespace {

constexpr int64_t block_scores = int64_t{1} << 22;
constexpr int64_t fold_images = 1000, folds = 5;

/// Which candidates belong to each query.
using Relevant = std::vector<std::vector<int64_t>>;

struct Row {
  int64_t rank = 0, not_numbers = 0;
  int64_t top = -1;  // the candidate with the largest score, the first of such
};

/// Of the query whose scores these are. What is not a number is behind everything by the comparison, which it fails.
Row row_of(std::span<const float> scores, const std::vector<int64_t>& relevant) {
  constexpr float none = -std::numeric_limits<float>::infinity();
  float best = none;
  for (const int64_t j : relevant)
    best = std::max(best, std::isnan(scores[static_cast<size_t>(j)]) ? none : scores[static_cast<size_t>(j)]);
  const float enough = best - equal_scores;
  const auto ahead = [&](float score) { return score >= enough || best == none; };
  Row row;
  float largest = none;
  for (size_t j = 0; j < scores.size(); ++j) {
    row.rank += ahead(scores[j]) ? 1 : 0;
    row.not_numbers += std::isnan(scores[j]) ? 1 : 0;
    if (!(scores[j] > largest)) continue;
    largest = scores[j];
    row.top = static_cast<int64_t>(j);
  }
  for (const int64_t j : relevant) row.rank -= ahead(scores[static_cast<size_t>(j)]) ? 1 : 0;
  ++row.rank;
  return row;
}

/// Of each of `queries` (Q, P) among `candidates` (N, P).
std::vector<Row> rows_of(const Tensor& queries, const Tensor& candidates, const Relevant& relevant) {
  const int64_t count = queries.shape()[0], n = candidates.shape()[0], width = queries.shape()[1];
  const int64_t block = std::clamp<int64_t>(block_scores / n, 1, count);
  const Tensor scores = Tensor::empty(queries.allocator(), {block, n}, DType::f32, "retrieval scores");
  std::vector<Row> rows(static_cast<size_t>(count));
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t here = std::min(block, count - begin);
    cpu::gemm(Trans::no, Trans::yes, here, n, width, 1.0f, queries.data<float>() + begin * width, width, candidates.data<float>(), width,
              0.0f, scores.data<float>(), n);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < here; ++i) {
      const auto query = static_cast<size_t>(begin + i);
      rows[query] = row_of({scores.data<float>() + i * n, static_cast<size_t>(n)}, relevant[query]);
    }
  }
  return rows;
}

RankFigures figures_of(const std::vector<Row>& rows) {
  std::vector<int64_t> ranks;
  for (const Row& row : rows) ranks.push_back(row.rank);
  std::ranges::sort(ranks);
  const auto count = static_cast<double>(ranks.size());
  const auto recall = [&](int64_t k) { return static_cast<double>(std::ranges::upper_bound(ranks, k) - ranks.begin()) / count; };
  const size_t middle = ranks.size() / 2, before = (ranks.size() - 1) / 2;
  return {.recall_1 = recall(1),
          .recall_5 = recall(5),
          .recall_10 = recall(10),
          .median_rank = static_cast<double>(ranks[before] + ranks[middle]) / 2,
          .mean_rank = static_cast<double>(std::accumulate(ranks.begin(), ranks.end(), int64_t{0})) / count};
}

void check_features(const Tensor& image, const Tensor& text, std::span<const int64_t> owner) {
  for (const Tensor* t : {&image, &text})
    check(t->defined() && t->dtype() == DType::f32 && t->shape().rank() == 2 && t->shape()[0] > 0 && !t->device().is_cuda(),
          "[retrieval] wants features (N, P) in f32 on the host but got {} {}", name_of(t->dtype()), t->shape().str());
  check(image.shape()[1] == text.shape()[1] && std::ssize(owner) == text.shape()[0], "[retrieval] images {}, captions {} and {} owners",
        image.shape().str(), text.shape().str(), owner.size());
  std::vector<bool> found(static_cast<size_t>(image.shape()[0]), false);
  for (size_t c = 0; c < owner.size(); ++c) {
    check(owner[c] >= 0 && owner[c] < image.shape()[0], "[retrieval] caption {} belongs to image {} of {}", c, owner[c], image.shape()[0]);
    found[static_cast<size_t>(owner[c])] = true;
  }
  const auto lonely = std::ranges::find(found, false);
  check(lonely == found.end(), "[retrieval] image {} has no caption", lonely - found.begin());
}

/// The captions of images [begin, end), and whose they are counted from `begin`.
std::pair<Tensor, std::vector<int64_t>> captions_of(const Tensor& text, std::span<const int64_t> owner, int64_t begin, int64_t end) {
  std::vector<int64_t> chosen, owners;
  for (size_t c = 0; c < owner.size(); ++c) {
    if (owner[c] < begin || owner[c] >= end) continue;
    chosen.push_back(static_cast<int64_t>(c));
    owners.push_back(owner[c] - begin);
  }
  const int64_t width = text.shape()[1];
  const Tensor own = Tensor::empty(text.allocator(), {std::ssize(chosen), width}, DType::f32, "retrieval captions");
  for (size_t i = 0; i < chosen.size(); ++i)
    std::copy_n(text.data<float>() + chosen[i] * width, width, own.data<float>() + static_cast<int64_t>(i) * width);
  return {own, owners};
}

void add_share(RankFigures& mean, const RankFigures& one) {
  mean.recall_1 += one.recall_1 / folds;
  mean.recall_5 += one.recall_5 / folds;
  mean.recall_10 += one.recall_10 / folds;
  mean.median_rank += one.median_rank / folds;
  mean.mean_rank += one.mean_rank / folds;
}

RetrievalMetrics mean_of_folds(const Tensor& image, const Tensor& text, std::span<const int64_t> owner) {
  RetrievalMetrics mean;
  for (int64_t begin = 0; begin < folds * fold_images; begin += fold_images) {
    const auto [own, owners] = captions_of(text, owner, begin, begin + fold_images);
    const RetrievalMetrics one = retrieval_metrics(image.slice(begin, begin + fold_images), own, owners);
    mean.images += one.images;
    mean.captions += one.captions;
    mean.not_numbers += one.not_numbers;
    add_share(mean.to_text, one.to_text);
    add_share(mean.to_image, one.to_image);
  }
  return mean;
}

std::string table_of(const char* title, const RetrievalMetrics& m) {
  std::string text = fmt::format("{:<16} {:>8} {:>8} {:>8} {:>12} {:>10}\n", title, "R@1", "R@5", "R@10", "median rank", "mean rank");
  for (const auto& [name, f] : {std::pair{"image to text", m.to_text}, {"text to image", m.to_image}})
    text += fmt::format("{:<16} {:>6.2f} % {:>6.2f} % {:>6.2f} % {:>12.1f} {:>10.1f}\n", name, 100 * f.recall_1, 100 * f.recall_5,
                        100 * f.recall_10, f.median_rank, f.mean_rank);
  return text + fmt::format("{:<16} {:>8.2f}\n", "rsum", m.rsum());
}

}  // namespace

double RetrievalMetrics::rsum() const {
  double sum = 0;
  for (const RankFigures* f : {&to_text, &to_image}) sum += 100 * (f->recall_1 + f->recall_5 + f->recall_10);
  return sum;
}

RetrievalMetrics retrieval_metrics(const Tensor& image, const Tensor& text, std::span<const int64_t> owner) {
  check_features(image, text, owner);
  Relevant captions(static_cast<size_t>(image.shape()[0])), images;
  for (size_t c = 0; c < owner.size(); ++c) {
    captions[static_cast<size_t>(owner[c])].push_back(static_cast<int64_t>(c));
    images.push_back({owner[c]});
  }
  const std::vector<Row> to_text = rows_of(image, text, captions), to_image = rows_of(text, image, images);
  RetrievalMetrics metrics{
      .images = image.shape()[0], .captions = text.shape()[0], .to_text = figures_of(to_text), .to_image = figures_of(to_image)};
  for (const Row& row : to_text) metrics.not_numbers += row.not_numbers;
  return metrics;
}

std::vector<FoundImage> found_images(const Tensor& image, const Tensor& text, std::span<const int64_t> owner) {
  check_features(image, text, owner);
  Relevant own;
  for (const int64_t i : owner) own.push_back({i});
  std::vector<FoundImage> found;
  for (const Row& row : rows_of(text, image, own)) found.push_back({.rank = row.rank, .top = row.top});
  return found;
}

RetrievalReport retrieval_report(const Tensor& image, const Tensor& text, std::span<const int64_t> owner) {
  RetrievalReport report{.all = retrieval_metrics(image, text, owner), .folds = {}};
  if (image.shape()[0] >= folds * fold_images) report.folds = mean_of_folds(image, text, owner);
  return report;
}

std::vector<std::pair<std::string, double>> retrieval_values(const RetrievalMetrics& metrics) {
  std::vector<std::pair<std::string, double>> values;
  for (const auto& [way, f] : {std::pair{"i2t", metrics.to_text}, {"t2i", metrics.to_image}}) {
    values.emplace_back(fmt::format("{}_r1", way), 100 * f.recall_1);
    values.emplace_back(fmt::format("{}_r5", way), 100 * f.recall_5);
    values.emplace_back(fmt::format("{}_r10", way), 100 * f.recall_10);
    values.emplace_back(fmt::format("{}_median_rank", way), f.median_rank);
    values.emplace_back(fmt::format("{}_mean_rank", way), f.mean_rank);
  }
  values.emplace_back("rsum", metrics.rsum());
  return values;
}

std::string describe(const RetrievalReport& report) {
  const RetrievalMetrics& m = report.all;
  std::string text = fmt::format("{} images, {} captions\n\n{}", m.images, m.captions, table_of(report.folds ? "all images" : "", m));
  if (report.folds) text += fmt::format("\n{}", table_of("5 x 1,000 images", *report.folds));
  if (m.not_numbers > 0) text += fmt::format("\n{} of {} scores are not numbers and count as last\n", m.not_numbers, m.images * m.captions);
  return text;
}

}  // namespace ermoe
