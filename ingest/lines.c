/* Lines of JSONL files and of standard input, one at a time: a file of any size needs the memory of
 * its longest line. */
#include "ingest/source_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 * 1024, /* one read of a JSONL file */
    POLL_MS = 200            /* how soon a waiting read notices a cancel */
};

void lore_lines_init(lore_lines *lines, const lore_limits *limits, lore_interrupt interrupt)
{
    *lines = (lore_lines){.limits = limits, .interrupt = interrupt, .fd = -1};
    lore_buf_init(&lines->buf, (size_t)limits->jsonl_line_bytes_max + 2 * READ_BYTES);
}

void lore_lines_close(lore_lines *lines)
{
    if (lines->fd >= 0 && !lines->is_stdin) {
        close(lines->fd);
    }
    lines->fd = -1;
}

void lore_lines_destroy(lore_lines *lines)
{
    lore_lines_close(lines);
    lore_buf_destroy(&lines->buf);
}

lore_status lore_lines_open(lore_lines *lines, const char *path, int stdin_fd, lore_error *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? stdin_fd : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    }
    lines->fd = fd;
    lines->is_stdin = is_stdin;
    lines->path = path;
    lines->number = 0;
    lines->is_eof = lines->is_skipping = false;
    lines->start = 0;
    lore_buf_reset(&lines->buf);
    return LORE_OK;
}

/* Wait for input, but not beyond a cancel. */
static ssize_t read_some(lore_lines *lines, char *to, size_t room)
{
    for (;;) {
        struct pollfd ready = {.fd = lines->fd, .events = POLLIN};
        int count_ready = poll(&ready, 1, POLL_MS);
        if (lore_is_interrupted(&lines->interrupt)) {
            return 0;
        }
        if (count_ready == 0 || (count_ready < 0 && errno == EINTR)) {
            continue;
        }
        ssize_t got = read(lines->fd, to, room);
        if (got >= 0 || (errno != EINTR && errno != EAGAIN)) {
            return got;
        }
    }
}

/* Read more behind what is not used yet. */
static lore_status fill_lines(lore_lines *lines, lore_error *err)
{
    lore_buf *buf = &lines->buf;
    if (lines->start > 0) {
        memmove(buf->ptr, buf->ptr + lines->start, buf->len - lines->start);
        buf->len -= lines->start;
        lines->start = 0;
    }
    if (!lore_buf_reserve(buf, READ_BYTES)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", lines->path);
    }
    ssize_t got = read_some(lines, buf->ptr + buf->len, READ_BYTES);
    if (got < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot read '%s': %s", lines->path, strerror(errno));
    }
    buf->len += (size_t)got;
    lines->is_eof = got == 0;
    return LORE_OK;
}

lore_status lore_lines_next(lore_lines *lines, lore_str *line, bool *has_line, lore_error *err)
{
    size_t searched = 0, line_max = (size_t)lines->limits->jsonl_line_bytes_max;
    *has_line = false;
    for (;;) {
        lore_str unread = {lines->buf.ptr + lines->start, lines->buf.len - lines->start};
        const char *newline = unread.len > searched
                                  ? memchr(unread.ptr + searched, '\n', unread.len - searched)
                                  : NULL;
        size_t length = newline == NULL ? unread.len : (size_t)(newline - unread.ptr);
        bool is_whole = newline != NULL || (lines->is_eof && unread.len > 0);
        if (lines->is_skipping) {
            lines->start += length + (newline != NULL ? 1 : 0);
            lines->is_skipping = newline == NULL;
            searched = 0;
        } else if (length > line_max) {
            lines->number++;
            lines->is_skipping = newline == NULL;
            lines->start += length + (newline != NULL ? 1 : 0);
            return lore_fail(err, LORE_ERR_LIMIT,
                             "line is longer than %zu bytes (limits.jsonl_line_bytes_max)",
                             line_max);
        } else if (is_whole) {
            lines->number++;
            lines->start += length + (newline != NULL ? 1 : 0);
            *line = lore_str_slice(unread, 0, length);
            *has_line = true;
            return LORE_OK;
        } else {
            searched = unread.len;
        }
        if (newline != NULL) {
            continue;
        }
        if (lines->is_eof) {
            return LORE_OK;
        }
        lore_status status = fill_lines(lines, err);
        if (status != LORE_OK) {
            return status;
        }
    }
}
