// A folder of plain images, each of a grey of its own, with captions that name it: 3, 1 or 2 of them.
#pragma once

#include "tests/tools/temp_folder.h"
#include "tools/run_config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe::testing {

class MadeCaptions {
 public:
  /// Of the images the last `held_out` are the part val.
  explicit MadeCaptions(int64_t images = 16, int64_t held_out = 4) {
    std::string list;
    for (int64_t i = 0; i < images; ++i) {
      const std::string name = "image" + std::to_string(i) + ".ppm";
      folder_.file(name, "P6\n8 8\n255\n" + std::string(8 * 8 * 3, static_cast<char>(grey_of(i))));
      std::string captions;
      for (const std::string& caption : captions_of(i)) captions += (captions.empty() ? "\"" : ", \"") + caption + "\"";
      list += (i > 0 ? ",\n" : "") + std::string("{\"filename\": \"") + name + "\", \"split\": \"" +
              (i < images - held_out ? "train" : "val") + "\", \"captions\": [" + captions + "]}";
    }
    folder_.file("captions.json", "[" + list + "]");
  }

  static int64_t grey_of(int64_t image) { return 20 + 12 * image; }
  /// As a tokenizer's `decode` gives them back.
  static std::vector<std::string> captions_of(int64_t image) {
    std::vector<std::string> captions;
    for (const char* words : {"a grey of number", "shade", "the grey square called"}) {
      captions.push_back(words + std::string(" ") + static_cast<char>('a' + image));
      if (static_cast<int64_t>(captions.size()) > image % 3) break;
    }
    return captions;
  }

  std::string path() const { return folder_.path().string(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  const TempFolder& folder() const { return folder_; }

  /// A small dual encoder; images of grey v have the values v / 127.5 - 1.
  RunConfig config() const {
    RunConfig c;
    c.data.path = path();
    c.data.mean = c.data.std = {0.5, 0.5, 0.5};
    c.model.image_size = 8;
    c.model.channels = 3;
    c.model.patch = 4;
    c.model.width = 16;
    c.model.depth = 2;
    c.model.heads = 2;
    c.model.moe.experts = 4;
    c.model.moe.hidden = 16;
    c.text.depth = 2;
    c.text.width = 16;
    c.text.heads = 2;
    c.text.context = 12;
    c.text.moe_layers = "1";
    c.text.vocabulary = 540;
    c.retrieval.projection = 8;
    c.train.batch = 6;
    c.train.seed = 3;
    return c;
  }

 private:
  TempFolder folder_;
};

}  // namespace ermoe::testing
