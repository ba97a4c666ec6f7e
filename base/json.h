/* JSON: the fence around cJSON.
 *
 * A lore_json is a node of a tree; the root owns all nodes. Reading functions name the path of what
 * is wrong ("history[2].role must be a string"). Grammar, UTF-8, depth and duplicate keys are
 * checked at parsing; strings with a NUL (\u0000) and numbers that are not finite are refused.
 * Thread: a tree belongs to one thread. */
#ifndef LORE_BASE_JSON_H
#define LORE_BASE_JSON_H

#include "base/str.h"

typedef struct lore_json lore_json; /* opaque; really the library's node */

enum {
    LORE_JSON_DEPTH_MAX =
        1000, /* no max_depth may be more: the tree is built and freed recursively */
    LORE_JSON_NODES_MAX =
        4000000 /* a node takes 64 bytes: two bytes of text must not buy unlimited ones */
};

/* Parse exactly one value with nothing but white space behind it (a byte order mark may stand
 * before it). On failure the message gives the byte offset, *root is untouched. Free the root with
 * lore_json_free. Fails: LORE_ERR_INVALID, LORE_ERR_LIMIT (depth, nodes), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_json_parse(lore_str text, int32_t max_depth, lore_json **root,
                                          lore_error *err);
void lore_json_free(lore_json *root);

/* Kinds. NULL nodes are of no kind. */
bool lore_json_is_object(const lore_json *node);
bool lore_json_is_array(const lore_json *node);
bool lore_json_is_string(const lore_json *node);
bool lore_json_is_number(const lore_json *node);
bool lore_json_is_bool(const lore_json *node);
bool lore_json_is_null(const lore_json *node);

/* Walking. lore_json_get is case-sensitive and linear: do not use it in loops over big objects,
 * walk children. */
const lore_json *lore_json_get(const lore_json *object, const char *key); /* NULL: absent */
const lore_json *lore_json_first(const lore_json *node); /* first child, NULL: none */
const lore_json *lore_json_next(const lore_json *child);
int32_t lore_json_count(const lore_json *node);
lore_str lore_json_key(const lore_json *child); /* member name */
lore_str lore_json_str(const lore_json *node);  /* string value; empty unless a string */
double lore_json_number(const lore_json *node); /* 0 unless a number */
bool lore_json_bool(const lore_json *node);     /* false unless true */

/* Typed members. Absent (or null) leaves *out as it is and returns LORE_OK, unless the name ends in
 * _required; a wrong type is LORE_ERR_INVALID with "path.key must be ...". path is the object's own
 * name, "" for the root. Strings are borrowed from the tree. Integers outside [min, max] or with a
 * fraction are refused. */
LORE_MUST_USE lore_status lore_json_get_str(const lore_json *object, const char *path,
                                            const char *key, lore_str *out, lore_error *err);
LORE_MUST_USE lore_status lore_json_get_str_required(const lore_json *object, const char *path,
                                                     const char *key, lore_str *out,
                                                     lore_error *err);
LORE_MUST_USE lore_status lore_json_get_int(const lore_json *object, const char *path,
                                            const char *key, int64_t min, int64_t max, int64_t *out,
                                            lore_error *err);
LORE_MUST_USE lore_status lore_json_get_int_required(const lore_json *object, const char *path,
                                                     const char *key, int64_t min, int64_t max,
                                                     int64_t *out, lore_error *err);
LORE_MUST_USE lore_status lore_json_get_number(const lore_json *object, const char *path,
                                               const char *key, double min, double max, double *out,
                                               lore_error *err);
LORE_MUST_USE lore_status lore_json_get_bool(const lore_json *object, const char *path,
                                             const char *key, bool *out, lore_error *err);

/* Append the compact text of a (sub)tree. */
LORE_MUST_USE lore_status lore_json_print(const lore_json *node, lore_buf *out, lore_error *err);

/* ---- writing: straight into a buffer, commas and escapes handled ----
 * lore_json_writer w; lore_json_write_begin(&w, buf); lore_json_object(&w, NULL);
 * lore_json_string(&w, "answer", s); lore_json_end(&w); key is NULL inside arrays and at the root.
 * Failure is the buffer's sticky flag. Floats that are not finite are written as null. Strings must
 * be valid UTF-8 (invalid bytes become U+FFFD). */
enum { LORE_JSON_WRITER_DEPTH_MAX = 32 };
typedef struct lore_json_writer {
    lore_buf *buf;
    int32_t depth;
    char closers[LORE_JSON_WRITER_DEPTH_MAX];
    bool has_items[LORE_JSON_WRITER_DEPTH_MAX];
} lore_json_writer;
void lore_json_write_begin(lore_json_writer *w, lore_buf *buf);
void lore_json_object(lore_json_writer *w, const char *key);
void lore_json_array(lore_json_writer *w, const char *key);
void lore_json_end(lore_json_writer *w);
void lore_json_string(lore_json_writer *w, const char *key, lore_str value);
void lore_json_int(lore_json_writer *w, const char *key, int64_t value);
/* The shortest text that reads back as the same float. */
void lore_json_float(lore_json_writer *w, const char *key, double value);
/* The same for a double. */
void lore_json_double(lore_json_writer *w, const char *key, double value);
void lore_json_boolean(lore_json_writer *w, const char *key, bool value);
void lore_json_null(lore_json_writer *w, const char *key);
void lore_json_raw(lore_json_writer *w, const char *key, lore_str json); /* already JSON */

#endif
