// Hostile and odd JSON: what is refused, in which words, and that the limits hold before memory is spent.
#include "core/json.h"

#include "core/error.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace ermoe::testing {
namespace {

std::string fault_of(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "x.json", limits);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Json, EqualsTheLibrarysOwnDocument) {
  const std::string text =
      R"( {"a":[1,-2,3.5,1e300,true,false,null,"é\n\u00e9"],"b":{"c":{},"d":[[],[[]],{"e":[{}]}]},"":18446744073709551615} )";
  EXPECT_EQ(parse_json(text, "x.json"), nlohmann::json::parse(text));
  for (const char* scalar : {"1", "\"s\"", "null", "[]", "{}"}) EXPECT_EQ(parse_json(scalar, "x.json"), nlohmann::json::parse(scalar));
}

TEST(Json, NamesLineAndColumn) {
  EXPECT_EQ(fault_of("{\n  \"a\": 1,\n  \"b\": }\n"),
            "x.json: line 3, column 8 is not JSON: unexpected '}'; expected '[', '{', or a literal");
  EXPECT_EQ(fault_of("[1,2"), "x.json: line 1, column 5 is not JSON: unexpected end of input; expected ']'");
  EXPECT_EQ(fault_of("").substr(0, 38), "x.json: line 1, column 1 is not JSON: ");
}

TEST(Json, AFaultIsOneShortPrintableLine) {
  const std::string longest(100'000, '\x01');
  for (const std::string& text : std::vector<std::string>{"\"" + longest, "\"\xff\xfe\"", "{\"a\":" + longest, "[1] 2", "{\"\x7f\n",
                                                          "1e999", "nul", "\xef\xbb\xbf"}) {
    const std::string fault = fault_of(text);
    EXPECT_EQ(fault.substr(0, 8), "x.json: ") << fault;
    EXPECT_LT(fault.size(), 200u);
    for (const char c : fault) EXPECT_TRUE(c >= ' ' && c <= '~') << fault;
  }
}

TEST(Json, RefusesAKeyTwice) {
  EXPECT_EQ(fault_of(R"({"a":1,"b":{"a":2,"a":3}})"), "x.json: the key 'a' stands twice in one object");
  EXPECT_EQ(fault_of(R"([{"a":1},{"a":1,"b":{"a":2}}])"), "accepted");
}

TEST(Json, HoldsItsLimits) {
  EXPECT_EQ(fault_of("[[[]]]", {.max_depth = 3}), "accepted");
  EXPECT_EQ(fault_of("[[[]]]", {.max_depth = 2}), "x.json: JSON nested deeper than 2 levels");
  EXPECT_EQ(fault_of(std::string(1'000'000, '[')), "x.json: JSON nested deeper than 64 levels");
  EXPECT_EQ(fault_of("[1,2,3]", {.max_values = 4}), "accepted");
  EXPECT_EQ(fault_of("[1,2,3]", {.max_values = 3}), "x.json: more than 3 JSON values");
  EXPECT_EQ(fault_of("[1,2,3]", {.max_bytes = 6}), "x.json: 7 bytes of JSON, above the limit of 6");
}

TEST(Json, ANulByteIsNotTheEnd) {
  EXPECT_EQ(fault_of(std::string("{}\0garbage", 10)), "x.json: holds a NUL byte, which JSON does not know");
}

TEST(Json, ReadsAFile) {
  EXPECT_THROW(read_json("/nonexistent/x.json"), InputError);
  EXPECT_THROW(read_json("/dev/zero"), InputError);
  EXPECT_THROW(read_json("/"), InputError);
}

TEST(Json, KeepsOnlyTheKeysThatAreWanted) {
  const std::string text =
      R"({"a": 1, "x": {"a": [1, {"a": 2}], "x": []}, "b": [{"a": "s", "x": 3}, {"x": [[]]}, 4], "y": "z", "c": {"y": 1}})";
  JsonLimits limits{.keys = {"a", "b", "c"}};
  EXPECT_EQ(parse_json(text, "x.json", limits), nlohmann::json::parse(R"({"a": 1, "b": [{"a": "s"}, {}, 4], "c": {}})"));
  limits.max_values = 8;  // those that are kept, and the document
  EXPECT_NO_THROW(parse_json(text, "x.json", limits));
  limits.max_values = 7;
  EXPECT_THROW(parse_json(text, "x.json", limits), InputError);
  const std::string deep = R"({"x": )" + std::string(80, '[') + std::string(80, ']') + "}";
  EXPECT_THROW(parse_json(deep, "x.json", limits), InputError);
  EXPECT_THROW(parse_json(R"({"x": [1, 2})", "x.json", limits), InputError);
  EXPECT_THROW(parse_json(R"({"a": 1, "x": 2, "a": 3})", "x.json", limits), InputError);
}

}  // namespace
}  // namespace ermoe::testing
