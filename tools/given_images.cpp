#include "tools/given_images.h"

#include "data/loader.h"
#include "ops/augment.h"
#include "tools/evaluation.h"
#include "tools/image_pipeline.h"

#include <algorithm>

namespace ermoe {

int64_t for_each_given_batch(Engine& engine, const RunConfig& config, const ImageDataset& images, int threads, const WarnFn& warn,
                             const ImagesFn& fn) {
  ExecContext ctx = engine.ctx;
  ctx.mode = Mode::eval;
  const Normalisation normalisation{.mean = config.data.mean, .deviation = config.data.std};
  const Sampler sampler(images.size(), {.batch = std::min<int64_t>(images.size(), evaluation_batch(config.train)), .mode = Mode::eval});
  Loader loader(images, sampler, engine.staging,
                {.format = sample_format(config), .threads = threads, .prefetch = threads, .cache_bytes = 0, .max_bad = 1, .warn = warn});
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const Batch batch = loader.next();
    if (batch.indices.empty()) continue;
    fn(batch.indices, Variable(augment(ctx, on_device_of(ctx, batch.images), {}, normalisation, {})));
  }
  return loader.bad_files();
}

}  // namespace ermoe
