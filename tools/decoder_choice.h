// Who decodes JPEG files, and what the user should know about that. As with the device (tools/device_choice.h), the engine itself is
// found by somebody else, so that every answer can be tested on a machine without one.
#pragma once

#include "cuda/factory.h"
#include "data/dataset.h"
#include "tools/run_config.h"

#include <functional>
#include <memory>
#include <string>

namespace ermoe {

struct DecoderDecision {
  std::unique_ptr<JpegEngine> engine;  // null: the processor
  std::string note;                    // who decodes photographs, and why; empty where nobody would wonder
};

/// True where one of the first files is a plain JPEG (data/plain_jpeg.h) with more than 128 pixels on its shorter side: smaller
/// ones are not worth their way.
bool holds_photographs(const ImageDataset& data);

/// `find` looks for an engine; it is asked only where one is wanted. Throws InputError with its reason where `choice` is gpu and
/// there is none.
DecoderDecision decide_decoder(DecoderChoice choice, const ImageDataset& data, const std::function<FoundJpegEngine()>& find);

/// The same with the engines of `gpu`, the device that the program computes on; null: the CPU.
DecoderDecision decide_decoder(DecoderChoice choice, const ImageDataset& data, Gpu* gpu);

}  // namespace ermoe
