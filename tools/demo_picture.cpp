#include "tools/demo_picture.h"

#include "core/error.h"
#include "data/resize.h"
#include "tools/chart.h"

#include <algorithm>
#include <string_view>

namespace ermoe {
namespace {

constexpr Color kPaper{250, 250, 247}, kInk{38, 42, 50}, kSoft{112, 118, 128}, kLine{214, 214, 208}, kWrong{186, 36, 44};
constexpr int64_t kWidth = 920, kLeastWidth = 796, kMargin = 28, kGap = 8, kColumnGap = 36, kRowGap = 20;
constexpr int64_t kPane = 112, kLargestPane = 224;  // pixels of an image's side: about kPane, whole pixels where it is small
constexpr int64_t kText = 2, kLineHeight = 22, kBars = 84;
constexpr double kTint = 0.62;

/// As much of `text` as `width` pixels hold.
std::string fit(std::string_view text, int64_t width, int64_t scale) {
  if (text_width(text, scale) <= width) return std::string(text);
  size_t kept = text.size();
  while (kept > 0 && text_width(text.substr(0, kept), scale) + text_width("...", scale) > width) --kept;
  return std::string(text.substr(0, kept)) + "...";
}

class Drawing {
 public:
  explicit Drawing(const DemoPicture& picture);
  Image draw();

 private:
  int64_t cell_width() const { return static_cast<int64_t>(p_.layers.size() + 1) * (pane_ + kGap) - kGap; }
  int64_t cell_height() const { return kLineHeight + pane_; }
  int64_t load_height() const { return p_.layers.empty() ? 0 : kLineHeight + kBars + kLineHeight + kRowGap; }
  int64_t head_height() const { return 36 + std::ssize(p_.notes) * kLineHeight + kRowGap; }
  int64_t rows() const { return (std::ssize(p_.samples) + columns_ - 1) / columns_; }
  int64_t width() const { return std::max(kLeastWidth, 2 * kMargin + columns_ * (cell_width() + kColumnGap) - kColumnGap); }
  int64_t height() const {
    return 2 * kMargin + head_height() + load_height() + kLineHeight + kGap + rows() * (cell_height() + kRowGap) - kRowGap;
  }

  void head();
  void loads(int64_t top);
  void bars(const DemoLayer& layer, Rect area);
  void column_heads(int64_t top);
  void sample(const DemoSample& s, int64_t left, int64_t top);
  void tinted(const std::vector<int32_t>& experts, int64_t left, int64_t top);

  const DemoPicture& p_;
  int64_t pane_ = 0, columns_ = 1;
  Canvas canvas_;
};

int64_t pane_of(const DemoPicture& picture) {
  if (picture.samples.empty()) return kPane;
  const int64_t side = picture.samples[0].image.width;
  return side > kLargestPane ? kLargestPane : side * std::max<int64_t>(1, kPane / side);
}

Drawing::Drawing(const DemoPicture& picture) : p_(picture), pane_(pane_of(picture)), canvas_(1, 1) {
  for (const DemoSample& s : p_.samples) {
    check(s.experts.size() == p_.layers.size(), "[demo_picture] a sample with {} layers of {}", s.experts.size(), p_.layers.size());
    for (const auto& experts : s.experts)
      check(std::ssize(experts) == p_.grid * p_.grid, "[demo_picture] {} patches of {} x {}", experts.size(), p_.grid, p_.grid);
  }
  columns_ = std::max<int64_t>(1, (kWidth - 2 * kMargin + kColumnGap) / (cell_width() + kColumnGap));
  canvas_ = Canvas(width(), height(), kPaper);
}

Image Drawing::draw() {
  head();
  int64_t y = kMargin + head_height();
  loads(y);
  y += load_height();
  column_heads(y);
  y += kLineHeight + kGap;
  for (size_t i = 0; i < p_.samples.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    sample(p_.samples[i], kMargin + place % columns_ * (cell_width() + kColumnGap), y + place / columns_ * (cell_height() + kRowGap));
  }
  return canvas_.image();
}

void Drawing::head() {
  const int64_t room = width() - 2 * kMargin;
  canvas_.text(kMargin, kMargin, fit(p_.title, room, 3), kInk, 3);
  int64_t y = kMargin + 36;
  for (const std::string& line : p_.notes) {
    canvas_.text(kMargin, y, fit(line, room, kText), kSoft, kText);
    y += kLineHeight;
  }
}

/// The layers' loads side by side: their bars are the legend of the colours.
void Drawing::loads(int64_t top) {
  if (p_.layers.empty()) return;
  const auto count = std::ssize(p_.layers);
  const int64_t each = (width() - 2 * kMargin + kColumnGap) / count - kColumnGap;
  for (int64_t i = 0; i < count; ++i) {
    const DemoLayer& layer = p_.layers[static_cast<size_t>(i)];
    const int64_t left = kMargin + i * (each + kColumnGap);
    const std::string caption = fmt::format("Block {}: Gini {:.3f}", layer.block, layer.gini);
    canvas_.text(left, top, fit(caption, each, kText), kInk, kText);
    bars(layer, {left, top + kLineHeight, each, kBars});
  }
}

void Drawing::bars(const DemoLayer& layer, Rect area) {
  const auto count = std::max<int64_t>(1, std::ssize(layer.load));
  const double most = layer.load.empty() ? 0 : *std::ranges::max_element(layer.load);
  const double fair = 1.0 / static_cast<double>(count);
  const double full = std::max(most, 1.25 * fair);
  const auto level = [&](double share) { return static_cast<int64_t>(share / full * static_cast<double>(area.height)); };
  for (int64_t e = 0; e < std::ssize(layer.load); ++e) {
    const int64_t from = area.x + e * area.width / count, to = area.x + (e + 1) * area.width / count;
    const int64_t tall = level(layer.load[static_cast<size_t>(e)]);
    canvas_.fill({from, area.y + area.height - tall, std::max<int64_t>(1, to - from - (to - from > 6 ? 4 : 0)), tall}, palette_color(e));
    const std::string number = std::to_string(e);
    if (text_width(number, kText) + 4 < to - from)
      canvas_.text(from + (to - from - 4 - text_width(number, kText)) / 2, area.y + area.height + 5, number, kSoft, kText);
  }
  const int64_t line = area.y + area.height - level(fair);
  for (int64_t x = area.x; x < area.x + area.width; x += 8) canvas_.fill({x, line, 4, 1}, kInk);
}

void Drawing::column_heads(int64_t top) {
  canvas_.fill({kMargin, top - kRowGap / 2 - 2, width() - 2 * kMargin, 1}, kLine);
  for (int64_t c = 0; c < std::min<int64_t>(columns_, std::ssize(p_.samples)); ++c) {
    int64_t x = kMargin + c * (cell_width() + kColumnGap) + pane_ + kGap;
    for (const DemoLayer& layer : p_.layers) {
      canvas_.text(x, top, fit(fmt::format("block {}", layer.block), pane_, kText), kSoft, kText);
      x += pane_ + kGap;
    }
  }
}

void Drawing::sample(const DemoSample& s, int64_t left, int64_t top) {
  const bool right = s.truth == s.guess;
  const std::string verdict = fmt::format("{} {:.0f} %", s.guess, 100 * s.probability);
  const std::string caption = right ? verdict : fmt::format("{}, not {}", verdict, s.truth);
  canvas_.text(left, top, fit(caption, cell_width(), kText), right ? kInk : kWrong, kText);
  top += kLineHeight;
  const bool shrink = s.image.width > pane_;
  const Image shown = shrink ? resize(s.image, pane_, pane_) : s.image;
  const int64_t scale = pane_ / shown.width;
  for (int64_t i = 0; i <= std::ssize(s.experts); ++i) {
    const int64_t x = left + i * (pane_ + kGap);
    canvas_.blit(x, top, shown, scale);
    if (i > 0) tinted(s.experts[static_cast<size_t>(i - 1)], x, top);
    canvas_.frame({x - 1, top - 1, pane_ + 2, pane_ + 2}, kLine);
  }
}

void Drawing::tinted(const std::vector<int32_t>& experts, int64_t left, int64_t top) {
  const int64_t G = p_.grid;
  for (int64_t row = 0; row < G; ++row) {
    const int64_t y = row * pane_ / G, below = (row + 1) * pane_ / G;
    for (int64_t column = 0; column < G; ++column) {
      const int64_t x = column * pane_ / G, beside = (column + 1) * pane_ / G;
      canvas_.tint({left + x, top + y, beside - x, below - y}, palette_color(experts[static_cast<size_t>(row * G + column)]), kTint);
    }
  }
}

}  // namespace

Image draw(const DemoPicture& picture) { return Drawing(picture).draw(); }

}  // namespace ermoe
