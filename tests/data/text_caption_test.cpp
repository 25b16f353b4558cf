// What is wrong with a caption, and what becomes of its characters: cases beyond those that the golden ids cover.
#include "data/text/caption.h"
#include "data/text/html.h"
#include "data/text/unicode.h"

#include <gtest/gtest.h>

#include <random>

namespace ermoe::testing {
namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::string_view word = take_word(text); !word.empty(); word = take_word(text)) words.emplace_back(word);
  return words;
}

TEST(Caption, SaysWhatIsWrong) {
  EXPECT_EQ(check_caption("a dog"), std::nullopt);
  EXPECT_EQ(check_caption("caf\xe9"), "has bytes that are no UTF-8, from byte 3 on");
  EXPECT_EQ(check_caption("\xed\xa0\x80"), "has bytes that are no UTF-8, from byte 0 on");
  EXPECT_EQ(check_caption(""), "is empty");
  EXPECT_EQ(check_caption(" \t&nbsp;\xe3\x80\x80"), "has nothing but blanks");
  std::string dogs;
  for (int i = 0; i < 10'000; ++i) dogs += "🐶";
  EXPECT_EQ(check_caption(dogs), std::nullopt);
  EXPECT_EQ(check_caption(dogs + "!"), "has 10001 characters, and 10000 are the most");
}

TEST(Caption, CleansAsClipDoes) {
  EXPECT_EQ(clean_caption("  Two\tDOGS &amp;amp; a\n\ncat "), "two dogs & a cat");
  EXPECT_EQ(clean_caption("&NotEqualTilde; &amp;amp;amp;"), "&notequaltilde; &amp;") << "HTML 5's own names are not known; two rounds";
  EXPECT_EQ(clean_caption("Cafe\u0301"), "caf\u00e9");
}

TEST(Caption, SplitsByClipsPattern) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words_of("it's 12 dogs, isn't it?!"), (Words{"it", "'s", "1", "2", "dogs", ",", "isn", "'t", "it", "?!"}));
  EXPECT_EQ(words_of("they'll'd''s"), (Words{"they", "'ll", "'d", "''", "s"}));
  EXPECT_EQ(words_of(""), Words{});
}

TEST(Html, NamesAndNumbers) {
  EXPECT_EQ(unescape_html("&lt;&gt;&eacute;&hearts;&yuml;&nbsp;&thetasym;&apos;"), "<>é♥ÿ\u00a0ϑ'");
  EXPECT_EQ(unescape_html("&hearts &Yuml &foo; &"), "&hearts &Yuml &foo; &") << "these want their semicolon";
  EXPECT_EQ(unescape_html("&#8364;&#x20ac&#128;"), "€€€");
}

TEST(Unicode, AnyBytesBecomeValidText) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(trial % 2 == 0 ? random() : "&#x;amp'0aE\xcc\x81\xf0\x9f\xce\xa3"[random() % 17]);
    EXPECT_EQ(first_invalid_byte(valid_utf8(bytes, 100)), std::nullopt);
    const std::string clean = clean_caption(bytes);
    EXPECT_EQ(first_invalid_byte(clean), std::nullopt);
    std::string joined;
    for (const std::string& word : words_of(clean)) joined += word;
    std::string rest = clean;
    std::erase(rest, ' ');
    EXPECT_EQ(joined, rest) << "words are all of the text";
  }
}

TEST(Unicode, CountsCharactersNotBytes) {
  EXPECT_EQ(valid_utf8("é你🐶a", 3), "é你🐶");
  EXPECT_EQ(valid_utf8("\xff\xff\xff", 2), "\ufffd\ufffd");
  EXPECT_EQ(clean_caption(std::string(12'000, 'x')).size(), longest_caption);
}

}  // namespace
}  // namespace ermoe::testing
