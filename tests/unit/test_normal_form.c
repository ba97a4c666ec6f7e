/* The stream of forms gives the forms that base/utf8 gives, in linear time, and its origins follow
 * the library's count (golden_pieces compares both with the package). */
#include "base/clock.h"
#include "base/utf8.h"
#include "tests/unit/normal_fixture.h"

static const lore_normal_stage NFC = {.run = lore_normal_form, .is_composed = true};
static const lore_normal_stage NFD = {.run = lore_normal_form};
static const lore_normal_stage NFKC = {
    .run = lore_normal_form, .is_composed = true, .is_compatible = true};

TEST(forms_and_origins)
{
    fixture_check(NFC, "xe\xcc\x81y", "x\xc3\xa9y", "0114");
    fixture_check(NFD, "x\xc3\xa9y", "xe\xcc\x81y", "01113");
    fixture_check(NFKC,
                  "\xef\xac\x81\xcc\x81"
                  "b",
                  "f\xc3\xad"
                  "b",
                  "0345");
    /* The order of marks changes, the places they take do not. */
    fixture_check(NFC,
                  "a\xcc\x95\xcc\x80"
                  "b",
                  "\xc3\xa0\xcc\x95"
                  "b",
                  "00345");
    fixture_check(NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81", "012");
    fixture_check(NFC,
                  "\xcd\x84"
                  "a",
                  "\xcc\x88\xcc\x81"
                  "a",
                  "01112");
    fixture_check(NFC,
                  "\xff"
                  "e\xcc\x81",
                  "\xff\xc3\xa9", "011");
}

TEST(as_utf8_nfc)
{
    static const int32_t alphabet[] = {'a',    'e',    0x301,  0x327,  0x323,  0xE9,
                                       0x1E69, 0x1100, 0x1161, 0x11A8, 0xAC00, 0x4E00,
                                       0x9C7,  0x9BE,  0x344,  0x212B};
    for (uint64_t run = 1; run < 3000; run++) {
        uint64_t seed = run;
        lore_buf text, wanted;
        lore_error err;
        lore_buf_init(&text, 0);
        lore_buf_init(&wanted, 0);
        for (uint64_t left = lore_random_next(&seed) % 40; left > 0; left--) {
            char bytes[4];
            int32_t c = alphabet[lore_random_next(&seed) % 16];
            lore_buf_append(&text, (lore_str){bytes, lore_utf8_encode(c, bytes)});
        }
        lore_arena_init(&fixture_arena, 0);
        CHECK_OK(lore_utf8_nfc(lore_buf_str(&text), &wanted, &err), &err);
        lore_normal out = fixture_run(NFC, lore_buf_c(&text));
        CHECK(lore_str_equal(out.text, lore_buf_str(&wanted)));
        lore_arena_destroy(&fixture_arena);
        lore_buf_destroy(&text);
        lore_buf_destroy(&wanted);
    }
}

TEST(a_million_marks_take_linear_time)
{
    enum { MARKS = 1000000 };
    char *text = lore_alloc(2 * MARKS + 1);
    CHECK(text != NULL);
    for (size_t i = 0; i < MARKS; i++) {
        memcpy(text + 2 * i, i % 2 == 0 ? "\xcc\x81" : "\xcc\xa7", 2);
    }
    text[2 * MARKS] = '\0';
    lore_arena_init(&fixture_arena, 0);
    lore_error err;
    lore_normal out;
    lore_normal_writer w = {
        .in = {{text, 2 * MARKS}, NULL}, .cap = 8 * MARKS, .arena = &fixture_arena};
    int64_t start_ns = lore_clock_ns();
    NFC.run(&NFC, &w);
    CHECK_OK(lore_normal_finish(&w, &out, &err), &err);
    CHECK(lore_clock_ns() - start_ns < INT64_C(5000000000));
    CHECK_INT((int)out.text.len, 2 * MARKS);
    CHECK(memcmp(out.text.ptr, "\xcc\xa7\xcc\xa7", 4) == 0);
    lore_arena_destroy(&fixture_arena);
    lore_free(text);
}

CHECK_MAIN(forms_and_origins, as_utf8_nfc, a_million_marks_take_linear_time)
