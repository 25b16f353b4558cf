// A context's listener hears of every op that runs on a device, by the file that it stands in, and hears it end.
#include "core/op_ranges.h"

#include "core/context.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ermoe {
namespace {

struct Heard final : OpListener {
  void enter(std::string_view op) override { events.emplace_back(op); }
  void leave() override { events.emplace_back("-"); }
  std::vector<std::string> events;
};

using Events = std::vector<std::string>;

TEST(OpRange, NestsAndEnds) {
  Heard heard;
  {
    const OpRange outer(&heard, "outer");
    const OpRange inner(&heard, "inner");
  }
  EXPECT_EQ(heard.events, (Events{"outer", "inner", "-", "-"}));
}

TEST(OpRange, EndsWhereAnOpFails) {
  Heard heard;
  ExecContext ctx;
  ctx.listener = &heard;
  EXPECT_THROW(on_device(
                   ctx, [] { fail("[op] no"); }, [](auto) {}),
               Error);
  EXPECT_EQ(heard.events.back(), "-");
}

TEST(OnDevice, NamesTheOpByItsFile) {
  Heard heard;
  ExecContext ctx;
  ctx.listener = &heard;
  on_device(
      ctx, [] {}, [](auto) {});
  on_device(
      ctx, 1.0f, [](auto) {}, [](auto) {});
  EXPECT_EQ(heard.events, (Events{"op_ranges_test", "-", "op_ranges_test", "-"}));
}

TEST(OnDevice, RunsWithoutAListener) {
  int runs = 0;
  on_device(
      ExecContext{}, [&] { ++runs; }, [](auto) {});
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace ermoe
