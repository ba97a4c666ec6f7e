/* Proves that stop strings end an answer at the same byte however the text is cut into tokens, that
 * nothing of a match is sent, that nothing else is withheld for good, and that pushing allocates
 * nothing. */
#include "tests/check.h"

#include "base/clock.h"
#include "generation/stop.h"
#include "tests/sim/byte_tokenizer.h"

enum { TOKENS_MAX = 64, TEXT_CAP = 512 };

static const byte_merge merges[] = {{"a", "b"}, {"ab", "c"},      {"c", "d"},    {".", "\n"},
                                    {"b", "c"}, {"\xE3", "\x80"}, {"x", "\xE3"}, {"d", "d"}};
enum { MERGES = sizeof merges / sizeof merges[0] };

static lore_tokenizer *tokenizer_of_test(void)
{
    lore_error err;
    lore_tokenizer *tokenizer = byte_tokenizer_new(merges, MERGES, &err);
    if (tokenizer == NULL) {
        CHECK_STOP("%s", err.message);
    }
    return tokenizer;
}

/* What a consumer makes of the events: the text of the answer. */
typedef struct listener {
    lore_detok detok;
    lore_buf text;
    int32_t received;
    bool is_over;
} listener;

static void receive(listener *l, const lore_tokenizer *tokenizer, const int32_t *ids,
                    lore_stop_verdict verdict)
{
    CHECK(!l->is_over);
    CHECK(verdict.sendable >= l->received);
    while (l->received < verdict.sendable) {
        lore_detok_push(&l->detok, tokenizer, ids[l->received++], &l->text);
    }
    l->is_over = verdict.is_match;
    if (verdict.is_match) {
        CHECK(verdict.cut_bytes >= 0);
        CHECK((size_t)verdict.cut_bytes <= l->text.len);
        l->text.len -= (size_t)verdict.cut_bytes;
    }
}

typedef struct outcome {
    char text[TEXT_CAP];
    size_t len;
    bool is_match;
    int32_t sent, seen; /* tokens, up to the match or the end */
} outcome;

static outcome run(const lore_tokenizer *tokenizer, const lore_str *strings, int32_t count,
                   const int32_t *ids, int32_t id_count)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_error err;
    lore_stop stop;
    CHECK_OK(lore_stop_init(&stop, strings, count, TOKENS_MAX, 4, &arena, &err), &err);
    listener l = {0};
    lore_buf_init(&l.text, TEXT_CAP);
    CHECK(lore_buf_reserve(&l.text, TEXT_CAP - 1));
    outcome out = {0};
    int64_t made = lore_mem_count();
    while (out.seen < id_count && !l.is_over) {
        receive(&l, tokenizer, ids, lore_stop_push(&stop, tokenizer, ids[out.seen++]));
        out.sent = l.received;
    }
    CHECK_INT(lore_mem_count(), made);
    if (!l.is_over) { /* the engine now sends what was held back */
        receive(&l, tokenizer, ids, (lore_stop_verdict){.sendable = id_count});
    }
    memcpy(out.text, l.text.ptr, l.text.len);
    out.len = l.text.len;
    out.is_match = l.is_over;
    lore_buf_destroy(&l.text);
    lore_stop_destroy(&stop);
    lore_arena_destroy(&arena);
    return out;
}

static int32_t byte_id(char byte)
{
    return BYTE_TOKENIZER_FIRST + (uint8_t)byte;
}

static int32_t ids_of(const char *text, int32_t *ids)
{
    int32_t count = 0;
    for (; text[count] != '\0'; count++) {
        ids[count] = byte_id(text[count]);
    }
    return count;
}

static void check_text(const outcome *out, const char *expected)
{
    lore_str text = {out->text, out->len};
    CHECK_STR(text, expected);
}

TEST(sends_everything_at_once_without_stop_strings)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    int32_t ids[] = {byte_id('a'), 1, byte_id('b')};
    outcome out = run(tokenizer, NULL, 0, ids, 3);
    CHECK_INT(out.sent, 3);
    CHECK(!out.is_match);
    check_text(&out, "ab");
    lore_tokenizer_close(tokenizer);
}

TEST(ends_at_a_match_over_several_tokens)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    lore_str end = LORE_STR("END");
    int32_t ids[TOKENS_MAX];
    outcome out = run(tokenizer, &end, 1, ids, ids_of("so ENTER the END and more", ids));
    CHECK(out.is_match);
    check_text(&out, "so ENTER the ");
    CHECK_INT(out.sent, 13);
    CHECK_INT(out.seen, 16); /* judged with the D, not later */
    lore_tokenizer_close(tokenizer);
}

TEST(holds_back_only_what_may_be_a_match)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    lore_str end = LORE_STR("aab");
    int32_t ids[TOKENS_MAX];
    outcome out = run(tokenizer, &end, 1, ids, ids_of("xaa", ids));
    CHECK_INT(out.sent, 1);
    check_text(&out, "xaa"); /* the end of the answer decides against the match */
    out = run(tokenizer, &end, 1, ids, ids_of("xaaa", ids));
    CHECK_INT(out.sent, 2);
    out = run(tokenizer, &end, 1, ids, ids_of("xaaac", ids));
    CHECK_INT(out.sent, 5);
    out = run(tokenizer, &end, 1, ids, ids_of("xaaab", ids));
    CHECK(out.is_match);
    check_text(&out, "xa");
    lore_tokenizer_close(tokenizer);
}

TEST(cuts_a_token_that_holds_the_start_of_the_match)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    lore_str end = LORE_STR("\n");
    int32_t dot_newline = BYTE_TOKENIZER_FIRST_MERGE + 3;
    int32_t ids[] = {byte_id('x'), dot_newline, byte_id('y')};
    outcome out = run(tokenizer, &end, 1, ids, 3);
    CHECK(out.is_match);
    check_text(&out, "x.");
    CHECK_INT(out.sent, 2);

    lore_str word = LORE_STR("cd");
    int32_t abc = BYTE_TOKENIZER_FIRST_MERGE + 1, dd = BYTE_TOKENIZER_FIRST_MERGE + 7;
    int32_t more[] = {abc, dd}; /* "abc" "dd": the match begins in one token and ends in the next */
    out = run(tokenizer, &word, 1, more, 2);
    CHECK(out.is_match);
    check_text(&out, "ab");
    CHECK_INT(out.sent, 1);
    lore_tokenizer_close(tokenizer);
}

TEST(matches_characters_cut_in_two)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    lore_str full_stop = LORE_STR("\xE3\x80\x82");
    int32_t half = BYTE_TOKENIZER_FIRST_MERGE + 5;   /* E3 80 */
    int32_t x_half = BYTE_TOKENIZER_FIRST_MERGE + 6; /* x E3 */
    int32_t ids[] = {byte_id('y'), half, byte_id('\x82')};
    outcome out = run(tokenizer, &full_stop, 1, ids, 3);
    CHECK(out.is_match);
    check_text(&out, "y");
    CHECK_INT(out.sent, 1);
    int32_t more[] = {x_half, byte_id('\x80'), byte_id('\x82')};
    out = run(tokenizer, &full_stop, 1, more, 3);
    CHECK(out.is_match);
    check_text(&out, "x");
    CHECK_INT(out.sent, 1);
    int32_t broken[] = {half, byte_id('z'), byte_id('z')}; /* becomes U+FFFD */
    lore_str replacement = LORE_STR("\xEF\xBF\xBDz");
    out = run(tokenizer, &replacement, 1, broken, 3);
    CHECK(out.is_match);
    check_text(&out, "");
    lore_tokenizer_close(tokenizer);
}

TEST(takes_the_string_that_ends_first)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    lore_str strings[] = {LORE_STR("abcdd"), LORE_STR("bc"), LORE_STR("abc")};
    int32_t ids[TOKENS_MAX];
    outcome out = run(tokenizer, strings, 3, ids, ids_of("xabcdd", ids));
    CHECK(out.is_match);
    check_text(&out, "x"); /* "bc" and "abc" end together: the longer one counts */
    lore_tokenizer_close(tokenizer);
}

/* Cut text into random tokens of the vocabulary, markers (which have no text) strewn in. */
static int32_t random_tokens(const lore_tokenizer *tokenizer, const char *text, int32_t *ids,
                             uint64_t *seed)
{
    int32_t count = 0;
    while (*text != '\0') {
        int32_t merge = (int32_t)(lore_random_next(seed) % MERGES);
        lore_str bytes = lore_tokenizer_bytes(tokenizer, BYTE_TOKENIZER_FIRST_MERGE + merge);
        if (lore_random_next(seed) % 16 == 0) {
            ids[count++] = 3;
        } else if (strncmp(text, bytes.ptr, bytes.len) == 0) {
            ids[count++] = BYTE_TOKENIZER_FIRST_MERGE + merge;
            text += bytes.len;
        } else {
            ids[count++] = byte_id(*text++);
        }
    }
    return count;
}

/* The answer by definition: the shortest beginning of the text that ends with a stop string,
 * without the longest string it ends with. */
static size_t expected_length(lore_str text, const lore_str *strings, int32_t count, bool *is_match)
{
    for (size_t end = 1; end <= text.len; end++) {
        size_t longest = 0;
        for (int32_t i = 0; i < count; i++) {
            if (lore_str_ends(lore_str_slice(text, 0, end), strings[i]) &&
                strings[i].len > longest) {
                longest = strings[i].len;
            }
        }
        if (longest > 0) {
            *is_match = true;
            return end - longest;
        }
    }
    *is_match = false;
    return text.len;
}

TEST(does_not_depend_on_how_text_is_cut_into_tokens)
{
    lore_tokenizer *tokenizer = tokenizer_of_test();
    static const char alphabet[] = "aabbccdd.\nx";
    uint64_t seed = 3;
    int32_t matches = 0;
    for (int32_t round = 0; round < 20000; round++) {
        char text[25] = {0};
        size_t length = lore_random_next(&seed) % (sizeof text - 1);
        for (size_t i = 0; i < length; i++) {
            text[i] = alphabet[lore_random_next(&seed) % (sizeof alphabet - 1)];
        }
        char stops[3][6] = {{0}};
        lore_str strings[3];
        int32_t count = 1 + (int32_t)(lore_random_next(&seed) % 3);
        for (int32_t i = 0; i < count; i++) {
            size_t size = 1 + lore_random_next(&seed) % 5;
            for (size_t k = 0; k < size; k++) {
                stops[i][k] = alphabet[lore_random_next(&seed) % (sizeof alphabet - 1)];
            }
            strings[i] = (lore_str){stops[i], size};
        }
        int32_t ids[TOKENS_MAX];
        int32_t id_count = random_tokens(tokenizer, text, ids, &seed);
        if (id_count > TOKENS_MAX - 16) {
            continue;
        }
        outcome out = run(tokenizer, strings, count, ids, id_count);
        bool is_match = false;
        size_t expected = expected_length(lore_str_from(text), strings, count, &is_match);
        CHECK_INT(out.is_match, is_match);
        CHECK_INT(out.len, expected);
        CHECK(memcmp(out.text, text, expected) == 0);
        matches += is_match;
    }
    CHECK(matches > 2000);
    lore_tokenizer_close(tokenizer);
}

static lore_status make_and_destroy(void *self)
{
    (void)self;
    lore_str strings[] = {LORE_STR("one"), LORE_STR("two")};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_error err;
    lore_stop stop;
    lore_status status = lore_stop_init(&stop, strings, 2, 100, 64, &arena, &err);
    lore_stop_destroy(&stop);
    lore_arena_destroy(&arena);
    return status;
}

TEST(survives_every_failing_allocation)
{
    check_alloc_sweep(make_and_destroy, NULL);
}

CHECK_MAIN(sends_everything_at_once_without_stop_strings, ends_at_a_match_over_several_tokens,
           holds_back_only_what_may_be_a_match, cuts_a_token_that_holds_the_start_of_the_match,
           matches_characters_cut_in_two, takes_the_string_that_ends_first,
           does_not_depend_on_how_text_is_cut_into_tokens, survives_every_failing_allocation)
