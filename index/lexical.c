/* The walk over the words of a text.
 *
 * One loop looks at the next code point and decides: an ASCII letter or digit starts a word on the
 * fast path, a character of a script without spaces extends a run of such, another letter, digit or
 * number starts a word on the slow path, anything else separates. Marks (accents that stand alone)
 * belong to what is before them.
 *
 * Of a run 人工智能 the walk gives 人, 工, 人工, 智, 工智, 能, 智能. A question asks for all of
 * them (text_search.c): BM25 tells the pairs, which are rare, from the characters, and both
 * together rank better than pairs alone (nDCG@10 of qa-dev-zh .937 against .907). Each is one
 * phrase of FTS5's query language, which reads its phrases through the walk of a question: only the
 * pairs, or the one character when the run has no other. */
#include "index/index_int.h"

#include "base/utf8.h"

#include <string.h>

enum {
    WORD_BYTES_MAX = 256 /* nobody asks for longer ones; keeps every word on the stack */
};

typedef bool (*word_visit)(void *self, const lore_word *word);

typedef struct walk {
    lore_str text;
    word_visit visit;
    void *self;
    bool is_query;
    bool is_stopped;
    lore_buf folded;
    /* the current run of characters without spaces; run_count 0: none */
    size_t run_count;
    size_t previous_start; /* of its last character */
    size_t run_end;
} walk;

static bool is_ascii_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static void visit(walk *w, lore_str text, size_t start, size_t end, bool is_cjk, bool is_bigram)
{
    lore_word word = {text, start, end, is_cjk, is_bigram};
    if (text.len > 0 && !w->visit(w->self, &word)) {
        w->is_stopped = true;
    }
}

/* A word of ASCII alone: no normalisation but case. */
static void emit_ascii(walk *w, size_t start, size_t end)
{
    char folded[WORD_BYTES_MAX];
    LORE_ASSERT(end - start <= sizeof folded);
    for (size_t i = start; i < end; i++) {
        char c = w->text.ptr[i];
        folded[i - start] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
    }
    visit(w, (lore_str){folded, end - start}, start, end, false, false);
}

/* Most Chinese characters are their own folded form. Compatibility characters lie elsewhere. */
static bool is_plain_han(lore_str s)
{
    for (size_t at = 0; at < s.len;) {
        int32_t c = lore_utf8_next(s, &at);
        if (c < 0x4E00 || c > 0x9FFF) {
            return false;
        }
    }
    return true;
}

static lore_status emit(walk *w, size_t start, size_t end, bool is_cjk, bool is_bigram,
                        lore_error *err)
{
    lore_str slice = lore_str_slice(w->text, start, end);
    if (is_cjk && is_plain_han(slice)) {
        visit(w, slice, start, end, is_cjk, is_bigram);
        return LORE_OK;
    }
    lore_buf_reset(&w->folded);
    lore_status status = lore_utf8_fold(slice, &w->folded, err);
    if (status == LORE_OK) {
        visit(w, lore_buf_str(&w->folded), start, end, is_cjk, is_bigram);
    }
    return status;
}

/* The run is over: in a question, a character without neighbours stands for itself. */
static lore_status end_run(walk *w, lore_error *err)
{
    size_t count = w->run_count;
    w->run_count = 0;
    if (w->is_query && count == 1) {
        return emit(w, w->previous_start, w->run_end, true, false, err);
    }
    return LORE_OK;
}

/* One more character of a run, at [start, end). */
static lore_status extend_run(walk *w, size_t start, size_t end, lore_error *err)
{
    size_t previous = w->previous_start;
    bool has_previous = w->run_count > 0;
    w->run_count++;
    w->previous_start = start;
    w->run_end = end;
    lore_status status = LORE_OK;
    if (!w->is_query) {
        status = emit(w, start, end, true, false, err);
    }
    if (status == LORE_OK && has_previous && !w->is_stopped) {
        status = emit(w, previous, end, true, true, err);
    }
    return status;
}

/* The byte behind the marks that follow `at`. */
static size_t skip_marks(const walk *w, size_t at)
{
    while (at < w->text.len && (unsigned char)w->text.ptr[at] >= 0x80) {
        size_t next = at;
        if (!lore_utf8_is_mark(lore_utf8_next(w->text, &next))) {
            break;
        }
        at = next;
    }
    return at;
}

/* The end of the word that starts at `start`: letters, numbers and marks, no scripts without
 * spaces. */
static size_t word_end(const walk *w, size_t start, bool *is_ascii)
{
    size_t at = start;
    *is_ascii = true;
    while (at < w->text.len) {
        size_t next = at;
        unsigned char c = (unsigned char)w->text.ptr[at];
        if (c < 0x80) {
            if (!is_ascii_word(c)) {
                break;
            }
            next++;
        } else {
            int32_t codepoint = lore_utf8_next(w->text, &next);
            if (lore_utf8_is_cjk(codepoint) ||
                !(lore_utf8_is_letter(codepoint) || lore_utf8_is_number(codepoint) ||
                  lore_utf8_is_mark(codepoint))) {
                break;
            }
            *is_ascii = false;
        }
        if (next - start > WORD_BYTES_MAX) {
            break;
        }
        at = next;
    }
    return at;
}

/* Behind "router" of "router's" the possessive is skipped: it is in every other text and says
 * nothing. */
static size_t skip_possessive(const walk *w, size_t at)
{
    lore_str rest = lore_str_slice(w->text, at, w->text.len);
    size_t length = lore_str_starts(rest, LORE_STR("'"))              ? 1
                    : lore_str_starts(rest, LORE_STR("\xE2\x80\x99")) ? 3
                                                                      : 0;
    if (length == 0 || rest.len <= length || (rest.ptr[length] != 's' && rest.ptr[length] != 'S')) {
        return at;
    }
    bool is_ascii = false;
    size_t end = word_end(w, at + length, &is_ascii);
    return end == at + length + 1 ? end : at;
}

/* One step: take what begins at `at`, give where the next begins. */
static lore_status step(walk *w, size_t *at, lore_error *err)
{
    size_t start = *at, next = *at;
    unsigned char c = (unsigned char)w->text.ptr[start];
    int32_t codepoint = c < 0x80 ? c : 0;
    if (c < 0x80) {
        next++;
    } else {
        codepoint = lore_utf8_next(w->text, &next);
    }
    if (c >= 0x80 && lore_utf8_is_cjk(codepoint)) {
        next = skip_marks(w, next);
        *at = next;
        return extend_run(w, start, next, err);
    }
    lore_status status = end_run(w, err);
    *at = next;
    if (status != LORE_OK || w->is_stopped) {
        return status;
    }
    bool starts_word = c < 0x80 ? is_ascii_word(c)
                                : lore_utf8_is_letter(codepoint) || lore_utf8_is_number(codepoint);
    if (!starts_word) {
        return LORE_OK;
    }
    bool is_ascii = true;
    size_t end = word_end(w, start, &is_ascii);
    if (is_ascii) {
        emit_ascii(w, start, end);
    } else {
        status = emit(w, start, end, false, false, err);
    }
    *at = skip_possessive(w, end);
    return status;
}

static lore_status run_walk(lore_str text, bool is_query, word_visit visitor, void *self,
                            lore_error *err)
{
    walk w = {.text = text, .visit = visitor, .self = self, .is_query = is_query};
    lore_buf_init(&w.folded, 0);
    lore_status status = LORE_OK;
    for (size_t at = 0; at < text.len && status == LORE_OK && !w.is_stopped;) {
        status = step(&w, &at, err);
    }
    if (status == LORE_OK && !w.is_stopped) {
        status = end_run(&w, err);
    }
    lore_buf_destroy(&w.folded);
    return status;
}

lore_status lore_words_each(lore_str text, bool (*visitor)(void *self, const lore_word *word),
                            void *self, lore_error *err)
{
    return run_walk(text, false, visitor, self, err);
}

lore_status lore_words_each_query(lore_str text, bool (*visitor)(void *self, const lore_word *word),
                                  void *self, lore_error *err)
{
    return run_walk(text, true, visitor, self, err);
}
