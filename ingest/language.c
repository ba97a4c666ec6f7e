/* The language of a text: scripts first, then n-grams.
 *
 * Kana, Hangul and a script that only one large language is written in decide alone, from a few
 * words on. Han without kana is Chinese, simplified or traditional as the n-grams have it. What is
 * left are the many languages in Latin, Cyrillic, Arabic and Devanagari letters. A text with too
 * few letters to tell has no language rather than a wrong one. */
#include "ingest/ingest_int.h"
#include "ingest/language_c.h"

#include "base/utf8.h"

#include <string.h>

enum {
    SAMPLE_BYTES = 1536, /* of the text, from its beginning, its middle and its end: 50 us */
    SAMPLE_PARTS = 3,
    LETTERS_MIN = 8,    /* fewer say nothing, unless their script does */
    LETTERS_SURE = 40,  /* with so many an unsure answer of the n-grams is none */
    KANA_SHARE_MIN = 10 /* percent of kana and Han together: less is a quotation */
};

typedef enum script { HAN, KANA, HANGUL, THAI, HEBREW, GREEK, OTHER, SCRIPTS } script;

static script script_of(int32_t c)
{
    static const struct {
        int32_t first, last;
        script script;
    } ranges[] = {{0x370, 0x3FF, GREEK},    {0x590, 0x5FF, HEBREW},   {0xE00, 0xE7F, THAI},
                  {0x1100, 0x11FF, HANGUL}, {0x1F00, 0x1FFF, GREEK},  {0x3041, 0x30FF, KANA},
                  {0x3130, 0x318F, HANGUL}, {0x31F0, 0x31FF, KANA},   {0x3400, 0x4DBF, HAN},
                  {0x4E00, 0x9FFF, HAN},    {0xAC00, 0xD7A3, HANGUL}, {0xF900, 0xFAFF, HAN},
                  {0x20000, 0x3FFFF, HAN}};
    for (size_t i = 0; c >= ranges[0].first && i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return ranges[i].script;
        }
    }
    return OTHER;
}

/* Lines of the text in SAMPLE_PARTS runs spread over it; ptr NULL: out of memory. */
static lore_str sample(lore_str text, lore_arena *arena)
{
    const size_t part = SAMPLE_BYTES / SAMPLE_PARTS;
    if (text.len <= SAMPLE_BYTES) {
        return text;
    }
    char *out = lore_arena_push(arena, SAMPLE_BYTES);
    size_t used = 0;
    for (size_t i = 0; out != NULL && i < SAMPLE_PARTS; i++) {
        size_t start = (text.len - part) / (SAMPLE_PARTS - 1) * i, end = start + part;
        while (start < end && ((unsigned char)text.ptr[start] & 0xC0) == 0x80) {
            start++;
        }
        while (end > start && end < text.len && ((unsigned char)text.ptr[end] & 0xC0) == 0x80) {
            end--;
        }
        memcpy(out + used, text.ptr + start, end - start);
        used += end - start;
    }
    return (lore_str){out, used};
}

/* By scripts alone; NULL where several languages share them. */
static const char *language_of_script(const int32_t counts[SCRIPTS], int32_t letters)
{
    static const char *const alone[SCRIPTS] = {
        [HANGUL] = "ko", [THAI] = "th", [HEBREW] = "he", [GREEK] = "el"};
    int32_t east = counts[HAN] + counts[KANA];
    if (counts[KANA] * 100 > east * KANA_SHARE_MIN && east * 2 > letters) {
        return "ja";
    }
    for (int i = 0; i < SCRIPTS; i++) {
        if (alone[i] != NULL && counts[i] * 2 > letters) {
            return alone[i];
        }
    }
    return NULL;
}

lore_status lore_language_of(lore_str text, lore_arena *arena, lore_str *language, lore_error *err)
{
    int32_t counts[SCRIPTS] = {0}, letters = 0;
    lore_str some = sample(text, arena);
    if (some.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory telling the language");
    }
    for (size_t at = 0; at < some.len;) {
        int32_t c = lore_utf8_next(some, &at);
        if (c >= 0x80 ? lore_utf8_is_letter(c) : (c | 32) >= 'a' && (c | 32) <= 'z') {
            counts[script_of(c)]++;
            letters++;
        }
    }
    bool is_reliable = false;
    const char *found = letters == 0 ? "" : language_of_script(counts, letters);
    if (found == NULL) {
        found = lore_ngram_language(some.ptr, some.len, &is_reliable);
        bool is_han = counts[HAN] * 2 > letters;
        bool is_unsure = letters < LETTERS_MIN || (!is_reliable && letters < LETTERS_SURE);
        if (is_han) {
            found = strcmp(found, "zh-Hant") == 0 ? found : "zh";
        } else if (is_unsure) {
            found = "";
        }
    }
    *language = lore_str_from(found);
    return LORE_OK;
}
