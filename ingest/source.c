/* Where documents come from.
 *
 * Opening walks all paths and keeps the list of files; that costs a hundred bytes a file and gives
 * a true total for the progress line, and an order that does not depend on what happens later. What
 * could not be listed stays in the list with its error, so it is told in its place.
 *
 * States: while `lines.fd >= 0` a JSONL entry yields its lines; while `open.depth > 0` the
 * innermost container yields its members; else the next entry is taken. */
#include "ingest/container_int.h"

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    DEPTH_CAP = 256,         /* the walk is recursive */
    READ_BYTES = 256 * 1024, /* one read of a JSONL file */
    POLL_MS = 200            /* how soon a waiting read notices a cancel */
};

typedef struct entry {
    const char *path;
    const char *failure; /* why it cannot be read; NULL if it may be */
    lore_status status;
    bool is_named; /* by the caller, not found in a folder */
} entry;

typedef struct line_reader {
    int fd; /* -1: none open */
    bool is_stdin, is_eof, is_skipping;
    const char *path;
    int64_t number; /* of the line read last */
    lore_buf buf;   /* [start, len) is read but not used */
    size_t start;
} line_reader;

struct lore_source {
    lore_limits limits;
    lore_arena arena; /* paths, failures, metadata */
    lore_str metadata;
    int stdin_fd;
    entry *entries;
    size_t count, room, next;
    int64_t seen_names; /* in folders, against limits.folder_entries_max */
    line_reader lines;
    lore_containers open;
    lore_buf scratch; /* the file being read */
    /* Read by the thread that shows progress; only the counts matter, so relaxed order is enough.
     */
    atomic_int_least64_t total, passed_over;
    atomic_bool is_cancelled; /* a flag without data behind it: relaxed */
};

static void count(atomic_int_least64_t *counter, int64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* ---- the walk ---- */

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory listing files");
}

static lore_status add_entry(lore_source *source, const char *path, bool is_named,
                             const lore_error *failure, lore_error *err)
{
    if (source->count == source->room) {
        size_t room = source->room == 0 ? 64 : source->room * 2, bytes = 0;
        entry *grown = lore_size_mul(room, sizeof(entry), &bytes)
                           ? lore_realloc(source->entries, bytes)
                           : NULL;
        if (grown == NULL) {
            return out_of_memory(err);
        }
        source->entries = grown;
        source->room = room;
    }
    entry *e = &source->entries[source->count];
    *e = (entry){.path = path, .is_named = is_named};
    if (failure != NULL) {
        e->status = failure->status;
        e->failure = lore_str_to_c(&source->arena, lore_str_from(failure->message));
        if (e->failure == NULL) {
            return out_of_memory(err);
        }
    }
    source->count++;
    count(&source->total, 1);
    return LORE_OK;
}

/* With a name that tells, or without an extension, so that only the content can. */
static bool may_be_text(lore_str name)
{
    return lore_media_of(name, (lore_str){"", 0}) != LORE_MEDIA_AUTO ||
           memchr(name.ptr, '.', name.len) == NULL;
}

/* Office documents and books are read under any name; of other files the first bytes are enough. */
static bool is_packed_file(const char *path)
{
    char head[4] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0) {
        close(fd);
    }
    return got == (ssize_t)sizeof head && memcmp(head, "PK\x03\x04", sizeof head) == 0;
}

static lore_status walk_folder(lore_source *source, const char *path, int32_t depth,
                               lore_error *err);

static lore_status add_found(lore_source *source, const char *path, lore_str name, int32_t depth,
                             lore_error *err)
{
    struct stat info;
    if (name.ptr[0] == '.' || lstat(path, &info) != 0) {
        count(&source->passed_over, 1);
        return LORE_OK;
    }
    if (S_ISDIR(info.st_mode)) {
        return walk_folder(source, path, depth + 1, err);
    }
    /* A link to a folder could lead out of the tree or round in circles; its files are walked where
     * they are. */
    bool is_file = S_ISREG(info.st_mode) ||
                   (S_ISLNK(info.st_mode) && stat(path, &info) == 0 && S_ISREG(info.st_mode));
    if (!is_file || (!may_be_text(name) && !is_packed_file(path))) {
        count(&source->passed_over, 1);
        return LORE_OK;
    }
    return add_entry(source, path, false, NULL, err);
}

static lore_status walk_folder(lore_source *source, const char *path, int32_t depth,
                               lore_error *err)
{
    lore_error failure;
    if (depth > source->limits.folder_depth_max || depth > DEPTH_CAP) {
        lore_fail(&failure, LORE_ERR_LIMIT,
                  "folders nest deeper than %lld (limits.folder_depth_max)",
                  (long long)source->limits.folder_depth_max);
        return add_entry(source, path, true, &failure, err);
    }
    lore_str *names = NULL;
    size_t name_count = 0;
    int64_t left = source->limits.folder_entries_max - source->seen_names;
    lore_status status = lore_dir_list(&source->arena, path, left > 0 ? (size_t)left : 0, &names,
                                       &name_count, &failure);
    if (status == LORE_ERR_LIMIT) {
        return lore_fail(err, status, "'%s': more than %lld entries (limits.folder_entries_max)",
                         path, (long long)source->limits.folder_entries_max);
    }
    if (status == LORE_ERR_NOMEM) {
        return out_of_memory(err);
    }
    if (status != LORE_OK) {
        return add_entry(source, path, true, &failure, err);
    }
    source->seen_names += (int64_t)name_count;
    size_t length = strlen(path);
    const char *slash = length > 0 && path[length - 1] == '/' ? "" : "/";
    for (size_t i = 0; i < name_count && status == LORE_OK; i++) {
        lore_str joined = lore_str_printf(&source->arena, "%s%s" LORE_STR_FMT, path, slash,
                                          LORE_STR_ARG(names[i]));
        status = joined.ptr == NULL ? out_of_memory(err)
                                    : add_found(source, joined.ptr, names[i], depth, err);
    }
    return status;
}

static lore_status add_path(lore_source *source, const char *given, lore_error *err)
{
    char *path = lore_str_to_c(&source->arena, lore_str_from(given));
    if (path == NULL) {
        return out_of_memory(err);
    }
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        path[--length] = '\0'; /* so that "kb" and "kb/" give the same sources */
    }
    struct stat info;
    lore_error failure;
    if (strcmp(path, "-") == 0) {
        return add_entry(source, path, true, NULL, err);
    }
    if (stat(path, &info) != 0) {
        lore_status status = errno == ENOENT ? LORE_ERR_NOT_FOUND : LORE_ERR_IO;
        lore_fail(&failure, status, "cannot open '%s': %s", path, strerror(errno));
        return add_entry(source, path, true, &failure, err);
    }
    return S_ISDIR(info.st_mode) ? walk_folder(source, path, 1, err)
                                 : add_entry(source, path, true, NULL, err);
}

/* ---- lines ---- */

static bool is_cancelled(lore_source *source)
{
    return atomic_load_explicit(&source->is_cancelled, memory_order_relaxed);
}

static void close_lines(lore_source *source)
{
    if (source->lines.fd >= 0 && !source->lines.is_stdin) {
        close(source->lines.fd);
    }
    source->lines.fd = -1;
}

static lore_status open_lines(lore_source *source, const entry *e, lore_error *err)
{
    line_reader *lines = &source->lines;
    bool is_stdin = strcmp(e->path, "-") == 0;
    int fd = is_stdin ? source->stdin_fd : open(e->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot open '%s': %s", e->path, strerror(errno));
    }
    lines->fd = fd;
    lines->is_stdin = is_stdin;
    lines->path = e->path;
    lines->number = 0;
    lines->is_eof = lines->is_skipping = false;
    lines->start = 0;
    lore_buf_reset(&lines->buf);
    count(&source->total, -1); /* its lines are counted instead */
    return LORE_OK;
}

/* Wait for input, but not beyond a cancel. */
static ssize_t read_some(lore_source *source, char *to, size_t room)
{
    for (;;) {
        struct pollfd ready = {.fd = source->lines.fd, .events = POLLIN};
        int count_ready = poll(&ready, 1, POLL_MS);
        if (is_cancelled(source)) {
            return 0;
        }
        if (count_ready == 0 || (count_ready < 0 && errno == EINTR)) {
            continue;
        }
        ssize_t got = read(source->lines.fd, to, room);
        if (got >= 0 || (errno != EINTR && errno != EAGAIN)) {
            return got;
        }
    }
}

/* Read more behind what is not used yet. */
static lore_status fill_lines(lore_source *source, lore_error *err)
{
    line_reader *lines = &source->lines;
    lore_buf *buf = &lines->buf;
    if (lines->start > 0) {
        memmove(buf->ptr, buf->ptr + lines->start, buf->len - lines->start);
        buf->len -= lines->start;
        lines->start = 0;
    }
    if (!lore_buf_reserve(buf, READ_BYTES)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", lines->path);
    }
    ssize_t got = read_some(source, buf->ptr + buf->len, READ_BYTES);
    if (got < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot read '%s': %s", lines->path, strerror(errno));
    }
    buf->len += (size_t)got;
    lines->is_eof = got == 0;
    return LORE_OK;
}

/* The next line, borrowed until the next call; *has_line false at the end. A line over the limit is
 * an error once, and skipped. */
static lore_status next_line(lore_source *source, lore_str *line, bool *has_line, lore_error *err)
{
    line_reader *lines = &source->lines;
    size_t searched = 0, line_max = (size_t)source->limits.jsonl_line_bytes_max;
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
        lore_status status = fill_lines(source, err);
        if (status != LORE_OK) {
            return status;
        }
    }
}

/* "path#12", in the arena. */
static lore_status name_line(const lore_source *source, lore_arena *arena, lore_str *name,
                             lore_error *err)
{
    *name = lore_str_printf(arena, "%s#%lld", source->lines.path, (long long)source->lines.number);
    return name->ptr != NULL ? LORE_OK : out_of_memory(err);
}

/* The next document of the open JSONL file; *has_document false at its end. */
static lore_status next_json(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                             bool *has_document, lore_error *err)
{
    lore_str line = {"", 0}, name = {"", 0};
    bool has_line = false;
    lore_status status = LORE_OK;
    *has_document = false;
    do {
        status = next_line(source, &line, &has_line, err);
        if (status == LORE_OK && has_line && source->lines.number == 1 &&
            lore_str_starts(line, LORE_STR("\xEF\xBB\xBF"))) {
            line = lore_str_slice(line, 3, line.len);
        }
        line = lore_str_trim(line);
    } while (status == LORE_OK && has_line && line.len == 0);
    if (status == LORE_OK && !has_line) {
        return LORE_OK;
    }
    count(&source->total, 1);
    *has_document = true;
    if (status == LORE_ERR_IO || status == LORE_ERR_NOMEM) {
        close_lines(source); /* a read that failed would fail for ever */
    }
    if (status == LORE_OK) {
        status = lore_raw_from_json(line, &source->limits, arena, raw, err);
    }
    if (name_line(source, arena, &name, NULL) != LORE_OK) {
        return out_of_memory(err);
    }
    if (status != LORE_OK) {
        raw->source = name;
        return lore_error_prefix(err, "line %lld", (long long)source->lines.number);
    }
    raw->source = source->lines.is_stdin ? (lore_str){"", 0} : name;
    return LORE_OK;
}

/* ---- files ---- */

static lore_status pass_over(lore_source *source, bool *has_document)
{
    *has_document = false;
    count(&source->passed_over, 1);
    count(&source->total, -1);
    return LORE_OK;
}

/* Old and encrypted Office files deserve a better reason than "unknown". */
static lore_status fail_unknown(lore_str name, lore_str bytes, lore_error *err)
{
    bool is_ole = lore_str_starts(bytes, LORE_STR("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"));
    return lore_fail(err, LORE_ERR_UNSUPPORTED,
                     is_ole ? "'" LORE_STR_FMT "' is an old or encrypted Office file: save it as "
                              "DOCX, PPTX or XLSX without a password"
                            : "'" LORE_STR_FMT "' has no format that is known here",
                     LORE_STR_ARG(name));
}

/* What was read is a document, a container (opened; *has_document false) or nothing. */
static lore_status sort_file(lore_source *source, lore_raw_document *raw, bool is_named,
                             bool *has_document, lore_error *err)
{
    /* A DOCX file that is none is an error wherever it was found. */
    is_named = is_named || lore_media_is_packed(lore_media_of(raw->source, (lore_str){"", 0}));
    if (raw->media == LORE_MEDIA_AUTO && raw->bytes.len > 0) {
        return is_named ? fail_unknown(raw->source, raw->bytes, err)
                        : pass_over(source, has_document);
    }
    bool may_hold = lore_media_is_container(raw->media) || raw->media == LORE_MEDIA_JSON;
    if (!may_hold || raw->media == LORE_MEDIA_JSONL || raw->bytes.len == 0) {
        return LORE_OK;
    }
    lore_status status = lore_containers_push(&source->open, &source->limits, raw, err);
    count(&source->total, status == LORE_OK ? -1 : 0); /* its members are counted instead */
    if (raw->media == LORE_MEDIA_JSON && status == LORE_ERR_UNSUPPORTED) {
        return LORE_OK; /* any other value is a document itself */
    }
    *has_document = status != LORE_OK;
    return status;
}

/* *has_document false when it turned out to be nothing to read, or a container. */
static lore_status next_file(lore_source *source, const entry *e, lore_arena *arena,
                             lore_raw_document *raw, bool *has_document, lore_error *err)
{
    *has_document = true;
    lore_buf_reset(&source->scratch);
    lore_status status =
        lore_file_read(e->path, (size_t)source->limits.file_bytes_max, &source->scratch, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str bytes = lore_buf_str(&source->scratch);
    raw->media = lore_media_of(raw->source, bytes);
    bool is_known = e->is_named || may_be_text(raw->source) || lore_media_is_packed(raw->media);
    if (!is_known) {
        return pass_over(source, has_document); /* a ZIP file under a name of its own: a program */
    }
    raw->bytes = lore_str_copy(arena, bytes);
    if (raw->bytes.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for '%s' (%zu bytes)", e->path,
                         bytes.len);
    }
    source->open.unpacked_left = (uint64_t)source->limits.unpacked_bytes_max;
    return sort_file(source, raw, e->is_named, has_document, err);
}

/* The next member of the innermost container; *has_document false at its end, or where the member
 * is a container itself or nothing to read. */
static lore_status next_member(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                               bool *has_document, lore_error *err)
{
    bool done = false;
    lore_status status =
        lore_containers_next(&source->open, &source->limits, arena, raw, &done, err);
    *has_document = !done;
    if (done) {
        return status;
    }
    count(&source->total, 1);
    if (status == LORE_OK && raw->media == LORE_MEDIA_AUTO && raw->bytes.len == 0) {
        return pass_over(source, has_document);
    }
    return status == LORE_OK ? sort_file(source, raw, false, has_document, err) : status;
}

/* A path as UTF-8, for messages and as the source; *is_valid false where it is not. */
static lore_str path_text(const char *path, lore_arena *arena, bool *is_valid)
{
    lore_str copy = lore_str_copy(arena, lore_str_from(path));
    *is_valid = true;
    while (copy.ptr != NULL) {
        size_t bad = lore_utf8_valid(copy);
        if (bad == copy.len) {
            break;
        }
        ((char *)copy.ptr)[bad] = '?'; /* ours, just made */
        *is_valid = false;
    }
    return copy;
}

/* Take one entry: a document, its error, or (a JSONL file now open, a file passed over) nothing. */
static lore_status next_entry(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                              bool *has_document, lore_error *err)
{
    const entry *e = &source->entries[source->next++];
    bool is_valid = false;
    *has_document = true;
    raw->source = path_text(e->path, arena, &is_valid);
    if (raw->source.ptr == NULL) {
        raw->source = (lore_str){"", 0};
        return out_of_memory(err);
    }
    if (e->failure != NULL) {
        return lore_fail(err, e->status, "%s", e->failure);
    }
    if (!is_valid) {
        return lore_fail(err, LORE_ERR_INVALID, "the file name is not valid UTF-8");
    }
    bool is_stdin = strcmp(e->path, "-") == 0;
    if (is_stdin || lore_media_of(raw->source, (lore_str){"", 0}) == LORE_MEDIA_JSONL) {
        *has_document = false;
        return open_lines(source, e, err);
    }
    return next_file(source, e, arena, raw, has_document, err);
}

/* ---- public ---- */

lore_status lore_source_open(const lore_source_options *options, const lore_limits *limits,
                             lore_source **source, lore_error *err)
{
    lore_source *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return out_of_memory(err);
    }
    opened->limits = *limits;
    opened->stdin_fd = options->stdin_fd;
    opened->lines.fd = -1;
    lore_arena_init(&opened->arena, 0);
    lore_buf_init(&opened->lines.buf, (size_t)limits->jsonl_line_bytes_max + 2 * READ_BYTES);
    lore_buf_init(&opened->scratch, 0);
    lore_status status = LORE_OK;
    if (options->metadata.len > 0) {
        lore_json *root = NULL;
        status = lore_json_parse(options->metadata, (int32_t)limits->json_depth_max, &root, err);
        if (status == LORE_OK && !lore_json_is_object(root)) {
            status = lore_fail(err, LORE_ERR_INVALID, "metadata must be a JSON object");
        }
        lore_json_free(root);
        opened->metadata = lore_str_copy(&opened->arena, options->metadata);
        if (status == LORE_OK && opened->metadata.ptr == NULL) {
            status = out_of_memory(err);
        }
    }
    for (int32_t i = 0; i < options->path_count && status == LORE_OK; i++) {
        status = add_path(opened, options->paths[i], err);
    }
    if (status != LORE_OK) {
        lore_source_close(opened);
        return status;
    }
    *source = opened;
    return LORE_OK;
}

void lore_source_close(lore_source *source)
{
    if (source != NULL) {
        close_lines(source);
        lore_containers_close(&source->open);
        lore_buf_destroy(&source->lines.buf);
        lore_buf_destroy(&source->scratch);
        lore_free(source->entries);
        lore_arena_destroy(&source->arena);
        lore_free(source);
    }
}

lore_status lore_source_next(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                             bool *done, lore_error *err)
{
    const lore_str none = {"", 0};
    *done = false;
    for (;;) {
        *raw = (lore_raw_document){none, none, none, none, none, LORE_MEDIA_AUTO, none};
        bool has_document = false, is_open = source->lines.fd >= 0,
             is_inside = source->open.depth > 0;
        if (is_cancelled(source) || (!is_open && !is_inside && source->next == source->count)) {
            *done = true;
            return LORE_OK;
        }
        lore_status status = is_open     ? next_json(source, arena, raw, &has_document, err)
                             : is_inside ? next_member(source, arena, raw, &has_document, err)
                                         : next_entry(source, arena, raw, &has_document, err);
        if (status != LORE_OK) {
            return status;
        }
        if (has_document) {
            return lore_metadata_merge(raw->metadata, source->metadata, &source->limits, arena,
                                       &raw->metadata, err);
        }
        if (is_open) {
            close_lines(source);
        }
    }
}

int64_t lore_source_total(const lore_source *source)
{
    return atomic_load_explicit(&source->total, memory_order_relaxed);
}

int64_t lore_source_passed_over(const lore_source *source)
{
    return atomic_load_explicit(&source->passed_over, memory_order_relaxed);
}

void lore_source_cancel(lore_source *source)
{
    atomic_store_explicit(&source->is_cancelled, true, memory_order_relaxed);
}
