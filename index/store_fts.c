/* What we add to SQLite's full-text search on every connection: the tokenizer `lore`, the ranking
 * lore_rank(table), and lore_allowed(rowid) for filters.
 *
 * The tokenizer is the walk of lexical.c; FTS5's own porter stemmer is put around it
 * (tokenize='porter lore'). A query sets what lore_rank and lore_allowed work with before it runs;
 * both read memory of the caller's, so nothing is copied into SQLite. */
#include "index/index_int.h"

#include <limits.h>
#include <sqlite3.h>

struct lore_fts {
    fts5_tokenizer
        porter; /* methods of FTS5's stemmer, and one of it over our walk, for questions */
    Fts5Tokenizer *stemmer;
    const lore_row_set *allowed; /* NULL: none */
    const lore_ranking *ranking;
    double average_length; /* of the table being ranked, 0: not asked for yet */
};

/* ---- the tokenizer ---- */

typedef int (*token_sink)(void *context, int flags, const char *token, int size, int start,
                          int end);

typedef struct token_walk {
    token_sink sink;
    void *context;
    bool is_query;
    int code;
} token_walk;

static bool pass_token(void *self, const lore_word *word)
{
    token_walk *walk = self;
    /* A pair stands at the place of its second character, so that it does not lengthen the document
     * for BM25. In questions pairs stand alone. */
    int flags = word->is_bigram && !walk->is_query ? FTS5_TOKEN_COLOCATED : 0;
    walk->code = walk->sink(walk->context, flags, word->text.ptr, (int)word->text.len,
                            (int)word->start, (int)word->end);
    return walk->code == SQLITE_OK;
}

static int tokenizer_create(void *self, const char **arguments, int count, Fts5Tokenizer **out)
{
    static char stateless;
    (void)self;
    (void)arguments;
    (void)count;
    *out = (Fts5Tokenizer *)&stateless;
    return SQLITE_OK;
}

static void tokenizer_delete(Fts5Tokenizer *tokenizer)
{
    (void)tokenizer;
}

static int tokenizer_run(Fts5Tokenizer *tokenizer, void *context, int flags, const char *text,
                         int size, token_sink sink)
{
    (void)tokenizer;
    token_walk walk = {sink, context, (flags & FTS5_TOKENIZE_QUERY) != 0, SQLITE_OK};
    lore_str input = {text, text == NULL ? 0 : (size_t)size};
    lore_status status = walk.is_query ? lore_words_each_query(input, pass_token, &walk, NULL)
                                       : lore_words_each(input, pass_token, &walk, NULL);
    return status == LORE_OK ? walk.code : SQLITE_NOMEM;
}

/* ---- lore_rank(table): BM25 ---- */

/* The words of the current row. FTS5 would look them up in a table of its own, with a statement a
 * row: nine tenths of the time of its bm25(). The caller has them in memory; only rows that it does
 * not know yet are looked up. */
static int row_length(const Fts5ExtensionApi *api, Fts5Context *fts, const lore_ranking *ranking,
                      int *length)
{
    *length = ranking->length_of(ranking->self, api->xRowid(fts));
    return *length >= 0 ? SQLITE_OK : api->xColumnSize(fts, -1, length);
}

static int average_length(const Fts5ExtensionApi *api, Fts5Context *context, lore_fts *fts)
{
    sqlite3_int64 rows = 0, words = 0;
    int code = SQLITE_OK;
    if (fts->average_length > 0) {
        return code;
    }
    code = api->xRowCount(context, &rows);
    if (code == SQLITE_OK) {
        code = api->xColumnTotalSize(context, -1, &words);
    }
    fts->average_length = rows > 0 && words > 0 ? (double)words / (double)rows : 1.0;
    return code;
}

/* sum over phrases of idf * f (k + 1) / (f + k (1 - b + b length / average)), f the occurrences
 * weighted by column; k and b as in FTS5's own (Robertson and Zaragoza 2009, "BM25 and beyond",
 * section 3). */
static void rank_function(const Fts5ExtensionApi *api, Fts5Context *row, sqlite3_context *context,
                          int count, sqlite3_value **values)
{
    static const double k = 1.2, b = 0.75;
    static const double weights[] = {2.0, 1.5, 1.0}; /* title, heading, body */
    lore_fts *fts = api->xUserData(row);
    double score = 0;
    int length = 0;
    (void)count;
    (void)values;
    LORE_ASSERT(fts->ranking != NULL);
    int code = row_length(api, row, fts->ranking, &length);
    if (code == SQLITE_OK) {
        code = average_length(api, row, fts);
    }
    double norm = k * (1 - b + b * (double)length / fts->average_length);
    int phrases = api->xPhraseCount(row);
    for (int i = 0; i < phrases && code == SQLITE_OK; i++) {
        Fts5PhraseIter at;
        int column = -1, offset = 0;
        double frequency = 0;
        code = api->xPhraseFirst(row, i, &at, &column, &offset);
        while (code == SQLITE_OK && column >= 0 && column < 3) {
            frequency += weights[column];
            api->xPhraseNext(row, &at, &column, &offset);
        }
        score += fts->ranking->inverse_frequency[i] * frequency * (k + 1) / (frequency + norm);
    }
    if (code == SQLITE_OK) {
        sqlite3_result_double(context, score);
    } else {
        sqlite3_result_error_code(context, code);
    }
}

void lore_fts_rank(lore_fts *fts, const lore_ranking *ranking)
{
    fts->ranking = ranking;
    fts->average_length = 0;
}

typedef struct term_walk {
    lore_term_visit visit;
    void *self;
} term_walk;

static int pass_term(void *context, int flags, const char *token, int size, int start, int end)
{
    (void)flags;
    term_walk *walk = context;
    lore_str term = {token, (size_t)size};
    return walk->visit(walk->self, term, (size_t)start, (size_t)end) ? SQLITE_OK : SQLITE_DONE;
}

lore_status lore_fts_terms(lore_fts *fts, lore_str question, lore_term_visit visit, void *self,
                           lore_error *err)
{
    if (question.len > INT_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "a question of %zu bytes is too long", question.len);
    }
    term_walk walk = {visit, self};
    int code = fts->porter.xTokenize(fts->stemmer, &walk, FTS5_TOKENIZE_DOCUMENT, question.ptr,
                                     (int)question.len, pass_term);
    if (code != SQLITE_OK && code != SQLITE_DONE) {
        return lore_fail(err, code == SQLITE_NOMEM ? LORE_ERR_NOMEM : LORE_ERR_IO,
                         "cannot read the words of the question: %s", sqlite3_errstr(code));
    }
    return LORE_OK;
}

/* ---- lore_allowed(rowid): is the row among those that a filter has let through ---- */

static void allowed_function(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    const lore_fts *fts = sqlite3_user_data(context);
    int64_t row = sqlite3_value_int64(values[0]);
    sqlite3_result_int(context, fts->allowed != NULL && lore_row_set_has(fts->allowed, row));
}

void lore_fts_allow(lore_fts *fts, const lore_row_set *rows)
{
    fts->allowed = rows;
}

/* ---- registering ---- */

static int find_fts5(sqlite3 *handle, fts5_api **api)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(handle, "SELECT fts5(?1)", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_bind_pointer(stmt, 1, (void *)api, "fts5_api_ptr", NULL);
    }
    if (code == SQLITE_OK) {
        (void)sqlite3_step(stmt);
        code = sqlite3_finalize(stmt);
    } else {
        (void)sqlite3_finalize(stmt);
    }
    return code == SQLITE_OK && *api == NULL ? SQLITE_NOMEM : code;
}

int lore_fts_open(void *connection, lore_fts **out)
{
    fts5_api *api = NULL;
    void *context = NULL;
    const char *inner[] = {"lore"};
    fts5_tokenizer ours = {tokenizer_create, tokenizer_delete, tokenizer_run};
    lore_fts *fts = lore_alloc_zero(1, sizeof *fts);
    if (fts == NULL) {
        return SQLITE_NOMEM;
    }
    *out = fts; /* from here on it is closed with the connection */
    int code = find_fts5(connection, &api);
    if (code == SQLITE_OK) {
        code = api->xCreateTokenizer(api, "lore", NULL, &ours, NULL);
    }
    if (code == SQLITE_OK) {
        code = api->xCreateFunction(api, "lore_rank", fts, rank_function, NULL);
    }
    if (code == SQLITE_OK) {
        code = api->xFindTokenizer(api, "porter", &context, &fts->porter);
    }
    if (code == SQLITE_OK) {
        code = fts->porter.xCreate(context, inner, 1, &fts->stemmer);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_create_function_v2(connection, "lore_allowed", 1,
                                          SQLITE_UTF8 | SQLITE_DIRECTONLY, fts, allowed_function,
                                          NULL, NULL, NULL);
    }
    return code;
}

void lore_fts_close(lore_fts *fts)
{
    if (fts == NULL) {
        return;
    }
    if (fts->stemmer != NULL) {
        fts->porter.xDelete(fts->stemmer);
    }
    lore_free(fts);
}
