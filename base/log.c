/* The log: a line is built on the stack and written with one write(2), so that lines of several
 * threads never mix. */
#include "base/log.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_CAP = 4096 };

static _Atomic int level_max = LORE_LOG_WARN;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static void (*sink_function)(void *self, const char *line);
static void *sink_self;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void lore_log_set_level(lore_log_level level)
{
    atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

lore_status lore_log_parse_level(const char *name, lore_log_level *level, lore_error *err)
{
    for (int i = 0; i <= LORE_LOG_DEBUG; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (lore_log_level)i;
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_INVALID,
                     "log level must be error, warn, info or debug, not '%s'", name);
}

const char *lore_log_quote(lore_str value, char *out, size_t cap_bytes)
{
    static const char ellipsis[] = "\xE2\x80\xA6\"";
    LORE_ASSERT(cap_bytes >= 8);
    size_t at = 0;
    out[at++] = '"';
    for (size_t i = 0; i < value.len; i++) {
        unsigned char byte = (unsigned char)value.ptr[i];
        bool is_escaped = byte == '"' || byte == '\\';
        /* The first byte of a code point asks for room for all of it, so a cut never splits one. */
        size_t needed = is_escaped ? 2 : byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
        if (at + needed + sizeof ellipsis > cap_bytes) {
            memcpy(out + at, ellipsis, sizeof ellipsis);
            return out;
        }
        if (is_escaped) {
            out[at++] = '\\';
        }
        out[at++] = byte < 0x20 || byte == 0x7F ? ' ' : (char)byte;
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}

/* A value that was not quoted must still not be able to start a line of its own. */
static void remove_control_bytes(char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)line[i];
        if (byte < 0x20 || byte == 0x7F) {
            line[i] = ' ';
        }
    }
}

/* Write "2026-01-31T12:00:00.123Z level " and give its length. */
static size_t write_head(char *line, lore_log_level level)
{
    int64_t now_ms = lore_clock_unix_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t length = strftime(line, LINE_CAP, "%Y-%m-%dT%H:%M:%S", &parts);
    int more = snprintf(line + length, LINE_CAP - length, ".%03dZ %s ", (int)(now_ms % 1000),
                        level_names[level]);
    return length + (size_t)more;
}

static void emit(char *line, size_t length)
{
    pthread_mutex_lock(&sink_lock);
    void (*sink)(void *, const char *) = sink_function;
    void *self = sink_self;
    pthread_mutex_unlock(&sink_lock);
    if (sink != NULL) {
        sink(self, line);
        return;
    }
    line[length] = '\n';
    ssize_t written = write(STDERR_FILENO, line, length + 1);
    (void)written; /* nobody is left to tell */
}

void lore_log(lore_log_level level, const char *format, ...)
{
    LORE_ASSERT(level >= LORE_LOG_ERROR && level <= LORE_LOG_DEBUG);
    if ((int)level > atomic_load_explicit(&level_max, memory_order_relaxed)) {
        return;
    }
    char line[LINE_CAP];
    size_t head = write_head(line, level);
    va_list args;
    va_start(args, format);
    /* One byte less than there is, for the newline. */
    int wanted = vsnprintf(line + head, LINE_CAP - head - 1, format, args);
    va_end(args);
    if (wanted < 0) {
        return;
    }
    size_t length = strlen(line);
    if (head + (size_t)wanted > length) {
        memcpy(line + length - 3, "...", 3);
    }
    remove_control_bytes(line, length);
    emit(line, length);
}

void lore_log_set_sink(void (*sink)(void *self, const char *line), void *self)
{
    pthread_mutex_lock(&sink_lock);
    sink_function = sink;
    sink_self = self;
    pthread_mutex_unlock(&sink_lock);
}
