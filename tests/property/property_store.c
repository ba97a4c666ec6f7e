/* Random puts, replacements and deletions against a model: after each commit the full-text index
 * holds exactly the words of the documents that are there, the counters are right, nothing is
 * orphaned, and a transaction that was rolled back has left no trace. Seeded; the seed is printed.
 */
#include "tests/unit/index_fixture.h"

enum { DOCUMENTS = 24, WORDS = 40, WORDS_MAX = 30, STEPS_MAX = 12, CHUNKS_MAX = 4 };
#ifdef LORE_SANITIZED
enum { ROUNDS = 60 };
#else
enum { ROUNDS = 250 };
#endif

static const char *const COLLECTIONS[] = {"default", "other"};
enum { COLLECTION_COUNT = sizeof COLLECTIONS / sizeof COLLECTIONS[0] };

/* Stems, an accent that is folded away, and (below) Chinese words: two characters of which the
 * index makes three terms. No word shares a term with another. */
static const char *const NAMES[] = {"router", "cables", "reset", "café"};

typedef struct model_document {
    bool exists;
    uint64_t words; /* bit w: it holds word w */
    int32_t chunks;
} model_document;

typedef struct model {
    model_document documents[COLLECTION_COUNT][DOCUMENTS];
} model;

static void word_of(int word, char out[32])
{
    if (word % 5 < 4) {
        snprintf(out, 32, "%s%d", NAMES[word % 5], word);
        return;
    }
    for (int i = 0; i < 2; i++) {
        int c = 0x4E00 + 2 * word + i;
        snprintf(out + 3 * i, 4, "%c%c%c", 0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63));
    }
}

/* A document of up to CHUNKS_MAX chunks, some without a word. Title and heading count only where
 * there is a chunk. */
static lore_status put(lore_index *index, int collection, int number, uint64_t *random, model *m,
                       lore_error *err)
{
    static float vectors[CHUNKS_MAX][FIX_DIM];
    lore_chunk_row chunks[CHUNKS_MAX];
    char id[16], title[32], heading[32];
    lore_buf text;
    model_document made = {.exists = true};
    made.chunks = (int32_t)(lore_random_next(random) % (CHUNKS_MAX + 1));
    lore_buf_init(&text, 0);
    word_of((int)(lore_random_next(random) % WORDS), title);
    word_of((int)(lore_random_next(random) % WORDS), heading);
    for (int32_t i = 0; i < made.chunks; i++) {
        size_t start = text.len;
        for (uint64_t left = lore_random_next(random) % WORDS_MAX; left > 0; left--) {
            char word[32];
            int which = (int)(lore_random_next(random) % WORDS);
            word_of(which, word);
            lore_buf_printf(&text, "%s ", word);
            made.words |= UINT64_C(1) << which;
        }
        fix_vector(lore_random_next(random), vectors[i]);
        chunks[i] = (lore_chunk_row){start, text.len, lore_str_from(heading), vectors[i]};
    }
    for (int which = 0; which < WORDS && made.chunks > 0; which++) {
        char word[32];
        word_of(which, word);
        bool is_beside = strcmp(word, title) == 0 || strcmp(word, heading) == 0;
        made.words |= is_beside ? UINT64_C(1) << which : 0;
    }
    snprintf(id, sizeof id, "d%d", number);
    lore_document_row row = {.id = lore_str_from(id),
                             .title = lore_str_from(title),
                             .text = lore_buf_str(&text),
                             .chunks = chunks,
                             .chunk_count = made.chunks};
    uint64_t hash = lore_random_next(random);
    memcpy(row.hash, &hash, sizeof hash);
    lore_status status =
        lore_index_put_document(index, lore_str_from(COLLECTIONS[collection]), &row, NULL, err);
    lore_buf_destroy(&text);
    m->documents[collection][number] = made;
    return status;
}

static lore_status step(lore_index *index, uint64_t *random, model *m, lore_error *err)
{
    int collection = (int)(lore_random_next(random) % COLLECTION_COUNT);
    int number = (int)(lore_random_next(random) % DOCUMENTS);
    if (lore_random_next(random) % 3 > 0) {
        return put(index, collection, number, random, m, err);
    }
    char id[16];
    bool found = false;
    snprintf(id, sizeof id, "d%d", number);
    lore_status status = lore_index_delete_document(index, lore_str_from(COLLECTIONS[collection]),
                                                    lore_str_from(id), &found, err);
    CHECK(status != LORE_OK || found == m->documents[collection][number].exists);
    m->documents[collection][number] = (model_document){0};
    return status;
}

static int64_t number_of(lore_index *index, const char *sql)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    CHECK_OK(lore_stmt_new(index->writer, sql, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    int64_t value = lore_column_int(stmt, 0);
    lore_stmt_free(stmt);
    return value;
}

static void check_tables(lore_index *index, const model *m)
{
    lore_error err;
    for (int c = 0; c < COLLECTION_COUNT; c++) {
        int64_t chunks = 0, documents = 0;
        char sql[128];
        for (int d = 0; d < DOCUMENTS; d++) {
            documents += m->documents[c][d].exists;
            chunks += m->documents[c][d].chunks;
        }
        snprintf(sql, sizeof sql, "INSERT INTO text_%d(text_%d) VALUES('integrity-check')", c + 1,
                 c + 1);
        CHECK_OK(lore_db_exec(index->writer, sql, &err), &err);
        snprintf(sql, sizeof sql, "SELECT count(*) FROM text_%d_docsize", c + 1);
        CHECK_INT(number_of(index, sql), chunks);
        snprintf(sql, sizeof sql, "SELECT chunks FROM collections WHERE id=%d", c + 1);
        CHECK_INT(number_of(index, sql), chunks);
        snprintf(sql, sizeof sql, "SELECT documents FROM collections WHERE id=%d", c + 1);
        CHECK_INT(number_of(index, sql), documents);
    }
    CHECK_INT(number_of(index, "SELECT count(*) FROM chunks c LEFT JOIN documents d ON "
                               "d.id=c.document WHERE d.id IS NULL"),
              0);
    CHECK_INT(number_of(index, "SELECT count(*) FROM vectors v LEFT JOIN chunks c ON c.id=v.chunk "
                               "WHERE c.id IS NULL"),
              0);
    CHECK_INT(number_of(index, "SELECT count(*) FROM texts t LEFT JOIN documents d ON "
                               "d.id=t.document WHERE d.id IS NULL"),
              0);
}

/* The documents that a search for the word gives are those that hold it, no others. */
static void check_word(lore_index *index, const model *m, int collection, int which)
{
    int64_t chunks[DOCUMENTS * CHUNKS_MAX];
    char word[32];
    uint64_t found = 0, expected = 0;
    word_of(which, word);
    int32_t count =
        fix_text(index, COLLECTIONS[collection], word, NULL, chunks, NULL, DOCUMENTS * CHUNKS_MAX);
    for (int32_t i = 0; i < count; i++) {
        char id[32];
        int number = -1;
        fix_document_of(index, chunks[i], id, sizeof id);
        CHECK(sscanf(id, "d%d", &number) == 1);
        found |= UINT64_C(1) << number;
    }
    for (int d = 0; d < DOCUMENTS; d++) {
        bool holds = (m->documents[collection][d].words >> which & 1) != 0;
        expected |= holds ? UINT64_C(1) << d : 0;
    }
    CHECK_INT(found, expected);
}

TEST(full_text_follows)
{
    fixture f;
    lore_error err;
    static model now, next;
    uint64_t seed = (uint64_t)lore_clock_unix_ms(), random = seed;
    fprintf(stderr, "seed %" PRIu64 "\n", seed);
    memset(&now, 0, sizeof now);
    fix_init(&f, "follows");
    fix_open(&f, true);
    CHECK_OK(lore_index_create_collection(f.index, lore_str_from(COLLECTIONS[1]), &err), &err);
    for (int round = 0; round < ROUNDS; round++) {
        next = now;
        CHECK_OK(lore_index_begin(f.index, &err), &err);
        for (uint64_t steps = lore_random_next(&random) % STEPS_MAX; steps > 0; steps--) {
            CHECK_OK(step(f.index, &random, &next, &err), &err);
        }
        if (lore_random_next(&random) % 4 == 0) {
            lore_index_rollback(f.index);
        } else {
            CHECK_OK(lore_index_commit(f.index, &err), &err);
            now = next;
        }
        if (round % 40 == 39) {
            CHECK_OK(lore_index_publish(f.index, &err), &err);
            fix_close(&f);
            fix_open(&f, true);
        }
        check_tables(f.index, &now);
        for (int i = 0; i < 4; i++) {
            check_word(f.index, &now, (int)(lore_random_next(&random) % COLLECTION_COUNT),
                       (int)(lore_random_next(&random) % WORDS));
        }
    }
    fix_destroy(&f);
}

CHECK_MAIN(full_text_follows)
