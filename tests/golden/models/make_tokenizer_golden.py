"""Golden vectors for test_tokenizer.c: texts and the ids that the `tokenizers` package gives them.

    pip install tokenizers
    python make_tokenizer_golden.py > tokenizer.jsonl
    python make_tokenizer_golden.py --random 3000 --files FOLDER ... > /tmp/more.jsonl

Texts are written here or drawn at random from a seed; code points newer than Unicode 14 are left
out, because regular expression engines and utf8proc follow the standard at their own pace. A line
with "special" is encoded with special tokens recognised in the text.
"""

import argparse
import json
import os
import random
import sys
import unicodedata

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")

TEXTS = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", " \n", "\n ", " \n ", "  \n  \n  ",
    "a", " a", "  a", "   a", "a ", "a  ", "a\n", "a\n\n", "a \n b", "a\t\tb", "\ta", " \ta", "\t a", "a\u00a0b", "\u00a0a",
    "a\u00a0\u00a0b", "\u3000全角", "a\u2028b\u2029c", "\x0b\x0c\x85\x1c", "a\x85b", "\u200b zero width", "\ufeffBOM",
    "don't", "DON'T", "Don'T", "I'll we've you're he'd I'm it's", "I'LL WE'VE YOU'RE HE'D I'M IT'S", "'s", "'S", "'\u017f",
    "x'\u017ft", "'sa", "'r", "'re", "'rE", "'r e", "''s", "' s", "'l", "'lx", "'ll", "'lL", "'v", "'Ve", "'t\u0301", "o'clock",
    "1", "12", "123", "1234", "1,234.5", "3.14159", "v2.0.1", "１２３", "\u00bd\u2155\u2167", "\u0663\u0664", "x1y2z3", "a1 b2", "²³¹",
    "!", "!!", "!!!\n", "...\n\n", "?!\r\n ok", " !", " !!\n", "a!b", "(abc)", "((abc))", "{\"k\": [1, 2]}", "<html><b>x</b></html>",
    "C++ & C#", "a_b_c", "__init__", "--flag=value", "https://example.org/a?b=c&d=%20e#f", "user@example.com", "\\n \\t",
    "café", "cafe\u0301", "naïve Straße ǅ", "Ünïcödé", "İıſẞ", "ﬁﬂ", "Ω≈ç√∫", "e\u0301\u0302\u0303", "\u0301a", " \u0301",
    "你好，世界！", "如何重置路由器？请按住按钮十秒钟。", "臺灣正體字", "人工智能AI模型GPT-4", "第１２章　概要", "中文 与 English 混排 123 测试",
    "日本語のテキスト", "カタカナ、ひらがな", "한국어 문장입니다.", "ภาษาไทย", "हिन्दी पाठ", "עברית", "العربية ١٢٣", "Ελληνικά", "Русский текст",
    "🙂", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽!", "a🙂b", " 🙂", "🙂 🙂\n", "\U0001d49c\U0001d7d8", "\U00020000\U0002a6d6",
    "<|im_start|>", "<|im_start|>system\nhello<|im_end|>", "a<|endoftext|>b", "<|im_start", "<|im_start|", "<|pad|><|pad|>",
    "<|reserved_1|>0|>", "<|reserved_10|>", "<|reserved_100|>",
    "The quick brown fox jumps over the lazy dog.", "    indented\n        more\n\treturn x;\n", "a" * 1, "a" * 17, "a" * 500, "ab" * 300,
    " " * 100, "\n" * 65, "=" * 80, "0" * 40, "é" * 33, "的" * 77, "\u0301" * 20, "word " * 60, "-" * 7 + "\n" + "=" * 9,
    "Line one.\nLine two.\r\nLine three.\n\n\nEnd   \n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "int main(void)\n{\n    return 0;\n}\n",
    "Hold the reset button for 10 seconds until the light turns amber. [1]",
    "Question: How do I reset the router?\n\n[1] Reset\nHold the button.\n\nQuestion: How do I reset the router?",
]

# Ranges that random texts are drawn from, with weights: most of what is interesting is where classes meet.
RANGES = [
    (30, 0x20, 0x7E), (8, 0x09, 0x0D), (10, 0x20, 0x20), (4, 0x80, 0xFF), (4, 0x100, 0x24F), (3, 0x300, 0x36F), (3, 0x370, 0x52F),
    (3, 0x590, 0x6FF), (3, 0x900, 0xDFF), (3, 0xE00, 0xEFF), (2, 0x1100, 0x11FF), (4, 0x2000, 0x206F), (4, 0x2070, 0x23FF),
    (3, 0x2460, 0x27BF), (4, 0x3000, 0x30FF), (8, 0x4E00, 0x9FFF), (3, 0xAC00, 0xD7A3), (2, 0xF900, 0xFFEF), (3, 0x1F300, 0x1FAFF),
    (2, 0x10000, 0x1FFFF), (2, 0x20000, 0x2FA1F), (2, 0x1, 0xFFFF),
]
SNIPPETS = ["'s", "'T", "'re", "'VE", "'ll", "'D", "'\u017f", "\r\n", "\n\n", "  ", " \n", "the ", "ing", "的", "<|im_end|>", "<|", "1234", "...", "\u00a0"]


def random_char(rnd):
    """One assigned code point (of Unicode 14) that is no surrogate and no NUL."""
    while True:
        _, low, high = rnd.choices(RANGES, weights=[r[0] for r in RANGES])[0]
        char = chr(rnd.randint(low, high))
        if unicodedata.category(char) not in ("Cn", "Cs", "Co"):
            return char


def random_text(rnd):
    """Up to about 60 characters, one part in seven of it snippets."""
    parts = []
    for _ in range(rnd.choice([1, 2, 3, 5, 8, 13, 21, 34, 60])):
        parts.append(rnd.choice(SNIPPETS) if rnd.random() < 0.15 else random_char(rnd))
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default=os.path.join(ROOT, "weights", "decoder", "tokenizer.json"))
    parser.add_argument("--random", type=int, default=260, help="random texts")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--files", nargs="*", default=[], help="folders whose files are encoded whole")
    args = parser.parse_args()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(args.tokenizer)
    rnd = random.Random(args.seed)
    texts = TEXTS + [random_text(rnd) for _ in range(args.random)]
    for folder in args.files:
        for path, _, names in sorted(os.walk(folder)):
            for name in sorted(names):
                with open(os.path.join(path, name), encoding="utf-8", errors="replace", newline="") as file:
                    texts.append(file.read().replace("\0", ""))
    for text in texts:
        tokenizer.encode_special_tokens = True
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        print(json.dumps({"text": text, "ids": ids}, ensure_ascii=False, separators=(",", ":")))
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text, add_special_tokens=False).ids
        if special != ids:
            print(json.dumps({"text": text, "ids": special, "special": True}, ensure_ascii=False, separators=(",", ":")))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
