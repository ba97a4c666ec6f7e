#!/usr/bin/env python3
"""Checks the rules of docs/conventions.md that a program can check (marked [t] there).

    tidy.py                  check the tree this file lies in
    tidy.py --build DIR      also look at the symbols of the objects built there
    tidy.py --ratchet        rewrite ratchet.txt with today's lengths, keeping the reasons given

Every rule is a function from the tree to problems; test_tidy.py shows each of them firing. Only the
standard library is used. Exit status 0: clean, 1: problems, one line each.
"""

import argparse
import fnmatch
import os
import re
import subprocess
import sys
from collections import namedtuple

Problem = namedtuple("Problem", "path line rule message")

# ---- what the rules know ----

PRODUCT = ["base", "kernels", "index", "models", "ingest", "retrieval", "generation", "api", "eval",
           "cli"]
OTHERS = ["tests", "bench"]  # may include anything; nothing includes them
C_FAMILY = (".c", ".h", ".cpp", ".cu")

# Which folders a folder may include (architecture.md, B1); itself always.
ARROWS = {
    "base": [],
    "kernels": ["base"],
    "index": ["kernels", "base"],
    "models": ["kernels", "base"],
    "ingest": ["models", "index", "base"],
    "retrieval": ["models", "index", "base"],
    "generation": ["models", "kernels", "base"],
    "api": ["ingest", "retrieval", "generation", "models", "index", "base"],
    "eval": ["api", "generation", "retrieval", "models", "index", "base"],
    "cli": PRODUCT + ["bench"],  # `lore bench`
}

# Headers of outside libraries (a pattern), and the only files that may include them.
FENCES = [
    (r"sqlite3(ext)?\.h", ["index/store*.c", "index/lexical.c", "index/database*.c"]),
    (r"faiss/.*|omp\.h", ["index/ann.c", "index/faiss_c.cpp"]),
    (r"md4c.*\.h", ["ingest/markdown.c"]),
    (r"libxml/.*", ["ingest/html.c"]),
    (r"cld2/.*", ["ingest/language_c.cpp"]),
    (r"archive(_entry)?\.h", ["ingest/archive.c"]),
    (r"expat\.h", ["ingest/xml.c"]),
    (r"(uchardet/)?uchardet\.h|iconv\.h", ["ingest/encoding.c"]),
    (r"microhttpd\.h", ["api/http.c", "api/http_int.h", "api/exchange.c"]),
    (r"curl/.*", ["ingest/fetch.c", "cli/client.c", "cli/hub.c"]),
    (r"cjson/.*|cJSON\.h", ["base/json.c"]),
    (r"utf8proc\.h", ["base/utf8.c"]),
    (r"cublasLt\.h", ["kernels/cuda/cuda_blas.cu"]),
    (r"cu[a-z]*(_.*)?\.h|cooperative_groups.*|nv.*\.h|cub/.*|mma\.h", ["kernels/cuda/*"]),
]

# Headers that are no library: the C standard, POSIX, the kernel, the compiler.
PLAIN_HEADERS = re.compile(
    r"(assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|signal|"
    r"stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|"
    r"tgmath|threads|time|uchar|wchar|wctype|"
    r"aio|cpuid|dirent|dlfcn|execinfo|fcntl|fnmatch|ftw|getopt|glob|grp|ifaddrs|langinfo|libgen|"
    r"link|malloc|memory|netdb|poll|pthread|pwd|regex|sched|search|semaphore|spawn|syslog|termios|"
    r"ucontext|unistd|utime|"
    r"[a-z0-9]*mmintrin|immintrin|x86intrin|arm_neon)\.h|"
    r"(sys|net|netinet|arpa|linux|asm|sanitizer)/[a-z0-9_/.-]+\.h|"
    r"[a-z_]+"  # the C++ library, in the two places where C++ exists
)

BANNED = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|strtok|atoi|gets|alloca)\s*\(")
BARE_ALLOCATION = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|free|strdup|strndup|asprintf)\s*\(")
ALLOCATION_ALLOWED = ["base/mem.c", "*.cu"]
OPEN_NOTE = re.compile(r"\b(TODO|FIXME)\b(?!\s*\(?#\d+)")

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
NO_REASON = "reason?"

# ---- the tree ----


class File:
    """One source file: raw text, and the same text with comments (and strings) blanked out."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as handle:
            self.raw = handle.read()
        self.folder = path.split("/")[0]
        self.is_c = path.endswith(C_FAMILY)
        self.is_product = self.folder in PRODUCT
        if self.is_c:
            self.uncommented = blank(self.raw, with_strings=False)
            self.code = blank(self.raw, with_strings=True)

    def line_of(self, position):
        return self.raw.count("\n", 0, position) + 1


TOKENS = re.compile(
    r"//(?:\\\n|[^\n])*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def blank(text, with_strings):
    """Replace comments by blanks, and the insides of strings too; lines and columns stay."""

    def replace(match):
        token = match.group(0)
        if token[0] == "/":
            return re.sub(r"[^\n]", " ", token)
        if with_strings:
            return token[0] + re.sub(r"[^\n]", " ", token[1:-1]) + token[-1]
        return token

    return TOKENS.sub(replace, text)


def read_tree(root):
    files = []
    for folder in PRODUCT + OTHERS:
        for here, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = sorted(f for f in folders if f != "__pycache__")
            for name in sorted(names):
                if name.endswith(C_FAMILY + (".py",)):
                    files.append(File(root, os.path.relpath(os.path.join(here, name), root)))
    return files


# ---- rules ----

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def includes(file):
    for match in INCLUDE.finditer(file.uncommented):
        yield file.line_of(match.start(1)), match.group(1) == '"', match.group(2)


def check_arrows(files):
    for file in files:
        if not file.is_c:
            continue
        for line, is_ours, header in includes(file):
            if not is_ours:
                continue
            folder = header.split("/")[0]
            if "/" not in header or ".." in header:
                yield Problem(file.path, line, "include",
                              f'"{header}" is not written from the root of the repository')
            elif not file.is_product:
                continue
            elif folder in OTHERS and folder not in ARROWS[file.folder]:
                yield Problem(file.path, line, "arrow", f"product code includes {folder}/")
            elif folder in PRODUCT and folder != file.folder and folder not in ARROWS[file.folder]:
                yield Problem(file.path, line, "arrow",
                              f"{file.folder}/ must not include {folder}/")
            elif header.endswith("_int.h") and folder != file.folder:
                yield Problem(file.path, line, "internal", f"{header} never leaves {folder}/")


def check_fences(files):
    for file in files:
        if not file.is_c or not file.is_product:
            continue
        for line, is_ours, header in includes(file):
            if is_ours and header.split("/")[0] in PRODUCT + OTHERS:
                continue
            fence = next((places for pattern, places in FENCES
                          if re.fullmatch(pattern, header)), None)
            if fence is None:
                if not is_ours and not PLAIN_HEADERS.fullmatch(header):
                    yield Problem(file.path, line, "fence",
                                  f"<{header}> belongs to no known library: give it a fence")
            elif not any(fnmatch.fnmatchcase(file.path, place) for place in fence):
                yield Problem(file.path, line, "fence",
                              f"<{header}> is included only by {', '.join(fence)}")


def check_banned(files):
    for file in files:
        if not file.is_c:
            continue
        for match in BANNED.finditer(file.code):
            yield Problem(file.path, file.line_of(match.start()), "banned", f"{match.group(1)}()")
        may_allocate = any(fnmatch.fnmatchcase(file.path, p) for p in ALLOCATION_ALLOWED)
        if file.is_product and not may_allocate:
            for match in BARE_ALLOCATION.finditer(file.code):
                yield Problem(file.path, file.line_of(match.start()), "banned",
                              f"{match.group(1)}(): use the lore_alloc family")


def check_open_notes(files):
    for file in files:
        if file.is_c:
            for match in OPEN_NOTE.finditer(file.raw):
                yield Problem(file.path, file.line_of(match.start()), "note",
                              f"{match.group(1)} without an issue number")


def check_names(files):
    seen = {}
    for file in files:
        name = os.path.basename(file.path)
        if not re.fullmatch(r"[a-z0-9_]+\.[a-z]+", name):
            yield Problem(file.path, 1, "name", "file names are snake_case")
        if name in seen:
            yield Problem(file.path, 1, "name", f"the name is taken by {seen[name]}")
        seen.setdefault(name, file.path)


def check_columns(files):
    for file in files:
        if not file.is_c:
            continue
        for number, line in enumerate(file.raw.split("\n"), 1):
            if len(line) > COLUMNS_MAX:
                yield Problem(file.path, number, "columns", f"{len(line)} columns")


STATEMENT = re.compile(r"(?<![\w#])(if|for|while|else)\b")


def check_braces(files):
    """Every body of if, else, for and while stands in braces."""
    for file in files:
        if not file.is_c:
            continue
        # A macro becomes one line (\v is white space of the same length), other directives vanish.
        code = file.code.replace("\\\n", " \v")
        code = re.sub(r"^[ \t]*#[ \t]*(?!define)\w+[^\n]*", lambda m: " " * len(m.group(0)), code,
                      flags=re.MULTILINE)
        for match in STATEMENT.finditer(code):
            after = match.end()
            if match.group(1) != "else":
                after = skip_parentheses(code, after)
            rest = re.match(r"[ \t\v]*(\n|\S?)", code[after:]).group(1)
            if rest == "\n" and in_macro(code, match.start()):
                continue  # a head whose body stands where the macro is used
            rest = code[after:after + 400].lstrip()
            is_else_if = match.group(1) == "else" and re.match(r"if\b", rest)
            is_tail = match.group(1) == "while" and ends_do_block(code, match.start())
            if not (rest.startswith("{") or is_else_if or is_tail):
                yield Problem(file.path, file.line_of(match.start()), "braces",
                              f"{match.group(1)} without braces")


def in_macro(code, position):
    return re.match(r"[ \t]*#[ \t]*define\b", code[code.rfind("\n", 0, position) + 1:]) is not None


def ends_do_block(code, position):
    """Does the text before position end with the block of a do?"""
    before = code[:position].rstrip()
    if not before.endswith("}"):
        return False
    depth = 0
    for at in range(len(before) - 1, -1, -1):
        if before[at] == "}":
            depth += 1
        elif before[at] == "{":
            depth -= 1
            if depth == 0:
                return re.search(r"\bdo\s*$", before[:at]) is not None
    return False


def skip_parentheses(code, position):
    """Behind the closing parenthesis of the group that opens at or after position."""
    depth = 0
    for at in range(position, len(code)):
        if code[at] == "(":
            depth += 1
        elif code[at] == ")":
            depth -= 1
            if depth == 0:
                return at + 1
    return len(code)


# ---- length ratchet ----


def functions(file):
    """(name, first line, number of lines) of each function. clang-format puts the braces of a
    function, and of nothing else, alone at the left edge."""
    lines = file.code.split("\n")
    start = None
    for number, line in enumerate(lines):
        if line.rstrip() == "{" and start is None:
            start = number
            first = number
            while first > 0 and lines[first - 1].strip() and \
                    not lines[first - 1].rstrip().endswith((";", "}", "*/")) and \
                    not lines[first - 1].startswith("#"):
                first -= 1
            signature = " ".join(lines[first:number])
            names = re.findall(r"(\w+)\s*\(", signature)
            wrapped = re.match(r"\s*TEST\s*\(\s*(\w+)", signature)
            name = wrapped.group(1) if wrapped else names[0] if names else "?"
        elif line.rstrip() == "}" and start is not None:
            yield name, first + 1, number - first + 1
            start = None


def long_things(files):
    """{key: (lines, path, line)} of everything over its length; a key is path or path:function."""
    found = {}
    for file in files:
        if not file.is_c or not (file.is_product or file.folder == "bench"):
            continue
        count = file.raw.count("\n")
        if count > FILE_LINES_MAX:
            found[file.path] = (count, file.path, 1)
        for name, line, length in functions(file):
            if length > FUNCTION_LINES_MAX:
                found[f"{file.path}:{name}"] = (length, file.path, line)
    return found


def read_ratchet(path):
    listed = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip() and not line.startswith("#"):
                    key, length, reason = (line.split(None, 2) + ["", ""])[:3]
                    listed[key] = (int(length), reason.strip(), number)
    return listed


def check_lengths(files, ratchet_path, ratchet_name):
    found = long_things(files)
    listed = read_ratchet(ratchet_path)
    for key, (length, path, line) in sorted(found.items()):
        limit = FUNCTION_LINES_MAX if ":" in key else FILE_LINES_MAX
        if key not in listed:
            yield Problem(path, line, "length",
                          f"{key} has {length} lines, over {limit}: shorten it, or list it in "
                          f"{ratchet_name} with a reason")
        elif length > listed[key][0]:
            yield Problem(path, line, "length",
                          f"{key} grew from {listed[key][0]} to {length} lines")
    for key, (_, reason, number) in sorted(listed.items()):
        if key not in found:
            yield Problem(ratchet_name, number, "length", f"{key} is no longer long: unlist it")
        elif reason in ("", NO_REASON):
            yield Problem(ratchet_name, number, "length", f"{key} is listed without a reason")


def write_ratchet(files, path):
    listed = read_ratchet(path)
    found = long_things(files)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("# Functions over %d lines and files over %d, their length and why they are so.\n"
                     "# Nothing listed may grow. Made by `tests/tidy/tidy.py --ratchet`.\n"
                     % (FUNCTION_LINES_MAX, FILE_LINES_MAX))
        for key, (length, _, _) in sorted(found.items()):
            reason = listed[key][1] if key in listed and listed[key][1] else NO_REASON
            handle.write(f"{key} {length} {reason}\n")


# ---- symbols ----

EXTERNAL_TYPES = set("TDBRGSCVW")


def symbol_is_ours(name, path):
    if name.startswith(("lore_", "__", "_GLOBAL_")) or "." in name:
        return True  # and what compilers and sanitizers add
    if path.endswith(".cpp.o"):
        return name.startswith(("_Z", "faiss_"))  # templates of the library, its C interface
    if path.endswith(".cu.o"):
        return name.startswith(("_Z", "fatbin"))
    return name == "main" and "/lore.dir/" in path


def check_symbols(build):
    """Every external symbol of the product's objects starts lore_."""
    objects = []
    for target in [f"lore_{folder}" for folder in PRODUCT] + ["lore"]:
        for here, _, names in os.walk(os.path.join(build, "CMakeFiles", target + ".dir")):
            objects += [os.path.join(here, name) for name in sorted(names) if name.endswith(".o")]
    if not objects:
        yield Problem(build, 1, "symbol", "no objects found: build first")
        return
    output = subprocess.run(["nm", "-A", "-g", "--defined-only"] + objects, check=True,
                            capture_output=True, text=True).stdout
    for line in output.splitlines():
        path, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 3 and parts[1] in EXTERNAL_TYPES and not symbol_is_ours(parts[2], path):
            source = path.split(".dir/", 1)[-1][:-len(".o")]
            yield Problem(source, 1, "symbol", f"external symbol {parts[2]} does not start lore_")


# ---- main ----


def check_tree(root, build=None):
    files = read_tree(root)
    ratchet = os.path.join(root, "tests/tidy/ratchet.txt")
    problems = []
    for rule in (check_arrows, check_fences, check_banned, check_open_notes, check_names,
                 check_columns, check_braces):
        problems += rule(files)
    problems += check_lengths(files, ratchet, "tests/tidy/ratchet.txt")
    if build is not None:
        problems += check_symbols(build)
    return files, problems


def main():
    parser = argparse.ArgumentParser(description="check the rules of docs/conventions.md")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), "..", ".."))
    parser.add_argument("--build", help="a build folder whose objects are checked too")
    parser.add_argument("--ratchet", action="store_true", help="rewrite ratchet.txt")
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    if options.ratchet:
        write_ratchet(read_tree(root), os.path.join(root, "tests/tidy/ratchet.txt"))
    files, problems = check_tree(root, options.build)
    for problem in sorted(problems):
        print(f"{problem.path}:{problem.line}: {problem.rule}: {problem.message}")
    print(f"tidy: {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
