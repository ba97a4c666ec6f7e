/* Status codes, error messages and assertions.
 *
 * A function that can fail returns lore_status and takes a lore_error last. The error is written
 * only on failure and never read by the callee; it lives on the caller's stack and may be NULL
 * where the caller does not care for the words. Errors are for the world (files, clients, models,
 * memory); LORE_ASSERT is for our own mistakes and stays on in release builds. Thread: any. */
#ifndef LORE_BASE_ERROR_H
#define LORE_BASE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lore_status {
    LORE_OK = 0,
    LORE_ERR_NOMEM,       /* an allocation failed or a memory limit was reached */
    LORE_ERR_IO,          /* a file, socket or database call failed */
    LORE_ERR_INVALID,     /* the caller's input is wrong: HTTP 400, exit 2 where it was a flag */
    LORE_ERR_NOT_FOUND,   /* the named thing does not exist: HTTP 404 */
    LORE_ERR_LIMIT,       /* input is larger than a limit allows: HTTP 413 */
    LORE_ERR_BUSY,        /* a queue is full or another process holds the lock: HTTP 429 */
    LORE_ERR_TIMEOUT,     /* a deadline passed */
    LORE_ERR_CANCELLED,   /* the client left or the process is stopping */
    LORE_ERR_CORRUPT,     /* a file of ours or a model file does not hold what it must */
    LORE_ERR_UNSUPPORTED, /* well-formed, but nothing here can do it */
    LORE_ERR_DEVICE       /* an accelerator failed */
} lore_status;

enum { LORE_ERROR_MESSAGE_CAP = 512 };

typedef struct lore_error {
    lore_status status;
    char message[LORE_ERROR_MESSAGE_CAP]; /* NUL-terminated, cut (with an ellipsis) when too long */
} lore_error;

#define LORE_MUST_USE __attribute__((warn_unused_result))
#define LORE_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))

/* Write status and message into err (which may be NULL) and return status, so that a refusal is one
 * line: return lore_fail(err, LORE_ERR_IO, "cannot open '%s': %s", path, strerror(errno)); */
lore_status lore_fail(lore_error *err, lore_status status, const char *format, ...)
    LORE_PRINTF(3, 4);

/* Put "context: " before the message that err holds. Returns err's status. Once per layer at most.
 */
lore_status lore_error_prefix(lore_error *err, const char *format, ...) LORE_PRINTF(2, 3);

/* A short lower-case name of the status for logs and JSON: "io", "invalid", ... */
const char *lore_status_name(lore_status status);

/* Print the failed condition and abort. Never returns. */
__attribute__((noreturn)) void lore_assert_failed(const char *condition, const char *file,
                                                  int line);

#define LORE_ASSERT(condition)                                  \
    do {                                                        \
        if (!(condition)) {                                     \
            lore_assert_failed(#condition, __FILE__, __LINE__); \
        }                                                       \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
