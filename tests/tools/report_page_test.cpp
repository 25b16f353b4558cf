// The report: pages that hold what was put into them and nothing that ends where it stands; columns of metrics; settings that differ.
#include "tools/report_page.h"

#include "core/error.h"
#include "tests/tools/temp_folder.h"
#include "tools/report_curves.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace ermoe {
namespace {

using nlohmann::ordered_json;
using testing::TempFolder;

TEST(ReportPage, HoldsItsPartsAndItsData) {
  const std::string page = report_page("a <run> & more", {{"runs", {1, 2}}});
  for (const std::string_view part :
       {page_parts().css, page_parts().charts, page_parts().page, page_parts().sections, page_parts().selftest})
    EXPECT_NE(page.find(part), std::string::npos);
  EXPECT_NE(page.find("<h1>a &lt;run&gt; &amp; more</h1>"), std::string::npos);
  EXPECT_NE(page.find(R"({"runs":[1,2]})"), std::string::npos);
}

TEST(ReportPage, NoNameEndsThePlaceWhereItStands) {
  const std::string bad = "</script><script>alert(1)</script>{{css}}";
  const std::string page = report_page("t", {{"classes", {bad}}}), plain = report_page("t", ordered_json::object());
  const auto count = [](const std::string& text, std::string_view what) {
    size_t n = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count(page, "</script>"), count(plain, "</script>"));
  EXPECT_EQ(count(page, "color-scheme: light dark"), count(plain, "color-scheme: light dark"));  // the style sheet was not put in again
  const std::string mark = "<script type=\"application/json\" id=\"data\">";
  const size_t from = page.find(mark) + mark.size(), to = page.find("</script>", from);
  EXPECT_EQ(ordered_json::parse(page.substr(from, to - from))["classes"][0], bad);
}

TEST(Brief, KeepsFiveDigits) {
  EXPECT_EQ(brief(0.123456789), 0.12346);
  EXPECT_EQ(brief(-1234567.0), -1234600.0);
  EXPECT_EQ(brief(0), 0);
}

TEST(ReportCurves, AreColumnsWithGaps) {
  const TempFolder folder;
  folder.file("metrics.jsonl",
              "{\"step\":1,\"split\":\"train\",\"loss\":2.000001}\n{\"step\":2,\"split\":\"eval\",\"accuracy\":0.5}\n"
              "{\"step\":2,\"split\":\"train\",\"loss\":null,\"lr\":0.1}\n{\"step\":3,\"split\":\"tr");
  const ordered_json curves = report_curves(folder.path().string());
  EXPECT_EQ(curves["train"]["step"], ordered_json({1, 2}));
  EXPECT_EQ(curves["train"]["loss"], ordered_json::array({2.0, nullptr}));
  EXPECT_EQ(curves["train"]["lr"], ordered_json::array({nullptr, 0.1}));
  EXPECT_EQ(curves["eval"]["accuracy"], ordered_json({0.5}));
}

TEST(ReportCurves, OfLongRunsAreThinnedToTheirEnd) {
  const TempFolder folder;
  std::string text;
  for (int i = 1; i <= 2345; ++i) text += "{\"step\":" + std::to_string(i) + ",\"split\":\"train\",\"loss\":1}\n";
  folder.file("metrics.jsonl", text);
  const ordered_json steps = report_curves(folder.path().string())["train"]["step"];
  EXPECT_LE(steps.size(), 501u);
  EXPECT_GT(steps.size(), 400u);
  EXPECT_EQ(steps.back(), 2345);
}

TEST(ReportCurves, WhatIsNoLogIsNamed) {
  const TempFolder folder;
  const auto fault = [&](const std::string& text) -> std::string {
    folder.file("metrics.jsonl", text);
    try {
      report_curves(folder.path().string());
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  const std::string good = "{\"step\":1,\"split\":\"train\"}\n";
  EXPECT_EQ(fault(good), "");
  EXPECT_NE(fault(good + "no row\n").find("metrics.jsonl, line 2"), std::string::npos);
  EXPECT_NE(fault("{\"step\":\"one\",\"split\":\"train\"}\n").find("line 1: is no row of metrics"), std::string::npos);
  EXPECT_THROW(report_curves(folder.path().string() + "/nowhere"), InputError);
}

TEST(ReportSettings, OfOneRunAreThoseThatWereSet) {
  RunConfig run;
  EXPECT_TRUE(report_settings({run}).empty());
  run.optim.lr = 0.5;
  const ordered_json rows = report_settings({run});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0]["key"], "optim.lr");
  EXPECT_EQ(rows[0]["standard"], "0.001");
  EXPECT_EQ(rows[0]["values"], ordered_json({"0.5"}));
}

TEST(ReportSettings, OfSeveralAreThoseThatDiffer) {
  RunConfig a, b;
  a.optim.lr = b.optim.lr = 0.5;
  b.data.path = "elsewhere";
  const ordered_json rows = report_settings({a, b, a});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0]["key"], "data.path");
  EXPECT_EQ(rows[0]["values"], ordered_json({"(none)", "elsewhere", "(none)"}));
}

}  // namespace
}  // namespace ermoe
