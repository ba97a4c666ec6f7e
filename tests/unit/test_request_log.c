/* Requests end up in log.db with their usage summed, questions only where asked for, the oldest go,
 * and neither a damaged file nor a full queue stops anybody. */
#include "base/log.h"
#include "index/request_log.h"
#include "tests/unit/index_fixture.h"

#include <unistd.h>

static char folder[256];

static lore_request_log *open_log(const char *name, int64_t rows_max, bool with_questions)
{
    lore_error err;
    lore_request_log *log = NULL;
    snprintf(folder, sizeof folder, "%s/%s", check_temp_dir(), name);
    CHECK_OK(lore_dir_make(folder, &err), &err);
    lore_request_log_options options = {folder, rows_max, with_questions};
    CHECK_OK(lore_request_log_open(&options, &log, &err), &err);
    return log;
}

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* The number that a query on the closed file gives. */
static int64_t number_of(const char *sql)
{
    lore_error err;
    lore_db *db = NULL;
    int64_t value = -1;
    CHECK_OK(lore_db_open(path_of("log.db"), false, &db, &err), &err);
    CHECK_OK(lore_db_number(db, sql, &value, &err), &err);
    lore_db_close(db);
    return value;
}

static lore_request_entry an_entry(const char *collection, int status)
{
    return (lore_request_entry){.id = LORE_STR("r_1"),
                                .time_ms = lore_clock_unix_ms(),
                                .route = LORE_STR("POST /query"),
                                .status = status,
                                .error = status >= 400 ? LORE_STR("invalid") : LORE_STR(""),
                                .mode = LORE_STR("answer"),
                                .is_refused = status == 200,
                                .total_ms = 12.5,
                                .prompt_tokens = 10,
                                .completion_tokens = 3,
                                .collection = lore_str_from(collection),
                                .question = LORE_STR("who asks?")};
}

/* The rows of usage, once the thread has written that many requests. */
static int32_t wait_for_usage(lore_request_log *log, int64_t requests, lore_arena *arena,
                              lore_usage **rows)
{
    lore_error err;
    int32_t count = 0;
    for (int attempt = 0; attempt < 500; attempt++) {
        int64_t sum = 0;
        lore_arena_reset(arena);
        CHECK_OK(lore_request_log_usage(log, 2, arena, rows, &count, &err), &err);
        for (int32_t i = 0; i < count; i++) {
            sum += (*rows)[i].requests;
        }
        if (sum >= requests) {
            return count;
        }
        lore_clock_sleep_ms(20);
    }
    CHECK_STOP("%" PRId64 " requests never came", requests);
}

TEST(requests_and_usage)
{
    lore_arena arena;
    lore_usage *rows = NULL;
    lore_arena_init(&arena, 0);
    lore_request_log *log = open_log("usage", 1000, false);
    lore_request_entry first = an_entry("a", 200), failed = an_entry("a", 400);
    lore_request_entry other = an_entry("b", 200), none = an_entry("a", 201);
    none.mode = (lore_str){NULL, 0}; /* no question: a request, but no usage */
    lore_request_log_push(log, &first);
    lore_request_log_push(log, &first);
    lore_request_log_push(log, &failed);
    lore_request_log_push(log, &other);
    lore_request_log_push(log, &none);
    CHECK_INT(wait_for_usage(log, 4, &arena, &rows), 2);
    CHECK_STR(rows[0].collection, "a");
    CHECK_INT(rows[0].day.len, 10);
    CHECK_INT(rows[0].requests, 3);
    CHECK_INT(rows[0].refused, 2);
    CHECK_INT(rows[0].failed, 1);
    CHECK_INT(rows[0].prompt_tokens, 30);
    CHECK_INT(rows[0].completion_tokens, 9);
    CHECK_INT(rows[1].requests, 1);
    CHECK_INT(lore_request_log_dropped(log), 0);
    lore_request_log_close(log);
    CHECK_INT(number_of("SELECT count(*) FROM requests"), 5);
    CHECK_INT(number_of("SELECT count(*) FROM requests WHERE question IS NOT NULL"), 0);
    CHECK_INT(number_of("SELECT count(*) FROM requests WHERE route='POST /query' AND total_ms=12.5 "
                        "AND request_id='r_1' AND time_ms > 0"),
              5);
    /* Goes on where it was; this time with questions. */
    log = open_log("usage", 1000, true);
    lore_request_log_push(log, &first);
    CHECK_INT(wait_for_usage(log, 5, &arena, &rows), 2);
    lore_request_log_close(log);
    CHECK_INT(number_of("SELECT count(*) FROM requests WHERE question='who asks?'"), 1);
    CHECK_INT(number_of("SELECT max(id) FROM requests"), 6);
    lore_arena_destroy(&arena);
}

/* No more than rows_max stay, the youngest. */
TEST(oldest_go)
{
    lore_request_log *log = open_log("oldest", 10, false);
    for (int i = 0; i < 40; i++) {
        lore_request_entry entry = an_entry("a", 200);
        entry.completion_tokens = i;
        lore_request_log_push(log, &entry);
    }
    lore_request_log_close(log);
    CHECK_INT(number_of("SELECT count(*) FROM requests"), 10);
    CHECK_INT(number_of("SELECT min(completion_tokens) FROM requests"), 30);
    CHECK_INT(number_of("SELECT sum(requests) FROM usage"), 40);
}

typedef struct heard {
    char text[4096];
} heard;

static void hear(void *self, const char *line)
{
    heard *h = self;
    size_t length = strlen(h->text);
    snprintf(h->text + length, sizeof h->text - length, "%s\n", line);
}

static int count_files(const char *prefix)
{
    lore_error err;
    lore_arena arena;
    lore_str *names = NULL;
    size_t count = 0;
    int found = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_dir_list(&arena, folder, 100, &names, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        found += lore_str_starts(names[i], lore_str_from(prefix));
    }
    lore_arena_destroy(&arena);
    return found;
}

/* Not a database at all, a database of somebody else's, damage inside: set aside, begun anew. */
TEST(damaged_files)
{
    static heard h;
    lore_error err;
    lore_db *db = NULL;
    lore_request_entry entry = an_entry("a", 200);
    lore_request_log *log = open_log("damaged", 1000, false);
    lore_request_log_close(log);
    CHECK_OK(
        lore_file_replace(path_of("log.db"), LORE_STR("this is no database, is it? no."), &err),
        &err);
    lore_log_set_sink(hear, &h);
    log = open_log("damaged", 1000, false);
    lore_request_log_push(log, &entry);
    lore_request_log_close(log);
    CHECK(strstr(h.text, "request_log_set_aside") != NULL);
    CHECK_INT(number_of("SELECT count(*) FROM requests"), 1);
    CHECK_INT(count_files("log.db.damaged-"), 1);
    CHECK(unlink(path_of("log.db")) == 0);
    CHECK_OK(lore_db_open(path_of("log.db"), true, &db, &err), &err);
    CHECK_OK(lore_db_exec(db, "CREATE TABLE t(a)", &err), &err);
    lore_db_close(db);
    log = open_log("damaged", 1000, false);
    lore_request_log_push(log, &entry);
    lore_request_log_close(log);
    CHECK_INT(number_of("SELECT count(*) FROM requests"), 1);
    CHECK_INT(count_files("log.db.damaged-"), 2);
    for (long at = 4096; at < 4096 + 64; at++) {
        fix_damage(path_of("log.db"), at);
    }
    log = open_log("damaged", 1000, false);
    lore_request_log_push(log, &entry);
    lore_request_log_close(log);
    lore_log_set_sink(NULL, NULL);
    CHECK_INT(number_of("SELECT count(*) FROM requests"), 1);
    CHECK_INT(count_files("log.db.damaged-"), 3);
}

/* What cannot be written is counted, and nobody waits for it. */
TEST(dropped)
{
    static heard h;
    lore_error err;
    lore_request_entry entry = an_entry("a", 200);
    lore_request_log *log = NULL;
    snprintf(folder, sizeof folder, "%s/dropped", check_temp_dir());
    CHECK_OK(lore_dir_make(path_of("log.db"), &err), &err); /* a folder is in its place */
    lore_log_set_sink(hear, &h);
    log = open_log("dropped", 1000, false);
    int64_t started_ns = lore_clock_ns();
    for (int i = 0; i < 5000; i++) {
        lore_request_log_push(log, &entry);
    }
    CHECK(lore_clock_ns() - started_ns < (int64_t)5000000000);
    while (lore_request_log_dropped(log) < 5000) {
        lore_clock_sleep_ms(20);
    }
    CHECK_INT(lore_request_log_dropped(log), 5000);
    lore_request_log_close(log);
    lore_log_set_sink(NULL, NULL);
    CHECK(strstr(h.text, "request_log_failed") != NULL);
    CHECK(rmdir(path_of("log.db")) == 0);
}

static lore_status log_once(void *self)
{
    lore_error err;
    lore_request_log *log = NULL;
    lore_request_log_options options = {folder, 1000, true};
    (void)self;
    lore_status status = lore_request_log_open(&options, &log, &err);
    if (status == LORE_OK) {
        lore_request_entry entry = an_entry("a", 200);
        lore_request_log_push(log, &entry);
    }
    lore_request_log_close(log);
    return status;
}

TEST(without_memory)
{
    static heard h;
    lore_error err;
    lore_request_log *log = open_log("memory", 1000, false);
    lore_request_log_close(log);
    CHECK_INT(log_once(NULL), LORE_OK);
    lore_log_set_sink(hear, &h);
    check_alloc_sweep(log_once, NULL);
    lore_log_set_sink(NULL, NULL);
    lore_thread_fail_at(1);
    lore_request_log_options options = {folder, 1000, true};
    CHECK_FAILS(lore_request_log_open(&options, &log, &err), LORE_ERR_NOMEM, &err, "lore-log");
    lore_thread_fail_at(0);
}

CHECK_MAIN(requests_and_usage, oldest_go, damaged_files, dropped, without_memory)
