// The demo's picture: a few images with what the model says of them, their patches in the colours of the experts that took
// them, and each layer's load. Drawing only; tools/ermoe_demo.cpp gathers what is drawn. Read next: tools/chart.h.
#pragma once

#include "data/image.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

/// One image and what became of it.
struct DemoSample {
  Image image;  // square, at the model's size
  std::string truth, guess;
  double probability = 0;                     // of the guess
  std::vector<std::vector<int32_t>> experts;  // of each layer shown: (G, G) first slot's expert of each patch, -1 none
};

/// One MoE layer over the whole evaluation set.
struct DemoLayer {
  int64_t block = 0;
  double gini = 0;
  std::vector<double> load;  // share of each scored expert, sums to 1
};

struct DemoPicture {
  std::string title;
  std::vector<std::string> notes;  // lines under the title
  int64_t grid = 0;                // G, patches a side
  std::vector<DemoLayer> layers;   // those shown; empty for a model without experts
  std::vector<DemoSample> samples;
};

/// From 796 to 920 pixels wide, or as wide as one sample with all its layers. Throws Error where a sample does not fit the layers and the
/// grid.
Image draw(const DemoPicture& picture);

}  // namespace ermoe
