#include "tools/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

namespace ermoe {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}

/// TFRecord stores checksums rotated and offset, so that a record inside a record keeps a different one.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

template <typename T>
void put_raw(std::string& out, T value) {  // little-endian, as the machine is
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7f));
  out += static_cast<char>(value);
}

enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_key(std::string& out, int field, Wire wire) { put_varint(out, static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire)); }

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, Wire::bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

/// Event{wall_time = 1, step = 2}, to which the caller adds what happened.
std::string event(int64_t step) {
  std::string out;
  put_key(out, 1, Wire::fixed64);
  put_raw(out, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  put_key(out, 2, Wire::varint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

std::string event_file_name() {
  char host[256] = {};
  if (::gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0') std::strcpy(host, "localhost");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  return fmt::format("events.out.tfevents.{}.{}.{}.{}", micros / 1000000, host, ::getpid(), micros % 1000000);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr auto table = crc_table();
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::string tf_record(std::string_view bytes) {
  std::string out;
  put_raw(out, static_cast<uint64_t>(bytes.size()));
  put_raw(out, masked_crc(out));
  out += bytes;
  put_raw(out, masked_crc(bytes));
  return out;
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, int64_t first_step) : file_(folder + "/" + event_file_name()) {
  std::string version = event(0);
  put_bytes(version, 3, "brain.Event:2");
  file_.append(tf_record(version));
  if (first_step == 0) return;
  std::string session;  // SessionLog{status = 1: START}
  put_key(session, 1, Wire::varint);
  put_varint(session, 1);
  std::string start = event(first_step);
  put_bytes(start, 7, session);
  file_.append(tf_record(start));
}

void TensorBoardWriter::add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  if (scalars.empty()) return;
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;  // Value{tag = 1, simple_value = 2}
    put_bytes(value, 1, tag);
    put_key(value, 2, Wire::fixed32);
    put_raw(value, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string row = event(step);
  put_bytes(row, 5, summary);
  file_.append(tf_record(row));
}

}  // namespace ermoe
