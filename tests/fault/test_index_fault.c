/* The index killed in the middle of commits and publications, and with files that cannot grow.
 * Whatever was acknowledged is there afterwards, whole; whatever was not is there whole or not at
 * all. Failures of single calls are in test_index_sweep.c, those of power in test_power_loss.c. */
#include "base/log.h"
#include "tests/fault/index_check.h"
#include "tests/unit/index_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

/* ---- kill -9 ---- */

enum { KILLS = 30, BATCH = 4, DOCUMENTS = 60, BATCH_CHUNKS = 24 };

static const char long_text[] =
    "a text of some length, so that twenty-four pieces of it hold words worth searching for, "
    "again and again, in documents that replace one another while somebody pulls the plug";

/* Round r writes documents (r * BATCH .. ) % DOCUMENTS with vectors of seed r * 1000 + i * 100. */
static bool write_round(lore_index *index, int64_t round, lore_error *err)
{
    if (lore_index_begin(index, err) != LORE_OK) {
        return false;
    }
    for (int i = 0; i < BATCH; i++) {
        char id[16], text[512];
        snprintf(id, sizeof id, "d%d", (int)((round * BATCH + i) % DOCUMENTS));
        snprintf(text, sizeof text, "r%lldx %s", (long long)round, long_text);
        if (fix_put(index, "default", id, text, "", BATCH_CHUNKS,
                    (uint64_t)(round * 1000 + i * 100 + 1), NULL, err) != LORE_OK) {
            return false;
        }
    }
    return lore_index_commit(index, err) == LORE_OK;
}

/* The child: rounds from `first` on, each acknowledged through the pipe, a publication now and
 * then, until killed. */
static void write_for_ever(fixture *f, int64_t first, int out)
{
    lore_error err;
    if (fix_try_open(f, true, "encoder-1", &err) != LORE_OK) {
        _exit(1);
    }
    for (int64_t round = first;; round++) {
        if (!write_round(f->index, round, &err) ||
            write(out, &round, sizeof round) != sizeof round) {
            _exit(2);
        }
        if (round % 5 == 4 && lore_index_publish(f->index, &err) != LORE_OK) {
            _exit(3);
        }
    }
}

/* Is a round in the index, whole? Of the last DOCUMENTS / BATCH rounds all documents are. */
static bool has_round(fixture *f, int64_t round)
{
    char word[32];
    int64_t chunks[8];
    float scores[8] = {0};
    snprintf(word, sizeof word, "r%lldx", (long long)round);
    int32_t found = fix_text(f->index, "default", word, NULL, chunks, NULL, 8);
    CHECK(found == 0 || found == BATCH);
    for (int i = 0; i < BATCH; i++) {
        for (int c = 0; c < BATCH_CHUNKS; c += 23) {
            uint64_t seed = (uint64_t)(round * 1000 + i * 100 + 1 + c);
            CHECK(fix_dense(f->index, "default", seed, NULL, chunks, scores, 1) == 1 || found == 0);
            CHECK((found > 0) == (scores[0] > .99f));
        }
    }
    return found > 0;
}

TEST(killed_at_any_moment)
{
    fixture f;
    uint64_t state = 4711;
    int64_t next = 0; /* the round after the last acknowledged one */
    fix_init(&f, "killed");
    f.config.ann_min_vectors = 1200;
    for (int kill_round = 0; kill_round < KILLS; kill_round++) {
        int acknowledged[2];
        CHECK(pipe(acknowledged) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(acknowledged[0]);
            write_for_ever(&f, next, acknowledged[1]);
        }
        close(acknowledged[1]);
        usleep((useconds_t)(2000 + lore_random_next(&state) % 100000));
        CHECK(kill(child, SIGKILL) == 0);
        int code = 0;
        CHECK(waitpid(child, &code, 0) == child);
        CHECK(WIFSIGNALED(code)); /* it was at work, not failed */
        int64_t round = 0;
        while (read(acknowledged[0], &round, sizeof round) == sizeof round) {
            next = round + 1;
        }
        close(acknowledged[0]);
        fix_open(&f, true);
        for (int64_t r = next - 1; r >= 0 && r > next - DOCUMENTS / BATCH + 1; r -= 3) {
            CHECK(has_round(&f, r));
        }
        next += has_round(&f, next) ? 1 : 0; /* committed, but killed before it could say so */
        CHECK(!has_round(&f, next));
        CHECK_INT(index_check_all(f.index), 0);
        fix_close(&f);
    }
    fprintf(stderr, "%d kills, %lld commits\n", KILLS, (long long)next);
    fix_destroy(&f);
}

/* ---- files that cannot grow ---- */

/* In a child with a limit on file size: writes fail as on a full disk, then the limit goes and all
 * is well. */
static int fill_up(fixture *f)
{
    lore_error err;
    struct rlimit limit = {1 << 20, RLIM_INFINITY};
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
        fix_try_open(f, true, "encoder-1", &err) != LORE_OK || !write_round(f->index, 0, &err) ||
        setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 1;
    }
    int64_t round = 1;
    while (round < 200 && write_round(f->index, round, &err)) {
        round++;
    }
    lore_index_rollback(f->index);
    if (round == 200 || err.status != LORE_ERR_IO || strstr(err.message, "lore.db") == NULL) {
        return 2;
    }
    limit.rlim_cur = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 3;
    }
    for (int64_t r = 0; r < round; r++) {
        if (r > round - DOCUMENTS / BATCH && !has_round(f, r)) {
            return 4;
        }
    }
    if (has_round(f, round) || !write_round(f->index, round, &err) || !has_round(f, round)) {
        return 5;
    }
    int32_t problems = index_check_all(f->index);
    lore_index_close(f->index);
    return problems == 0 ? 0 : 6;
}

TEST(files_that_cannot_grow)
{
    fixture f;
    int code = 1;
    fix_init(&f, "grow");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        lore_log_set_sink(swallow, NULL);
        _exit(setjmp(check_exit) == 0 ? fill_up(&f) : 9);
    }
    CHECK(waitpid(child, &code, 0) == child);
    CHECK_INT(WEXITSTATUS(code), 0);
    fix_destroy(&f);
}

CHECK_MAIN(killed_at_any_moment, files_that_cannot_grow)
