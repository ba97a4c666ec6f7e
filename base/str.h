/* Byte strings: lore_str borrows, lore_buf owns and grows to a hard cap.
 *
 * A lore_str may hold NUL and need not end with one. Text is UTF-8, checked where it enters the
 * program. A lore_buf that cannot grow (memory or cap) turns sticky-failed: later appends do
 * nothing, and the caller asks once at the end with lore_buf_failed. Thread: a value belongs to one
 * thread. */
#ifndef LORE_BASE_STR_H
#define LORE_BASE_STR_H

#include "base/error.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lore_str {
    const char *ptr;
    size_t len;
} lore_str;

#define LORE_STR(literal) ((lore_str){(literal), sizeof(literal) - 1})
#define LORE_STR_FMT "%.*s"
#define LORE_STR_ARG(s) (int)((s).len > 2147483647 ? 2147483647 : (s).len), ((s).ptr ? (s).ptr : "")

lore_str lore_str_from(const char *text); /* NULL gives the empty string */
bool lore_str_equal(lore_str a, lore_str b);
bool lore_str_equal_nocase(lore_str a, lore_str b); /* ASCII case only */
bool lore_str_starts(lore_str s, lore_str prefix);
bool lore_str_ends(lore_str s, lore_str suffix);
int lore_str_compare(lore_str a, lore_str b); /* bytewise, <0 0 >0 */
/* Index of the first occurrence at or after `from`, or SIZE_MAX. */
size_t lore_str_find(lore_str s, lore_str needle, size_t from);
lore_str lore_str_slice(lore_str s, size_t start, size_t end); /* start <= end <= len asserted */
lore_str lore_str_trim(lore_str s);                            /* ASCII white space at both ends */
/* Take the next line (without its \n or \r\n) off *rest. False at the end. */
bool lore_str_next_line(lore_str *rest, lore_str *line);
/* Copies; NUL-terminated behind len. ptr is NULL when out of memory. */
lore_str lore_str_copy(lore_arena *arena, lore_str s);
char *lore_str_to_c(lore_arena *arena, lore_str s);
lore_str lore_str_printf(lore_arena *arena, const char *format, ...) LORE_PRINTF(2, 3);
bool lore_str_to_int64(lore_str s, int64_t *value); /* whole string, decimal */
int32_t lore_hex_digit(char c);                     /* its value, either case; -1: it is none */
/* RFC 4648 base64 with its padding. out has room for s.len / 4 * 3 bytes. False: it is not. */
bool lore_str_from_base64(lore_str s, char *out, size_t *size);

/* FNV-1a 64, for hash tables only, never for content identity. */
uint64_t lore_str_hash(lore_str s);

typedef struct lore_buf {
    char *ptr;
    size_t len;
    size_t room;      /* allocated bytes */
    size_t cap_bytes; /* hard cap, 0 means none */
    bool failed;
} lore_buf;

void lore_buf_init(lore_buf *buf, size_t cap_bytes); /* allocates nothing */
void lore_buf_destroy(lore_buf *buf);
void lore_buf_reset(lore_buf *buf); /* empties, keeps memory, clears failed */
void lore_buf_append(lore_buf *buf, lore_str s);
void lore_buf_byte(lore_buf *buf, char byte);
void lore_buf_printf(lore_buf *buf, const char *format, ...) LORE_PRINTF(2, 3);
bool lore_buf_reserve(lore_buf *buf, size_t extra_bytes); /* false: failed is set */
bool lore_buf_failed(const lore_buf *buf);
lore_str lore_buf_str(const lore_buf *buf); /* borrowed until the next append */
const char *lore_buf_c(lore_buf *buf);      /* NUL-terminated; "" when failed */

#endif
