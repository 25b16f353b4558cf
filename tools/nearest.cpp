#include "tools/nearest.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

float cosine(const float* a, const float* b, int64_t width) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t p = 0; p < width; ++p) sum += static_cast<double>(a[p]) * static_cast<double>(b[p]);
  return static_cast<float>(sum);
}

bool ahead(const Match& a, const Match& b) {
  if (std::isnan(a.score) != std::isnan(b.score)) return std::isnan(b.score);
  return a.score > b.score || (!(b.score > a.score) && a.index < b.index);
}

std::vector<Match> nearest_to(const float* query, const Tensor& candidates, int64_t count) {
  const int64_t n = candidates.shape()[0], width = candidates.shape()[1];
  std::vector<Match> all;
  for (int64_t i = 0; i < n; ++i) all.push_back({i, cosine(query, candidates.data<float>() + i * width, width)});
  const int64_t kept = std::min(count, n);
  std::ranges::partial_sort(all, all.begin() + kept, ahead);
  return {all.begin(), all.begin() + kept};
}

}  // namespace

std::vector<std::vector<Match>> nearest(const Tensor& queries, const Tensor& candidates, int64_t count) {
  for (const Tensor* t : {&queries, &candidates})
    check(t->dtype() == DType::f32 && t->shape().rank() == 2 && !t->device().is_cuda(),
          "[nearest] wants features (N, P) in f32 on the host but got {} {}", name_of(t->dtype()), t->shape().str());
  check(queries.shape()[1] == candidates.shape()[1] && count >= 0, "[nearest] {} among {}, {} of them", queries.shape().str(),
        candidates.shape().str(), count);
  std::vector<std::vector<Match>> found;
  for (int64_t q = 0; q < queries.shape()[0]; ++q)
    found.push_back(nearest_to(queries.data<float>() + q * queries.shape()[1], candidates, count));
  return found;
}

}  // namespace ermoe
