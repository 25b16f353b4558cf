#include "tools/pipeline.h"

#include "tools/caption_pipeline.h"
#include "tools/image_pipeline.h"
#include "tools/model_choice.h"
#include "tools/volume_pipeline.h"

namespace ermoe {

std::unique_ptr<Pipeline> open_pipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world,
                                        std::shared_ptr<const Tokenizer> tokenizer) {
  if (task_of(config) == Task::pairs)
    return std::make_unique<CaptionPipeline>(config, host, threads, std::move(warn), rank, world, std::move(tokenizer));
  if (config.model.dimensions == 3) return std::make_unique<VolumePipeline>(config, host, threads, std::move(warn), rank, world);
  return std::make_unique<ImagePipeline>(config, host, threads, std::move(warn), rank, world);
}

}  // namespace ermoe
