/* What an index holds, as one number: equal for equal corpora, however they were ingested.
 *
 * Documents are taken in order of collection and id, chunks in order within them. Nothing enters
 * that depends on when, in which order or by how many threads they came: no row ids, times or
 * versions. The derived part (words of the full-text index, int8 rows, the lists of large
 * collections) is made anew in that order, since files of an index that has lived follow its life.
 * Thread: any. */
#ifndef LORE_INDEX_DIGEST_H
#define LORE_INDEX_DIGEST_H

#include "index/store.h"

typedef enum lore_digest_part {
    LORE_DIGEST_DOCUMENTS, /* ids, sources, titles, metadata, texts and offsets */
    LORE_DIGEST_CHUNKS,    /* where they begin and end, headings */
    LORE_DIGEST_VECTORS,   /* as they are stored */
    LORE_DIGEST_INDEX,     /* what is derived of these */
    LORE_DIGEST_PARTS
} lore_digest_part;

typedef struct lore_digest {
    char parts[LORE_DIGEST_PARTS][65]; /* SHA-256 in hexadecimal digits */
    char whole[65];                    /* of the parts */
    int64_t collections, documents, chunks;
} lore_digest;

/* Of a folder that may be held by another process, as of one moment. LORE_ERR_NOT_FOUND: no index;
 * _CORRUPT: a document without its rows (`lore fsck`). */
LORE_MUST_USE lore_status lore_digest_folder(const char *folder, const lore_config *config,
                                             lore_digest *digest, lore_error *err);

#endif
