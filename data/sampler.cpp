// The keyed permutation and the sharding over ranks. Read data/sampler.h first.
#include "data/sampler.h"

#include <algorithm>
#include <bit>

namespace ermoe {

namespace {

// Four balanced rounds suffice for large domains; tiny ones (a handful of samples) want more to look shuffled.
constexpr uint64_t feistel_rounds = 8;

constexpr uint64_t mask(int bits) { return (uint64_t{1} << bits) - 1; }

}  // namespace

Permutation::Permutation(int64_t n, RngKey key) : n_(static_cast<uint64_t>(n)), key_(key) {
  check(n >= 1 && n < (int64_t{1} << 62), "[permutation] of {} elements", n);
  const int bits = std::max(2, static_cast<int>(std::bit_width(n_ - 1)));
  low_bits_ = bits / 2;
  high_bits_ = bits - low_bits_;
}

uint64_t Permutation::encrypt(uint64_t value) const {
  uint64_t low = value & mask(low_bits_), high = value >> low_bits_;
  const auto round_bits = [this](uint64_t half, uint64_t round) { return philox(key_, half * feistel_rounds + round).x[0]; };
  for (uint64_t round = 0; round < feistel_rounds; round += 2) {
    // Each half changes by a function of the other alone, so both lines can be undone: a bijection at any widths.
    high ^= round_bits(low, round) & mask(high_bits_);
    low ^= round_bits(high, round + 1) & mask(low_bits_);
  }
  return high << low_bits_ | low;
}

int64_t Permutation::operator()(int64_t i) const {
  uint64_t value = encrypt(static_cast<uint64_t>(i));
  while (value >= n_) value = encrypt(value);
  return static_cast<int64_t>(value);
}

Sampler::Sampler(int64_t size, const SamplerOptions& options) : size_(size), options_(options) {
  constexpr int64_t most = int64_t{1} << 31;
  check(size >= 1, "[sampler] a data set of {} samples", size);
  check(options.world >= 1 && options.rank >= 0 && options.rank < options.world, "[sampler] rank {} of {}", options.rank, options.world);
  check_input(options.batch >= 1 && options.batch <= most, "batch: {} samples a step, where 1 to {} are possible", options.batch, most);
  if (options.mode == Mode::train) {
    steps_ = size / options.batch;
    check_input(steps_ >= 1, "batch: {} training samples are fewer than one step of {}", size, options.batch);
    check_input(options.batch >= options.world, "batch: {} samples a step for {} ranks, each of which wants at least one", options.batch,
                options.world);
  } else {
    steps_ = (size + options.batch - 1) / options.batch;
  }
}

BatchPart Sampler::part(Cursor at) const {
  check(at.epoch >= 0 && at.step >= 0 && at.step < steps_, "[sampler] step {} of epoch {}, but an epoch has {}", at.step, at.epoch, steps_);
  return part_of_batch(std::min(options_.batch, size_ - at.step * options_.batch), options_.rank, options_.world);
}

std::vector<int64_t> Sampler::indices(Cursor at) const {
  const BatchPart own = part(at);
  const int64_t begin = at.step * options_.batch + own.first, end = begin + own.count;
  std::vector<int64_t> result(static_cast<size_t>(end - begin));
  if (options_.mode == Mode::eval) {
    for (int64_t place = begin; place < end; ++place) result[static_cast<size_t>(place - begin)] = place;
    return result;
  }
  const Permutation order(size_, RngKey{options_.seed}.fold(static_cast<uint64_t>(at.epoch)));
  for (int64_t place = begin; place < end; ++place) result[static_cast<size_t>(place - begin)] = order(place);
  return result;
}

Cursor Sampler::after(Cursor at) const {
  if (at.step + 1 < steps_) return {at.epoch, at.step + 1};
  return {at.epoch + 1, 0};
}

}  // namespace ermoe
