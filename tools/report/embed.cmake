# Writes OUT, a C++ source that holds the files of the report's page as they are: cmake -DOUT=… -DFOLDER=… -P embed.cmake
set(text "// Made by tools/report/embed.cmake of the files beside it.\n#include \"tools/report_page.h\"\n\n")
string(APPEND text "namespace ermoe {\n\nPageParts page_parts() {\n  return {\n")
foreach(part page.html page.css charts.js page.js sections.js selftest.js)
  file(READ ${FOLDER}/${part} content)
  string(APPEND text "      R\"~page~(${content})~page~\",\n")
endforeach()
string(APPEND text "  };\n}\n\n}  // namespace ermoe\n")
file(WRITE ${OUT} "${text}")
