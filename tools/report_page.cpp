#include "tools/report_page.h"

#include "core/error.h"
#include "tools/html.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>

namespace ermoe {

std::string report_page(const std::string& title, const nlohmann::ordered_json& data) {
  const PageParts parts = page_parts();
  // In a string of JSON, "<" may as well be written \u003c: then no </script> ends the data.
  const std::string json = replaced(data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), "<", "\\u003c");
  return filled(parts.html, {{"title", html_text(title)},
                             {"css", parts.css},
                             {"data", json},
                             {"charts", parts.charts},
                             {"page", parts.page},
                             {"sections", parts.sections},
                             {"selftest", parts.selftest}});
}

double brief(double value) { return std::isfinite(value) ? std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr) : value; }

}  // namespace ermoe
