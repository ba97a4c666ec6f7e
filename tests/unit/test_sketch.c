/* Sketches: what two texts share is told within .12, near-duplicates are found and nothing else,
 * English and Chinese; the store keeps them with their documents. */
#include "index/sketch.h"
#include "tests/unit/index_fixture.h"

#include "base/clock.h"

enum { WORDS = 400, TRIALS = 60 };

static void make_words(int32_t *words, int32_t count, uint64_t *state)
{
    for (int32_t i = 0; i < count; i++) {
        words[i] = (int32_t)(lore_random_next(state) % 3000);
    }
}

/* As words of letters, or as one run of Chinese characters. */
static void write_text(const int32_t *words, int32_t count, bool is_chinese, lore_buf *text)
{
    lore_buf_reset(text);
    for (int32_t i = 0; i < count; i++) {
        if (is_chinese) {
            int32_t c = 0x4E00 + words[i];
            lore_buf_printf(text, "%c%c%c", 0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63));
        } else {
            lore_buf_printf(text, "w%dx ", words[i]);
        }
    }
}

/* Common three-word shingles of two texts of the same length, as a share of all. */
static double true_share(const int32_t *a, const int32_t *b, int32_t count)
{
    int32_t common = 0;
    for (int32_t i = 0; i + 3 <= count; i++) {
        bool is_common = false;
        for (int32_t j = 0; j + 3 <= count && !is_common; j++) {
            is_common = memcmp(a + i, b + j, 3 * sizeof *a) == 0;
        }
        common += is_common ? 1 : 0;
    }
    int32_t shingles = count - 2;
    return (double)common / (2 * shingles - common);
}

static bool share_band(const lore_sketch *a, const lore_sketch *b)
{
    for (int32_t i = 0; i < LORE_SKETCH_BANDS; i++) {
        if (lore_sketch_band(a, i) == lore_sketch_band(b, i)) {
            return true;
        }
    }
    return false;
}

/* Texts with some words exchanged, from none to a half of them. */
TEST(shares)
{
    int32_t a[WORDS], b[WORDS];
    uint64_t state = 7;
    lore_error err = {0};
    lore_buf text;
    lore_buf_init(&text, 0);
    int32_t missed = 0, near = 0;
    for (int32_t trial = 0; trial < TRIALS; trial++) {
        bool is_chinese = trial % 2 == 1;
        int32_t count = trial % 3 == 0 ? 60 : WORDS;
        lore_sketch sa, sb;
        make_words(a, count, &state);
        memcpy(b, a, sizeof a);
        for (int32_t i = 0; i < count * trial / TRIALS / 6; i++) {
            b[lore_random_next(&state) % (uint64_t)count] = 3000 + i;
        }
        write_text(a, count, is_chinese, &text);
        CHECK_OK(lore_sketch_text(lore_buf_str(&text), &sa, &err), &err);
        write_text(b, count, is_chinese, &text);
        CHECK_OK(lore_sketch_text(lore_buf_str(&text), &sb, &err), &err);
        double wanted = true_share(a, b, count), found = lore_sketch_share(&sa, &sb);
        CHECK(found > wanted - .15 && found < wanted + .15);
        near += wanted >= .9 ? 1 : 0;
        missed += wanted >= .9 && !share_band(&sa, &sb) ? 1 : 0;
        CHECK(wanted > .7 || found < LORE_SKETCH_NEAR);
    }
    CHECK(near >= 5);
    CHECK_INT(missed, 0);
    lore_buf_destroy(&text);
}

TEST(short_texts)
{
    lore_sketch a, b;
    lore_error err = {0};
    CHECK_OK(lore_sketch_text(LORE_STR(""), &a, &err), &err);
    CHECK(a.is_empty);
    CHECK_OK(lore_sketch_text(LORE_STR("one two three four five"), &a, &err), &err);
    CHECK(a.is_empty);
    CHECK(lore_sketch_share(&a, &a) == 0);
    lore_str text = LORE_STR("Hold the button for ten seconds until the light blinks twice, then "
                             "let go of it and wait a minute.");
    lore_str other = LORE_STR("HOLD the button for ten seconds until the light blinks twice; then "
                              "let go of it and wait a minute!");
    CHECK_OK(lore_sketch_text(text, &a, &err), &err);
    CHECK_OK(lore_sketch_text(other, &b, &err), &err);
    CHECK(!a.is_empty);
    CHECK(lore_sketch_share(&a, &b) == 1);
}

static void put(fixture *f, const char *collection, const char *id, const char *text, bool is_near)
{
    lore_error err = {0};
    lore_sketch sketch;
    lore_put_outcome outcome = {0};
    CHECK_OK(lore_sketch_text(lore_str_from(text), &sketch, &err), &err);
    lore_document_row row = {
        .id = lore_str_from(id), .text = lore_str_from(text), .sketch = &sketch};
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    CHECK_OK(lore_index_put_document(f->index, lore_str_from(collection), &row, &outcome, &err),
             &err);
    CHECK_OK(lore_index_commit(f->index, &err), &err);
    CHECK_INT(outcome.is_near_duplicate, is_near);
}

static void check_near(fixture *f, const char *id, const char *of)
{
    lore_error err = {0};
    lore_arena arena;
    lore_document_info info;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_index_get_document(f->index, LORE_STR("default"), lore_str_from(id), false,
                                     &arena, &info, &err),
             &err);
    CHECK_STR(info.near, of);
    lore_arena_destroy(&arena);
}

static int64_t rows(fixture *f, const char *sql)
{
    lore_error err = {0};
    int64_t count = -1;
    CHECK_OK(lore_db_number(f->index->writer, sql, &count, &err), &err);
    return count;
}

/* Two pages made from one form: half of the words are the same, and they are two pages. */
TEST(kept)
{
    static const char page[] =
        "The ferry to the island leaves at eight in the morning and at noon, and returns at four "
        "in the afternoon; tickets are sold on board, bicycles travel free of charge.";
    static const char edited[] =
        "The ferry to the island leaves at eight in the morning and at noon, and returns at five "
        "in the afternoon; tickets are sold on board, bicycles travel free of charge. Dogs too.";
    static const char copy[] =
        "the ferry to the island leaves at eight in the morning and at noon and returns at four in "
        "the afternoon: tickets are sold on board, bicycles travel free of charge!";
    static const char form[] =
        "The ferry to the village leaves at nine in the morning and at two, and returns at six "
        "in the evening; tickets are sold at the pier, dogs travel free of charge.";
    bool found = false;
    fixture f;
    lore_error err = {0};
    fix_init(&f, "kept");
    fix_open(&f, true);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("other"), &err), &err);
    put(&f, "default", "page", page, false);
    put(&f, "default", "form", form, false);
    put(&f, "default", "edited", edited, false);
    put(&f, "other", "copy", copy, false); /* each collection for itself */
    put(&f, "default", "copy", copy, true);
    check_near(&f, "copy", "page");
    check_near(&f, "page", "");
    put(&f, "default", "page", page, true); /* a document is not its own duplicate: of the copy */
    check_near(&f, "page", "copy");
    check_near(&f, "copy", ""); /* what it repeated has another version now */
    CHECK_INT(rows(&f, "SELECT count(*) FROM sketches"), 5);
    CHECK_INT(rows(&f, "SELECT count(*) FROM bands"), 5 * LORE_SKETCH_BANDS);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(
        lore_index_delete_document(f.index, LORE_STR("default"), LORE_STR("copy"), &found, &err),
        &err);
    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("other"), &found, &err), &err);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    check_near(&f, "page", "");
    CHECK_INT(rows(&f, "SELECT count(*) FROM sketches"), 3);
    CHECK_INT(rows(&f, "SELECT count(*) FROM bands"), 3 * LORE_SKETCH_BANDS);
    fix_destroy(&f);
}

CHECK_MAIN(shares, short_texts, kept)
