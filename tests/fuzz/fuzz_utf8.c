/* Fuzz target of base/utf8 and of the words of the full-text index, any bytes.
 *
 * Property: the walks forwards and backwards meet the same number of positions and stay inside;
 * valid text re-encodes to itself; NFC and the search form are taken once and for all (doing it
 * again changes nothing), give valid UTF-8, and is_nfc is true only of text that NFC leaves alone;
 * words ascend, lie inside the text and are valid UTF-8; time is linear. */
#include "index/lexical.h"
#include "tests/fuzz/fuzz.h"

typedef struct word_walk {
    lore_str text;
    size_t start, count;
} word_walk;

static bool check_word(void *self, const lore_word *word)
{
    word_walk *walk = self;
    LORE_ASSERT(word->start >= walk->start || word->is_bigram);
    LORE_ASSERT(word->end > word->start);
    LORE_ASSERT(word->end <= walk->text.len);
    LORE_ASSERT(word->text.len > 0);
    LORE_ASSERT(lore_utf8_valid(word->text) == word->text.len);
    walk->start = word->is_bigram ? walk->start : word->start;
    walk->count++;
    return true;
}

static void check_walks(lore_str text)
{
    char bytes[4];
    size_t forwards = 0, at = 0;
    bool is_valid = lore_utf8_valid(text) == text.len;
    while (at < text.len) {
        size_t from = at;
        int32_t c = lore_utf8_next(text, &at);
        LORE_ASSERT(at > from);
        LORE_ASSERT(at <= text.len);
        if (is_valid) {
            lore_str encoded = {bytes, lore_utf8_encode(c, bytes)};
            LORE_ASSERT(lore_str_equal(encoded, lore_str_slice(text, from, at)));
        }
        forwards++;
    }
    LORE_ASSERT(lore_utf8_count(text) == forwards);
    size_t backwards = 0;
    while (at > 0) {
        size_t from = at;
        lore_utf8_prev(text, &at);
        LORE_ASSERT(at < from);
        backwards++;
    }
    LORE_ASSERT(backwards == forwards || !is_valid);
}

static void check_forms(lore_str text)
{
    lore_status (*const forms[])(lore_str, lore_buf *, lore_error *) = {lore_utf8_nfc,
                                                                        lore_utf8_fold};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        lore_buf once, twice;
        lore_buf_init(&once, 0);
        lore_buf_init(&twice, 0);
        LORE_ASSERT(forms[i](text, &once, NULL) == LORE_OK);
        LORE_ASSERT(lore_utf8_valid(lore_buf_str(&once)) == once.len);
        LORE_ASSERT(forms[i](lore_buf_str(&once), &twice, NULL) == LORE_OK);
        LORE_ASSERT(lore_str_equal(lore_buf_str(&once), lore_buf_str(&twice)));
        LORE_ASSERT(i > 0 || !lore_utf8_is_nfc(text) || lore_str_equal(lore_buf_str(&once), text));
        lore_buf_destroy(&once);
        lore_buf_destroy(&twice);
    }
}

static void check(lore_str text)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    check_walks(text);
    if (lore_utf8_valid(text) == text.len) {
        word_walk walk = {.text = text};
        check_forms(text);
        LORE_ASSERT(lore_words_each(text, check_word, &walk, NULL) == LORE_OK);
        LORE_ASSERT(walk.count <= 2 * text.len);
    }
    fuzz_check_cost(start_ns, text.len);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_text(data, size, check);
}
