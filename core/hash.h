// FNV-1a: a hash of bytes that is the same in every process and on every machine. It keeps nobody from making two texts meet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ermoe {

inline constexpr uint64_t empty_hash = 0xcbf29ce484222325;

/// `hash` of what came before, continued by `bytes`.
constexpr uint64_t fnv1a(std::span<const std::byte> bytes, uint64_t hash = empty_hash) {
  for (const std::byte b : bytes) hash = (hash ^ static_cast<uint64_t>(b)) * 0x100000001b3;
  return hash;
}

}  // namespace ermoe
