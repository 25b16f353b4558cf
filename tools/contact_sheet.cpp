#include "tools/contact_sheet.h"

#include "core/error.h"
#include "core/file_io.h"
#include "tools/html.h"

#include <algorithm>
#include <filesystem>

namespace ermoe {
namespace {

constexpr std::string_view page_frame = R"~(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<!-- Nothing can be fetched and nothing runs, whatever a file or a query may be called. -->
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #23272e; --soft: #5b626d; --line: #d9dbd6; --accent: #0b62a8; --mat: #eceee9;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --card: #1c2026; --ink: #e6e8eb; --soft: #a3abb6; --line: #363c45; --accent: #7cc0f5; --mat: #101317; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 86rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1, h2, p, li, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.2rem 0 .4rem; }
h2 { font-size: 1.25rem; margin: 0 0 .2rem; }
p { margin: .2rem 0 .8rem; }
a { color: var(--accent); }
.soft { color: var(--soft); }
nav ul { list-style: none; margin: .4rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
section { padding: 1rem 0 .4rem; scroll-margin-top: .5rem; }
section + section { border-top: 1px solid var(--line); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 11.5rem), 1fr)); }
figure { margin: 0; height: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img, figure .gone { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--mat); }
figure .gone { padding: 1rem; color: var(--soft); }
.tiny { image-rendering: pixelated; }
figcaption { padding: .4rem .6rem .5rem; font-size: .85rem; line-height: 1.3; }
figcaption b { font-variant-numeric: tabular-nums; }
figcaption .name { display: block; color: var(--soft); }
footer { padding: 1rem 0 2rem; color: var(--soft); font-size: .88rem; }
@media (max-width: 27rem) { ol { grid-template-columns: 1fr 1fr; gap: .5rem; } body { padding: 0 .6rem; } }
</style>
</head>
<body>
<header>
<h1>{{heading}}</h1>
{{contents}}</header>
<main>
{{sections}}</main>
<footer><p>{{source}}</p>
<p>The score is the cosine of the image's and the query's features: 1 at most. It ranks images of one query; it is no probability.</p></footer>
</body>
</html>
)~";

/// Text of the user's; what it does to the direction of writing ends with it.
std::string isolated(const std::string& text) { return "<bdi>" + html_text(text) + "</bdi>"; }

std::string figure(const SheetImage& image) {
  const bool tiny = image.picture.starts_with("data:image/png");
  const std::string name = html_text(image.name);
  const std::string picture = image.picture.empty() ? "<div class=\"gone\">This file could not be read again.</div>"
                                                    : fmt::format("<img{} loading=\"lazy\" alt=\"Number {}: {}\" src=\"{}\">",
                                                                  tiny ? " class=\"tiny\"" : "", image.rank, name, image.picture);
  return fmt::format(
      "<li><figure>{}<figcaption><b>{}</b> <span class=\"soft\">score</span> {:.4f} <span class=\"name\">{}</span></figcaption>"
      "</figure></li>\n",
      picture, image.rank, image.score, isolated(image.name));
}

std::string section_text(const SheetSection& section, size_t number, bool titled) {
  std::string text = fmt::format("<section id=\"query-{}\">\n", number);
  if (titled) text += "<h2>" + isolated(section.query) + "</h2>\n";
  if (section.images.empty()) return text + "<p class=\"soft\">No image could be read.</p></section>\n";
  text += "<ol>\n";
  for (const SheetImage& image : section.images) text += figure(image);
  return text + "</ol></section>\n";
}

std::string contents_of(const std::vector<SheetSection>& sections) {
  std::string text = "<nav aria-label=\"Queries\"><ul>\n";
  for (size_t i = 0; i < sections.size(); ++i)
    text += fmt::format("<li><a href=\"#query-{}\">{}</a></li>\n", i + 1, isolated(sections[i].query));
  return text + "</ul></nav>\n";
}

/// Whether `other` is the file at `path`, by whatever name; where there is none yet, only the name tells.
bool is_file(const std::filesystem::path& path, bool exists, const std::filesystem::path& other) {
  std::error_code ignored;
  if (exists) return std::filesystem::equivalent(path, other, ignored);
  return absolute(path, ignored).lexically_normal() == absolute(other, ignored).lexically_normal();
}

bool begins_as_page(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  const FileReader file(path);
  std::string beginning(sheet_beginning.size(), ' ');
  if (file.size() < beginning.size()) return false;
  file.read(0, beginning.data(), beginning.size());
  return beginning == sheet_beginning;
}

}  // namespace

std::string contact_sheet_page(const ContactSheet& sheet) {
  check(!sheet.sections.empty(), "[contact_sheet] nothing was asked for");
  const bool several = sheet.sections.size() > 1;
  std::string sections;
  for (size_t i = 0; i < sheet.sections.size(); ++i) sections += section_text(sheet.sections[i], i + 1, several);
  const std::string& first = sheet.sections.front().query;
  const std::string title = several ? fmt::format("{} and {} more", first, sheet.sections.size() - 1) : first;
  return filled(page_frame, {{"title", html_text(title)},
                             {"heading", several ? fmt::format("Images found for {} queries", sheet.sections.size()) : isolated(first)},
                             {"contents", several ? contents_of(sheet.sections) : ""},
                             {"sections", sections},
                             {"source", html_text(sheet.source)}});
}

void check_sheet(const std::string& path, const ImageDataset& searched) {
  std::error_code ignored;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  check_input(!std::filesystem::is_directory(path, ignored), "--sheet {}: is a folder, and the contact sheet is a file", path);
  check_input(folder.empty() || std::filesystem::is_directory(folder, ignored), "--sheet {}: there is no folder {}", path, folder.string());
  const bool exists = path_exists(path);
  for (int64_t i = 0; i < searched.size(); ++i)
    check_input(!is_file(path, exists, searched.name(i)), "--sheet {}: is one of the files that are searched, and would be replaced", path);
  check_input(!exists || begins_as_page(path), "--sheet {}: exists and is no contact sheet, so it is not replaced", path);
}

std::string thumbnail(const ImageDataset& images, int64_t i, int64_t side) {
  // A photograph of many pixels is decoded at a part of its size.
  const WantedPart whole{.choose = [](int64_t height, int64_t width) { return CropBox{0, 0, height, width}; }, .side = side};
  const std::optional<std::string> file = images.file(i);
  Image image = file ? decode_part(std::as_bytes(std::span(*file)), images.name(i), whole) : images.read(i);
  const int64_t longer = std::max(image.height, image.width);
  if (longer > side)
    image = resize(image, std::max<int64_t>(1, image.height * side / longer), std::max<int64_t>(1, image.width * side / longer));
  return data_uri(image);
}

}  // namespace ermoe
