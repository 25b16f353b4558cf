// Against brute force, and against what is known by construction.
#include "models/retrieval_metrics.h"

#include "core/error.h"
#include "tests/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <limits>

namespace ermoe::testing {
namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

struct Gallery {
  Tensor image, text;
  std::vector<int64_t> owner;

  int64_t images() const { return image.shape()[0]; }
  int64_t captions() const { return text.shape()[0]; }
  RetrievalMetrics metrics() const { return retrieval_metrics(image, text, owner); }
};

Tensor features(const std::vector<std::vector<float>>& rows) {
  std::vector<float> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return Tensor::from<float>(host_memory(), {std::ssize(rows), std::ssize(rows[0])}, flat);
}

/// Whole numbers of -2 to 2: products are exact, and many are equal. `counts` are captions an image, dealt in a mixed order.
Gallery whole_numbers(const std::vector<int64_t>& counts, int64_t width, RngKey key) {
  Gallery g{.image = Tensor::empty(host_memory(), {std::ssize(counts), width}, DType::f32), .text = {}, .owner = {}};
  for (size_t i = 0; i < counts.size(); ++i) g.owner.insert(g.owner.end(), static_cast<size_t>(counts[i]), static_cast<int64_t>(i));
  for (size_t c = g.owner.size(); c > 1; --c) std::swap(g.owner[c - 1], g.owner[static_cast<size_t>(uniform_int(key.fold(1), c, c))]);
  g.text = Tensor::empty(host_memory(), {std::ssize(g.owner), width}, DType::f32);
  const auto draw = [&](const Tensor& t, RngKey own) {
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(uniform_int(own, static_cast<uint64_t>(i), 5)) - 2;
  };
  draw(g.image, key.fold(2));
  draw(g.text, key.fold(3));
  return g;
}

/// Scores in double; a NaN is one.
std::vector<std::vector<double>> all_scores(const Gallery& g) {
  const int64_t width = g.image.shape()[1];
  std::vector<std::vector<double>> scores;
  for (int64_t i = 0; i < g.images(); ++i) {
    scores.emplace_back();
    for (int64_t c = 0; c < g.captions(); ++c) {
      double dot = 0;
      for (int64_t k = 0; k < width; ++k)
        dot += static_cast<double>(g.image.data<float>()[i * width + k]) * static_cast<double>(g.text.data<float>()[c * width + k]);
      scores.back().push_back(dot);
    }
  }
  return scores;
}

/// Sorts all candidates of a query, those of others first where they score the same and NaNs last, and looks where its first own one is.
int64_t rank_by_sorting(const std::vector<double>& scores, const std::vector<bool>& own) {
  struct Candidate {
    double score;
    bool own;
  };
  std::vector<Candidate> order;
  for (size_t j = 0; j < scores.size(); ++j) order.push_back({std::isnan(scores[j]) ? -INFINITY : scores[j], own[j]});
  std::ranges::stable_sort(order,
                           [](const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : !a.own && b.own; });
  return std::ranges::find_if(order, [](const Candidate& c) { return c.own; }) - order.begin() + 1;
}

RankFigures figures_by_hand(std::vector<int64_t> ranks) {
  RankFigures f;
  const auto n = static_cast<double>(ranks.size());
  for (const int64_t r : ranks) {
    f.recall_1 += (r <= 1 ? 1 : 0) / n;
    f.recall_5 += (r <= 5 ? 1 : 0) / n;
    f.recall_10 += (r <= 10 ? 1 : 0) / n;
    f.mean_rank += static_cast<double>(r) / n;
  }
  std::ranges::sort(ranks);
  f.median_rank = ranks.size() % 2 == 1 ? static_cast<double>(ranks[ranks.size() / 2])
                                        : static_cast<double>(ranks[ranks.size() / 2 - 1] + ranks[ranks.size() / 2]) / 2;
  return f;
}

RetrievalMetrics by_brute_force(const Gallery& g) {
  const auto scores = all_scores(g);
  std::vector<int64_t> to_text, to_image;
  RetrievalMetrics m{.images = g.images(), .captions = g.captions(), .to_text = {}, .to_image = {}};
  for (int64_t i = 0; i < g.images(); ++i) {
    std::vector<bool> own;
    for (const int64_t o : g.owner) own.push_back(o == i);
    to_text.push_back(rank_by_sorting(scores[static_cast<size_t>(i)], own));
    for (const double s : scores[static_cast<size_t>(i)]) m.not_numbers += std::isnan(s) ? 1 : 0;
  }
  for (size_t c = 0; c < g.owner.size(); ++c) {
    std::vector<double> column;
    std::vector<bool> own;
    for (int64_t i = 0; i < g.images(); ++i) {
      column.push_back(scores[static_cast<size_t>(i)][c]);
      own.push_back(g.owner[c] == i);
    }
    to_image.push_back(rank_by_sorting(column, own));
  }
  m.to_text = figures_by_hand(to_text);
  m.to_image = figures_by_hand(to_image);
  return m;
}

void expect_same(const RankFigures& a, const RankFigures& b) {
  EXPECT_NEAR(a.recall_1, b.recall_1, 1e-12);
  EXPECT_NEAR(a.recall_5, b.recall_5, 1e-12);
  EXPECT_NEAR(a.recall_10, b.recall_10, 1e-12);
  EXPECT_EQ(a.median_rank, b.median_rank);
  EXPECT_NEAR(a.mean_rank, b.mean_rank, 1e-9);
}

void expect_brute_force(const Gallery& g) {
  const RetrievalMetrics got = g.metrics(), want = by_brute_force(g);
  expect_same(got.to_text, want.to_text);
  expect_same(got.to_image, want.to_image);
  EXPECT_EQ(got.not_numbers, want.not_numbers);
  EXPECT_EQ(got.images, want.images);
  EXPECT_EQ(got.captions, want.captions);
}

TEST(RetrievalMetrics, MatchBruteForceWithTiesAndAnyNumberOfCaptions) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const RngKey key{seed};
    std::vector<int64_t> unequal;
    for (uint64_t i = 0; i < 37; ++i) unequal.push_back(1 + static_cast<int64_t>(uniform_int(key, i, 6)));
    expect_brute_force(whole_numbers(unequal, 3, key));
    expect_brute_force(whole_numbers(std::vector<int64_t>(30, 1), 4, key));
    expect_brute_force(whole_numbers(std::vector<int64_t>(41, 5), 5, key));
    expect_brute_force(whole_numbers({1}, 3, key));
    expect_brute_force(whole_numbers({4}, 3, key));
  }
}

TEST(RetrievalMetrics, MatchBruteForceWithNotANumbers) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    Gallery g = whole_numbers(std::vector<int64_t>(25, 3), 4, RngKey{seed});
    g.text.data<float>()[7 * 4] = g.text.data<float>()[50 * 4 + 1] = not_a_number;
    g.image.data<float>()[3 * 4 + 2] = not_a_number;
    expect_brute_force(g);
    EXPECT_EQ(g.metrics().not_numbers, 2 * 25 + 75 - 2);
  }
}

/// More scores than a block holds, and a last block that is not full.
TEST(RetrievalMetrics, BlocksDoNotShow) { expect_brute_force(whole_numbers(std::vector<int64_t>(1003, 5), 6, RngKey{4})); }

TEST(RetrievalMetrics, AnyCaptionOfAnImageIsAHit) {
  // Caption 2 is image 0's worst and 0 its best; image 1's only one is behind both of image 0's better ones.
  const Gallery g{
      .image = features({{1, 0}, {0.9f, 0.1f}}), .text = features({{1, 0}, {0.5f, 0}, {-1, 0}, {0.2f, 0}}), .owner = {0, 0, 0, 1}};
  const RetrievalMetrics m = g.metrics();
  EXPECT_EQ(m.to_text.recall_1, 0.5);
  EXPECT_EQ(m.to_text.mean_rank, 2) << "ranks 1 and 3: the own captions are not in each other's way";
  EXPECT_EQ(m.to_text.median_rank, 2);
  EXPECT_EQ(m.to_image.recall_1, 0.5) << "0 and 1 find image 0; 2 and 3 point away from whom they belong to";
  EXPECT_EQ(m.rsum(), 100 * (0.5 + 1 + 1 + 0.5 + 1 + 1));
}

/// Features that are all the same but for their last bits: nobody is found, wherever rounding puts them.
TEST(RetrievalMetrics, CollapsedFeaturesAreLast) {
  const int64_t images = 70, width = 512;
  Gallery g{.image = Tensor::empty(host_memory(), {images, width}, DType::f32), .text = {}, .owner = {}};
  for (int64_t i = 0; i < images * width; ++i) {
    const auto common = static_cast<float>(normal(RngKey{1}, static_cast<uint64_t>(i % width)) / std::sqrt(static_cast<double>(width)));
    g.image.data<float>()[i] = common * (i % 7 == 0 ? 1 + 1e-7f : 1);
  }
  g.text = g.image.clone();
  for (int64_t i = 0; i < images; ++i) g.owner.push_back(i);
  const RetrievalMetrics m = g.metrics();
  for (const RankFigures& f : {m.to_text, m.to_image}) {
    EXPECT_EQ(f.mean_rank, images);
    EXPECT_EQ(f.recall_10, 0);
  }
}

TEST(RetrievalMetrics, PerfectFeaturesAreFirst) {
  Gallery g{.image = Tensor::zeros(host_memory(), {12, 12}, DType::f32), .text = {}, .owner = {}};
  for (int64_t i = 0; i < 12; ++i) g.image.data<float>()[i * 12 + i] = 1;
  g.text = g.image.clone();
  for (int64_t i = 0; i < 12; ++i) g.owner.push_back(i);
  EXPECT_EQ(g.metrics().rsum(), 600);
  EXPECT_EQ(g.metrics().to_text.median_rank, 1);
}

TEST(RetrievalMetrics, AllNotANumberIsLast) {
  const Gallery g{
      .image = features({{not_a_number}, {not_a_number}, {not_a_number}}), .text = features({{1}, {1}, {1}, {1}}), .owner = {0, 1, 2, 2}};
  const RetrievalMetrics m = g.metrics();
  EXPECT_EQ(m.not_numbers, 12);
  EXPECT_EQ(m.to_text.recall_1, 0);
  EXPECT_EQ(m.to_image.mean_rank, 3);
  EXPECT_NE(describe({.all = m, .folds = {}}).find("12 of 12 scores are not numbers"), std::string::npos);
}

/// The folds are the first five thousand images in their order; what comes after them plays no part.
TEST(RetrievalMetrics, FoldsAreTheMeanOfFiveThousands) {
  const Gallery g = whole_numbers(std::vector<int64_t>(5003, 1), 4, RngKey{9});
  const RetrievalReport report = retrieval_report(g.image, g.text, g.owner);
  ASSERT_TRUE(report.folds);
  EXPECT_EQ(report.all.images, 5003);
  EXPECT_EQ(report.folds->images, 5000);
  EXPECT_EQ(report.folds->captions, 5000);
  RankFigures text, image;
  for (int64_t fold = 0; fold < 5; ++fold) {
    std::vector<std::vector<float>> rows;
    std::vector<int64_t> owners;
    for (size_t c = 0; c < g.owner.size(); ++c) {
      if (g.owner[c] / 1000 != fold) continue;
      const float* const row = g.text.data<float>() + 4 * static_cast<int64_t>(c);
      rows.emplace_back(row, row + 4);
      owners.push_back(g.owner[c] % 1000);
    }
    const RetrievalMetrics one = by_brute_force({g.image.slice(1000 * fold, 1000 * (fold + 1)), features(rows), owners});
    for (const auto& [mean, own] : {std::pair{&text, &one.to_text}, {&image, &one.to_image}}) {
      mean->recall_1 += own->recall_1 / 5;
      mean->recall_5 += own->recall_5 / 5;
      mean->recall_10 += own->recall_10 / 5;
      mean->median_rank += own->median_rank / 5;
      mean->mean_rank += own->mean_rank / 5;
    }
  }
  for (const auto& [got, want] : {std::pair{report.folds->to_text, text}, {report.folds->to_image, image}}) {
    EXPECT_NEAR(got.recall_1, want.recall_1, 1e-12);
    EXPECT_NEAR(got.recall_10, want.recall_10, 1e-12);
    EXPECT_NEAR(got.median_rank, want.median_rank, 1e-9);
    EXPECT_NEAR(got.mean_rank, want.mean_rank, 1e-9);
  }
  const Gallery fewer = whole_numbers(std::vector<int64_t>(4999, 1), 4, RngKey{9});
  EXPECT_FALSE(retrieval_report(fewer.image, fewer.text, fewer.owner).folds);
}

/// COCO's five thousand, with narrow features so that it is quick: time and memory do not hang on all scores at once.
TEST(RetrievalMetrics, FiveThousandImagesTakeLittleMemory) {
  CachingAllocator memory(make_host_source());
  const Tensor image = Tensor::zeros(memory, {5000, 16}, DType::f32), text = Tensor::zeros(memory, {25000, 16}, DType::f32);
  std::vector<int64_t> owner;
  for (int64_t c = 0; c < 25000; ++c) owner.push_back(c / 5);
  for (const Tensor* t : {&image, &text})
    for (int64_t i = 0; i < t->numel(); ++i) t->data<float>()[i] = static_cast<float>(normal(RngKey{5}, static_cast<uint64_t>(i))) / 4;
  memory.reset_peak();
  const size_t before = memory.stats().live;
  const RetrievalReport report = retrieval_report(image, text, owner);
  EXPECT_LT(memory.stats().peak - before, size_t{20} << 20);
  EXPECT_NEAR(report.all.to_text.mean_rank, 25000 / 6.0, 300) << "of noise: the best of five among 25,000";
  EXPECT_NEAR(report.folds->to_image.mean_rank, 500, 30);
}

TEST(RetrievalMetrics, ATableAndValuesToStore) {
  const RetrievalMetrics m{.images = 100,
                           .captions = 500,
                           .to_text = {.recall_1 = 0.25, .recall_5 = 0.5, .recall_10 = 0.75, .median_rank = 4.5, .mean_rank = 9.25},
                           .to_image = {.recall_1 = 0.125, .recall_5 = 0.5, .recall_10 = 1, .median_rank = 3, .mean_rank = 4}};
  const std::string text = describe({.all = m, .folds = m});
  for (const char* part : {"100 images, 500 captions", "image to text     25.00 %  50.00 %  75.00 %          4.5        9.2",
                           "text to image     12.50 %", "rsum               312.50", "5 x 1,000 images"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
  const auto values = retrieval_values(m);
  ASSERT_EQ(values.size(), 11u);
  EXPECT_EQ(values[0], (std::pair<std::string, double>("i2t_r1", 25)));
  EXPECT_EQ(values[8], (std::pair<std::string, double>("t2i_median_rank", 3)));
  EXPECT_EQ(values[10], (std::pair<std::string, double>("rsum", 312.5)));
}

TEST(RetrievalMetrics, Refusals) {
  const Tensor two = features({{1, 0}, {0, 1}}), three = features({{1, 0}, {0, 1}, {1, 1}}), narrow = features({{1}, {2}});
  EXPECT_NO_THROW(retrieval_metrics(two, three, std::vector<int64_t>{0, 1, 1}));
  EXPECT_THROW(retrieval_metrics(two, three, std::vector<int64_t>{0, 1}), Error);
  EXPECT_THROW(retrieval_metrics(two, three, std::vector<int64_t>{0, 1, 2}), Error);
  EXPECT_THROW(retrieval_metrics(two, three, std::vector<int64_t>{0, 1, -1}), Error);
  EXPECT_THROW(retrieval_metrics(two, three, std::vector<int64_t>{1, 1, 1}), Error) << "image 0 has no caption";
  EXPECT_THROW(retrieval_metrics(two, narrow, std::vector<int64_t>{0, 1}), Error);
  EXPECT_THROW(retrieval_metrics(Tensor(), two, std::vector<int64_t>{0, 1}), Error);
}

TEST(RetrievalMetrics, EachCaptionFindsAnImage) {
  const Gallery g = whole_numbers({1, 3, 2, 1, 4}, 3, RngKey{31});
  const auto scores = all_scores(g);
  const std::vector<FoundImage> found = found_images(g.image, g.text, g.owner);
  ASSERT_EQ(std::ssize(found), g.captions());
  int64_t first = 0;
  for (int64_t c = 0; c < g.captions(); ++c) {
    const auto at = static_cast<size_t>(c), own = static_cast<size_t>(g.owner[at]);
    int64_t rank = 1, top = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      rank += i != own && scores[i][at] >= scores[own][at];
      if (scores[i][at] > scores[static_cast<size_t>(top)][at]) top = static_cast<int64_t>(i);
    }
    EXPECT_EQ(found[at].rank, rank) << c;
    EXPECT_EQ(found[at].top, top) << c;
    first += rank == 1;
  }
  EXPECT_NEAR(g.metrics().to_image.recall_1, static_cast<double>(first) / static_cast<double>(g.captions()), 1e-12);
}

TEST(RetrievalMetrics, ACaptionWithoutScoresFindsNothing) {
  const Tensor image = features({{1, 0}, {0, 1}}), text = features({{not_a_number, 0}, {0, 1}});
  const std::vector<int64_t> owner = {0, 1};
  const std::vector<FoundImage> found = found_images(image, text, owner);
  EXPECT_EQ(found[0].top, -1);
  EXPECT_EQ(found[0].rank, 2);
  EXPECT_EQ(found[1].top, 1);
  EXPECT_EQ(found[1].rank, 1);
}

}  // namespace
}  // namespace ermoe::testing
