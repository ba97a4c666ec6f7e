/* Proves that source code keeps every line and that definitions begin sections, with the comments
 * above them, in the languages that show them in different ways; and what is none of one.
 * (tests/golden/clean has whole files of six languages.) */
#include "tests/unit/ingest_fixture.h"

/* Headings of the sections, joined by ';'. */
static void check(const char *name, const char *source, const char *headings)
{
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_buf joined;
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    lore_raw_document raw = {
        .source = lore_str_from(name), .media = LORE_MEDIA_CODE, .bytes = lore_str_from(source)};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), &err);
    check_clean(&clean, raw.bytes);
    CHECK_STR(clean.title, name);
    for (int32_t i = 0; i < clean.section_count; i++) {
        lore_buf_printf(&joined, "%s" LORE_STR_FMT, i == 0 ? "" : ";",
                        LORE_STR_ARG(clean.sections[i].heading));
    }
    CHECK_STR(lore_buf_str(&joined), headings);
    lore_buf_destroy(&joined);
    lore_arena_destroy(&arena);
}

TEST(python)
{
    check("a.py", "def f():\n  x\n\n\nasync def g(a,\n    b):\n  y\n", "f;g");
    check("a.py",
          "class A(B):\n    @p\n    def f(self):\n        def h():\n            1\n\n    x = "
          "1\n\ndef g(): 1\n",
          "A;A > f;g");
    check("a.py", "s = \"\"\"\ndef no():\n\"\"\"\nx = '''def no():'''\ndefine()\n", "");
    check("a.rb", "module M\n  def self.f\n  end\nend\n", "M;M > self.f");
}

TEST(braces)
{
    check("a.c",
          "int f(int a);\nstatic int f(int a)\n{\n  if (a) {\n  }\n}\n#define X(a) {\nint x = "
          "g(1);\n",
          ";f");
    check("a.c", "struct s {\n int a;\n};\nstruct s make(void) {\n}\nenum e { A };\n", "s;make;e");
    check("a.cpp",
          "namespace n {\ntemplate <class T>\nvoid A<T>::f() {\n}\n}\nA::A(int x) : x_(x) {\n}\n",
          "n;A<T>::f;A::A");
    check("a.java",
          "package p;\n\n/** doc */\npublic final class A {\n  private int x;\n\n  /** m */\n  "
          "@Override\n"
          "  public void m(int a) {\n    if (a > 1) {\n    }\n  }\n  int n();\n}\n",
          ";A;A > m");
    check("a.rs",
          "#[derive(Debug)]\npub(crate) struct A {\n}\n\nimpl<T> B for A<T> {\n    pub fn f(&self) "
          "{}\n}\n",
          "A;B for A<T>;B for A<T> > f");
    check("a.go", "func (s *A) Run(x int) error {\n}\ntype B interface {\n}\nfunc main() {\n}\n",
          "Run;B;main");
    check("a.js",
          "const a = 1;\nexport const b = () => {\n};\nmodule.exports = {\n};\nfoo(function () "
          "{\n});\nexport default class C {\n  d() {\n  }\n}\n",
          ";b;C;C > d");
}

TEST(scripts)
{
    check("a.sh", "# say\nsay() {\n  echo\n}\nfunction go {\n  say\n}\nsay\n", "say;go");
    check("a.sql",
          "CREATE TABLE a.b (x INT);\nINSERT INTO b VALUES (1);\n\ncreate or replace view \"视图\" "
          "as select 1;\n",
          "a.b;\"视图\"");
}

TEST(nothing_is_lost)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean =
        clean_literal(&arena, LORE_MEDIA_CODE, "// 你好\nint f() {\n\treturn 1;\n}\n\n\nx\n");
    CHECK_STR(clean.text, "f\n// 你好\nint f() {\n    return 1;\n}\nx");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(python, braces, scripts, nothing_is_lost)
