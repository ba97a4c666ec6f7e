/* The power goes while the index writes, publishes and closes: whatever moment it is and whatever
 * of the unsynced writes the disk lost (journal.h), the folder opens within a second, all that was
 * acknowledged is there, and nothing is there in part (index_check.h). One recorded process is
 * played back many times; the seed is printed and LORE_SEED repeats it. */
#include "tests/fault/journal.h"

#include "base/log.h"
#include "tests/fault/index_check.h"
#include "tests/fault/sweep.h"
#include "tests/unit/index_fixture.h"

#include <sys/wait.h>

#ifdef SWEEP_EVERY
enum { LOSSES = 1000, ROUNDS = 90 };
#else
enum { LOSSES = 12, ROUNDS = 40 };
#endif
#ifdef LORE_SANITIZED
enum { OPEN_MS_MAX = 10000 };
#else
enum { OPEN_MS_MAX = 1000 };
#endif
enum { BATCH = 4, DOCUMENTS = 60, BATCH_CHUNKS = 24, DELETED_AFTER = 8 };

static const char long_text[] =
    "a text of some length, so that twenty-four pieces of it hold words worth searching for, "
    "again and again, in documents that replace one another while somebody pulls the plug";

/* Round r writes BATCH documents and deletes the third one of round r - DELETED_AFTER. */
static lore_status write_round(lore_index *index, int64_t round, lore_error *err)
{
    char id[16], text[512];
    bool found = false;
    lore_status status = lore_index_begin(index, err);
    for (int i = 0; i < BATCH && status == LORE_OK; i++) {
        snprintf(id, sizeof id, "d%d", (int)((round * BATCH + i) % DOCUMENTS));
        snprintf(text, sizeof text, "r%lldx %s", (long long)round, long_text);
        status = fix_put(index, "default", id, text, "", BATCH_CHUNKS,
                         (uint64_t)(round * 1000 + i * 100 + 1), NULL, err);
    }
    if (status == LORE_OK && round >= DELETED_AFTER) {
        snprintf(id, sizeof id, "d%d", (int)(((round - DELETED_AFTER) * BATCH + 2) % DOCUMENTS));
        status =
            lore_index_delete_document(index, LORE_STR("default"), lore_str_from(id), &found, err);
    }
    return status == LORE_OK ? lore_index_commit(index, err) : status;
}

/* The life that is recorded: a new folder, rounds with a publication now and then, a restart. */
static int write_all(fixture *f)
{
    lore_error err;
    for (int64_t round = 0; round < ROUNDS; round++) {
        if (round % (ROUNDS / 2) == 0) {
            fix_close(f);
            if (fix_try_open(f, true, "encoder-1", &err) != LORE_OK) {
                return 1;
            }
        }
        if (write_round(f->index, round, &err) != LORE_OK) {
            return 2;
        }
        journal_acknowledge(round);
        if (round % 6 == 5 && lore_index_publish(f->index, &err) != LORE_OK) {
            return 3;
        }
    }
    fix_close(f);
    return 0;
}

/* ---- what holds after a loss ---- */

/* Documents of a round that its word finds. */
static int32_t count_round(fixture *f, int64_t round)
{
    char word[32];
    int64_t chunks[8];
    snprintf(word, sizeof word, "r%lldx", (long long)round);
    return fix_text(f->index, "default", word, NULL, chunks, NULL, 8);
}

static void check_rounds(fixture *f, int64_t acknowledged)
{
    int64_t last = acknowledged;
    int32_t next = count_round(f, acknowledged + 1);
    CHECK(next == 0 || next == BATCH); /* written, but nobody was told */
    last += next > 0;
    CHECK_INT(count_round(f, last + 1), 0);
    int64_t first = last - DOCUMENTS / BATCH + 1; /* the rounds before are overwritten */
    for (int64_t round = first < 0 ? 0 : first; round <= last; round++) {
        CHECK_INT(count_round(f, round), round <= last - DELETED_AFTER ? BATCH - 1 : BATCH);
    }
}

static int64_t acknowledged_before(const journal *j, uint64_t cut)
{
    int64_t last = -1;
    for (uint64_t at = 0; at < cut;) {
        const journal_record *record = journal_next(j, &at);
        last = record->change == JOURNAL_ACK ? record->offset : last;
    }
    return last;
}

/* A cut between any two records, more often right behind an acknowledgement: there most is at
 * stake. */
static uint64_t choose_cut(const journal *j, uint64_t *random)
{
    int64_t records = 0, acknowledgements = 0;
    const journal_record *record = NULL;
    uint64_t at = 0;
    while ((record = journal_next(j, &at)) != NULL) {
        records++;
        acknowledgements += record->change == JOURNAL_ACK;
    }
    bool is_behind = lore_random_next(random) % 2 == 0;
    uint64_t wanted = lore_random_next(random) % (uint64_t)(is_behind ? acknowledgements : records);
    for (at = 0; (record = journal_next(j, &at)) != NULL;) {
        if ((!is_behind || record->change == JOURNAL_ACK) && wanted-- == 0) {
            break;
        }
    }
    return at;
}

static void lose_power(fixture *f, const journal *j, uint64_t *random, int64_t *slowest_ms)
{
    uint64_t cut = choose_cut(j, random);
    int64_t acknowledged = acknowledged_before(j, cut);
    sweep_remove_folder(f->folder);
    uint64_t seed = lore_random_next(random);
    fprintf(stderr, "  cut at %llu, seed %llu, %lld rounds acknowledged\n", (unsigned long long)cut,
            (unsigned long long)seed, (long long)acknowledged + 1);
    bool is_there = journal_play(j, cut, seed, false, f->folder);
    CHECK(is_there || acknowledged < 0);
    int64_t start_ns = lore_clock_ns();
    fix_open(f, true);
    int64_t took_ms = (lore_clock_ns() - start_ns) / 1000000;
    *slowest_ms = took_ms > *slowest_ms ? took_ms : *slowest_ms;
    CHECK_INT(index_check_all(f->index), 0);
    check_rounds(f, acknowledged);
    lore_error err; /* and the next life begins */
    CHECK_OK(write_round(f->index, 1000, &err), &err);
    CHECK_INT(count_round(f, 1000), BATCH);
    fix_close(f);
}

/* With a disk that syncs nothing the same checks must find something: does one of them? */
static bool is_lie_noticed(fixture *f, const journal *j, uint64_t seed)
{
    lore_error err;
    uint64_t cut = atomic_load(&j->used);
    int64_t acknowledged = acknowledged_before(j, cut);
    sweep_remove_folder(f->folder);
    if (!journal_play(j, cut, seed, true, f->folder) ||
        fix_try_open(f, true, "encoder-1", &err) != LORE_OK) {
        return true;
    }
    bool is_noticed = index_check_all(f->index) != 0 || count_round(f, acknowledged) != BATCH;
    fix_close(f);
    return is_noticed;
}

TEST(whenever_the_power_goes)
{
    fixture f;
    const char *given = getenv("LORE_SEED");
    uint64_t random = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)lore_clock_unix_ms();
    journal *j = journal_open(NULL);
    int code = 1;
    int64_t slowest_ms = 0;
    CHECK(j != NULL);
    fprintf(stderr, "LORE_SEED=%llu\n", (unsigned long long)random);
    fix_init(&f, "power");
    f.config.ann_min_vectors = 1000;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        journal_begin(j, f.folder);
        _exit(write_all(&f));
    }
    CHECK(waitpid(child, &code, 0) == child);
    CHECK_INT(code, 0);
    lore_log_set_sink(sweep_swallow, NULL);
    for (int i = 0; i < LOSSES; i++) {
        lose_power(&f, j, &random, &slowest_ms);
    }
    int noticed = 0;
    for (uint64_t seed = 0; seed < 8; seed++) {
        noticed += is_lie_noticed(&f, j, seed);
    }
    CHECK(noticed > 0);
    lore_log_set_sink(NULL, NULL);
    fprintf(stderr, "%d losses of power in %llu bytes of writes, opened in at most %lld ms\n",
            LOSSES, (unsigned long long)j->used, (long long)slowest_ms);
    CHECK(slowest_ms <= OPEN_MS_MAX);
    journal_close(j);
    fix_destroy(&f);
}

CHECK_MAIN(whenever_the_power_goes)
