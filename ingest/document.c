/* One document up to the writer: who it is, whether it changed, its chunks, and what to embed.
 *
 * The hash covers all that decides what ends up in the index: the raw bytes and what came with
 * them, the settings of chunking, the encoder's fingerprint, and INGEST_VERSION, which must grow
 * whenever cleaning or chunking gives another result for the same input, so that the next run takes
 * every document again. */
#include "ingest/ingest_int.h"

#include "base/log.h"
#include "base/utf8.h"
#include "ingest/chunk.h"

#include <pthread.h>
#include <string.h>

#define INGEST_VERSION "lore-ingest-1"

enum {
    SPECIAL_TOKENS = 2,  /* what encoders put around a text */
    MARGIN_TOKENS = 4,   /* a chunk alone is tokenised a little differently than inside its text */
    TOKENS_PART_MIN = 4, /* the text keeps at least this part of the encoder's window (1/4) */
    ARENA_BYTES_PER_BYTE =
        16, /* text, runs, chunks, embed texts and vectors, and a tree for HTML */
    ID_CHARACTERS = 26,
    BATCH_CHUNKS = 64 /* embedded between two looks at whether somebody still waits */
};

size_t lore_document_arena_cap(const lore_limits *limits, size_t raw_bytes)
{
    size_t more = 0, cap = 0;
    if (!lore_size_mul(raw_bytes, ARENA_BYTES_PER_BYTE, &more) ||
        !lore_size_add((size_t)limits->arena_bytes_max, more, &cap)) {
        return SIZE_MAX;
    }
    return cap;
}

lore_status lore_document_limit(lore_status status, const lore_arena *arena, lore_error *err)
{
    if (status != LORE_ERR_NOMEM || !arena->is_over_cap) {
        return status;
    }
    return lore_fail(err, LORE_ERR_LIMIT,
                     "needs more than %zu bytes of memory (limits.arena_bytes_max)",
                     arena->cap_bytes);
}

/* ---- identity ---- */

static lore_status check_id(lore_str id, const lore_limits *limits, lore_error *err)
{
    if (id.len > (size_t)limits->id_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the id has %zu bytes, over %lld (limits.id_bytes_max)", id.len,
                         (long long)limits->id_bytes_max);
    }
    if (lore_utf8_valid(id) != id.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the id is not valid UTF-8");
    }
    for (size_t i = 0; i < id.len; i++) {
        unsigned char c = (unsigned char)id.ptr[i];
        if (c < 0x20 || c == 0x7F) {
            return lore_fail(err, LORE_ERR_INVALID, "the id holds control characters");
        }
    }
    return LORE_OK;
}

/* "d_" and 130 bits of the hash in Crockford's base 32. */
static lore_str id_of_hash(lore_arena *arena, const uint8_t digest[32])
{
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    char characters[ID_CHARACTERS];
    for (size_t i = 0; i < ID_CHARACTERS; i++) {
        size_t bit = i * 5;
        uint32_t window = (uint32_t)digest[bit / 8] << 8 | digest[bit / 8 + 1];
        characters[i] = alphabet[window >> (11 - bit % 8) & 31];
    }
    return lore_str_printf(arena, "d_%.*s", ID_CHARACTERS, characters);
}

static void add_field(lore_sha256 *sha, lore_str field)
{
    uint64_t length = field.len; /* lengths keep ("ab", "c") and ("a", "bc") apart */
    lore_sha256_update(sha, (lore_str){(const char *)&length, sizeof length});
    lore_sha256_update(sha, field);
}

lore_status lore_identify(const lore_raw_document *raw, const lore_config *config,
                          const lore_embedder *embedder, lore_arena *arena, lore_prepared *prepared,
                          lore_error *err)
{
    lore_sha256 sha;
    uint8_t digest[32];
    lore_status status = check_id(raw->id, &config->limits, err);
    if (status != LORE_OK) {
        return status;
    }
    prepared->id = raw->id;
    if (raw->id.len == 0) {
        lore_str origin = raw->source.len > 0 ? raw->source
                          : raw->url.len > 0  ? raw->url
                                              : raw->bytes;
        lore_sha256_init(&sha);
        lore_sha256_update(&sha, origin);
        lore_sha256_final(&sha, digest);
        prepared->id = id_of_hash(arena, digest);
        if (prepared->id.ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for an id");
        }
    }
    const int64_t settings[] = {config->chunk_tokens, config->chunk_overlap_sentences,
                                config->limits.document_bytes_max};
    lore_sha256_init(&sha);
    add_field(&sha, LORE_STR(INGEST_VERSION));
    add_field(&sha, lore_str_from(lore_media_name(raw->media)));
    add_field(&sha, raw->bytes);
    add_field(&sha, raw->metadata);
    add_field(&sha, raw->title);
    add_field(&sha, raw->url);
    add_field(&sha, raw->source);
    add_field(&sha, (lore_str){(const char *)settings, sizeof settings});
    add_field(&sha, lore_str_from(lore_embedder_fingerprint(embedder)));
    lore_sha256_final(&sha, prepared->hash);
    return LORE_OK;
}

/* ---- chunks ---- */

/* Tokens of the longest prefix any chunk of the document can get. */
static lore_status count_prefix(const lore_clean_document *clean, const lore_tokenizer *tokenizer,
                                lore_arena *scratch, int32_t *tokens, lore_error *err)
{
    *tokens = 0;
    for (int32_t i = 0; i < clean->section_count; i++) {
        lore_arena_reset(scratch);
        int32_t found = 0;
        lore_str prefix = lore_chunk_embed_text(scratch, clean->title, clean->sections[i].heading,
                                                (lore_str){"", 0});
        if (prefix.ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory counting tokens");
        }
        lore_status status = lore_tokenizer_count(tokenizer, prefix, scratch, &found, err);
        if (status != LORE_OK) {
            return status;
        }
        *tokens = found > *tokens ? found : *tokens;
    }
    lore_arena_reset(scratch);
    return LORE_OK;
}

static lore_status cut_chunks(const lore_config *config, const lore_embedder *embedder,
                              lore_arena *scratch, lore_arena *arena, lore_prepared *prepared,
                              lore_error *err)
{
    const lore_tokenizer *tokenizer = lore_embedder_tokenizer(embedder);
    int32_t prefix = 0, window = lore_embedder_tokens_max(embedder);
    lore_tokens tokens = {0};
    lore_status status = count_prefix(&prepared->clean, tokenizer, scratch, &prefix, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_encode(tokenizer, prepared->clean.text,
                                       (lore_encode_options){false, false}, scratch, &tokens, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    int32_t least = window / TOKENS_PART_MIN > 1 ? window / TOKENS_PART_MIN : 1;
    int32_t most = window - SPECIAL_TOKENS - MARGIN_TOKENS - prefix;
    lore_chunk_options options = {(int32_t)config->chunk_tokens,
                                  (int32_t)config->chunk_overlap_sentences,
                                  most > least ? most : least};
    prepared->token_count = tokens.count;
    status = lore_chunk_document(&prepared->clean, tokens.starts, tokens.count, &options, arena,
                                 &prepared->chunks, &prepared->chunk_count, err);
    if (status == LORE_OK && prepared->chunk_count > config->limits.document_chunks_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "has %d chunks, over %lld (limits.document_chunks_max)",
                         prepared->chunk_count, (long long)config->limits.document_chunks_max);
    }
    return status;
}

static lore_status make_embed_texts(const lore_embedder *embedder, lore_arena *arena,
                                    lore_prepared *prepared, lore_error *err)
{
    size_t count = (size_t)prepared->chunk_count, values = 0, bytes = 0;
    const lore_clean_document *clean = &prepared->clean;
    prepared->embed_texts = LORE_PUSH(arena, lore_str, count);
    bool fits = lore_size_mul(count, (size_t)lore_embedder_dim(embedder), &values) &&
                lore_size_mul(values, sizeof(float), &bytes);
    prepared->vectors = fits ? lore_arena_push(arena, bytes) : NULL;
    bool has_memory = prepared->embed_texts != NULL && prepared->vectors != NULL;
    for (size_t i = 0; i < count && has_memory; i++) {
        const lore_chunk_row *chunk = &prepared->chunks[i];
        prepared->embed_texts[i] =
            lore_chunk_embed_text(arena, clean->title, chunk->heading,
                                  lore_str_slice(clean->text, chunk->start, chunk->end));
        has_memory = prepared->embed_texts[i].ptr != NULL;
    }
    return has_memory ? LORE_OK
                      : lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu chunks", count);
}

lore_status lore_prepare(const lore_raw_document *raw, const lore_config *config,
                         const lore_embedder *embedder, lore_arena *arena, lore_prepared *prepared,
                         lore_error *err)
{
    lore_arena scratch;
    lore_arena_init(&scratch, lore_document_arena_cap(&config->limits, raw->bytes.len));
    lore_status status = lore_clean(raw, &config->limits, arena, &prepared->clean, err);
    if (status == LORE_OK) {
        status = cut_chunks(config, embedder, &scratch, arena, prepared, err);
    }
    if (status == LORE_OK) {
        status = make_embed_texts(embedder, arena, prepared, err);
    }
    status = lore_document_limit(status, scratch.is_over_cap ? &scratch : arena, err);
    lore_arena_destroy(&scratch);
    return status;
}

void lore_prepared_row(const lore_raw_document *raw, const lore_prepared *prepared, int32_t dim,
                       lore_document_row *row)
{
    for (int32_t i = 0; i < prepared->chunk_count; i++) {
        prepared->chunks[i].vector = prepared->vectors + (size_t)i * (size_t)dim;
    }
    *row = (lore_document_row){.id = prepared->id,
                               .source = raw->source,
                               .title = prepared->clean.title,
                               .url = raw->url,
                               .metadata = raw->metadata,
                               .media = lore_str_from(lore_media_name(raw->media)),
                               .text = prepared->clean.text,
                               .runs = prepared->clean.runs,
                               .run_count = prepared->clean.run_count,
                               .chunks = prepared->chunks,
                               .chunk_count = prepared->chunk_count};
    memcpy(row->hash, prepared->hash, sizeof row->hash);
}

/* ---- one document, now ---- */

/* Serialises write transactions. It is held over database I/O on purpose: that is what it orders,
 * and its holders take no other lock of ours that a waiter could hold. */
static pthread_mutex_t writer_lock = PTHREAD_MUTEX_INITIALIZER;

void lore_writer_acquire(void)
{
    int failure = pthread_mutex_lock(&writer_lock);
    LORE_ASSERT(failure == 0);
}

void lore_writer_release(void)
{
    int failure = pthread_mutex_unlock(&writer_lock);
    LORE_ASSERT(failure == 0);
}

static lore_status write_one(lore_index *index, lore_str collection, const lore_document_row *row,
                             bool *was_replaced, lore_error *err)
{
    lore_status status = lore_index_begin(index, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_index_create_collection(index, collection, err);
    if (status == LORE_OK) {
        status = lore_index_put_document(index, collection, row, was_replaced, err);
    }
    if (status != LORE_OK) {
        lore_index_rollback(index);
        return status;
    }
    status = lore_index_commit(index, err);
    lore_error why;
    if (status == LORE_OK && lore_index_publish(index, &why) != LORE_OK) {
        /* The document is committed and found through the tail; only derived files lag. */
        lore_log(LORE_LOG_WARN, "event=publish_failed reason=\"%s\"", why.message);
    }
    return status;
}

static bool is_cancelled(const lore_ingest_one_options *options)
{
    return options->is_cancelled != NULL && options->is_cancelled(options->self);
}

static lore_status embed_chunks(lore_embedder *embedder, const lore_ingest_one_options *options,
                                lore_prepared *prepared, lore_error *err)
{
    size_t dim = (size_t)lore_embedder_dim(embedder);
    lore_status status = LORE_OK;
    for (int32_t done = 0; status == LORE_OK && done < prepared->chunk_count;) {
        int32_t left = prepared->chunk_count - done;
        int32_t size = left < BATCH_CHUNKS ? left : BATCH_CHUNKS;
        status = is_cancelled(options)
                     ? lore_fail(err, LORE_ERR_CANCELLED, "cancelled; nothing is written")
                     : lore_embedder_encode(embedder, prepared->embed_texts + done, size,
                                            prepared->vectors + (size_t)done * dim, err);
        done += size;
    }
    return status;
}

static lore_status find_unchanged(lore_index *index, lore_str collection,
                                  const lore_prepared *prepared, bool *is_unchanged,
                                  lore_error *err)
{
    uint8_t stored[32];
    bool is_found = false;
    lore_status status =
        lore_index_document_hash(index, collection, prepared->id, stored, &is_found, err);
    *is_unchanged = status == LORE_OK && is_found && memcmp(stored, prepared->hash, 32) == 0;
    return status;
}

/* The writer's turn: somebody else may have written the same document since it was looked up. */
static lore_status write_changed(lore_index *index, const lore_ingest_one_options *options,
                                 lore_str collection, const lore_prepared *prepared,
                                 const lore_document_row *row, char *outcome, lore_error *err)
{
    bool is_unchanged = false, was_replaced = false;
    lore_status status = LORE_OK;
    if (options->begin_write != NULL) {
        status = options->begin_write(options->self, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    lore_writer_acquire();
    status = is_cancelled(options)
                 ? lore_fail(err, LORE_ERR_CANCELLED, "cancelled; nothing is written")
                 : find_unchanged(index, collection, prepared, &is_unchanged, err);
    if (status == LORE_OK && !is_unchanged) {
        status = write_one(index, collection, row, &was_replaced, err);
    }
    lore_writer_release();
    if (options->end_write != NULL) {
        options->end_write(options->self);
    }
    *outcome = is_unchanged ? 'u' : was_replaced ? 'r' : 'a';
    return status;
}

lore_status lore_ingest_one(lore_index *index, lore_embedder *embedder, const lore_config *config,
                            const lore_ingest_one_options *options, const lore_raw_document *raw,
                            lore_arena *arena, char *outcome, lore_str *id_out, lore_error *err)
{
    lore_prepared prepared = {0};
    lore_document_row row;
    bool is_unchanged = false;
    char found = 'u';
    lore_str collection = options->collection.len > 0 ? options->collection : LORE_STR("default");
    lore_raw_document known = *raw;
    known.media =
        raw->media != LORE_MEDIA_AUTO ? raw->media : lore_media_of(raw->source, raw->bytes);
    lore_status status = lore_identify(&known, config, embedder, arena, &prepared, err);
    if (status == LORE_OK) {
        status = find_unchanged(index, collection, &prepared, &is_unchanged, err);
    }
    if (status == LORE_OK && !is_unchanged) {
        status = lore_prepare(&known, config, embedder, arena, &prepared, err);
        if (status == LORE_OK) {
            status = embed_chunks(embedder, options, &prepared, err);
        }
        if (status == LORE_OK) {
            lore_prepared_row(&known, &prepared, lore_embedder_dim(embedder), &row);
            status = write_changed(index, options, collection, &prepared, &row, &found, err);
        }
    }
    if (status == LORE_OK) {
        *outcome = found;
        *id_out = prepared.id;
    }
    return status;
}
