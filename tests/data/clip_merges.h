// Made-up lists of merges in the form of CLIP's.
#pragma once

#include "data/text/bpe.h"

#include <string>

namespace ermoe::testing {

/// OpenAI's first line, then `count` <= 65,536 merges of two bytes, of those that no caption holds: control characters.
inline std::string clip_like_merges(int count) {
  const ByteSymbols symbols;
  std::string text = "\"bpe_simple_vocab_16e6.txt#version: 0.2\n";
  for (int i = 0; i < count; ++i)
    text += symbols.symbol(static_cast<uint8_t>(i / 256)) + " " + symbols.symbol(static_cast<uint8_t>(i % 256)) + "\n";
  return text;
}

}  // namespace ermoe::testing
