/* Containers: archives, mailboxes, messages and arrays of JSON documents, member by member.
 *
 * Of a message the body is a member that keeps the name of the message itself; attachments are
 * named behind it. Each kind is a function that gives the next member. */
#include "ingest/source_int.h"

#include "base/json.h"

#include <string.h>

struct lore_container {
    lore_media media;
    lore_str name, bytes;
    const lore_limits *limits;
    lore_archive *archive;
    lore_json *root;        /* of JSON */
    const lore_json *items; /* the array of documents in it; NULL: it is one itself */
    const lore_json_map *map;
    const lore_json *item;
    lore_arena arena; /* the message */
    lore_mail mail;
    size_t at;      /* where the next message of a mailbox begins */
    int64_t number; /* members given so far */
};

static lore_status out_of_memory(const lore_container *c, lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory in '" LORE_STR_FMT "'",
                     LORE_STR_ARG(c->name));
}

/* "container#member", in the arena. */
static lore_status name_member(const lore_container *c, lore_str member, lore_arena *arena,
                               lore_raw_document *raw, lore_error *err)
{
    lore_str text = member.len > 0 ? lore_str_printf(arena, LORE_STR_FMT "#" LORE_STR_FMT,
                                                     LORE_STR_ARG(c->name), LORE_STR_ARG(member))
                                   : lore_str_printf(arena, LORE_STR_FMT "#%lld",
                                                     LORE_STR_ARG(c->name), (long long)c->number);
    raw->source = text.ptr == NULL ? c->name : text;
    return text.ptr == NULL ? out_of_memory(c, err) : LORE_OK;
}

/* ---- archives ---- */

/* "notes.md" of "kb/notes.md.gz". */
static lore_str name_inside(lore_str name)
{
    for (size_t i = name.len; i > 0; i--) {
        if (name.ptr[i - 1] == '/' || name.ptr[i - 1] == '#') {
            name = lore_str_slice(name, i, name.len);
            break;
        }
    }
    lore_str extension = lore_media_extension(name);
    name.len -= extension.len > 0 ? extension.len + 1 : 0;
    return name;
}

/* As in a folder: hidden files, and what macOS adds to archives, are nobody's documents. */
static bool is_hidden(lore_str name)
{
    for (size_t at = 0; at < name.len;) {
        const char *slash = memchr(name.ptr + at, '/', name.len - at);
        size_t end = slash == NULL ? name.len : (size_t)(slash - name.ptr);
        lore_str step = lore_str_slice(name, at, end);
        bool is_dots = lore_str_equal(step, LORE_STR(".")) || lore_str_equal(step, LORE_STR(".."));
        if ((step.len > 0 && step.ptr[0] == '.' && !is_dots) ||
            lore_str_equal(step, LORE_STR("__MACOSX"))) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

static lore_status next_in_archive(lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                   bool *done, lore_error *err)
{
    lore_str name;
    lore_buf content;
    raw->source = c->name;
    lore_status status = lore_archive_next(c->archive, arena, &name, done, err);
    if (status != LORE_OK || *done) {
        return status;
    }
    name = lore_archive_is_single(c->archive) ? name_inside(c->name) : name;
    status = name_member(c, name, arena, raw, err);
    if (status != LORE_OK || !lore_walk_takes(name) || is_hidden(name)) {
        return status; /* the caller passes over what has no media */
    }
    lore_buf_init(&content, 0);
    status = lore_archive_read(c->archive, (size_t)c->limits->file_bytes_max, &content, err);
    if (status == LORE_OK) {
        raw->bytes = lore_str_copy(arena, lore_buf_str(&content));
        status = raw->bytes.ptr == NULL ? out_of_memory(c, err) : LORE_OK;
    }
    if (status == LORE_OK) {
        raw->media = lore_media_of(name, raw->bytes);
    }
    lore_buf_destroy(&content);
    return status;
}

/* ---- messages ---- */

/* The headers that matter, for the message and what is attached to it. */
static lore_status describe_mail(const lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                 lore_error *err)
{
    const lore_mail *mail = &c->mail;
    const struct {
        const char *key;
        lore_str value;
    } fields[] = {
        {"author", mail->from}, {"to", mail->to}, {"date", mail->date}, {"subject", mail->subject}};
    lore_buf text;
    lore_json_writer writer;
    lore_buf_init(&text, (size_t)c->limits->metadata_bytes_max);
    lore_json_write_begin(&writer, &text);
    lore_json_object(&writer, NULL);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value.len > 0) {
            lore_json_string(&writer, fields[i].key, fields[i].value);
        }
    }
    lore_json_end(&writer);
    bool fits = !lore_buf_failed(&text);
    raw->metadata = fits ? lore_str_copy(arena, lore_buf_str(&text)) : (lore_str){"", 0};
    lore_buf_destroy(&text);
    return raw->metadata.ptr != NULL ? LORE_OK : out_of_memory(c, err);
}

static lore_status next_in_mail(lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                bool *done, lore_error *err)
{
    const lore_mail *mail = &c->mail;
    bool has_body = mail->part_count > 0 && !mail->parts[0].is_attachment;
    int64_t place = c->number - (has_body ? 0 : 1);
    raw->source = c->name;
    *done = c->number > 0 && place >= mail->part_count;
    if (*done) {
        return LORE_OK;
    }
    c->number++;
    bool is_body = c->number == 1;
    const lore_mail_part *part = is_body && !has_body ? NULL : &mail->parts[place];
    lore_status status = describe_mail(c, arena, raw, err);
    if (is_body && status == LORE_OK && mail->subject.len <= LORE_TITLE_BYTES_MAX) {
        raw->title = lore_str_copy(arena, mail->subject);
        status = raw->title.ptr == NULL ? out_of_memory(c, err) : LORE_OK;
    } else if (!is_body && status == LORE_OK) {
        status = name_member(c, part->name, arena, raw, err);
    }
    raw->media = LORE_MEDIA_TEXT;
    if (part != NULL && status == LORE_OK) {
        status = lore_mail_decode(part, arena, &raw->bytes, err);
        raw->media = part->media != LORE_MEDIA_AUTO || raw->bytes.len == 0
                         ? part->media
                         : lore_media_of(part->name, raw->bytes);
    }
    if (status == LORE_OK && raw->bytes.len > 0) {
        raw->bytes = lore_str_copy(arena, raw->bytes); /* it may still lie in the container */
        status = raw->bytes.ptr == NULL ? out_of_memory(c, err) : LORE_OK;
    }
    return status;
}

/* Does a message begin here: "From " behind an empty line, and then a header? */
static bool is_message_start(lore_str bytes, size_t at)
{
    lore_str line, rest = lore_str_slice(bytes, at, bytes.len);
    bool is_behind_blank =
        at > 1 && (bytes.ptr[at - 2] == '\n' ||
                   (at > 2 && bytes.ptr[at - 2] == '\r' && bytes.ptr[at - 3] == '\n'));
    if (!is_behind_blank || !lore_str_next_line(&rest, &line) ||
        !lore_str_next_line(&rest, &line)) {
        return false;
    }
    const char *colon = line.len > 0 ? memchr(line.ptr, ':', line.len) : NULL;
    return colon != NULL && memchr(line.ptr, ' ', (size_t)(colon - line.ptr)) == NULL;
}

/* Writers of mailboxes put '>' before a line that begins with "From ", or with '>' and that. */
static lore_str take_quotes_off(lore_str message, lore_arena *arena)
{
    char *out = lore_arena_push(arena, message.len + 1);
    size_t used = 0;
    for (size_t at = 0; out != NULL && at < message.len;) {
        const char *newline = memchr(message.ptr + at, '\n', message.len - at);
        size_t end = newline == NULL ? message.len : (size_t)(newline - message.ptr) + 1, mark = at;
        while (mark < end && message.ptr[mark] == '>') {
            mark++;
        }
        bool is_quoted =
            mark > at && lore_str_starts(lore_str_slice(message, mark, end), LORE_STR("From "));
        at += is_quoted ? 1 : 0;
        memcpy(out + used, message.ptr + at, end - at);
        used += end - at;
        at = end;
    }
    return (lore_str){out, used};
}

/* The next message of a mailbox (RFC 4155). */
static lore_status next_in_mailbox(lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                   bool *done, lore_error *err)
{
    lore_str line, rest = lore_str_slice(c->bytes, c->at, c->bytes.len);
    *done = !lore_str_next_line(&rest, &line); /* the "From " line itself */
    if (*done) {
        return LORE_OK;
    }
    size_t start = c->bytes.len - rest.len, next = c->bytes.len;
    for (size_t at = lore_str_find(c->bytes, LORE_STR("\nFrom "), start); at != SIZE_MAX;
         at = lore_str_find(c->bytes, LORE_STR("\nFrom "), at + 1)) {
        if (is_message_start(c->bytes, at + 1)) {
            next = at + 1;
            break;
        }
    }
    c->at = next;
    c->number++;
    raw->media = LORE_MEDIA_MAIL;
    raw->bytes =
        take_quotes_off(lore_str_slice(c->bytes, start < next ? start : next, next), arena);
    lore_status status = name_member(c, (lore_str){"", 0}, arena, raw, err);
    return status == LORE_OK && raw->bytes.ptr == NULL ? out_of_memory(c, err) : status;
}

/* ---- JSON ---- */

static lore_status next_in_json(lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                bool *done, lore_error *err)
{
    *done = c->item == NULL;
    if (*done) {
        return LORE_OK;
    }
    c->number++;
    lore_status status = lore_raw_from_node(c->item, c->map, c->limits, arena, raw, err);
    c->item = c->items == NULL ? NULL : lore_json_next(c->item);
    raw->source = c->name;
    lore_error unused;
    if (c->items != NULL) {
        lore_status named =
            name_member(c, (lore_str){"", 0}, arena, raw, status == LORE_OK ? err : &unused);
        status = status == LORE_OK ? named : status;
    }
    return status;
}

/* The next line that is not empty, of a JSONL file that came inside something. */
static lore_status next_in_lines(lore_container *c, lore_arena *arena, lore_raw_document *raw,
                                 bool *done, lore_error *err)
{
    lore_str line = {"", 0}, rest = lore_str_slice(c->bytes, c->at, c->bytes.len);
    lore_json *root = NULL;
    *done = false;
    while (!*done && line.len == 0) {
        c->number++;
        *done = !lore_str_next_line(&rest, &line);
        bool has_mark = c->number == 1 && lore_str_starts(line, LORE_STR("\xEF\xBB\xBF"));
        line = lore_str_trim(lore_str_slice(line, has_mark ? 3 : 0, line.len));
    }
    c->at = c->bytes.len - rest.len;
    raw->source = c->name;
    if (*done) {
        return LORE_OK;
    }
    lore_status status = lore_json_parse(line, (int32_t)c->limits->json_depth_max, &root, err);
    if (status == LORE_OK) {
        status = lore_raw_from_node(root, c->map, c->limits, arena, raw, err);
    }
    lore_json_free(root);
    lore_error unused;
    lore_status named =
        name_member(c, (lore_str){"", 0}, arena, raw, status == LORE_OK ? err : &unused);
    return status == LORE_OK ? named : status;
}

/* Does it hold documents as clients send them, one or an array, and no other value? */
static bool has_documents(const lore_json *root)
{
    const lore_json *first = lore_json_is_array(root) ? lore_json_first(root) : root;
    return lore_json_is_object(first) && (lore_json_is_string(lore_json_get(first, "text")) ||
                                          lore_json_is_string(lore_json_get(first, "markdown")) ||
                                          lore_json_is_string(lore_json_get(first, "html")));
}

/* With a map every value is a document or an array of them, and its error is one of theirs. */
static lore_status open_json(lore_container *c, lore_error *err)
{
    const lore_mapped_field *field =
        c->map == NULL ? NULL : lore_json_map_field(c->map, LORE_JSON_ITEMS);
    lore_status status =
        lore_json_parse(c->bytes, (int32_t)c->limits->json_depth_max, &c->root, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_json *items = field == NULL ? c->root : lore_json_map_find(c->root, field);
    bool is_array = items != NULL && lore_json_is_array(items);
    if (field != NULL && !is_array) {
        return lore_fail(err, LORE_ERR_INVALID, "%s (items) is no array", field->path);
    }
    if (c->map == NULL && !has_documents(c->root)) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "holds no documents");
    }
    c->items = is_array ? items : NULL;
    c->item = is_array ? lore_json_first(items) : items;
    return LORE_OK;
}

/* ---- all ---- */

static lore_status open_kind(lore_container *c, uint64_t unpacked_max, lore_error *err)
{
    switch (c->media) {
    case LORE_MEDIA_ARCHIVE:
        return lore_archive_open(c->bytes, unpacked_max, &c->archive, err);
    case LORE_MEDIA_MAIL:
        return lore_mail_parse(c->bytes, &c->arena, &c->mail, err);
    case LORE_MEDIA_MBOX:
    case LORE_MEDIA_JSONL:
        return LORE_OK;
    default:
        return open_json(c, err);
    }
}

lore_status lore_container_open(lore_media media, lore_str name, lore_str bytes,
                                const lore_limits *limits, uint64_t unpacked_max,
                                const lore_json_map *map, lore_container **container,
                                lore_error *err)
{
    lore_container *c = lore_alloc_zero(1, sizeof *c);
    if (c == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '" LORE_STR_FMT "'",
                         LORE_STR_ARG(name));
    }
    c->media = media;
    c->name = name;
    c->bytes = bytes;
    c->limits = limits;
    c->map = map;
    lore_arena_init(&c->arena, lore_document_arena_cap(limits, bytes.len));
    lore_status status = open_kind(c, unpacked_max, err);
    if (status != LORE_OK) {
        lore_container_close(c);
        return status;
    }
    *container = c;
    return LORE_OK;
}

lore_status lore_container_next(lore_container *container, lore_arena *arena,
                                lore_raw_document *raw, bool *done, lore_error *err)
{
    *done = false;
    switch (container->media) {
    case LORE_MEDIA_ARCHIVE:
        return next_in_archive(container, arena, raw, done, err);
    case LORE_MEDIA_MAIL:
        return next_in_mail(container, arena, raw, done, err);
    case LORE_MEDIA_MBOX:
        return next_in_mailbox(container, arena, raw, done, err);
    case LORE_MEDIA_JSONL:
        return next_in_lines(container, arena, raw, done, err);
    default:
        return next_in_json(container, arena, raw, done, err);
    }
}

uint64_t lore_container_unpacked(const lore_container *container)
{
    return container->archive == NULL ? 0 : lore_archive_unpacked(container->archive);
}

void lore_container_close(lore_container *container)
{
    if (container != NULL) {
        lore_archive_close(container->archive);
        lore_json_free(container->root);
        lore_arena_destroy(&container->arena);
        lore_free(container);
    }
}

/* ---- inside one another ---- */

static void pop(lore_containers *open)
{
    open->depth--;
    lore_container_close(open->levels[open->depth].container);
    lore_arena_destroy(&open->levels[open->depth].arena);
}

lore_status lore_containers_push(lore_containers *open, const lore_limits *limits,
                                 const lore_json_map *map, const lore_raw_document *raw,
                                 lore_error *err)
{
    if (open->depth >= limits->archive_depth_max || open->depth == LORE_CONTAINERS_CAP) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "archives nest deeper than %d (limits.archive_depth_max)", open->depth);
    }
    lore_arena *arena = &open->levels[open->depth].arena;
    lore_arena_init(arena, 0);
    lore_str name = lore_str_copy(arena, raw->source);
    lore_str bytes = lore_str_copy(arena, raw->bytes);
    lore_status status =
        name.ptr != NULL && bytes.ptr != NULL
            ? lore_container_open(raw->media, name, bytes, limits, open->unpacked_left, map,
                                  &open->levels[open->depth].container, err)
            : lore_fail(err, LORE_ERR_NOMEM, "out of memory for '" LORE_STR_FMT "'",
                        LORE_STR_ARG(raw->source));
    if (status != LORE_OK) {
        lore_arena_destroy(arena);
        return status;
    }
    open->depth++;
    return LORE_OK;
}

lore_status lore_containers_next(lore_containers *open, const lore_limits *limits,
                                 lore_arena *arena, lore_raw_document *raw, bool *done,
                                 lore_error *err)
{
    lore_container *innermost = open->levels[open->depth - 1].container;
    uint64_t before = lore_container_unpacked(innermost);
    lore_status status = lore_container_next(innermost, arena, raw, done, err);
    uint64_t used = lore_container_unpacked(innermost) - before;
    open->unpacked_left -= used < open->unpacked_left ? used : open->unpacked_left;
    if (*done) {
        pop(open);
        return status;
    }
    if (open->unpacked_left == 0) {
        /* Nothing under the outermost counts as gone: it is what could not be read. */
        raw->source = lore_str_copy(arena, open->levels[0].container->name);
        lore_containers_close(open);
        return lore_fail(err, LORE_ERR_LIMIT,
                         "unpacks to more than %lld bytes (limits.unpacked_bytes_max)",
                         (long long)limits->unpacked_bytes_max);
    }
    /* The name of a member that failed may be that of its container, which may be closed soon. */
    raw->source = lore_str_copy(arena, raw->source);
    return raw->source.ptr != NULL || status != LORE_OK
               ? status
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for a name");
}

void lore_containers_close(lore_containers *open)
{
    while (open->depth > 0) {
        pop(open);
    }
}
