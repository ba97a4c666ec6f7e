/* The sets of the filters that were asked for last; what they are good for: row_set.h. */
#include "index/index_int.h"

#include <string.h>

enum {
    WORDS_MAX = 1 << 17, /* of a set that is kept: 1 MB, 8 million ids */
    GROWN_SHARE = 4      /* look at all documents again when ids have grown by a quarter: the dead
                            stay in a set, and its count is what chooses the search */
};

/* What a reading transaction sees. */
typedef struct moment {
    int64_t changed, next_chunk;
    bool exists;
} moment;

static lore_status read_moment(lore_db *db, int64_t collection, moment *now, lore_error *err)
{
    lore_stmt *stmt = NULL;
    *now = (moment){.next_chunk = 1};
    lore_status status =
        lore_db_statement(db, "SELECT changed FROM collections WHERE id=?1", &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, collection);
        status = lore_stmt_step(stmt, &now->exists, err);
    }
    if (status == LORE_OK && now->exists) {
        now->changed = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
    }
    return status == LORE_OK ? lore_db_number(db, "SELECT value FROM meta WHERE key='next_chunk'",
                                              &now->next_chunk, err)
                             : status;
}

/* ---- places ---- */

static lore_filter_entry *find(lore_filter_cache *cache, lore_str key)
{
    for (int i = 0; i < LORE_FILTERS_KEPT; i++) {
        lore_filter_entry *entry = &cache->entries[i];
        if (entry->key != NULL && entry->key_size == key.len &&
            memcmp(entry->key, key.ptr, key.len) == 0) {
            entry->used = ++cache->clock;
            return entry;
        }
    }
    return NULL;
}

static lore_filter_entry *oldest(lore_filter_cache *cache)
{
    lore_filter_entry *found = &cache->entries[0];
    for (int i = 1; i < LORE_FILTERS_KEPT; i++) {
        found = cache->entries[i].used < found->used ? &cache->entries[i] : found;
    }
    return found;
}

static void clear(lore_filter_entry *entry)
{
    lore_row_set_release(entry->set);
    lore_free(entry->key);
    *entry = (lore_filter_entry){0};
}

void lore_filter_cache_clear(lore_filter_cache *cache)
{
    for (int i = 0; i < LORE_FILTERS_KEPT; i++) {
        clear(&cache->entries[i]);
    }
}

/* A copy of what is kept, with a reference of its own; set NULL: nothing. */
static lore_filter_entry recall(lore_index *index, lore_str key)
{
    lore_filter_entry kept = {0};
    lore_lock_acquire(&index->lock);
    const lore_filter_entry *entry = find(&index->filters, key);
    if (entry != NULL) {
        kept = *entry;
        lore_row_set_acquire(kept.set);
    }
    lore_lock_release(&index->lock);
    kept.key = NULL;
    return kept;
}

/* Without memory for the key nothing is kept, and nothing else happens. */
static void remember(lore_index *index, lore_str key, const lore_filter_entry *made)
{
    char *copy = made->set->word_count <= WORDS_MAX ? lore_alloc(key.len) : NULL;
    if (copy == NULL) {
        return;
    }
    memcpy(copy, key.ptr, key.len);
    lore_lock_acquire(&index->lock);
    lore_filter_entry *place = find(&index->filters, key);
    if (place == NULL || place->changed <= made->changed) {
        place = place != NULL ? place : oldest(&index->filters);
        clear(place);
        *place = *made;
        place->key = copy;
        place->key_size = key.len;
        place->used = ++index->filters.clock;
        lore_row_set_acquire(place->set);
        copy = NULL;
    }
    lore_lock_release(&index->lock);
    lore_free(copy);
}

/* ---- the walk ---- */

/* The set as of the open transaction, from the kept one where that is of the past. */
static lore_status make(lore_index *index, lore_db *db, const lore_filter *filter,
                        int64_t collection, lore_str key, const lore_filter_entry *kept,
                        lore_row_set **set, lore_error *err)
{
    moment now;
    lore_status status = read_moment(db, collection, &now, err);
    if (status != LORE_OK) {
        return status;
    }
    if (kept->set != NULL && now.exists && kept->changed == now.changed) {
        *set = lore_row_set_acquire(kept->set);
        return LORE_OK;
    }
    bool is_of_the_past = kept->set != NULL && kept->changed < now.changed &&
                          now.next_chunk - kept->whole_at <= kept->whole_at / GROWN_SHARE;
    lore_filter_entry made = {.changed = now.changed,
                              .next_chunk = now.next_chunk,
                              .whole_at = is_of_the_past ? kept->whole_at : now.next_chunk};
    status = lore_filter_rows(filter, db, collection, is_of_the_past ? kept->set : NULL,
                              is_of_the_past ? kept->next_chunk : 0, &made.set, err);
    if (status == LORE_OK && now.exists) {
        remember(index, key, &made);
    }
    if (status == LORE_OK) {
        *set = made.set;
    }
    return status;
}

lore_status lore_filter_set(lore_index *index, lore_db *db, const lore_filter *filter,
                            int64_t collection, int64_t changed, lore_row_set **set,
                            lore_error *err)
{
    lore_buf key;
    lore_buf_init(&key, 0);
    lore_buf_append(&key, (lore_str){(const char *)&collection, sizeof collection});
    lore_status status = lore_filter_key(filter, &key, err);
    if (status != LORE_OK) {
        lore_buf_destroy(&key);
        return status;
    }
    lore_filter_entry kept = recall(index, lore_buf_str(&key));
    bool is_own = false;
    if (kept.set != NULL && kept.changed == changed) {
        *set = lore_row_set_acquire(kept.set);
    } else {
        is_own = !lore_db_in_transaction(db);
        status = is_own ? lore_db_exec(db, "BEGIN", err) : LORE_OK;
        if (status == LORE_OK) {
            status = make(index, db, filter, collection, lore_buf_str(&key), &kept, set, err);
        }
    }
    lore_row_set_release(kept.set);
    lore_buf_destroy(&key);
    if (status == LORE_OK && is_own && (status = lore_db_exec(db, "COMMIT", err)) != LORE_OK) {
        lore_row_set_release(*set);
    }
    return status;
}
