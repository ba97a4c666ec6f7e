/* Fuzz target of metadata filters: the first line of the input is a filter, the rest the metadata
 * of the only document.
 *
 * Property: a filter is taken or refused with a message. One that is taken runs as SQL without an
 * error, and lets the document through exactly when the definition in filter.c's essay, evaluated
 * here on the tree, says so. Numbers that differ in the last bits only are left undecided: SQLite
 * reads decimals in its own way. */
#include "base/json.h"
#include "index/index_int.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

typedef enum verdict { NO, YES, UNDECIDED } verdict;

static lore_limits limits(void)
{
    lore_config config;
    lore_config_default(&config);
    return config.limits;
}

/* A document table with one row, in memory; it lives as long as the process. */
static lore_db *database(void)
{
    static lore_db *db;
    if (db == NULL) {
        lore_error err = {.status = LORE_OK};
        lore_status status = lore_db_open(":memory:", true, &db, &err);
        LORE_ASSERT(status == LORE_OK);
        status = lore_db_exec(db,
                              "CREATE TABLE documents(collection INTEGER, metadata TEXT,"
                              "  first_chunk INTEGER, chunk_count INTEGER);"
                              "INSERT INTO documents VALUES(1,'',7,2)",
                              &err);
        LORE_ASSERT(status == LORE_OK);
    }
    return db;
}

static verdict not(verdict v)
{
    return v == UNDECIDED ? UNDECIDED : v == YES ? NO : YES;
}

static verdict compare_numbers(double a, double b, int *order)
{
    if (fabs(a - b) <= 1e-15 * fmax(fabs(a), fabs(b)) && memcmp(&a, &b, sizeof a) != 0) {
        return UNDECIDED;
    }
    *order = a < b ? -1 : a > b ? 1 : 0;
    return YES;
}

/* YES where both are of one kind, with their order. */
static verdict compare(const lore_json *stored, const lore_json *value, int *order)
{
    if (lore_json_is_string(stored) && lore_json_is_string(value)) {
        *order = lore_str_compare(lore_json_str(stored), lore_json_str(value));
        return YES;
    }
    if (lore_json_is_number(stored) && lore_json_is_number(value)) {
        return compare_numbers(lore_json_number(stored), lore_json_number(value), order);
    }
    *order = lore_json_bool(stored) == lore_json_bool(value) ? 0 : 1;
    return lore_json_is_bool(stored) && lore_json_is_bool(value) ? YES : NO;
}

static verdict is_among(const lore_json *stored, const lore_json *value, bool is_list)
{
    verdict found = NO;
    const lore_json *item = is_list ? lore_json_first(value) : value;
    while (item != NULL) {
        int order = 1;
        verdict comparable = compare(stored, item, &order);
        if (comparable == YES && order == 0) {
            return YES;
        }
        found = comparable == UNDECIDED ? UNDECIDED : found;
        item = is_list ? lore_json_next(item) : NULL;
    }
    return found;
}

static verdict evaluate(const lore_json *filter, const lore_json *metadata);

static verdict evaluate_all(const lore_json *filter, const lore_json *metadata, verdict decisive)
{
    verdict result = not(decisive);
    for (const lore_json *child = lore_json_first(lore_json_get(filter, "filters")); child != NULL;
         child = lore_json_next(child)) {
        verdict one = evaluate(child, metadata);
        if (one == decisive) {
            return decisive;
        }
        result = one == UNDECIDED ? UNDECIDED : result;
    }
    return result;
}

static verdict evaluate(const lore_json *filter, const lore_json *metadata)
{
    lore_str type = lore_json_str(lore_json_get(filter, "type"));
    if (lore_str_equal(type, LORE_STR("and")) || lore_str_equal(type, LORE_STR("or"))) {
        return evaluate_all(filter, metadata, type.len == 3 ? NO : YES);
    }
    lore_str key = lore_json_str(lore_json_get(filter, "key"));
    const lore_json *value = lore_json_get(filter, "value"), *stored = lore_json_first(metadata);
    while (stored != NULL && !lore_str_equal(lore_json_key(stored), key)) {
        stored = lore_json_next(stored);
    }
    bool is_list = lore_str_ends(type, LORE_STR("in"));
    if (is_list || lore_str_equal(type, LORE_STR("eq")) || lore_str_equal(type, LORE_STR("ne"))) {
        verdict among = is_among(stored, value, is_list);
        return type.ptr[0] == 'n' ? not(among) : among;
    }
    int order = 0;
    verdict comparable = compare(stored, value, &order);
    bool is_equal_enough = order == 0 && lore_str_ends(type, LORE_STR("e"));
    bool is_beyond = type.ptr[0] == 'g' ? order > 0 : order < 0;
    return comparable != YES ? comparable : is_equal_enough || is_beyond ? YES : NO;
}

static void store(lore_db *db, const lore_json *metadata)
{
    lore_buf text;
    lore_stmt *stmt = NULL;
    lore_error err;
    lore_buf_init(&text, 0);
    lore_status status = metadata == NULL ? LORE_OK : lore_json_print(metadata, &text, &err);
    LORE_ASSERT(status == LORE_OK);
    status = lore_db_statement(db, "UPDATE documents SET metadata=?1", &stmt, &err);
    LORE_ASSERT(status == LORE_OK);
    lore_bind_text(stmt, 1, metadata == NULL ? LORE_STR("{}") : lore_buf_str(&text));
    status = lore_stmt_run(stmt, &err);
    LORE_ASSERT(status == LORE_OK);
    lore_buf_destroy(&text);
}

static void run(const lore_filter *filter, const lore_json *tree, const lore_json *metadata)
{
    lore_db *db = database();
    lore_row_set *rows = NULL;
    lore_error err = {.status = LORE_OK};
    store(db, metadata);
    lore_status status = lore_filter_rows(filter, db, 1, NULL, 0, &rows, &err);
    if (status != LORE_OK) {
        fprintf(stderr, "%s\n", err.message);
    }
    LORE_ASSERT(status == LORE_OK);
    LORE_ASSERT(rows->count == 0 ||
                (rows->count == 2 && lore_row_set_has(rows, 7) && lore_row_set_has(rows, 8)));
    verdict expected = evaluate(tree, metadata);
    LORE_ASSERT(expected == UNDECIDED || (rows->count > 0) == (expected == YES));
    lore_row_set_release(rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_limits bounds;
    if (bounds.filter_nodes_max == 0) {
        bounds = limits();
    }
    int64_t start_ns = fuzz_cpu_ns();
    lore_str rest = {size == 0 ? "" : (const char *)data, size}, line = {"", 0};
    lore_json *tree = NULL, *metadata = NULL;
    lore_error err = {.status = LORE_OK};
    lore_arena arena;
    const lore_filter *filter = NULL;
    (void)lore_str_next_line(&rest, &line);
    lore_arena_init(&arena, 0);
    if (lore_json_parse(rest, 32, &metadata, &err) == LORE_OK && !lore_json_is_object(metadata)) {
        lore_json_free(metadata);
        metadata = NULL;
    }
    if (lore_json_parse(line, 32, &tree, &err) == LORE_OK) {
        lore_status status = lore_filter_parse(tree, &bounds, &arena, &filter, &err);
        if (status == LORE_OK) {
            run(filter, tree, metadata);
        } else {
            fuzz_check_refusal(status, &err);
            LORE_ASSERT(strncmp(err.message, "filter", 6) == 0);
        }
    }
    lore_json_free(tree);
    lore_json_free(metadata);
    lore_arena_destroy(&arena);
    fuzz_check_cost(start_ns, size);
    return 0;
}
