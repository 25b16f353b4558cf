#include "tools/decoder_choice.h"

#include "core/error.h"
#include "data/plain_jpeg.h"

#include <algorithm>

namespace ermoe {
namespace {

constexpr int64_t smallest_photograph = 128;
constexpr int64_t files_looked_at = 16;

}  // namespace

bool holds_photographs(const ImageDataset& data) {
  for (int64_t i = 0; i < std::min(files_looked_at, data.size()); ++i) {
    try {
      const std::optional<std::string> file = data.file(i);
      const auto jpeg = file ? find_plain_jpeg(std::as_bytes(std::span(*file))) : std::nullopt;
      if (jpeg && std::min(jpeg->height, jpeg->width) > smallest_photograph) return true;
    } catch (const InputError&) {
      continue;  // the loader counts and names broken files
    }
  }
  return false;
}

DecoderDecision decide_decoder(DecoderChoice choice, const ImageDataset& data, const std::function<FoundJpegEngine()>& find) {
  if (choice == DecoderChoice::cpu || (choice == DecoderChoice::auto_ && !holds_photographs(data))) return {};
  FoundJpegEngine found = find();
  check_input(found.engine || choice == DecoderChoice::auto_, "data.decoder: gpu was asked for, but {}", found.fault);
  if (!found.engine) return {nullptr, fmt::format("JPEG files are decoded by the CPU: {}", found.fault)};
  std::string note = fmt::format("JPEG files are decoded by the GPU ({})", found.engine->name());
  return {std::move(found.engine), std::move(note)};
}

DecoderDecision decide_decoder(DecoderChoice choice, const ImageDataset& data, Gpu* gpu) {
  if (gpu != nullptr) return decide_decoder(choice, data, [gpu] { return gpu->jpeg_engine(); });
  check_input(choice != DecoderChoice::gpu, "data.decoder: gpu was asked for, but this program computes on the CPU");
  return {};
}

}  // namespace ermoe
