// Shapes: sizes, axes from both ends, and what is refused.
#include "core/shape.h"

#include <gtest/gtest.h>

#include <vector>

namespace ermoe::testing {
namespace {

TEST(Shape, CountsAndNamesItself) {
  const Shape s{2, 65, 384};
  EXPECT_EQ(s.rank(), 3);
  EXPECT_EQ(s.numel(), 2 * 65 * 384);
  EXPECT_EQ(s.str(), "(2, 65, 384)");
  EXPECT_EQ(s[0], 2);
  EXPECT_EQ(s[-1], 384);
  EXPECT_EQ(s[-3], 2);
  EXPECT_EQ(std::vector<int64_t>(s.begin(), s.end()), (std::vector<int64_t>{2, 65, 384}));
}

TEST(Shape, AScalarHasOneElement) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(Shape{}.rank(), 0);
  EXPECT_EQ(Shape{}.str(), "()");
  EXPECT_EQ((Shape{3, 0, 2}).numel(), 0);
}

TEST(Shape, RowsArePrefixProducts) {
  const Shape s{2, 3, 5};
  EXPECT_EQ(s.rows(), 6);
  EXPECT_EQ(s.rows(0), 1);
  EXPECT_EQ(s.rows(1), 2);
  EXPECT_EQ(s.rows(-2), 2);
}

TEST(Shape, WithReplacesOneAxis) {
  const Shape s{2, 3};
  EXPECT_EQ(s.with(0, 7), (Shape{7, 3}));
  EXPECT_EQ(s.with(-1, 0), (Shape{2, 0}));
  EXPECT_EQ(s, (Shape{2, 3}));
}

TEST(Shape, EqualityNeedsEqualRank) {
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
  EXPECT_NE((Shape{2, 0}), (Shape{2}));
  EXPECT_NE(Shape{}, Shape{1});
}

TEST(Shape, RefusesWhatIsNoShape) {
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  EXPECT_THROW((Shape{2, -1}), Error);
  const Shape s{2, 3};
  EXPECT_THROW(s[2], Error);
  EXPECT_THROW(s[-3], Error);
  EXPECT_THROW(s.with(2, 1), Error);
  EXPECT_THROW(Shape{}[0], Error);
  EXPECT_THROW(Shape{}.rows(), Error);
}

}  // namespace
}  // namespace ermoe::testing
