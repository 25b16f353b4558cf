// Text and pictures within pages of HTML.
#include "tools/html.h"

#include "core/error.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

TEST(HtmlText, HoldsNoMarkup) {
  EXPECT_EQ(html_text("a <b> & \"c\" 'd'"), "a &lt;b&gt; &amp; &quot;c&quot; 'd'");
  EXPECT_EQ(html_text("&lt;"), "&amp;lt;") << "what looks escaped is text too";
}

TEST(HtmlText, IsValidUtf8WithoutControls) {
  EXPECT_EQ(html_text("caf\xc3\xa9 \xff\xc3"), "caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(html_text(std::string_view("a\0b\x1b[1m\x7f\n\t", 10)),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd[1m\xef\xbf\xbd\n\t");
}

TEST(HtmlText, TurnsNoDirection) {
  EXPECT_EQ(html_text("a\xe2\x80\xaegpj.exe"), "a\xef\xbf\xbdgpj.exe");
  EXPECT_EQ(html_text("\xe2\x81\xa7\xc2\x85"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(html_text("\xd7\xa9\xd7\x9c"), "\xd7\xa9\xd7\x9c") << "letters of any script stay";
}

TEST(Filled, PutsEachValueAtItsMarkAndNotIntoValues) {
  EXPECT_EQ(filled("<{{a}}|{{b}}|{{a}}>", {{"a", "{{b}}"}, {"b", "2"}}), "<{{b}}|2|{{b}}>");
  EXPECT_THROW(filled("{{c}}", {{"a", "1"}}), Error);
  EXPECT_THROW(filled("{{a", {{"a", "1"}}), Error);
}

TEST(DataUri, OfAKnownPicture) {
  const Image small{.height = 1, .width = 1, .channels = 1, .pixels = {7}};
  const std::string uri = data_uri(small);
  EXPECT_EQ(uri.rfind("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCA", 0), 0u)
      << uri;  // signature and header, by Python's base64
  EXPECT_EQ((uri.size() - uri.find(',') - 1) % 4, 0u);
  const Image large{.height = 65, .width = 10, .channels = 1, .pixels = std::vector<uint8_t>(650, 9)};
  EXPECT_EQ(data_uri(large).rfind("data:image/jpeg;base64,/9j/", 0), 0u);
}

}  // namespace
}  // namespace ermoe
