// Makes tar archives for tests, member by member, sound or broken on purpose.
#pragma once

#include <fmt/format.h>

#include <string>

namespace ermoe::testing {

/// What stands in one header; the defaults are those of a plain ustar file.
struct TarMember {
  std::string name;
  std::string content = {};
  char type = '0';
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  std::string prefix = {};
  std::string size_field = {};  // in place of the content's size in octal
};

inline std::string tar_member(const TarMember& m) {
  std::string header(512, '\0');
  const auto put = [&](size_t at, const std::string& text) { header.replace(at, text.size(), text); };
  put(0, m.name);
  put(100, "0000644");
  put(124, m.size_field.empty() ? fmt::format("{:011o}", m.content.size()) : m.size_field);
  put(148, "        ");
  header[156] = m.type;
  put(257, m.magic);
  put(345, m.prefix);
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return header + m.content + std::string((512 - m.content.size() % 512) % 512, '\0');
}

/// A PAX record, `length key=value\n`, whose length counts its own digits.
inline std::string pax_record(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t length = rest.size() + 1;
  while (std::to_string(length).size() + rest.size() != length) ++length;
  return std::to_string(length) + rest;
}

inline std::string tar_end() { return std::string(1024, '\0'); }

}  // namespace ermoe::testing
