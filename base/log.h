/* Log: one line per event, `time level event=name key=value ...`, to standard error or a test's
 * sink.
 *
 * Values with spaces are quoted and escaped by the caller's use of LORE_LOG_STR. No text of users
 * or documents above debug. Below cli/ nothing else prints. Thread: any; a line is written with one
 * write(2). */
#ifndef LORE_BASE_LOG_H
#define LORE_BASE_LOG_H

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lore_log_level {
    LORE_LOG_ERROR = 0, /* someone must act */
    LORE_LOG_WARN,
    LORE_LOG_INFO, /* life cycle */
    LORE_LOG_DEBUG
} lore_log_level;

void lore_log_set_level(lore_log_level level); /* default LORE_LOG_WARN */
lore_status lore_log_parse_level(const char *name, lore_log_level *level, lore_error *err);
/* format holds the `event=... key=value` part, without newline. */
void lore_log(lore_log_level level, const char *format, ...) LORE_PRINTF(2, 3);

/* A value quoted and escaped for one log line, for values that may hold white space or come from
 * outside: lore_log(LORE_LOG_WARN, "event=ingest_failed path=%s", LORE_LOG_STR(path)). Values
 * longer than the buffer end in an ellipsis. */
enum { LORE_LOG_STR_CAP = 512 };
#define LORE_LOG_STR(s) lore_log_quote((s), (char[LORE_LOG_STR_CAP]){0}, LORE_LOG_STR_CAP)
const char *lore_log_quote(lore_str value, char *out, size_t cap_bytes); /* cap at least 8 */

/* Tests: hand each line to sink instead of standard error; NULL restores. */
void lore_log_set_sink(void (*sink)(void *self, const char *line), void *self);

#ifdef __cplusplus
}
#endif

#endif
