/* Chunk: spans of a cleaned document of about target_tokens, on sentence edges, with overlap.
 *
 * A section is cut into the fewest chunks near the target, of about equal length, because a greedy
 * cut leaves a crumb at the end of each section. Pure; any thread. */
#ifndef LORE_INGEST_CHUNK_H
#define LORE_INGEST_CHUNK_H

#include "ingest/clean.h"

typedef struct lore_chunk_options {
    int32_t target_tokens;     /* 200 */
    int32_t overlap_sentences; /* 1; at most half the target in tokens, never across sections */
    int32_t tokens_max; /* hard: what the encoder takes, less the prefix and special tokens */
} lore_chunk_options;

/* token_starts: byte offset of each token of clean->text, ascending. A sentence longer than
 * tokens_max is cut between tokens (at a word edge where there is one). A chunk never crosses a
 * section edge, except that (a) tiny sections are merged up to half the target under the heading of
 * the first, and (b) a section that is nothing but its heading goes with what follows and takes
 * that heading. Chunks without their overlap give the text back, but for white space between them.
 * Rows (vector NULL) in the arena, headings borrowed from clean. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_chunk_document(const lore_clean_document *clean,
                                              const uint32_t *token_starts, int32_t token_count,
                                              const lore_chunk_options *options, lore_arena *arena,
                                              lore_chunk_row **chunks, int32_t *count,
                                              lore_error *err);

/* The longest prefix lore_chunk_embed_text puts before a text. */
enum { LORE_CHUNK_PREFIX_BYTES_MAX = 324 };

/* What the encoder reads for a chunk: "title > heading\ntext" (as the index's title and heading
 * columns do for lexical search). A long title is cut and outer parts of a long heading path are
 * left out at about 160 bytes each: the prefix is a hint and must not push the text out of the
 * encoder's window. In the arena; ptr is NULL when out of memory. */
lore_str lore_chunk_embed_text(lore_arena *arena, lore_str title, lore_str heading, lore_str text);

#endif
