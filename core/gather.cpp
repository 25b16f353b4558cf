#include "core/gather.h"

#include <algorithm>

namespace ermoe {

std::vector<std::byte> gather_bytes(Communicator& comm, std::span<const std::byte> own) {
  if (comm.size() == 1) return {own.begin(), own.end()};
  CachingAllocator memory(make_host_source());
  const Tensor size = Tensor::from<int64_t>(memory, {1}, std::vector{static_cast<int64_t>(own.size())});
  const Tensor sizes = Tensor::empty(memory, {comm.size()}, DType::i64);
  comm.all_gather(size, sizes);
  const auto each = sizes.span<int64_t>();
  const int64_t most = *std::ranges::max_element(each);
  const Tensor padded = Tensor::zeros(memory, {most}, DType::u8), all = Tensor::empty(memory, {comm.size() * most}, DType::u8);
  std::ranges::copy(own, padded.raw());
  comm.all_gather(padded, all);
  std::vector<std::byte> gathered;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const std::byte* begin = all.raw() + rank * most;
    gathered.insert(gathered.end(), begin, begin + each[static_cast<size_t>(rank)]);
  }
  return gathered;
}

std::vector<std::string> gather_texts(Communicator& comm, const std::string& own) {
  const std::string text = own.c_str();  // an end mark inside would make two of it
  const std::vector<std::byte> all = gather_bytes(comm, std::as_bytes(std::span(text.c_str(), text.size() + 1)));
  std::vector<std::string> texts;
  for (size_t at = 0; at < all.size(); at += texts.back().size() + 1) texts.emplace_back(reinterpret_cast<const char*>(all.data() + at));
  return texts;
}

void reduce_over_ranks(Communicator& comm, std::span<double> values, ReduceOp op) {
  if (comm.size() == 1 || values.empty()) return;
  CachingAllocator memory(make_host_source());
  const Tensor t = Tensor::from<double>(memory, {static_cast<int64_t>(values.size())}, values);
  comm.all_reduce(t, op);
  std::ranges::copy(t.span<double>(), values.begin());
}

}  // namespace ermoe
