/* What a run has seen, and the deletion of what it has not.
 *
 * Only folders are pruned: there, a document that was not seen has no file any more. A file or
 * folder that could not be read says nothing about its documents, so whatever lies under it stays.
 */
#include "ingest/ingest_int.h"

#include "base/file.h"

#include <string.h>

enum { PAGE_DOCUMENTS = LORE_CHANGES_MAX, FIRST_ROOM = 1024 };

/* ---- the set ---- */

static void key_of(lore_str id, uint64_t key[2])
{
    lore_sha256 sha;
    uint8_t digest[32];
    lore_sha256_init(&sha);
    lore_sha256_update(&sha, id);
    lore_sha256_final(&sha, digest);
    memcpy(key, digest, 2 * sizeof key[0]);
    key[1] |= 1; /* never the free place */
}

/* The place of the key, or the free one where it belongs. */
static size_t place_of(uint64_t (*keys)[2], size_t room, const uint64_t key[2])
{
    size_t at = (size_t)key[0] & (room - 1);
    while ((keys[at][0] != 0 || keys[at][1] != 0) &&
           (keys[at][0] != key[0] || keys[at][1] != key[1])) {
        at = (at + 1) & (room - 1);
    }
    return at;
}

static bool grow(lore_id_set *set)
{
    size_t room = set->room == 0 ? FIRST_ROOM : set->room * 2;
    uint64_t(*keys)[2] = lore_alloc_zero(room, sizeof *keys);
    if (keys == NULL) {
        return false;
    }
    for (size_t i = 0; i < set->room; i++) {
        if (set->keys[i][0] != 0 || set->keys[i][1] != 0) {
            memcpy(keys[place_of(keys, room, set->keys[i])], set->keys[i], sizeof *keys);
        }
    }
    lore_free(set->keys);
    set->keys = keys;
    set->room = room;
    return true;
}

lore_status lore_id_set_add(lore_id_set *set, lore_str id, lore_error *err)
{
    if (set->count * 2 >= set->room && !grow(set)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory remembering %zu ids", set->count);
    }
    uint64_t key[2];
    key_of(id, key);
    size_t at = place_of(set->keys, set->room, key);
    set->count += set->keys[at][1] == 0 ? 1 : 0;
    memcpy(set->keys[at], key, sizeof key);
    return LORE_OK;
}

bool lore_id_set_has(const lore_id_set *set, lore_str id)
{
    if (set->room == 0) {
        return false;
    }
    uint64_t key[2];
    key_of(id, key);
    return set->keys[place_of(set->keys, set->room, key)][1] != 0;
}

void lore_id_set_destroy(lore_id_set *set)
{
    lore_free(set->keys);
    *set = (lore_id_set){0};
}

/* ---- sources ---- */

bool lore_source_is_below(lore_str source, const lore_str *roots, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        lore_str root = roots[i];
        if (!lore_str_starts(source, root)) {
            continue;
        }
        bool is_at_edge = source.len == root.len || source.ptr[root.len] == '/' ||
                          source.ptr[root.len] == '#' ||
                          (root.len > 0 && root.ptr[root.len - 1] == '/');
        if (is_at_edge) {
            return true;
        }
    }
    return false;
}

/* ---- pruning ---- */

/* What is looked through at once: documents whose source begins so. */
typedef struct pruned_place {
    lore_str prefix;
    bool is_root; /* the prefix itself is a path: what merely begins like it stays */
} pruned_place;

/* The documents of one page that are gone: moved to its front. Gives how many. */
static int32_t pick_gone(const lore_prune_options *options, const pruned_place *place,
                         lore_document_info *page, int32_t count)
{
    int32_t gone = 0;
    for (int32_t i = 0; i < count; i++) {
        bool is_there = !place->is_root || lore_source_is_below(page[i].source, &place->prefix, 1);
        if (is_there && !lore_id_set_has(options->seen, page[i].id) &&
            !lore_source_is_below(page[i].source, options->kept_roots, options->kept_count)) {
            page[gone++] = page[i];
        }
    }
    return gone;
}

static lore_status delete_page(const lore_prune_options *options, const lore_document_info *page,
                               int32_t count, lore_error *err)
{
    lore_change changes[PAGE_DOCUMENTS];
    for (int32_t i = 0; i < count; i++) {
        changes[i] = (lore_change){
            .kind = LORE_CHANGE_DELETE, .collection = options->collection, .id = page[i].id};
    }
    lore_status status = lore_writer_apply(options->writer, changes, count, NULL, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        if (changes[i].status != LORE_OK) {
            status = lore_fail(err, changes[i].status, "%s", changes[i].error.message);
        }
    }
    return status;
}

static lore_status take_page(const lore_prune_options *options, const pruned_place *place,
                             lore_document_info *page, int32_t count, int64_t *deleted,
                             lore_error *err)
{
    const lore_ingest_options *run = options->run;
    int32_t gone = pick_gone(options, place, page, count);
    lore_status status = LORE_OK;
    if (gone > 0 && options->writer != NULL) {
        status = delete_page(options, page, gone, err);
    }
    for (int32_t i = 0; i < gone && status == LORE_OK; i++) {
        const lore_ingest_event event = {LORE_FATE_DELETED, page[i].id, page[i].source, 0, NULL};
        ++*deleted;
        if (run->settled != NULL) {
            run->settled(run->self, &event);
        }
    }
    return status;
}

static lore_status prune_place(lore_index *index, const lore_prune_options *options,
                               const pruned_place *place, int64_t *deleted, lore_error *err)
{
    const lore_ingest_options *run = options->run;
    lore_arena arena;
    lore_buf cursor;
    lore_arena_init(&arena, 0);
    lore_buf_init(&cursor, 0);
    lore_status status = LORE_OK;
    do {
        lore_document_info *page = NULL;
        int32_t count = 0;
        lore_str next = {"", 0};
        lore_arena_reset(&arena);
        if (run->is_cancelled != NULL && run->is_cancelled(run->self)) {
            status = lore_fail(err, LORE_ERR_CANCELLED, "cancelled");
            break;
        }
        status = lore_index_list_documents(index, options->collection, lore_buf_str(&cursor),
                                           place->prefix, PAGE_DOCUMENTS, &arena, &page, &count,
                                           &next, err);
        if (status == LORE_OK) {
            status = take_page(options, place, page, count, deleted, err);
        }
        lore_buf_reset(&cursor);
        lore_buf_append(&cursor, next);
        if (status == LORE_OK && lore_buf_failed(&cursor)) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory listing documents");
        }
    } while (status == LORE_OK && cursor.len > 0);
    lore_buf_destroy(&cursor);
    lore_arena_destroy(&arena);
    return status;
}

static lore_status prune_folder(lore_index *index, const lore_prune_options *options,
                                const char *folder, lore_arena *arena, int64_t *deleted,
                                lore_error *err)
{
    lore_str path = lore_str_from(folder);
    while (path.len > 1 && path.ptr[path.len - 1] == '/') {
        path.len--; /* as source.c does */
    }
    bool is_top = path.len == 1 && path.ptr[0] == '/';
    pruned_place place = {
        lore_str_printf(arena, LORE_STR_FMT "%s", LORE_STR_ARG(path), is_top ? "" : "/"), false};
    return place.prefix.ptr == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory pruning")
                                    : prune_place(index, options, &place, deleted, err);
}

lore_status lore_prune(lore_index *index, const lore_prune_options *options, int64_t *deleted,
                       lore_error *err)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < options->path_count && status == LORE_OK; i++) {
        if (lore_file_is_dir(options->paths[i])) {
            status = prune_folder(index, options, options->paths[i], &arena, deleted, err);
        }
    }
    for (size_t i = 0; i < lore_source_sitemap_count(options->source) && status == LORE_OK; i++) {
        const pruned_place place = {lore_source_sitemap_folder(options->source, i), false};
        status = place.prefix.len > 0 ? prune_place(index, options, &place, deleted, err) : status;
    }
    for (int32_t i = 0; i < options->root_count && status == LORE_OK; i++) {
        const pruned_place place = {lore_str_from(options->roots[i]), true};
        status = prune_place(index, options, &place, deleted, err);
    }
    lore_arena_destroy(&arena);
    return status;
}
