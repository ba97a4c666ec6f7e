/* What a normalizer stage writes its text into: copies on the first byte that differs.
 *
 * As long as a stage writes what it reads, nothing is stored. Then the text is; and the origins
 * only when a byte no longer comes from where its place says. Belongs to one stage of one run;
 * memory is the run's arena. The first failure sticks, writing after it does nothing. */
#ifndef LORE_MODELS_NORMAL_WRITER_INT_H
#define LORE_MODELS_NORMAL_WRITER_INT_H

#include "models/normalize_int.h"
#include "models/regex_int.h"

typedef struct lore_normal_writer {
    lore_normal in; /* what the stage reads */
    size_t base;    /* source offset of byte 0 where in.origin is NULL */
    size_t cap;     /* of the text */
    lore_arena *arena;
    /* ---- private ---- */
    char *text;       /* [room], NULL: what was written is in.text's first len bytes */
    uint32_t *origin; /* [room], NULL: byte i comes from where byte i of in comes from */
    size_t len, room;
    lore_status failed;      /* a stage that is out of memory sets it */
    const lore_regex *regex; /* the one whose search failed */
} lore_normal_writer;

/* Write bytes [from, from + count) of in. */
void lore_normal_copy(lore_normal_writer *w, size_t from, size_t count);
/* Write text in place of bytes [from, from + size) of in: its bytes come from `from`, one by one
 * where the sizes are equal. Origins never go back. */
void lore_normal_put(lore_normal_writer *w, lore_str text, size_t from, size_t size);
/* The same with one code point; a negative one is a byte that is not UTF-8. */
void lore_normal_put_character(lore_normal_writer *w, int32_t c, size_t from, size_t size);
void lore_normal_trim(lore_normal_writer *w, lore_str end); /* take every `end` off the end */
/* What was written, or why not. */
LORE_MUST_USE lore_status lore_normal_finish(lore_normal_writer *w, lore_normal *out,
                                             lore_error *err);

/* `tokenizers` does not say of each new character where it comes from, but what it does to the
 * characters that were there: it takes the place of the next one and drops N more behind it
 * (change -N), or follows what came last (change 1). `next` is the byte of in that is taken next,
 * `last` the character that was taken last. */
typedef struct lore_normal_walk {
    lore_normal_writer *w;
    size_t next, last;
} lore_normal_walk;
void lore_normal_emit(lore_normal_walk *walk, int32_t c, int32_t change);
void lore_normal_skip(lore_normal_walk *walk, size_t characters);

/* Decode at *at and move on; a byte that is not UTF-8 gives minus that byte. */
int32_t lore_normal_next(lore_str text, size_t *at);
/* Bytes of ASCII from `at` on. */
size_t lore_normal_ascii(lore_str text, size_t at);

#endif
