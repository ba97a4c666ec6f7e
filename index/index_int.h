/* What the files of index/ share and nobody else sees.
 *
 * From the bottom: database.c, database_copy.c and store_fts.c fence SQLite; exact.c holds rows of
 * int8 vectors and scans them, resident.c searches copies of them on a device, rescore.c looks
 * again at what was found; checksum.c, derived_file.c, vec_file.c and ann_file.c keep them in
 * files; ann.c fences FAISS, which sorts them into lists, and ann_margin.c measures how many of
 * those to read; view.c is one collection's vectors at one moment; snapshot.c is all of them;
 * schema.c has the tables; store.c, transaction.c, document_rows.c and publish.c write, rebuild.c
 * in the background; listing.c, text_search.c and dense_search.c read.
 *
 * References: segments (but for their copies on a device), dead sets, ann indexes, views and
 * snapshots never change once somebody else can see them, and are counted. Counts are atomic: an
 * object is released by whichever thread is last. */
#ifndef LORE_INDEX_INT_H
#define LORE_INDEX_INT_H

#include "base/config.h"
#include "base/file.h"
#include "base/str.h"
#include "base/thread.h"
#include "index/lexical.h"
#include "index/row_set.h"
#include "index/snapshot.h"
#include "index/store.h"
#include "kernels/backend.h"

#include <assert.h>
#include <stdatomic.h>

enum {
    LORE_INDEX_PATH_CAP = 4096,
    LORE_COLLECTIONS_MAX = 1000, /* each is five tables, and every connection reads the schema */
    LORE_COLLECTION_NAME_MAX = 128,
    LORE_FILTER_VALUES_MAX = 1024 /* values in all "in" and "nin" lists of one filter */
};

/* ---- database.c: one SQLite connection, used by one thread at a time ---- */

typedef struct lore_db lore_db;
typedef struct lore_stmt lore_stmt;

/* Opens lore.db for writing (created) or reading, with store_fts.c added. */
LORE_MUST_USE lore_status lore_db_open(const char *path, bool is_writer, lore_db **db,
                                       lore_error *err);
void lore_db_close(lore_db *db);
/* One or more statements without parameters or rows. */
LORE_MUST_USE lore_status lore_db_exec(lore_db *db, const char *sql, lore_error *err);
/* Lets go of a transaction whatever state it is in; nothing happens without one. False where even
 * that fails (out of memory after a change of the schema): it can be tried again, or the connection
 * closed. */
bool lore_db_rollback(lore_db *db);
bool lore_db_in_transaction(const lore_db *db);
/* A statement that lives with the connection. sql must be a literal: its address is the key. Comes
 * reset. */
LORE_MUST_USE lore_status lore_db_statement(lore_db *db, const char *sql, lore_stmt **stmt,
                                            lore_error *err);
/* A statement of the caller's, to be freed. */
LORE_MUST_USE lore_status lore_stmt_new(lore_db *db, const char *sql, lore_stmt **stmt,
                                        lore_error *err);
void lore_stmt_free(lore_stmt *stmt);
/* Binding never fails at once; the first failure comes out of the next step. Bytes are borrowed
 * until reset. */
void lore_bind_int(lore_stmt *stmt, int index, int64_t value);
void lore_bind_float(lore_stmt *stmt, int index, double value); /* NaN binds NULL */
void lore_bind_text(lore_stmt *stmt, int index, lore_str value);
void lore_bind_blob(lore_stmt *stmt, int index, const void *data, size_t size_bytes);
/* *has_row false at the end, and then the statement is reset, as after a failure. */
LORE_MUST_USE lore_status lore_stmt_step(lore_stmt *stmt, bool *has_row, lore_error *err);
/* Step to the end, ignoring rows. */
LORE_MUST_USE lore_status lore_stmt_run(lore_stmt *stmt, lore_error *err);
void lore_stmt_reset(lore_stmt *stmt); /* accepts NULL */
/* Of the current row, from 0. Bytes are borrowed until the next step or reset. NULL gives 0, NaN,
 * "". */
int64_t lore_column_int(lore_stmt *stmt, int index);
double lore_column_float(lore_stmt *stmt, int index);
lore_str lore_column_bytes(lore_stmt *stmt, int index);
bool lore_column_is_null(lore_stmt *stmt, int index);
/* Part of a BLOB without reading what stands before it. out has room for size_bytes. */
LORE_MUST_USE lore_status lore_db_read_blob(lore_db *db, const char *table, const char *column,
                                            int64_t row, size_t offset, char *out,
                                            size_t size_bytes, lore_error *err);
/* The number that a statement without parameters gives; *value stays where it gives no row. sql is
 * a literal. */
LORE_MUST_USE lore_status lore_db_number(lore_db *db, const char *sql, int64_t *value,
                                         lore_error *err);
/* Whose database it is: PRAGMA application_id and user_version. */
typedef struct lore_db_identity {
    int64_t application, format;
    bool is_empty; /* nobody's yet: no table, no application */
} lore_db_identity;
LORE_MUST_USE lore_status lore_db_identify(lore_db *db, lore_db_identity *identity,
                                           lore_error *err);
/* Runs literals of one parameter, `id`, one after the other. */
LORE_MUST_USE lore_status lore_db_run_all(lore_db *db, const char *const *statements, size_t count,
                                          int64_t id, lore_error *err);
int64_t lore_db_last_row(const lore_db *db); /* id of the row that the last INSERT made */
/* Of a writing connection: bytes of the write-ahead log after the last commit. */
int64_t lore_db_log_bytes(const lore_db *db);
/* Move the log into the database: as far as readers let it (PASSIVE); all of it, so that the next
 * commit starts the log anew (RESTART); and cut the file to nothing (TRUNCATE). The last two give
 * up after wait_ms with LORE_ERR_BUSY. */
typedef enum lore_checkpoint {
    LORE_CHECKPOINT_PASSIVE,
    LORE_CHECKPOINT_RESTART,
    LORE_CHECKPOINT_TRUNCATE
} lore_checkpoint;
LORE_MUST_USE lore_status lore_db_checkpoint(lore_db *db, lore_checkpoint how, int32_t wait_ms,
                                             lore_error *err);

/* ---- store_fts.c: our part of SQLite's full-text search ---- */

typedef struct lore_fts lore_fts;
lore_fts *lore_db_fts(lore_db *db);
/* For database.c: adds it to a connection (a sqlite3 *). Gives SQLite's code; *fts is to be closed
 * in every case. */
LORE_MUST_USE int lore_fts_open(void *connection, lore_fts **fts);
void lore_fts_close(lore_fts *fts);

/* The terms of a text as the index holds them (folded, CJK characters and pairs, stemmed) with
 * their bytes in it. */
typedef bool (*lore_term_visit)(void *self, lore_str term, size_t start, size_t end);
LORE_MUST_USE lore_status lore_fts_terms(lore_fts *fts, lore_str question, lore_term_visit visit,
                                         void *self, lore_error *err);
/* How lore_rank(table) scores the rows of one MATCH: BM25, phrase i of the query with
 * inverse_frequency[i]. */
typedef struct lore_ranking {
    const double *inverse_frequency;
    int32_t (*length_of)(
        void *self,
        int64_t chunk); /* words of a chunk; rows come in ascending order; -1: unknown */
    void *self;
} lore_ranking;
void lore_fts_rank(lore_fts *fts,
                   const lore_ranking *ranking); /* borrowed until the next call; NULL: none */
void lore_fts_allow(lore_fts *fts, const lore_row_set *rows); /* borrowed; NULL: none */

/* ---- function_words.c ---- */

/* A copy of the question, byte for byte as long, with spaces where its words only ask or join
 * ("what is the", 什么时候). In the arena; ptr NULL: out of memory. */
lore_str lore_without_function_words(lore_str question, lore_arena *arena);

/* ---- lexical.c ---- */

/* The walk of lore_words_each for a question: of a CJK run of two or more characters only the
 * pairs. */
LORE_MUST_USE lore_status lore_words_each_query(lore_str text,
                                                bool (*visit)(void *self, const lore_word *word),
                                                void *self, lore_error *err);

/* ---- exact.c: rows of int8 vectors, in ascending order of chunk id ---- */

typedef struct lore_resident lore_resident;
typedef struct lore_segment {
    _Atomic int32_t references;
    int32_t dim;
    int64_t count;
    const int64_t *ids;
    const float *scales;
    const int32_t *lengths; /* words of the chunk in the full-text index, -1: unknown */
    const int8_t *rows;
    void *memory; /* where they lie, or NULL when the file below holds them */
    lore_map map;
    _Atomic(lore_resident *) resident; /* the copy on a device, NULL until there is one: set once,
                                          also when others see the segment, by resident.c */
} lore_segment;

/* Room for cap rows, to be filled through lore_segment_push before anybody else sees it. count
 * starts at 0. */
LORE_MUST_USE lore_status lore_segment_new(int64_t cap, int32_t dim, lore_segment **segment,
                                           lore_error *err);
lore_segment *lore_segment_acquire(lore_segment *segment);
void lore_segment_release(lore_segment *segment);
/* ids ascend. The row is quantised from an f32 vector (push) or taken from another segment (copy).
 */
void lore_segment_push(lore_segment *segment, int64_t id, int32_t length, const float *vector);
void lore_segment_copy(lore_segment *segment, const lore_segment *from, int64_t row);
int64_t lore_segment_find(const lore_segment *segment, int64_t id); /* -1: not here */
int64_t lore_segment_lower_bound(const lore_segment *segment,
                                 int64_t id); /* first row with ids[row] >= id */

/* Which rows of a segment are dead. NULL means none. */
typedef struct lore_dead {
    _Atomic int32_t references;
    int64_t count;
    uint64_t words[];
} lore_dead;
lore_dead *lore_dead_acquire(lore_dead *dead);
void lore_dead_release(lore_dead *dead);
static inline bool lore_dead_has(const lore_dead *dead, int64_t row)
{
    return dead != NULL && (dead->words[row >> 6] >> (row & 63) & 1) != 0;
}

/* A segment with its dead rows; owns one reference of each. */
typedef struct lore_part {
    lore_segment *segment;
    lore_dead *dead;
} lore_part;
static inline int64_t lore_part_live(const lore_part *part)
{
    return part->segment->count - (part->dead == NULL ? 0 : part->dead->count);
}
/* Marks chunk ids first .. first + count - 1 dead, in a fresh copy of part->dead that is not yet
 * shared. *is_own says whether part->dead already is such a copy. */
LORE_MUST_USE lore_status lore_part_kill(lore_part *part, int64_t first, int64_t count,
                                         bool *is_own, lore_error *err);
/* One segment of the live rows of several parts in order. */
LORE_MUST_USE lore_status lore_parts_merge(const lore_part *parts, int32_t count, int32_t dim,
                                           lore_segment **merged, lore_error *err);

/* The best candidates seen so far: a heap with the worst on top. Ties go to the lower chunk id. */
typedef struct lore_top {
    lore_candidate *items; /* [cap] */
    int32_t count, cap;
} lore_top;
void lore_top_offer(lore_top *top, int64_t chunk, float score);
void lore_top_sort(lore_top *top);  /* best first; ends the heap */
void lore_top_order(lore_top *top); /* items in any order become a heap again */

/* One query being scanned: scratch of a reader. */
typedef struct lore_scan {
    lore_queue *queue;
    int32_t dim;
    int8_t *query; /* [dim] */
    float query_scale;
    float *exact; /* [dim], the query as it was given */
    float *scores;
} lore_scan;
LORE_MUST_USE lore_status lore_scan_open(lore_scan *scan, lore_backend *backend, int32_t dim,
                                         lore_error *err);
void lore_scan_close(lore_scan *scan);
void lore_scan_set_query(lore_scan *scan, const float *query);
/* Scores of rows [begin, end) of a segment. end - begin <= LORE_SCAN_ROWS. */
enum { LORE_SCAN_ROWS = 16384 };
LORE_MUST_USE lore_status lore_scan_rows(lore_scan *scan, const lore_segment *segment,
                                         int64_t begin, int64_t end, lore_error *err);
/* Offer the live rows of a part whose ids are first_chunk or above; where allowed is not NULL only
 * those whose ids it holds. */
LORE_MUST_USE lore_status lore_scan_part(lore_scan *scan, const lore_part *part,
                                         int64_t first_chunk, const lore_row_set *allowed,
                                         lore_top *top, lore_error *err);

/* ---- rescore.c: the second look at what a scan has found ---- */

/* Give each candidate the product of the query set in the scan with its vector in the database (f16
 * widened, sums in f32). What is there no more keeps its score, and so do all where the vectors of
 * the database are not this encoder's any more. Outside of a transaction of db. */
LORE_MUST_USE lore_status lore_rescore(lore_db *db, const char *encoder, const lore_scan *scan,
                                       lore_candidate *items, int32_t count, lore_error *err);

/* ---- resident.c: copies of vector files on a device, and searches there ---- */

enum { LORE_RESIDENT_ROWS_MIN = 4096 }; /* fewer are scanned sooner than asked for */
typedef struct lore_device lore_device;
/* Starts the thread that copies; it does nothing until woken. Close also stops it, and comes when
 * all segments are freed; stop comes before the last snapshot goes. */
LORE_MUST_USE lore_status lore_device_open(lore_index *index, lore_backend *backend,
                                           lore_device **device, lore_error *err);
void lore_device_stop(lore_device *device);  /* accepts NULL */
void lore_device_close(lore_device *device); /* accepts NULL */
/* There is a new snapshot: copy what has no copy. Accepts NULL. */
void lore_device_wake(lore_device *device);
/* For tests and measurements: until no copy is wanted any more; false: deadline_ns passed. */
bool lore_device_wait(lore_device *device, int64_t deadline_ns);
/* As lore_scan_part from the first chunk on. False: nothing was offered, the processor must scan
 * (no device, no copy, few rows allowed, or the device failed). The query is set in the scan. */
bool lore_device_search(lore_device *device, const lore_part *part, const lore_scan *query,
                        const lore_row_set *allowed, lore_top *top);
void lore_resident_free(lore_resident *copy); /* accepts NULL */

/* ---- checksum.c ---- */

uint64_t lore_crc64(uint64_t crc, const void *data,
                    size_t size_bytes); /* formats.md §2; start with 0 */
/* The same for many pieces, with tables made once. */
typedef struct lore_crc64_tables {
    uint64_t table[8][256];
} lore_crc64_tables;
void lore_crc64_begin(lore_crc64_tables *tables);
uint64_t lore_crc64_add(const lore_crc64_tables *tables, uint64_t crc, const void *data,
                        size_t size_bytes);

/* ---- derived_file.c: files that can be made again ---- */

/* Begin "path.tmp", put sections front to back, each aligned; end writes the footer, syncs and
 * renames, or where `status` is a failure removes the file and gives that status. */
typedef struct lore_derived lore_derived;
LORE_MUST_USE lore_status lore_derived_begin(const char *path, lore_derived **file,
                                             lore_error *err);
LORE_MUST_USE lore_status lore_derived_put(lore_derived *file, const void *data, size_t size_bytes,
                                           lore_error *err);
LORE_MUST_USE lore_status lore_derived_align(lore_derived *file, lore_error *err);
LORE_MUST_USE lore_status lore_derived_end(lore_derived *file, lore_status status,
                                           int64_t *size_bytes, uint64_t *checksum,
                                           lore_error *err);
/* Maps the file after checking every byte of it. LORE_ERR_NOT_FOUND, LORE_ERR_CORRUPT. */
LORE_MUST_USE lore_status lore_derived_open(const char *path, uint64_t checksum, lore_map *map,
                                            lore_error *err);
LORE_MUST_USE lore_status lore_derived_damaged(const char *path, const char *what, lore_error *err);
/* For layouts: where a section of this size begins, moving *at behind it; the size of a file whose
 * last section ends at `at`. */
size_t lore_derived_section(size_t *at, size_t size_bytes);
size_t lore_derived_size(size_t at);

/* ---- vec_file.c ---- */

/* What the database says about the derived files of a collection. */
typedef struct lore_published {
    int64_t collection, generation; /* of the vector file; 0: none */
    int64_t sequence, chunk;        /* what it covers */
    int64_t count;
    uint64_t checksum;
    int64_t ann_size; /* of the inverted file; -1: there is none */
    uint64_t ann_checksum;
} lore_published;

/* Maps the file and checks every byte of it against `published`. LORE_ERR_NOT_FOUND,
 * LORE_ERR_CORRUPT. */
LORE_MUST_USE lore_status lore_vec_file_open(const char *path, const lore_published *published,
                                             int32_t dim, lore_segment **segment, lore_error *err);
/* Writes the live rows of the parts in order, crash-safely; fills published->count and ->checksum.
 */
LORE_MUST_USE lore_status lore_vec_file_write(const char *path, const lore_part *parts,
                                              int32_t part_count, int32_t dim,
                                              lore_published *published, lore_error *err);

/* ---- ann.c: FAISS sorts vectors into lists ---- */

enum {
    LORE_LISTS_MAX = 16384, /* one call of lore_scan_rows scores all centres */
    LORE_ANN_DEPTH = 50     /* candidates whose recall is looked after; retrieval wants as many */
};
static_assert((int)LORE_LISTS_MAX <= (int)LORE_SCAN_ROWS, "centres are scored in one call");

/* Asked now and then by what takes long; false for NULL. */
typedef struct lore_stop {
    bool (*is_wanted)(void *self);
    void *self;
} lore_stop;
static inline bool lore_stop_wanted(const lore_stop *stop)
{
    return stop->is_wanted != NULL && stop->is_wanted(stop->self);
}

typedef struct lore_row {
    const lore_segment *segment;
    int64_t row;
} lore_row;
void lore_row_widen(const lore_row *row, float *out); /* f32 [dim] */

typedef struct lore_lists {
    int32_t dim, list_count;
    int64_t row_count;
    lore_row *rows;        /* [row_count], chunk ids ascending; the segments are borrowed */
    int32_t *list_of;      /* [row_count] */
    int64_t *sizes;        /* [list_count] */
    lore_segment *centres; /* the mean of each list; ids are the numbers of the lists */
} lore_lists;
/* The live rows of the parts (one at least), sorted into lists of near ones by one thread in some
 * seconds per 100,000. LORE_ERR_CANCELLED, LORE_ERR_NOMEM, LORE_ERR_IO. */
LORE_MUST_USE lore_status lore_lists_new(const lore_part *parts, int32_t part_count, int32_t dim,
                                         const lore_stop *stop, lore_lists **lists,
                                         lore_error *err);
void lore_lists_free(lore_lists *lists); /* accepts NULL */

/* ---- ann_margin.c ---- */

/* How far the centre of a list may score below the LORE_ANN_DEPTH-th best for the list to be worth
 * reading. */
LORE_MUST_USE lore_status lore_lists_margin(const lore_lists *lists, const lore_part *parts,
                                            int32_t part_count, lore_backend *backend,
                                            const lore_stop *stop, float *margin, lore_error *err);

/* ---- ann_file.c: the inverted file ---- */

typedef struct lore_ann {
    _Atomic int32_t references;
    int64_t chunk; /* covers all chunk ids up to this one */
    float margin;
    lore_segment centres;  /* scales and rows only; parts of the map below, not counted */
    lore_segment rows;     /* in order of list, then of id; no lengths */
    const int64_t *starts; /* [lists + 1] first row of each list */
    lore_map map;
} lore_ann;
/* Crash-safely. */
LORE_MUST_USE lore_status lore_ann_write(const char *path, const lore_lists *lists,
                                         int64_t collection, int64_t chunk, float margin,
                                         int64_t *size_bytes, uint64_t *checksum, lore_error *err);
/* Maps the file and checks every byte of it against `published`. LORE_ERR_NOT_FOUND,
 * LORE_ERR_CORRUPT. */
LORE_MUST_USE lore_status lore_ann_open(const char *path, const lore_published *published,
                                        int32_t dim, lore_ann **ann, lore_error *err);
lore_ann *lore_ann_acquire(lore_ann *ann); /* accepts NULL, as release does */
void lore_ann_release(lore_ann *ann);

/* ---- view.c: one collection's vectors at one moment ---- */

typedef struct lore_vectors {
    _Atomic int32_t references;
    int64_t collection;
    char name[LORE_COLLECTION_NAME_MAX + 1];
    int64_t changed; /* last commit that touched the collection */
    int64_t chunks;  /* rows of the collection, with or without a vector */
    lore_published published;
    bool has_base;    /* parts[0] is the published file */
    bool is_damaged;  /* a vector file is published but could not be used: the writer rebuilds */
    lore_ann *ann;    /* of rows up to ann->chunk; NULL: none (yet), and in readers */
    lore_part *parts; /* ascending chunk ids throughout */
    int32_t part_count;
} lore_vectors;

/* One row of the table `collections`, as a refresh reads it. */
typedef struct lore_collection_state {
    char name[LORE_COLLECTION_NAME_MAX + 1];
    int64_t changed, chunks;
    lore_published published;
} lore_collection_state;

/* All of them in order of id, for the caller to free: statements are over before views are read. */
LORE_MUST_USE lore_status lore_collection_states(lore_db *db, lore_collection_state **states,
                                                 int32_t *count, lore_error *err);
lore_vectors *lore_vectors_acquire(lore_vectors *vectors);
void lore_vectors_release(lore_vectors *vectors);
/* From the vector file and the rows since. A file that cannot be used is an error, or where
 * may_rebuild all comes from the rows. `old`, where not NULL, is the view before: its inverted file
 * still holds. Inside a read transaction of db. */
LORE_MUST_USE lore_status lore_vectors_load(lore_index *index, lore_db *db,
                                            const lore_collection_state *state,
                                            const lore_vectors *old, bool may_rebuild,
                                            lore_vectors **vectors, lore_error *err);
/* The same view with what happened after commit `sequence` (when the highest chunk id was below
 * `next_chunk`) added. */
LORE_MUST_USE lore_status lore_vectors_advance(lore_index *index, lore_db *db,
                                               const lore_vectors *old,
                                               const lore_collection_state *state, int64_t sequence,
                                               int64_t next_chunk, lore_vectors **vectors,
                                               lore_error *err);
/* The same view with another inverted file, the one that `published` names, or none. */
LORE_MUST_USE lore_status lore_vectors_with_ann(const lore_vectors *old,
                                                const lore_published *published, lore_ann *ann,
                                                lore_vectors **vectors, lore_error *err);
int64_t lore_vectors_live(const lore_vectors *vectors);
int64_t lore_vectors_dead(const lore_vectors *vectors);
const lore_part *lore_vectors_find(const lore_vectors *vectors, int64_t chunk,
                                   int64_t *row); /* NULL: not here or dead */
void lore_index_vec_path(const lore_index *index, int64_t collection, int64_t generation,
                         char path[LORE_INDEX_PATH_CAP]);
void lore_index_ann_path(const lore_index *index, int64_t collection,
                         char path[LORE_INDEX_PATH_CAP]);

/* ---- snapshot.c ---- */

struct lore_snapshot {
    _Atomic int32_t references;
    lore_index *index;
    int64_t sequence;   /* last commit covered */
    int64_t next_chunk; /* chunk ids below are covered */
    int64_t chunks;
    lore_vectors **views; /* in order of collection id */
    int32_t view_count;
};

/* A connection with a queue and scratch, for one search at a time. */
typedef struct lore_reader {
    struct lore_reader *next;
    lore_db *db;
    lore_scan scan; /* opened when first needed: queue NULL until then */
} lore_reader;

/* How many rows of a collection hold a term, valid while the collection's last commit is `changed`.
 */
enum { LORE_TERM_COUNTS = 4096 };
typedef struct lore_term_count {
    uint64_t key; /* hash of stem and collection */
    int64_t changed, rows;
} lore_term_count;

/* Owns: everything. `lock` guards current, is_refreshing, is_stale, is_publishing, idle, the reader
 * counts, term_counts, filters and the rebuild_ flags; the writing fields belong to the writing
 * thread; the rest is constant after open. */
struct lore_index {
    char folder[LORE_INDEX_PATH_CAP - 128];
    char path[LORE_INDEX_PATH_CAP]; /* of lore.db */
    const lore_config *config;
    lore_backend *backend; /* of scans; its memory is the host's */
    lore_device *device;   /* NULL: none */
    bool is_writer;
    char *encoder;       /* fingerprint that the vectors must have, or NULL: any */
    _Atomic int32_t dim; /* 0 until the first encoder is known */
    int lock_fd;

    lore_lock lock;
    lore_snapshot *current;
    bool is_refreshing; /* one thread at a time brings the snapshot forward, without the lock */
    bool is_stale;      /* a commit happened whose refresh failed: the next acquire tries again */
    bool is_publishing; /* one thread at a time writes vector files and moves their marks */
    lore_reader *idle;
    int32_t idle_count, reader_count;
    lore_term_count term_counts[LORE_TERM_COUNTS]; /* direct-mapped cache */
    lore_filter_cache filters;

    /* rebuild.c */
    lore_thread rebuilder; /* started by the opening or the writing thread when first needed */
    bool rebuild_wanted, rebuild_publish, rebuild_busy;
    _Atomic bool rebuild_stopping; /* also read without the lock */

    /* the writing thread's */
    lore_db *writer;
    bool is_open;     /* a transaction of the caller's: between begin and commit or rollback */
    bool has_failed;  /* the open transaction must be rolled back */
    bool has_changes; /* it has something to commit */
    int64_t sequence, next_chunk;
    int64_t text_collection; /* whose full-text table the two statements below write */
    lore_stmt *text_insert, *text_remove;
};

LORE_MUST_USE lore_status lore_reader_take(lore_index *index, lore_reader **reader,
                                           lore_error *err);
void lore_reader_give(lore_index *index, lore_reader *reader); /* accepts NULL */
void lore_reader_close_all(lore_index *index);
/* Also opens the scratch of dense search. */
LORE_MUST_USE lore_status lore_reader_take_scan(lore_index *index, lore_reader **reader,
                                                lore_error *err);
/* Bring the current snapshot to the last commit. On failure the old one stays and is_stale is set.
 */
LORE_MUST_USE lore_status lore_index_refresh(lore_index *index, lore_error *err);
/* NULL: not in this snapshot. */
const lore_vectors *lore_snapshot_view(const lore_snapshot *snapshot, int64_t collection);
/* Give a collection's view another inverted file, the one that `published` names (NULL: none);
 * nothing where the collection is gone. Searches that run keep theirs. */
LORE_MUST_USE lore_status lore_index_replace_ann(lore_index *index, const lore_published *published,
                                                 lore_ann *ann, lore_error *err);
/* The views that options name, in their order. LORE_ERR_NOT_FOUND names an unknown one. */
LORE_MUST_USE lore_status lore_snapshot_select(lore_snapshot *snapshot,
                                               const lore_search_options *options,
                                               lore_arena *arena, lore_vectors ***views,
                                               int32_t *count, lore_error *err);

/* ---- transaction.c: the writing thread's ---- */

/* May the open transaction be written to? */
LORE_MUST_USE lore_status lore_transaction_check(const lore_index *index, lore_error *err);
/* After a write: the transaction has changes, or where status is a failure it can only be rolled
 * back. Gives status. */
LORE_MUST_USE lore_status lore_transaction_note(lore_index *index, lore_status status);
/* A row of `meta`: text, or where that is NULL the number. */
LORE_MUST_USE lore_status lore_meta_put(lore_db *db, lore_str key, const char *text, int64_t number,
                                        lore_error *err);
/* A row of `collections` and its full-text table. The name is checked and new. */
LORE_MUST_USE lore_status lore_collection_insert(lore_index *index, lore_str name, lore_error *err);
/* Let go of the statements on a full-text table: one alive would keep the table from being dropped.
 */
void lore_text_forget(lore_index *index);

/* ---- publish.c ---- */

/* Fold the tail of every collection that needs it through a writing connection without open
 * transaction, the caller's. */
LORE_MUST_USE lore_status lore_index_publish_through(lore_index *index, lore_db *db,
                                                     lore_error *err);
/* A long tail, many dead rows, or a damaged file. */
bool lore_vectors_need_publishing(const lore_vectors *view);
/* Remove derived files that belong to no collection's mark; at_open: also unfinished ones, when
 * nobody can be writing any. */
void lore_index_remove_strays(lore_index *index, bool at_open);

/* ---- rebuild.c: a thread that mends and makes derived files in the background ---- */

/* Look whether there is something to do, and wake (or start) the thread for it. From the opening or
 * the writing thread. At open it also publishes what needs it; later the writing thread does. A
 * thread that cannot start is tried again by the next call. */
void lore_rebuild_wake(lore_index *index, bool at_open);
/* Ends what runs, within a second; for closing. */
void lore_rebuild_stop(lore_index *index);
/* For tests and measurements: until the thread has nothing to do; false: deadline_ns passed. */
bool lore_rebuild_wait(lore_index *index, int64_t deadline_ns);

/* ---- filter.c ---- */

/* Chunk ids of documents that pass: `known` (or NULL) and those with chunks from from_chunk on.
 * Inside any transaction of db. */
LORE_MUST_USE lore_status lore_filter_rows(const lore_filter *filter, lore_db *db,
                                           int64_t collection, const lore_row_set *known,
                                           int64_t from_chunk, lore_row_set **set, lore_error *err);
LORE_MUST_USE lore_status lore_filter_key(const lore_filter *filter, lore_buf *key,
                                          lore_error *err);
/* The rows that pass, kept from before (by the key, the same for equal filters only) where the
 * collection's last commit was `changed`, and otherwise those of the transaction of db, or of one
 * of its own. For lore_row_set_release. */
LORE_MUST_USE lore_status lore_filter_set(lore_index *index, lore_db *db, const lore_filter *filter,
                                          int64_t collection, int64_t changed, lore_row_set **set,
                                          lore_error *err);

/* ---- listing.c ---- */

LORE_MUST_USE lore_status lore_collection_find(lore_db *db, lore_str name, int64_t *collection,
                                               lore_error *err);

#endif
