/* The hub's list of a repository's files, checked: names that could lead out of a folder are passed
 * over, everything else that is not as it should be is an error. */
#include "base/json.h"
#include "cli/client.h"
#include "cli/hub_int.h"

#include <string.h>

enum {
    LIST_BYTES_MAX = 32 * 1024 * 1024,
    LIST_DEPTH_MAX = 32,
    FILES_MAX = 20000,
    NAME_BYTES_MAX = 200
};
#define SIZE_MAX_BYTES (INT64_C(1) << 48) /* of a file: beyond any, and all of a list add up */

static bool is_hex(lore_str text, size_t len)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return text.len == len;
}

/* A path of one or two plain parts: what a model folder of ours may hold. */
static bool is_plain_name(lore_str name)
{
    int32_t slashes = 0;
    if (name.len == 0 || name.len > NAME_BYTES_MAX || name.ptr[name.len - 1] == '/') {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        bool is_first = i == 0 || name.ptr[i - 1] == '/';
        slashes += c == '/';
        if (c <= ' ' || c >= 0x7f || c == '\\' || (is_first && (c == '.' || c == '/'))) {
            return false;
        }
    }
    return slashes <= 1;
}

static lore_status read_file_entry(const lore_json *entry, lore_arena *arena, lore_hub_file *file,
                                   lore_error *err)
{
    const lore_json *lfs = lore_json_get(entry, "lfs");
    lore_str sum = {0};
    *file =
        (lore_hub_file){.name = lore_json_str(lore_json_get(entry, "rfilename")), .size_bytes = -1};
    lore_status status =
        lore_json_get_int(entry, "siblings", "size", 0, SIZE_MAX_BYTES, &file->size_bytes, err);
    if (status == LORE_OK && lore_json_is_object(lfs)) { /* kept outside of git */
        status = lore_json_get_int(lfs, "siblings.lfs", "size", 0, SIZE_MAX_BYTES,
                                   &file->size_bytes, err);
        status = status != LORE_OK ? status
                                   : lore_json_get_str(lfs, "siblings.lfs", "sha256", &sum, err);
    }
    if (status == LORE_OK && sum.len > 0 && !is_hex(sum, 64)) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "siblings.lfs.sha256 must be 64 hex digits");
    }
    if (status != LORE_OK) {
        return status;
    }
    file->name = lore_str_copy(arena, file->name);
    file->sha256 = lore_str_copy(arena, sum);
    return file->name.ptr == NULL || file->sha256.ptr == NULL
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the list of files")
               : LORE_OK;
}

static lore_status read_list(const lore_json *root, lore_arena *arena, lore_hub_list *list,
                             lore_error *err)
{
    const lore_json *files = lore_json_get(root, "siblings");
    lore_str commit = lore_json_str(lore_json_get(root, "sha"));
    int32_t count = lore_json_count(files);
    if (!is_hex(commit, 40) || !lore_json_is_array(files)) {
        return lore_fail(err, LORE_ERR_CORRUPT, "it must have a commit 'sha' and 'siblings'");
    }
    if (count > FILES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "it names %d files, over %d", (int)count, FILES_MAX);
    }
    list->commit = lore_str_copy(arena, commit);
    list->files = LORE_PUSH(arena, lore_hub_file, (size_t)count + 1);
    list->count = 0;
    if (list->commit.ptr == NULL || list->files == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the list of files");
    }
    for (const lore_json *n = lore_json_first(files); n != NULL; n = lore_json_next(n)) {
        if (!is_plain_name(lore_json_str(lore_json_get(n, "rfilename")))) {
            continue; /* deeper folders and dot files are never needed; others are not wanted */
        }
        lore_status status = read_file_entry(n, arena, &list->files[list->count], err);
        if (status != LORE_OK) {
            return status;
        }
        list->count++;
    }
    return LORE_OK;
}

static lore_status parse_list(lore_str text, lore_str repository, lore_arena *arena,
                              lore_hub_list *list, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(text, LIST_DEPTH_MAX, &root, err);
    if (status == LORE_OK) {
        status = read_list(root, arena, list, err);
    }
    lore_json_free(root);
    if (status != LORE_OK && status != LORE_ERR_NOMEM) {
        lore_error_prefix(err, "the hub's list of '" LORE_STR_FMT "' is not one",
                          LORE_STR_ARG(repository));
        err->status = status = LORE_ERR_CORRUPT;
    }
    return status;
}

/* One attempt. LORE_ERR_BUSY: another may do better; err says what happened. */
static lore_status attempt(lore_transfer *t, lore_str repository, lore_arena *arena,
                           lore_hub_list *list, lore_error *err)
{
    int32_t http = 0;
    lore_buf_reset(t->text);
    const char *problem = lore_transfer_run(t, &http);
    if (t->is_cancelled) {
        return lore_hub_cancelled(repository, err);
    }
    if (lore_buf_failed(t->text)) {
        return lore_fail(err, LORE_ERR_LIMIT, "the hub's list of '" LORE_STR_FMT "' is over %d MB",
                         LORE_STR_ARG(repository), LIST_BYTES_MAX >> 20);
    }
    if (problem != NULL) {
        lore_fail(err, LORE_ERR_IO, "cannot reach the hub at '%s': %s", lore_hub_endpoint(t->hub),
                  problem);
        return LORE_ERR_BUSY;
    }
    if (http == 200) {
        return parse_list(lore_buf_str(t->text), repository, arena, list, err);
    }
    lore_status status = lore_hub_refuse(http, repository, err);
    return lore_hub_is_passing(http) ? LORE_ERR_BUSY : status;
}

lore_status lore_hub_read(lore_hub *hub, lore_str repository, lore_str revision,
                          lore_hub_progress progress, void *self, lore_arena *arena,
                          lore_hub_list *list, lore_error *err)
{
    lore_buf text, *address = lore_hub_address(hub);
    lore_buf_init(&text, LIST_BYTES_MAX);
    lore_transfer t = {
        .hub = hub, .text = &text, .fd = -1, .expected = -1, .progress = progress, .self = self};
    lore_buf_printf(address, "%s/api/models/", lore_hub_endpoint(hub));
    lore_hub_append_path(address, repository);
    lore_buf_printf(address, "/revision/");
    lore_url_encode(revision, address);
    lore_buf_printf(address, "?blobs=true");
    lore_status status = lore_buf_failed(address)
                             ? lore_fail(err, LORE_ERR_NOMEM, "no memory for an address")
                             : LORE_ERR_BUSY;
    for (int32_t failures = 0; status == LORE_ERR_BUSY;) {
        status = attempt(&t, repository, arena, list, err);
        if (status == LORE_ERR_BUSY && ++failures == LORE_HUB_RETRIES) {
            status = err->status;
        } else if (status == LORE_ERR_BUSY && lore_transfer_pause(&t, failures)) {
            status = lore_hub_cancelled(repository, err);
        }
    }
    lore_buf_destroy(&text);
    return status;
}
