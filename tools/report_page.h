// The report's page: one HTML file that needs no network, made of the files in tools/report/ (which the build puts into the program) and
// of data as JSON, which the page's own script draws. What is in the data: tools/ermoe_report.cpp.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace ermoe {

/// The files of tools/report/, as they are.
struct PageParts {
  std::string_view html, css, charts, page, sections, selftest;
};
PageParts page_parts();

/// The whole page. `data` may hold any text: nothing in it can end the place where it stands.
std::string report_page(const std::string& title, const nlohmann::ordered_json& data);

/// With five digits: what a picture shows needs no more, and a page of numbers gets small.
double brief(double value);

}  // namespace ermoe
