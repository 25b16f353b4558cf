// Who decodes photographs, and what the user is told.
#include "tools/decoder_choice.h"

#include "core/error.h"
#include "tests/data/image_samples.h"
#include "tests/data/jpeg_files.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

FilesInMemory data_of(int64_t height, int64_t width) { return FilesInMemory({make_jpeg(gradient(height, width))}); }

FoundJpegEngine found_one() {
  return {std::make_unique<ToldEngine>([](const std::string&) { return Image{}; }), {}};
}

FoundJpegEngine found_none() { return {nullptr, "there is none"}; }

TEST(DecoderChoice, PhotographsAreJpegFilesOfSomeSize) {
  EXPECT_TRUE(holds_photographs(data_of(129, 200)));
  EXPECT_FALSE(holds_photographs(data_of(128, 200)));
  EXPECT_FALSE(holds_photographs(FilesInMemory({"no image"})));
  EXPECT_TRUE(holds_photographs(FilesInMemory({"no image", make_jpeg(gradient(150, 150))})));
}

TEST(DecoderChoice, AutoTakesAnEngineForPhotographs) {
  const DecoderDecision photographs = decide_decoder(DecoderChoice::auto_, data_of(200, 200), found_one);
  EXPECT_TRUE(photographs.engine);
  EXPECT_EQ(photographs.note, "JPEG files are decoded by the GPU (told)");
  EXPECT_FALSE(decide_decoder(DecoderChoice::auto_, data_of(64, 64), found_one).engine);
}

TEST(DecoderChoice, WhatIsAskedForIsDoneOrRefused) {
  EXPECT_TRUE(decide_decoder(DecoderChoice::gpu, data_of(64, 64), found_one).engine);
  EXPECT_FALSE(decide_decoder(DecoderChoice::cpu, data_of(200, 200), found_one).engine);
  const DecoderDecision none = decide_decoder(DecoderChoice::auto_, data_of(200, 200), found_none);
  EXPECT_FALSE(none.engine);
  EXPECT_EQ(none.note, "JPEG files are decoded by the CPU: there is none");
  try {
    decide_decoder(DecoderChoice::gpu, data_of(200, 200), found_none);
    ADD_FAILURE() << "nothing was refused";
  } catch (const InputError& e) {
    EXPECT_STREQ(e.what(), "data.decoder: gpu was asked for, but there is none");
  }
}

TEST(DecoderChoice, AProgramOnTheCpuHasNoEngine) {
  const DecoderDecision decision = decide_decoder(DecoderChoice::auto_, data_of(200, 200), nullptr);
  EXPECT_FALSE(decision.engine);
  EXPECT_EQ(decision.note, "");
  EXPECT_THROW(decide_decoder(DecoderChoice::gpu, data_of(200, 200), nullptr), InputError);
}

}  // namespace
}  // namespace ermoe::testing
