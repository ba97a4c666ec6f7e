/* Stop strings across token boundaries: which tokens of an answer may be sent, and where it ends.
 *
 * Judged byte by byte on the detokenised text, so the outcome does not depend on how the text is
 * cut into tokens: the answer ends at the stop string whose last byte comes first (of several
 * ending there, the longest). A token is held back while its text, or a part of it, may still turn
 * out to be a stop string. Thread: the engine's alone; nothing is allocated after init. */
#ifndef LORE_GENERATION_STOP_H
#define LORE_GENERATION_STOP_H

#include "models/tokenizer.h"

typedef struct lore_stop {
    const lore_str *strings; /* in the arena of init */
    int32_t string_count;    /* 0: everything is cleared at once */
    int32_t tokens_max;
    int32_t token_count; /* seen */
    int32_t sendable;    /* the first so many tokens may be sent */
    int64_t *ends;       /* [tokens_max] text bytes up to and with a token, unfinished ones too */
    uint8_t *unfinished; /* [tokens_max] of these, bytes of a character that is not complete */
    int64_t text_start;  /* bytes of the answer before `text` */
    lore_buf text;       /* the bytes that may belong to a match in progress */
    lore_detok detok;
} lore_stop;

typedef struct lore_stop_verdict {
    int32_t sendable;  /* tokens that may be sent, counted from the first of the answer */
    bool is_match;     /* the answer ends here: send these, then no more */
    int32_t cut_bytes; /* of a match: bytes to take off the text of the sendable tokens */
} lore_stop_verdict;

/* strings (none empty: asserted) are copied into the arena, which must outlive `stop`.
 * token_bytes_max: the longest token of the tokenizer. Fails: LORE_ERR_NOMEM; destroy is fine then.
 */
LORE_MUST_USE lore_status lore_stop_init(lore_stop *stop, const lore_str *strings, int32_t count,
                                         int32_t tokens_max, size_t token_bytes_max,
                                         lore_arena *arena, lore_error *err);
void lore_stop_destroy(lore_stop *stop);
/* Take the next token; at most tokens_max of them, none after a match. */
lore_stop_verdict lore_stop_push(lore_stop *stop, const lore_tokenizer *tokenizer, int32_t id);

#endif
