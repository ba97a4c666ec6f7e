#!/usr/bin/env python3
"""Shows that every rule of tidy.py fires on a bad sample, in the right line, and not on a good one."""

import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tidy  # noqa: E402

GOOD = """/* An essay. strcpy() and malloc() may stand in comments, TODO #7 has a number. */
#include "base/str.h"

#include <stdio.h>

#define LOOP(x)                                                                                    \\
    do {                                                                                           \\
        use(x);                                                                                    \\
    } while (0)

static const char text[] = "if (x) strcpy(a, b); // malloc()";

int lore_good(int x)
{
    if (x > 0) {
        return 1;
    } else if (x < -5) {
        return 2;
    } else {
        x++;
    }
    for (int i = 0; i < x; i++) {
    }
    do {
        x--;
    } while (x > 0);
    while (x < 0) {
        x++;
    }
    lore_free(thing->free(x));
    return x;
}
"""


def function(name, lines):
    return f"int {name}(void)\n{{\n" + "    step();\n" * (lines - 3) + "}\n"


class Tidy(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = self.folder.name

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)

    def problems(self):
        return [(p.path, p.line, p.rule) for p in tidy.check_tree(self.root)[1]]

    def assert_fires(self, path, text, line, rule):
        self.write(path, text)
        self.assertEqual(self.problems(), [(path, line, rule)])

    def assert_clean(self, path, text):
        self.write(path, text)
        self.assertEqual(self.problems(), [])

    # ---- includes ----

    def test_good_file_is_clean(self):
        self.assert_clean("index/good.c", GOOD)

    def test_arrows(self):
        for folder, header in [("base", "kernels/ops.h"), ("kernels", "models/weights.h"),
                               ("models", "index/store.h"), ("index", "models/decoder.h"),
                               ("retrieval", "generation/kv.h"), ("generation", "index/store.h"),
                               ("ingest", "retrieval/fuse.h"), ("api", "cli/flags.h"),
                               ("ingest", "kernels/ops.h")]:
            with self.subTest(folder=folder, header=header):
                self.setUp()
                self.assert_fires(f"{folder}/x.c", f'\n#include "{header}"\n', 2, "arrow")

    def test_arrows_allowed(self):
        self.write("cli/x.c", '#include "api/answer.h"\n#include "bench/run.h"\n')
        self.write("tests/unit/test_x.c", '#include "index/index_int.h"\n#include "cli/x.h"\n')
        self.write("api/y.c", '#include "generation/engine.h"\n#include "api/wire.h"\n')
        self.assertEqual(self.problems(), [])

    def test_tests_are_not_included(self):
        self.assert_fires("base/x.c", '#include "tests/check.h"\n', 1, "arrow")

    def test_includes_from_the_root(self):
        self.assert_fires("base/x.c", '#include "str.h"\n', 1, "include")
        self.setUp()
        self.assert_fires("base/x.c", '#include "base/../base/str.h"\n', 1, "include")

    def test_internal_headers(self):
        self.assert_fires("models/x.c", '#include "kernels/backend_int.h"\n', 1, "internal")
        self.setUp()
        self.assert_clean("kernels/cpu/x.c", '#include "kernels/backend_int.h"\n')

    def test_fences(self):
        for header in ["sqlite3.h", "faiss/c_api/Index_c.h", "md4c.h", "libxml/HTMLparser.h",
                       "uchardet.h", "iconv.h", "microhttpd.h", "curl/curl.h", "cjson/cJSON.h",
                       "utf8proc.h", "cuda_runtime.h", "cublasLt.h", "zlib.h"]:
            with self.subTest(header=header):
                self.setUp()
                self.assert_fires("models/x.c", f"#include <{header}>\n", 1, "fence")

    def test_fence_files(self):
        self.write("index/store.c", "#include <sqlite3.h>\n")
        self.write("index/faiss_c.cpp", "#include <faiss/Index.h>\n#include <vector>\n")
        self.write("ingest/encoding.c", "#include <uchardet/uchardet.h>\n#include <iconv.h>\n")
        self.write("kernels/cuda/cuda_x.cu", "#include <cuda_runtime.h>\n")
        self.write("tests/unit/test_y.c", "#include <sqlite3.h>\n")
        self.write("base/z.c", "#include <sys/stat.h>\n#include <pthread.h>\n#include <immintrin.h>\n")
        self.assertEqual(self.problems(), [])

    def test_commented_include_is_none(self):
        self.assert_clean("base/x.c", '/*\n#include "kernels/ops.h"\n*/\n// #include <zlib.h>\n')

    # ---- text ----

    def test_banned_functions(self):
        for call in ["strcpy(a, b)", "strcat(a, b)", "sprintf(a, b)", "strtok(a, b)", "atoi(a)",
                     "gets(a)", "alloca(3)", "malloc(3)", "calloc(1, 3)", "realloc(a, 3)",
                     "free(a)", "strdup (a)"]:
            with self.subTest(call=call):
                self.setUp()
                self.assert_fires("base/x.c", f"\n    int x = {call};\n", 2, "banned")

    def test_allowed_calls(self):
        self.write("base/mem.c", "    p = malloc(3);\n")
        self.write("kernels/cuda/cuda_y.cu", "    free(p);\n")
        self.write("tests/unit/test_z.c", "    free(p);\n")
        self.write("base/x.c", "    xmlFree(p); snprintf(a, b); allocator.free(p); strtok_r(a);\n")
        self.assertEqual(self.problems(), [])

    def test_open_notes(self):
        self.assert_fires("base/x.c", "\n/* TODO: later */\n", 2, "note")
        self.setUp()
        self.assert_fires("base/x.c", "// FIXME\n", 1, "note")
        self.setUp()
        self.assert_clean("base/x.c", "// TODO(#12): with a number\n/* FIXME #3 */\n")

    def test_names(self):
        self.write("base/x.c", "")
        self.assert_fires("models/x.c", "", 1, "name")
        self.setUp()
        self.assert_fires("base/BadName.c", "", 1, "name")

    def test_columns(self):
        self.assert_fires("base/x.c", "\n\n// " + "x" * 98 + "\n", 3, "columns")
        self.setUp()
        self.assert_clean("base/x.c", "// " + "\u4e2d" * 97 + "\n")  # characters, not bytes

    def test_braces(self):
        for text in ["if (x) return;", "if (x)\n    return;", "for (;;) step();", "while (x) x--;",
                     "while (x);", "else x++;", "if (f(a) && (b))\n    g();"]:
            with self.subTest(text=text):
                self.setUp()
                self.assert_fires("base/x.c", f"\n    {text}\n", 2, "braces")

    def test_braces_in_macros(self):
        self.assert_fires("base/x.c", "#define A(x) \\\n    if (x) \\\n        return\n", 2, "braces")
        self.setUp()
        self.assert_clean("base/x.c", "#define EACH(x) for (int x = 0; x < 3; x++)\n"
                                      "#if defined(A) && B\n#else\n#endif\n"
                                      "#define B(x) \\\n    do { \\\n        f(x); \\\n    } while (0)\n")

    # ---- lengths ----

    def test_long_function(self):
        self.write("base/x.c", "\n" + function("lore_a", 70))
        self.assertEqual(self.problems(), [])
        self.assert_fires("base/x.c", "\n" + function("lore_a", 71), 2, "length")

    def test_long_file(self):
        self.assert_clean("base/x.c", "int x;\n" * 600)
        self.assert_fires("base/x.c", "int x;\n" * 601, 1, "length")

    def test_ratchet(self):
        ratchet = "tests/tidy/ratchet.txt"
        self.write("base/x.c", function("lore_a", 80))
        self.write(ratchet, "# note\nbase/x.c:lore_a 80 reads top to bottom\n")
        self.assertEqual(self.problems(), [])
        self.write("base/x.c", function("lore_a", 81))
        self.assertEqual(self.problems(), [("base/x.c", 1, "length")])  # it grew
        self.write("base/x.c", function("lore_a", 75))
        self.assertEqual(self.problems(), [])
        self.write("base/x.c", function("lore_a", 30))
        self.assertEqual(self.problems(), [(ratchet, 2, "length")])  # nothing left to list
        self.write("base/x.c", function("lore_a", 80))
        self.write(ratchet, "base/x.c:lore_a 80\n")
        self.assertEqual(self.problems(), [(ratchet, 1, "length")])  # no reason

    def test_ratchet_is_written(self):
        ratchet = os.path.join(self.root, "tests/tidy/ratchet.txt")
        self.write("base/x.c", function("lore_a", 75) + function("lore_b", 90))
        self.write("tests/tidy/ratchet.txt", "base/x.c:lore_a 80 keep me\nbase/y.c 700 gone\n")
        tidy.write_ratchet(tidy.read_tree(self.root), ratchet)
        with open(ratchet, encoding="utf-8") as handle:
            lines = [line for line in handle.read().splitlines() if not line.startswith("#")]
        self.assertEqual(lines, ["base/x.c:lore_a 75 keep me", "base/x.c:lore_b 90 reason?"])

    # ---- symbols ----

    def build(self, folder, text):
        self.write("build/x.c", text)
        here = os.path.join(self.root, "build", "CMakeFiles", folder + ".dir")
        os.makedirs(here, exist_ok=True)
        subprocess.run(["cc", "-c", os.path.join(self.root, "build/x.c"), "-o",
                        os.path.join(here, "x.c.o")], check=True)
        return [p.rule for p in tidy.check_symbols(os.path.join(self.root, "build"))]

    def test_symbols(self):
        self.assertEqual(self.build("lore_base", "int lore_x; static int y; int *lore_f(void) "
                                                 "{ return &y; }"), [])
        self.assertEqual(self.build("lore_base", "int f(void) { return 1; }"), ["symbol"])
        self.assertEqual(self.build("lore_base", "int counter = 3;"), ["symbol"])
        self.assertEqual(self.build("lore_base", "int main(void) { return 1; }"), ["symbol"])

    def test_program_has_main(self):
        self.assertEqual(self.build("lore", "int main(void) { return 1; }"), [])

    def test_no_objects(self):
        os.makedirs(os.path.join(self.root, "empty"))
        rules = [p.rule for p in tidy.check_symbols(os.path.join(self.root, "empty"))]
        self.assertEqual(rules, ["symbol"])


if __name__ == "__main__":
    unittest.main()
