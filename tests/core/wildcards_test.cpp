// Patterns with * and ?, and one that a matcher which goes back and forth would never finish.
#include "core/wildcards.h"

#include <gtest/gtest.h>

#include <string>

namespace ermoe::testing {
namespace {

TEST(Wildcards, StandForAnyTextAndForOneCharacter) {
  for (const auto& [pattern, name] :
       {std::pair{"", ""}, {"*", ""}, {"*", "a/b"}, {"a*c", "ac"}, {"a*c", "abcbc"}, {"?b*", "ab"}, {"**a", "ba"}})
    EXPECT_TRUE(matches_wildcards(pattern, name)) << pattern << " and " << name;
  for (const auto& [pattern, name] : {std::pair{"", "a"}, {"?", ""}, {"a*c", "acb"}, {"a", "ab"}, {"ab", "a"}, {"?b", "bb/b"}, {"A", "a"}})
    EXPECT_FALSE(matches_wildcards(pattern, name)) << pattern << " and " << name;
}

TEST(Wildcards, TakeNoLongerThanTheProductOfLengths) {
  std::string stars;
  for (int i = 0; i < 1000; ++i) stars += "*a";
  EXPECT_FALSE(matches_wildcards(stars + "b", std::string(3000, 'a')));
}

}  // namespace
}  // namespace ermoe::testing
