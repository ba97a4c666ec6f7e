/* Status codes, messages and the assertion that ends the process.
 *
 * Messages are built in a buffer on the stack first, so that a caller may pass pieces of the very
 * error it is rewriting as arguments. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Mark a message that did not fit: cut at the start of a code point, end with an ellipsis. */
static void cut_with_ellipsis(char *message)
{
    static const char ellipsis[] = "\xE2\x80\xA6";
    size_t at = LORE_ERROR_MESSAGE_CAP - sizeof ellipsis;
    while (at > 0 && ((unsigned char)message[at] & 0xC0) == 0x80) {
        at--;
    }
    memcpy(message + at, ellipsis, sizeof ellipsis);
}

static void copy_message(char *out, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(out, text, size);
}

static void format_message(char *out, const char *format, va_list args)
{
    int length = vsnprintf(out, LORE_ERROR_MESSAGE_CAP, format, args);
    if (length < 0) {
        copy_message(out, "message could not be formatted");
    } else if (length >= LORE_ERROR_MESSAGE_CAP) {
        cut_with_ellipsis(out);
    }
}

lore_status lore_fail(lore_error *err, lore_status status, const char *format, ...)
{
    LORE_ASSERT(status != LORE_OK);
    if (err == NULL) {
        return status;
    }
    char message[LORE_ERROR_MESSAGE_CAP];
    va_list args;
    va_start(args, format);
    format_message(message, format, args);
    va_end(args);
    err->status = status;
    copy_message(err->message, message);
    return status;
}

lore_status lore_error_prefix(lore_error *err, const char *format, ...)
{
    LORE_ASSERT(err != NULL);
    char prefix[LORE_ERROR_MESSAGE_CAP];
    va_list args;
    va_start(args, format);
    format_message(prefix, format, args);
    va_end(args);
    char message[LORE_ERROR_MESSAGE_CAP];
    int length = snprintf(message, sizeof message, "%s: %s", prefix, err->message);
    if (length >= LORE_ERROR_MESSAGE_CAP) {
        cut_with_ellipsis(message);
    }
    copy_message(err->message, message);
    return err->status;
}

const char *lore_status_name(lore_status status)
{
    switch (status) {
    case LORE_OK:
        return "ok";
    case LORE_ERR_NOMEM:
        return "nomem";
    case LORE_ERR_IO:
        return "io";
    case LORE_ERR_INVALID:
        return "invalid";
    case LORE_ERR_NOT_FOUND:
        return "not_found";
    case LORE_ERR_LIMIT:
        return "limit";
    case LORE_ERR_BUSY:
        return "busy";
    case LORE_ERR_TIMEOUT:
        return "timeout";
    case LORE_ERR_CANCELLED:
        return "cancelled";
    case LORE_ERR_CORRUPT:
        return "corrupt";
    case LORE_ERR_UNSUPPORTED:
        return "unsupported";
    case LORE_ERR_DEVICE:
        return "device";
    }
    return "unknown";
}

void lore_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}
