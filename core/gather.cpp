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
  const std::vector<uint64_t> sizes = gather_from_all(comm, std::vector{uint64_t{own.size()}});
  const std::vector<std::byte> bytes = gather_bytes(comm, std::as_bytes(std::span(own)));
  std::vector<std::string> texts;
  size_t begin = 0;
  for (const uint64_t size : sizes) {
    texts.emplace_back(reinterpret_cast<const char*>(bytes.data()) + begin, size);
    begin += size;
  }
  return texts;
}

std::string broadcast_text(Communicator& comm, const std::string& of_rank_0) {
  return gather_texts(comm, comm.rank() == 0 ? of_rank_0 : std::string())[0];
}

void all_or_none(Communicator& comm, const std::function<void()>& work) {
  if (comm.size() == 1) return work();
  std::string trouble;  // its kind, then the sentence
  try {
    work();
  } catch (const OutOfMemory& e) {
    trouble = fmt::format("m{}", e.what());
  } catch (const InputError& e) {
    trouble = fmt::format("i{}", e.what());
  } catch (const std::exception& e) {
    trouble = fmt::format("e{}", e.what());
  }
  const std::vector<std::string> troubles = gather_texts(comm, trouble);
  for (size_t rank = 0; rank < troubles.size(); ++rank) {
    if (troubles[rank].empty()) continue;
    const std::string sentence = fmt::format("rank {}: {}", rank, troubles[rank].substr(1));
    if (troubles[rank][0] == 'm') throw OutOfMemory(sentence);
    if (troubles[rank][0] == 'i') throw InputError(sentence);
    throw Error(sentence);
  }
}

void reduce_over_ranks(Communicator& comm, std::span<double> values, ReduceOp op) {
  if (comm.size() == 1 || values.empty()) return;
  CachingAllocator memory(make_host_source());
  const Tensor t = Tensor::from<double>(memory, {static_cast<int64_t>(values.size())}, values);
  comm.all_reduce(t, op);
  std::ranges::copy(t.span<double>(), values.begin());
}

}  // namespace ermoe
