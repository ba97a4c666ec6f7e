/* Inside ingest/: files that hold documents. A container is open on bytes in memory and gives its
 * members one after another; source.c keeps a stack of them, so a member may be one again. */
#ifndef LORE_INGEST_CONTAINER_INT_H
#define LORE_INGEST_CONTAINER_INT_H

#include "ingest/package_int.h"

/* ---- mail.c: one message (RFC 5322, MIME) ---- */

typedef struct lore_mail_part {
    lore_str name;    /* of an attachment, "" if it has none */
    lore_str charset; /* as declared, "" if not */
    lore_str encoded; /* slice of the message */
    char encoding;    /* 'b' base64, 'q' quoted-printable, 0 as it is */
    lore_media media; /* TEXT, HTML, MAIL; AUTO: its content and name will tell */
    bool is_attachment;
} lore_mail_part;

typedef struct lore_mail {
    lore_str subject, from, to, date; /* "" where they are missing; date ISO 8601 where it can be */
    lore_mail_part *parts;            /* leaves, in order; the body first */
    int32_t part_count;
} lore_mail;

/* Everything in the arena or borrowed from bytes. LORE_ERR_INVALID where there are no headers,
 * LORE_ERR_LIMIT for too many parts or levels. */
LORE_MUST_USE lore_status lore_mail_parse(lore_str bytes, lore_arena *arena, lore_mail *mail,
                                          lore_error *err);
/* The bytes of a part, in the arena; text as UTF-8 where its charset is true. */
LORE_MUST_USE lore_status lore_mail_decode(const lore_mail_part *part, lore_arena *arena,
                                           lore_str *bytes, lore_error *err);

/* ---- container.c ---- */

typedef struct lore_container lore_container;

/* name is the source of the container; it, bytes and map are borrowed. unpacked_max: what an
 * archive may unpack to. map: of JSON, NULL as clients send documents. */
LORE_MUST_USE lore_status lore_container_open(lore_media media, lore_str name, lore_str bytes,
                                              const lore_limits *limits, uint64_t unpacked_max,
                                              const lore_json_map *map, lore_container **container,
                                              lore_error *err);
/* The next member, in the arena; its source is "container#member". A member that cannot be read is
 * an error with raw->source set, and the next call goes on behind it. raw->media may be that of a
 * container. */
LORE_MUST_USE lore_status lore_container_next(lore_container *container, lore_arena *arena,
                                              lore_raw_document *raw, bool *done, lore_error *err);
/* Bytes unpacked since it was opened. */
uint64_t lore_container_unpacked(const lore_container *container);
void lore_container_close(lore_container *container);

/* Containers open inside one another, the outermost first. Zeroed at the start. */
enum { LORE_CONTAINERS_CAP = 16 };
typedef struct lore_containers {
    struct {
        lore_container *container;
        lore_arena arena; /* its name and bytes */
    } levels[LORE_CONTAINERS_CAP];
    int32_t depth;
    uint64_t unpacked_left; /* for all that the outermost holds; the owner sets it */
} lore_containers;
/* Open what raw holds. LORE_ERR_LIMIT beyond limits.archive_depth_max; fails like
 * lore_container_open. */
LORE_MUST_USE lore_status lore_containers_push(lore_containers *open, const lore_limits *limits,
                                               const lore_json_map *map,
                                               const lore_raw_document *raw, lore_error *err);
/* The next member of the innermost; *done: there is none, and it is closed. All are closed once
 * more was unpacked than may be. */
LORE_MUST_USE lore_status lore_containers_next(lore_containers *open, const lore_limits *limits,
                                               lore_arena *arena, lore_raw_document *raw,
                                               bool *done, lore_error *err);
void lore_containers_close(lore_containers *open);

#endif
