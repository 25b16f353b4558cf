#!/usr/bin/env python3
"""Writes and checks the golden ids of captions: make_tokens.py [--check].

An independent model of what docs/text.md describes, as slow and plain as it can be: Python's html and unicodedata, the regex
package, and byte pairs merged one after the other. It writes, into text/ beside this script,

    captions.txt                 made-up captions, one a line
    vocab.json, merges.txt       what a slow trainer learns from them
    ids.json                     [{"text" or "bytes" (hex), "clean", "ids"}] of 200 strings, 32 ids each
    tiny.model, pieces.json      a SentencePiece model learnt from the same captions, and ids that its own library gives

Needs Debian's python3-regex and python3-sentencepiece. Without an argument files are written; with --check they are compared,
but for tiny.model, whose ids are.
"""

import html
import io
import json
import pathlib
import random
import sys
import unicodedata
from collections import Counter

import regex
import sentencepiece

FOLDER = pathlib.Path(__file__).resolve().parent / "text"
MERGES, WIDTH, LONGEST = 600, 32, 10_000
START, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")


# Cleaning

def decoded(data):
    """UTF-8 where every byte that begins no character becomes U+FFFD."""
    text, at = "", 0
    while at < len(data):
        for length in (1, 2, 3, 4):
            try:
                text += data[at:at + length].decode("utf-8")
                break
            except UnicodeDecodeError:
                continue
        else:
            text, length = text + "\ufffd", 1
        at += length
    return text[:LONGEST]


def clean(data):
    text = unicodedata.normalize("NFC", html.unescape(html.unescape(decoded(data)))).strip()
    return regex.sub(r"\s+", " ", text).strip().lower()


# Byte pairs

def byte_symbols():
    """GPT-2's symbols of bytes, in CLIP's order of ids."""
    seen = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    hidden = [b for b in range(256) if b not in seen]
    return {**{b: chr(b) for b in seen}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


SYMBOLS = byte_symbols()


def symbols_of(word):
    symbols = [SYMBOLS[b] for b in word.encode("utf-8")]
    return tuple(symbols[:-1]) + (symbols[-1] + "</w>",)


def merged(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        joins = tuple(symbols[i:i + 2]) == pair
        out.append("".join(pair) if joins else symbols[i])
        i += 2 if joins else 1
    return tuple(out)


def vocabulary(merges):
    singles = list(SYMBOLS.values())
    tokens = singles + [s + "</w>" for s in singles] + ["".join(m) for m in merges] + [START, END]
    assert len(set(tokens)) == len(tokens)
    return {token: i for i, token in enumerate(tokens)}


def train(captions, most):
    """The most frequent pair; of several the one with the lowest ids. None that occurs once."""
    words = Counter(symbols_of(word) for caption in captions for word in PATTERN.findall(clean(caption.encode())))
    merges = []
    while len(merges) < most:
        ids, pairs = vocabulary(merges), Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        pair = max(pairs, key=lambda p: (pairs[p], -ids[p[0]], -ids[p[1]]), default=None)
        if pair is None or pairs[pair] < 2:
            break
        merges.append(pair)
        joined = Counter()
        for word, count in words.items():
            joined[merged(word, pair)] += count
        words = joined
    return merges


def word_ids(word, merges, ids):
    symbols = symbols_of(word)
    for pair in merges:
        if len(symbols) > 1:
            symbols = merged(symbols, pair)
    return [ids[s] for s in symbols]


def encode(data, merges, ids, width):
    own = []
    for word in PATTERN.findall(clean(data)):
        own += word_ids(word, merges, ids)
        if len(own) >= width:
            break
    row = [ids[START]] + own[:width - 2] + [ids[END]]
    return row + [0] * (width - len(row))


# Texts

def captions():
    """Sentences as people write them under photographs, in several languages, from a fixed seed."""
    rng = random.Random(7)
    who = "a man;two women;three children;a brown dog;the black and white cat;an old lady;a surfer;people;a crowd;somebody's mother"
    does = "runs;is running;jumps over a fence;rides a bicycle;is playing football;sits;looks at the camera;doesn't move;they're eating"
    where = "on the beach;in the snow;at night;near a café;under a naïve painting;across the street;in front of 3 houses;by the river"
    ends = ".; !;...;, smiling; & waving; (1998);; 🙂; \U0001f436\U0001f436; – again"
    other = ["ein Hund läuft über die Straße", "un niño come piñas", "два человека на улице", "一只狗在海滩上", "犬が走っている",
             "un chien à la plage d'été", "İstanbul'da bir kedi", "ένας σκύλος ΣΤΟΥΣ ΔΡΟΜΟΥΣ", "كلب على الشاطئ", "개가 해변에 있다"]
    syllables = "ba ri to lén mu sha kro pel ün vi stra nge qua dot iß zy ho wick fjo ad".split()
    lines = []
    for _ in range(700):
        pick = lambda words: rng.choice(words.split(";"))
        line = f"{pick(who)} {pick(does)} {pick(where)}{pick(ends)}"
        made_up = "".join(rng.choice(syllables) for _ in range(rng.randint(1, 4)))
        line += f", the {made_up} of {rng.choice(syllables) * rng.randint(1, 4)}"
        lines.append(rng.choice(other) if rng.random() < 0.2 else line[0].upper() + line[1:] if rng.random() < 0.5 else line)
    return lines


def written_down():
    """What goes wrong where somebody forgot a rule."""
    return [
        "", " ", "\t\n\r\x0b\x0c ", "a", "A", "a b", "  a  b  ", "A dog.", "a photo of a cat", "don't can't it's we're I've I'm you'll he'd",
        "DON'T IT'S", "'s", "'", "''s", "'S 'T", "rock'n'roll", "dogs' toys", "dog’s ball", "“quoted”", "x's's", "'sam 'tis 'lls", "!'s",
        "3 dogs", "1234567890", "a1b2", "½ ² Ⅷ ٣ ४ 三", "no.1", "3.14", "1,000,000", "......", "!?!?!", "a...b", "-", "--", "a-b", "_a_b_",
        "#hashtag @name", "a/b\\c", "(a) [b] {c}", "$5 €5 £5", "100%", "a+b=c", "~`^|<>",
        "&amp;", "&amp;amp;", "&amp;amp;amp;", "a &amp; b", "&lt;b&gt;bold&lt;/b&gt;", "&eacute;t&eacute;", "&#233;", "&#xE9;", "&#XE9", "&#233",
        "&nbsp;a&nbsp;&nbsp;b&nbsp;", "&ampx", "&notit;", "&notin;", "&copy2020", "&quot;hi&quot;", "it&apos;s", "it&#39;s", "it&amp;#39;s",
        "&", "& b", "&&amp;", "&;", "&#;", "&#x;", "&#xg;", "&#-5;", "&#0;", "&#x80;", "&#146;", "&#x81;", "&#1;", "a&#11;b", "&#xD800;", "&#x110000;",
        "&#99999999999999999999;", "&#xFDD0;", "&#x1F436;", "&hellip;&mdash;&rsquo;", "&lang;&rang;", "&AMP;&LT;&COPY", "&Eacute;", "&ETH &thorn",
        "e&#x301;", "&#10;a&#10;b", "&lt;|endoftext|&gt;", "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "</w>", "a</w>",
        "é", "e\u0301", "É E\u0301", "ñ n\u0303", "A\u030a Å \u212b", "\u1e9b\u0323", "q\u0307\u0323", "a\u0301\u0328", "\u0301", " \u0301a", "ﬁne ﬂag",
        "ſ", "'ſt", "K \u212a", "Ω \u2126", "ß ẞ STRASSE Straße", "İ I ı i", "İSTANBUL ISPARTA", "ǅ Ǆ ǆ", "ΣΑΣ ΣΟΦΟΣ Σ", "ΑΣ.Β ΑΣ' ΑΣ'Α", "ΑΣ\u0301 ΑΣ", "A\u03a3 1Σ",
        "Ⓐ ⓐ Ⅷ ⅷ", "ᾈ ᾀ", "Ꭰ ꭰ", "Ა ა", "𐐀 𐐨", "ПРИВЕТ МИР", "Ё Й и\u0306", "你好世界", "狗，猫。", "日本語のテキスト", "ｶﾞ が か\u3099", "한국어 한국어",
        "مرحبا بالعالم", "كلبٌ كبيرٌ", "שלום", "नमस्ते दुनिया", "ภาษาไทย", "ქართული", "አማርኛ", "ไม่ 123", "١٢٣",
        "😀", "😀😀😀", "a😀b", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️", "☃", "1️⃣", "™®©",
        "a\u200bb", "a\u200db", "a\u00adb", "\ufeffa", "a\u2028b\u2029c", "a\u3000b", "a\u00a0b", "a\u2003\u2009b", "a\u1680b", "a\u180eb", "a\u0085b",
        "a\x00b", "\x00", "a\x1cb", "\x1ca\x1f", "a \x1d b", "\x7f", "a\x08b", "\x1b[31mred", "a\r\nb", "\ufffd", "\uffff", "\U0010ffff", "\ue000",
        "THE QUICK BROWN FOX", "A man riding a wave on top of a surfboard.", "Two dogs run through the snow; one doesn't stop!",
        "antidisestablishmentarianism", "supercalifragilisticexpialidocious " * 5, "a " * 40, "a" * 31, "ab" * 100, "! " * 31,
        "the dog " * 15 + "end", "word" * 2500, "x" * 12_000, "é" * 10_000, "🐶" * 3000, "." * 10_000, "a b " * 2500, " " * 10_000 + "a", "&amp;" * 500,
    ]


def broken_bytes():
    return [b"\xff", b"a\xffb", b"\xc3", b"\xc3(", b"caf\xe9", b"\xe2\x82", b"\xe2\x28\xa1", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
            b"\xf0\x9f\x90", b"\xf0\x9f\x90\xb6", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80\x80", b"a\xe4\xbd\xa0\xe5\xa5b"]


def random_texts():
    rng = random.Random(11)
    signs = "abcdeABCDE  '’stredmlv01239.,!?-&;#é\u0301\u0327ñßİΣςσКи你好🐶\u200d\u00a0\u3000\t<|>"
    return ["".join(rng.choice(signs) for _ in range(rng.randint(1, 40))) for _ in range(40)]


# Files

def golden_ids(merges, ids):
    rows = []
    for text in written_down() + random_texts() + broken_bytes():
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        key = {"bytes": data.hex()} if isinstance(text, bytes) else {"text": text}
        if isinstance(text, str) and len(text) > 200:  # kept short: a unit and how often it stands there
            unit = next(text[:n] for n in range(1, len(text)) if text.startswith(text[:n] * (len(text) // n)))
            key = {"text": unit, "times": len(text) // len(unit), "tail": text[len(unit) * (len(text) // len(unit)):]}
        rows.append({**key, "clean": clean(data)[:60], "ids": encode(data, merges, ids, WIDTH)})
    return rows


def make_files(with_model):
    lines = captions()
    merges = train(lines, MERGES)
    ids = vocabulary(merges)
    dump = lambda value: json.dumps(value, ensure_ascii=True)
    files = {
        "captions.txt": "".join(line + "\n" for line in lines),
        "vocab.json": json.dumps(ids, ensure_ascii=False) + "\n",
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
        "ids.json": "[\n" + ",\n".join(dump(row) for row in golden_ids(merges, ids)) + "\n]\n",
    }
    if with_model:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=200, minloglevel=2,
                                                 normalization_rule_name="identity", num_threads=1, character_coverage=1.0)
        (FOLDER / "tiny.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tiny.model"))
    texts = [t for t in written_down() if len(t) <= 200 and "\x00" not in t]
    files["pieces.json"] = "[\n" + ",\n".join(dump({"text": t, "ids": pieces.encode(t)}) for t in texts) + "\n]\n"
    return files


def main():
    checks = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not checks:
        sys.exit(__doc__)
    FOLDER.mkdir(exist_ok=True)
    files = make_files(with_model=not checks)
    for name, content in files.items():
        path = FOLDER / name
        if not checks:
            path.write_text(content, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != content:
            sys.exit(f"{path} is not what this script makes")
    print(f"{len(files)} files of golden ids", "agree" if checks else "written")


if __name__ == "__main__":
    main()
