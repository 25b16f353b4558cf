#include "tools/input_bench.h"

#include "models/step_times.h"
#include "ops/augment.h"
#include "tools/batch_source.h"
#include "tools/decoder_choice.h"

#include <algorithm>

namespace ermoe {
namespace {

const AugmentSettings varied{.flip = true, .randaugment_n = 2, .randaugment_m = 9, .erasing = 0.25};
const Normalisation grey_level{.mean = {0.5, 0.5, 0.5}, .deviation = {0.25, 0.25, 0.25}};

/// Images a second of `read(i)` for i below `count`, in this thread.
template <typename Read>
double rate_of(int64_t count, const Read& read) {
  Stopwatch watch;
  for (int64_t i = 0; i < count; ++i) read(i);
  return static_cast<double>(count) / watch.lap();
}

std::unique_ptr<Loader> loader_of(Engine& engine, const ImageDataset& data, const InputBench& settings, int threads, JpegEngine* jpeg) {
  const Sampler sampler(data.size(), {.seed = 1, .batch = std::min(settings.batch, data.size()), .mode = Mode::train});
  return std::make_unique<Loader>(data, sampler, engine.staging,
                                  LoaderOptions{.format = {.size = settings.size, .channels = 3},
                                                .crop = ResizedCrop{},
                                                .threads = threads,
                                                .prefetch = threads,
                                                .cache_bytes = 0,
                                                .max_bad = 1,
                                                .engine = jpeg,
                                                .warn = {}});
}

void wait_for(Engine& engine) {
  if (engine.gpu) engine.gpu->synchronize();
}

double augment_rate(Engine& engine, const InputBench& settings) {
  const Tensor pixels = Tensor::zeros(engine.allocator, {settings.batch, settings.size, settings.size, 3}, DType::u8);
  const int64_t rounds = engine.gpu ? 20 : 2;
  augment(engine.ctx, pixels, varied, grey_level, RngKey{1});
  wait_for(engine);
  const double batches = rate_of(rounds, [&](int64_t i) {
    augment(engine.ctx, pixels, varied, grey_level, RngKey{2}.fold(static_cast<uint64_t>(i)));
    if (i + 1 == rounds) wait_for(engine);
  });
  return batches * static_cast<double>(settings.batch);
}

}  // namespace

std::string bench_input(Engine& engine, const InputBench& settings) {
  const DatasetSplits splits = open_dataset(settings.path);
  check_input(splits.train != nullptr, "{} has no training images", settings.path);
  const ImageDataset& data = *splits.train;
  const DecoderDecision decoder = decide_decoder(settings.decoder, data, engine.gpu.get());
  const SampleFormat format{.size = settings.size, .channels = 3};
  const int64_t alone = std::max<int64_t>(1, std::min(settings.images / settings.threads, data.size()));
  const auto key = [](int64_t i) { return RngKey{3}.fold(static_cast<uint64_t>(i)); };
  std::string text = fmt::format("{}: {} training images, parts of them at {} x {}, in images a second\n", settings.path, data.size(),
                                 settings.size, settings.size);
  const auto add = [&](const std::string& what, double rate) { text += fmt::format("  {:<58} {:>9.0f}\n", what, rate); };
  add("one core: read and decode whole", rate_of(alone, [&](int64_t i) { data.read(i); }));
  add("one core: read and decode the part", rate_of(alone, [&](int64_t i) {
        const auto choose = [&](int64_t h, int64_t w) { return draw_resized_crop({}, key(i), h, w); };
        data.read_part(i, {.choose = choose, .side = format.size});
      }));
  SampleReader reader(data, format, 0);
  std::vector<uint8_t> out(static_cast<size_t>(format.elements()));
  add("one core: the same, scaled", rate_of(alone, [&](int64_t i) { reader.read_crop(i, {}, key(i), out.data()); }));
  // A thread makes a batch, and as many as there are threads lie ready: only what comes after several such rounds is a rate.
  const int64_t batch = std::min(settings.batch, data.size()), ready = std::max<int64_t>(1, settings.threads);
  const int64_t batches = std::max(4 * ready, settings.images / batch);
  if (!decoder.note.empty()) text += fmt::format("  from here on {}\n", decoder.note);
  const auto add_batches = [&](int threads, int64_t count) {
    const auto loader = loader_of(engine, data, settings, threads, decoder.engine.get());
    for (int i = 0; i < threads; ++i) loader->next();
    add(fmt::format("{} thread{}: batches of {}", threads, threads == 1 ? "" : "s", batch),
        static_cast<double>(batch) * rate_of(count, [&](int64_t) { loader->next(); }));
  };
  if (decoder.engine && settings.threads > 1) add_batches(1, std::max<int64_t>(4, batches / settings.threads));
  add_batches(settings.threads, batches);
  add(fmt::format("{}: flip, RandAugment, erasing, normalising", engine.device_name()), augment_rate(engine, settings));
  const auto source = streamed_batches(loader_of(engine, data, settings, settings.threads, decoder.engine.get()));
  const auto vary = [&](int64_t i) { augment(engine.ctx, source->next(engine.ctx).images, varied, grey_level, key(i)); };
  for (int64_t i = 0; i < ready; ++i) vary(i);
  add("all of it, as training does", static_cast<double>(batch) * rate_of(batches, [&](int64_t i) {
                                       vary(i);
                                       if (i + 1 == batches) wait_for(engine);
                                     }));
  return text;
}

}  // namespace ermoe
