/* One document up to the writer: who it is, whether it changed, its chunks, and what to embed.
 *
 * The hash covers all that decides what ends up in the index: the raw bytes and what came with
 * them, the settings of chunking, the encoder's window, and INGEST_VERSION, which must grow
 * whenever cleaning or chunking gives another result for the same input, so that the next run takes
 * every document again. */
#include "ingest/ingest_int.h"

#include "base/json.h"
#include "base/utf8.h"
#include "ingest/chunk.h"

#include <string.h>

#define INGEST_VERSION "lore-ingest-4"

enum {
    SPECIAL_TOKENS = 2,  /* what encoders put around a text */
    MARGIN_TOKENS = 4,   /* a chunk alone is tokenised a little differently than inside its text */
    TOKENS_PART_MIN = 4, /* the text keeps at least this part of the encoder's window (1/4) */
    ARENA_BYTES_PER_BYTE =
        16, /* text, runs, chunks, embed texts and vectors, and a tree for HTML */
    ID_CHARACTERS = 26,
    STEP_BYTES = 64 * 1024, /* of text tokenised between two looks at whether it is wanted */
    SEEK_BYTES = 16 * 1024, /* how far the end of a step is looked for */
    STEP_SECTIONS = 1024,
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

/* All that decides what a document becomes, but its bytes and what they are. */
static void add_settings(lore_sha256 *sha, const lore_raw_document *raw, const lore_config *config,
                         const lore_embedder *embedder)
{
    const int64_t settings[] = {config->chunk_tokens, config->chunk_overlap_sentences,
                                config->limits.document_bytes_max,
                                lore_embedder_tokens_max(embedder)};
    add_field(sha, raw->metadata);
    add_field(sha, raw->title);
    add_field(sha, raw->url);
    add_field(sha, raw->source);
    add_field(sha, (lore_str){(const char *)settings, sizeof settings});
}

lore_status lore_validators_join(const lore_raw_document *raw, const lore_config *config,
                                 const lore_embedder *embedder, lore_arena *arena,
                                 lore_str *validators, lore_error *err)
{
    lore_sha256 sha;
    uint8_t digest[32];
    uint64_t settings = 0;
    lore_sha256_init(&sha);
    add_field(&sha, LORE_STR(INGEST_VERSION));
    add_settings(&sha, raw, config, embedder);
    lore_sha256_final(&sha, digest);
    memcpy(&settings, digest, sizeof settings);
    *validators = lore_str_printf(arena, "%016llx\n" LORE_STR_FMT, (unsigned long long)settings,
                                  LORE_STR_ARG(raw->validators));
    return validators->ptr != NULL ? LORE_OK
                                   : lore_fail(err, LORE_ERR_NOMEM, "out of memory for an ETag");
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
    lore_sha256_init(&sha);
    add_field(&sha, LORE_STR(INGEST_VERSION));
    add_field(&sha, lore_str_from(lore_media_name(raw->media)));
    add_field(&sha, raw->bytes);
    add_settings(&sha, raw, config, embedder);
    lore_sha256_final(&sha, prepared->hash);
    return LORE_OK;
}

/* ---- chunks ---- */

static lore_status fail_interrupted(lore_error *err)
{
    return lore_fail(err, LORE_ERR_CANCELLED, "cancelled; nothing is written");
}

/* Tokens of the longest prefix any chunk of the document can get. */
static lore_status count_prefix(const lore_clean_document *clean, const lore_tokenizer *tokenizer,
                                const lore_interrupt *interrupt, lore_arena *scratch,
                                int32_t *tokens, lore_error *err)
{
    *tokens = 0;
    for (int32_t i = 0; i < clean->section_count; i++) {
        if (i % STEP_SECTIONS == STEP_SECTIONS - 1 && lore_is_interrupted(interrupt)) {
            return fail_interrupted(err);
        }
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

/* Where the step that begins at `at` ends: behind a line break, else before a single blank, where
 * every tokenizer begins anew, so that the tokens of the steps are those of the whole. In a word of
 * such a length it ends in the middle: a token more or less of what nobody reads, for memory and
 * time that do not grow with the word. */
static size_t step_end(lore_str text, size_t at)
{
    if (text.len - at <= STEP_BYTES + SEEK_BYTES) {
        return text.len;
    }
    size_t least = at + STEP_BYTES, most = least + SEEK_BYTES;
    const char *c = text.ptr;
    for (size_t end = least; end < most; end++) {
        if (c[end - 1] == '\n' && c[end] != ' ') {
            return end;
        }
    }
    for (size_t end = least; end < most; end++) {
        if (c[end] == ' ' && c[end - 1] != ' ' && c[end + 1] != ' ') {
            return end;
        }
    }
    while (((unsigned char)c[most] & 0xC0) == 0x80) {
        most--;
    }
    return most;
}

/* The starts of all tokens, step by step: a long document can be given up in between, and the
 * memory of its ids is that of a step. */
static lore_status find_tokens(const lore_tokenizer *tokenizer, lore_str text,
                               const lore_interrupt *interrupt, lore_arena *scratch,
                               lore_buf *starts, lore_error *err)
{
    lore_status status = LORE_OK;
    for (size_t at = 0; at < text.len && status == LORE_OK;) {
        lore_tokens tokens = {0};
        size_t end = step_end(text, at);
        lore_arena_reset(scratch);
        status = lore_is_interrupted(interrupt)
                     ? fail_interrupted(err)
                     : lore_tokenizer_encode(tokenizer, lore_str_slice(text, at, end),
                                             (lore_encode_options){0}, scratch, &tokens, err);
        for (int32_t i = 0; i < tokens.count; i++) {
            tokens.starts[i] += (uint32_t)at;
        }
        size_t bytes = (size_t)tokens.count * sizeof tokens.starts[0];
        lore_buf_append(starts, (lore_str){(const char *)tokens.starts, bytes});
        at = end;
    }
    if (status == LORE_OK && lore_buf_failed(starts)) {
        status =
            lore_fail(err, LORE_ERR_NOMEM, "out of memory for the tokens of %zu bytes", text.len);
    }
    return status;
}

static lore_status cut_chunks(const lore_config *config, const lore_embedder *embedder,
                              const lore_interrupt *interrupt, lore_arena *scratch,
                              lore_arena *arena, lore_prepared *prepared, lore_error *err)
{
    const lore_tokenizer *tokenizer = lore_embedder_tokenizer(embedder);
    int32_t prefix = 0, window = lore_embedder_tokens_max(embedder);
    lore_buf starts;
    lore_buf_init(&starts, 0);
    lore_status status =
        count_prefix(&prepared->clean, tokenizer, interrupt, scratch, &prefix, err);
    if (status == LORE_OK) {
        status = find_tokens(tokenizer, prepared->clean.text, interrupt, scratch, &starts, err);
    }
    if (status != LORE_OK) {
        goto out;
    }
    int32_t least = window / TOKENS_PART_MIN > 1 ? window / TOKENS_PART_MIN : 1;
    int32_t most = window - SPECIAL_TOKENS - MARGIN_TOKENS - prefix;
    lore_chunk_options options = {(int32_t)config->chunk_tokens,
                                  (int32_t)config->chunk_overlap_sentences,
                                  most > least ? most : least};
    prepared->token_count = (int32_t)(starts.len / sizeof(uint32_t)); /* text is below INT32_MAX */
    /* lore_buf memory comes from lore_realloc, which aligns to 16. */
    status = lore_chunk_document(&prepared->clean, (const uint32_t *)(const void *)starts.ptr,
                                 prepared->token_count, &options, arena, &prepared->chunks,
                                 &prepared->chunk_count, err);
    if (status == LORE_OK && prepared->chunk_count > config->limits.document_chunks_max) {
        status =
            lore_fail(err, LORE_ERR_LIMIT, "has %d chunks, over %lld (limits.document_chunks_max)",
                      prepared->chunk_count, (long long)config->limits.document_chunks_max);
    }
out:
    lore_buf_destroy(&starts);
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

/* What the document says of itself stands behind what came with it. */
static lore_status merge_metadata(const lore_raw_document *raw, const lore_limits *limits,
                                  lore_arena *arena, lore_prepared *prepared, lore_error *err)
{
    const struct {
        const char *key;
        lore_str value;
    } found[] = {{"author", prepared->clean.author},
                 {"date", prepared->clean.date},
                 {"language", prepared->clean.language}};
    lore_buf text;
    lore_json_writer writer;
    lore_buf_init(&text, 0);
    lore_json_write_begin(&writer, &text);
    lore_json_object(&writer, NULL);
    bool has_any = false;
    for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        if (found[i].value.len > 0) {
            lore_json_string(&writer, found[i].key, found[i].value);
            has_any = true;
        }
    }
    lore_json_end(&writer);
    lore_status status = LORE_OK;
    prepared->metadata = raw->metadata;
    if (has_any) {
        lore_str extra = lore_str_copy(arena, lore_buf_str(&text));
        bool has_memory = !lore_buf_failed(&text) && extra.ptr != NULL;
        status = has_memory ? lore_metadata_merge(raw->metadata, extra, limits, arena,
                                                  &prepared->metadata, err)
                            : lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata");
        if (status == LORE_ERR_LIMIT) { /* what came with it goes first, and alone if need be */
            prepared->metadata = raw->metadata;
            status = LORE_OK;
        }
    }
    lore_buf_destroy(&text);
    return status;
}

lore_status lore_prepare(const lore_raw_document *raw, const lore_config *config,
                         const lore_embedder *embedder, const lore_interrupt *interrupt,
                         lore_arena *arena, lore_prepared *prepared, lore_error *err)
{
    lore_arena scratch;
    lore_arena_init(&scratch, lore_document_arena_cap(&config->limits, raw->bytes.len));
    lore_status status = lore_clean(raw, &config->limits, interrupt, arena, &prepared->clean, err);
    if (status == LORE_OK) {
        status = merge_metadata(raw, &config->limits, arena, prepared, err);
    }
    if (status == LORE_OK && raw->validators.len > 0) {
        status = lore_validators_join(raw, config, embedder, arena, &prepared->validators, err);
    }
    if (status == LORE_OK) {
        status = cut_chunks(config, embedder, interrupt, &scratch, arena, prepared, err);
    }
    if (status == LORE_OK) {
        status = make_embed_texts(embedder, arena, prepared, err);
    }
    if (status == LORE_OK) {
        status = lore_sketch_text(prepared->clean.text, &prepared->sketch, err);
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
                               .metadata = prepared->metadata,
                               .media = lore_str_from(lore_media_name(raw->media)),
                               .validators = prepared->validators,
                               .text = prepared->clean.text,
                               .runs = prepared->clean.runs,
                               .run_count = prepared->clean.run_count,
                               .chunks = prepared->chunks,
                               .chunk_count = prepared->chunk_count,
                               .sketch = &prepared->sketch};
    memcpy(row->hash, prepared->hash, sizeof row->hash);
}

/* ---- one document, now ---- */

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
                     : lore_embedder_encode_bulk(embedder, prepared->embed_texts + done, size,
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

/* Everything before the write, on whatever thread it runs. */
typedef struct preparation {
    lore_index *index;
    lore_embedder *embedder;
    const lore_config *config;
    const lore_ingest_one_options *options;
    lore_str collection;
    const lore_raw_document *raw;
    lore_arena *arena;
    lore_prepared prepared;
    bool is_unchanged;
    lore_status status;
    lore_error error;
} preparation;

static void prepare_one(void *self)
{
    preparation *p = self;
    lore_error *err = &p->error;
    lore_config *own = NULL;
    p->status = lore_index_collection_config(p->index, p->collection, p->config, &own, err);
    const lore_config *config = own != NULL ? own : p->config;
    if (p->status == LORE_OK) {
        p->status = lore_identify(p->raw, config, p->embedder, p->arena, &p->prepared, err);
    }
    if (p->status == LORE_OK) {
        p->status = find_unchanged(p->index, p->collection, &p->prepared, &p->is_unchanged, err);
    }
    if (p->status == LORE_OK && !p->is_unchanged) {
        const lore_interrupt interrupt = {p->options->is_cancelled, p->options->self};
        p->status = lore_prepare(p->raw, config, p->embedder,
                                 p->options->is_cancelled != NULL ? &interrupt : NULL, p->arena,
                                 &p->prepared, err);
    }
    if (p->status == LORE_OK && !p->is_unchanged) {
        p->status = embed_chunks(p->embedder, p->options, &p->prepared, err);
    }
    lore_free(own);
}

/* The writer looks once more whether it changed: somebody else may have written the same document
 * meanwhile. */
static lore_status write_one(lore_writer *writer, const preparation *p, lore_ingest_result *result,
                             lore_error *err)
{
    lore_document_row row;
    const lore_apply_options patience = {.deadline_ns = p->options->deadline_ns,
                                         .self = p->options->self,
                                         .is_cancelled = p->options->is_cancelled};
    lore_prepared_row(p->raw, &p->prepared, lore_embedder_dim(p->embedder), &row);
    lore_change change = {.kind = LORE_CHANGE_PUT, .collection = p->collection, .document = &row};
    lore_status status = lore_writer_apply_one(writer, &change, &patience, err);
    if (status == LORE_OK && change.outcome != LORE_OUTCOME_NONE) {
        const bool is_new = change.outcome == LORE_OUTCOME_ADDED;
        *result = (lore_ingest_result){
            .fate = is_new ? LORE_FATE_ADDED : LORE_FATE_REPLACED,
            .chunks = p->prepared.chunk_count,
            .tokens = p->prepared.token_count,
            .text_bytes = (int64_t)p->prepared.clean.text.len,
            .is_near_duplicate = change.is_near_duplicate,
        };
    }
    return status;
}

lore_status lore_ingest_one(lore_writer *writer, lore_embedder *embedder, const lore_config *config,
                            const lore_ingest_one_options *options, const lore_raw_document *raw,
                            lore_arena *arena, lore_ingest_result *result, lore_error *err)
{
    lore_ingest_result found = {.fate = LORE_FATE_UNCHANGED};
    lore_raw_document known = *raw;
    known.media =
        raw->media != LORE_MEDIA_AUTO ? raw->media : lore_media_of(raw->source, raw->bytes);
    preparation p = {.index = lore_writer_index(writer),
                     .embedder = embedder,
                     .config = config,
                     .options = options,
                     .raw = &known,
                     .arena = arena};
    p.collection = options->collection.len > 0 ? options->collection : LORE_STR("default");
    if (options->background != NULL) {
        lore_background_run(options->background, prepare_one, &p);
    } else {
        prepare_one(&p);
    }
    if (p.status != LORE_OK) {
        return lore_fail(err, p.status, "%s", p.error.message);
    }
    lore_status status = p.is_unchanged ? LORE_OK : write_one(writer, &p, &found, err);
    if (status == LORE_OK) {
        found.id = p.prepared.id;
        *result = found;
    }
    return status;
}
