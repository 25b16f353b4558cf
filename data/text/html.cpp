// HTML's character references. Read data/text/html.h first.
#include "data/text/html.h"

#include "data/text/unicode.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <unordered_map>

namespace ermoe {
namespace {

/// U+00A0 to U+00FF in order. Browsers know these without a semicolon too.
constexpr std::string_view latin =
    "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 sup3 acute micro para "
    "middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave "
    "Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc "
    "Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc "
    "iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml ";

/// Names and code points in hexadecimal, of which the same holds.
constexpr std::string_view without_semicolon = "QUOT 22 quot 22 AMP 26 amp 26 LT 3c lt 3c GT 3e gt 3e COPY a9 REG ae ";

/// Those that want their semicolon.
constexpr std::string_view with_semicolon =
    "apos 27 OElig 152 oelig 153 Scaron 160 scaron 161 Yuml 178 fnof 192 circ 2c6 tilde 2dc Alpha 391 Beta 392 Gamma 393 "
    "Delta 394 Epsilon 395 Zeta 396 Eta 397 Theta 398 Iota 399 Kappa 39a Lambda 39b Mu 39c Nu 39d Xi 39e Omicron 39f Pi 3a0 "
    "Rho 3a1 Sigma 3a3 Tau 3a4 Upsilon 3a5 Phi 3a6 Chi 3a7 Psi 3a8 Omega 3a9 alpha 3b1 beta 3b2 gamma 3b3 delta 3b4 epsilon "
    "3b5 zeta 3b6 eta 3b7 theta 3b8 iota 3b9 kappa 3ba lambda 3bb mu 3bc nu 3bd xi 3be omicron 3bf pi 3c0 rho 3c1 sigmaf 3c2 "
    "sigma 3c3 tau 3c4 upsilon 3c5 phi 3c6 chi 3c7 psi 3c8 omega 3c9 thetasym 3d1 upsih 3d2 piv 3d6 ensp 2002 emsp 2003 "
    "thinsp 2009 zwnj 200c zwj 200d lrm 200e rlm 200f ndash 2013 mdash 2014 lsquo 2018 rsquo 2019 sbquo 201a ldquo 201c rdquo "
    "201d bdquo 201e dagger 2020 Dagger 2021 bull 2022 hellip 2026 permil 2030 prime 2032 Prime 2033 lsaquo 2039 rsaquo 203a "
    "oline 203e frasl 2044 euro 20ac image 2111 weierp 2118 real 211c trade 2122 alefsym 2135 larr 2190 uarr 2191 rarr 2192 "
    "darr 2193 harr 2194 crarr 21b5 lArr 21d0 uArr 21d1 rArr 21d2 dArr 21d3 hArr 21d4 forall 2200 part 2202 exist 2203 empty "
    "2205 nabla 2207 isin 2208 notin 2209 ni 220b prod 220f sum 2211 minus 2212 lowast 2217 radic 221a prop 221d infin 221e "
    "ang 2220 and 2227 or 2228 cap 2229 cup 222a int 222b there4 2234 sim 223c cong 2245 asymp 2248 ne 2260 equiv 2261 le "
    "2264 ge 2265 sub 2282 sup 2283 nsub 2284 sube 2286 supe 2287 oplus 2295 otimes 2297 perp 22a5 sdot 22c5 lceil 2308 rceil "
    "2309 lfloor 230a rfloor 230b loz 25ca spades 2660 clubs 2663 hearts 2665 diams 2666 lang 27e8 rang 27e9 ";

/// What 0x80 to 0x9F are in Windows-1252; 0 where it has nothing, and the number itself stays.
constexpr std::array<int32_t, 32> windows_1252{0x20AC, 0,      0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
                                               0x2039, 0x152,  0,      0x17D,  0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
                                               0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0,      0x17E,  0x178};

struct Names {
  std::unordered_map<std::string_view, int32_t> old;  // known without a semicolon too
  std::unordered_map<std::string_view, int32_t> all;
  size_t longest_old = 0;
};

/// Takes the next item off a list, each of which a blank ends.
std::string_view take_item(std::string_view& list) {
  const size_t end = list.find(' ');
  const std::string_view word = list.substr(0, end);
  list.remove_prefix(end + 1);
  return word;
}

void add_names(std::unordered_map<std::string_view, int32_t>& names, std::string_view list) {
  while (!list.empty()) {
    const std::string_view name = take_item(list), number = take_item(list);
    std::from_chars(number.data(), number.data() + number.size(), names[name], 16);
  }
}

Names make_names() {
  Names names;
  int32_t code = 0xA0;
  for (std::string_view list = latin; !list.empty();) names.old[take_item(list)] = code++;
  add_names(names.old, without_semicolon);
  names.all = names.old;
  add_names(names.all, with_semicolon);
  for (const auto& [name, value] : names.old) names.longest_old = std::max(names.longest_old, name.size());
  return names;
}

const Names& names() {
  static const Names table = make_names();
  return table;
}

/// Numbers that HTML calls no character: they vanish.
bool is_no_character(int32_t c) {
  if (c >= 0xFDD0 && c <= 0xFDEF) return true;
  return c < 0x9 || c == 0xB || (c >= 0xE && c <= 0x1F) || (c >= 0x7F && c <= 0x9F) || (c & 0xFFFE) == 0xFFFE;
}

void append_number(std::string& out, int32_t number) {
  if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) number = 0xFFFD;
  if (number >= 0x80 && number <= 0x9F) {
    const int32_t known = windows_1252[static_cast<size_t>(number - 0x80)];
    append_code_point(out, known == 0 ? number : known);
  } else if (!is_no_character(number)) {
    append_code_point(out, number);
  }
}

/// Bytes of a numeric reference behind its `&`, and what it stands for to `out`; 0 where there is none.
size_t take_number(std::string_view text, std::string& out) {
  size_t at = 1;
  const bool hexadecimal = at < text.size() && (text[at] == 'x' || text[at] == 'X');
  if (hexadecimal) ++at;
  int32_t number = 0;
  const char* const begin = text.data() + at;
  const auto [end, fault] = std::from_chars(begin, text.data() + text.size(), number, hexadecimal ? 16 : 10);
  if (end == begin || *begin == '-') return 0;
  append_number(out, fault == std::errc() ? number : 0x110000);
  at += static_cast<size_t>(end - begin);
  return at < text.size() && text[at] == ';' ? at + 1 : at;
}

/// The same for a named one.
size_t take_name(std::string_view text, std::string& out) {
  const std::string_view name = text.substr(0, text.find_first_of("\t\n\f <&#;"));
  if (name.size() < text.size() && text[name.size()] == ';') {
    if (const auto found = names().all.find(name); found != names().all.end()) {
      append_code_point(out, found->second);
      return name.size() + 1;
    }
  }
  for (size_t length = std::min(name.size(), names().longest_old); length > 1; --length) {
    if (const auto found = names().old.find(name.substr(0, length)); found != names().old.end()) {
      append_code_point(out, found->second);
      return length;
    }
  }
  return 0;
}

}  // namespace

std::string unescape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t plain = text.find('&');
    out.append(text.substr(0, plain));
    if (plain == std::string_view::npos) break;
    text.remove_prefix(plain + 1);
    const size_t taken = text.starts_with('#') ? take_number(text, out) : take_name(text, out);
    if (taken == 0) out += '&';
    text.remove_prefix(taken);
  }
  return out;
}

}  // namespace ermoe
