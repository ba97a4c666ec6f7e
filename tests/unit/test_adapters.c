/* Proves of the adapters, with a source without files and this thread in the place of the engine's:
 * names and what is said of unknown ones; that the least recently used leave first on both levels,
 * pinned and used ones never; that a load holds nobody up, nor a failed one anything but those who
 * waited for it; that slots and memory outlive the steps that read them; that who finds no room has
 * its turn in spite of steady requests for what is in memory; replacing and unloading under leases;
 * each failing allocation. */
#include "tests/unit/adapter_source_fixture.h"

#include "base/clock.h"
#include "base/file.h"

#define SECOND_NS ((int64_t)1000000000)

typedef struct pool {
    source s;
    lore_adapters *adapters;
    lore_adapter_steps steps;
} pool;

static lore_limits limits_of(int64_t device_bytes, int64_t host_bytes)
{
    return (lore_limits){
        .adapters_max = 6, .adapter_bytes_max = device_bytes, .adapter_host_bytes_max = host_bytes};
}

static void pool_open(pool *p, int32_t slots, int64_t device_bytes, int64_t host_bytes)
{
    lore_error err;
    const lore_limits limits = limits_of(device_bytes, host_bytes);
    memset(p, 0, sizeof *p);
    const lore_adapter_source from = source_init(&p->s, slots);
    CHECK_OK(lore_adapters_new(&from, &limits, source_wake, &p->s, &p->adapters, &err), &err);
}

static void pool_close(pool *p)
{
    lore_adapters_free(p->adapters);
    source_destroy(&p->s);
}

static int64_t soon(void)
{
    return lore_clock_ns() + 20 * SECOND_NS;
}

#define PATIENT (&(lore_adapter_patience){.deadline_ns = soon()})

static lore_adapter_spec spec_of(const char *name, const char *folder)
{
    return (lore_adapter_spec){.name = lore_str_from(name), .folder = lore_str_from(folder)};
}

static void load(pool *p, const char *name, const char *folder)
{
    lore_error err;
    const lore_adapter_spec spec = spec_of(name, folder);
    CHECK_OK(lore_adapters_load(p->adapters, &spec, PATIENT, &err), &err);
}

static lore_adapter_version *lease(pool *p, const char *name)
{
    lore_error err;
    lore_adapter_version *version = NULL;
    CHECK_OK(lore_adapters_lease(p->adapters, lore_str_from(name), &version, &err), &err);
    return version;
}

static lore_status try_enter(pool *p, lore_adapter_version *version, int64_t arrived_ns,
                             int32_t *slot, lore_error *err)
{
    uint64_t serial = 0;
    lore_adapters_settle(p->adapters, p->steps);
    lore_status status = lore_adapters_enter(p->adapters, version, arrived_ns, slot, &serial, err);
    CHECK(status != LORE_OK || serial > 0);
    return status;
}

/* The slot, once it is there. */
static int32_t enter(pool *p, lore_adapter_version *version)
{
    lore_error err;
    int32_t slot = -1;
    const int64_t arrived_ns = lore_clock_ns();
    lore_status status = LORE_ERR_BUSY;
    while (status == LORE_ERR_BUSY) {
        status = try_enter(p, version, arrived_ns, &slot, &err);
        CHECK(lore_clock_ns() - arrived_ns < 20 * SECOND_NS);
    }
    CHECK_OK(status, &err);
    return slot;
}

/* One request from its submit to its end. Gives the value that it ran with. */
static int32_t ask(pool *p, const char *name)
{
    lore_adapter_version *version = lease(p, name);
    const int32_t value = p->s.slots[enter(p, version)]->value;
    p->steps.submitted++;
    p->steps.collected++;
    lore_adapters_leave(p->adapters, version, p->steps);
    lore_adapters_settle(p->adapters, p->steps);
    return value;
}

static lore_adapter_view view_of(pool *p, const char *name, bool is_leaving)
{
    lore_error err;
    lore_arena arena;
    lore_adapter_view *list = NULL, found = {0};
    int32_t count = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_adapters_list(p->adapters, &arena, &list, &count, &err), &err);
    for (int32_t i = 0; i < count; i++) {
        if (lore_str_equal(list[i].name, lore_str_from(name)) && list[i].is_leaving == is_leaving) {
            found = list[i];
            found.is_pinned = list[i].is_pinned;
        }
    }
    lore_arena_destroy(&arena);
    found.folder = (lore_str){NULL, 0};
    found.error = (lore_str){NULL, 0};
    return found;
}

static lore_adapter_state state_of(pool *p, const char *name)
{
    return view_of(p, name, false).state;
}

static lore_adapters_stats stats_of(pool *p)
{
    lore_adapters_stats stats;
    lore_adapters_get_stats(p->adapters, &stats);
    return stats;
}

static void wait_for_state(pool *p, const char *name, lore_adapter_state state)
{
    const int64_t deadline_ns = soon();
    while (state_of(p, name) != state) {
        CHECK(lore_clock_ns() < deadline_ns);
        lore_clock_sleep_ms(1);
    }
}

/* A folder with a configuration, so that it can be registered before it is read. */
static void make_folder(char folder[128], const char *name)
{
    char path[192];
    lore_error err;
    snprintf(folder, 128, "%s/%s", check_temp, name);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    CHECK_OK(lore_dir_make(folder, &err), &err);
    CHECK_OK(lore_file_replace(path, LORE_STR("{}"), &err), &err);
}

/* ---- names ---- */

TEST(names_are_checked)
{
    static const char *const BAD[] = {"", "a b", "a,b", "a=b", "a\"b", "a\nb", "\xff"};
    pool p;
    lore_error err;
    pool_open(&p, 2, 1000, 1000);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        const lore_adapter_spec spec = spec_of(BAD[i], "100:1");
        CHECK_FAILS(lore_adapters_load(p.adapters, &spec, PATIENT, &err), LORE_ERR_INVALID, &err,
                    "the name of an adapter");
    }
    CHECK_FAILS(lore_adapters_find(p.adapters, LORE_STR("law"), true, &err), LORE_ERR_NOT_FOUND,
                &err, "there is no adapter 'law', nor any other");
    load(&p, "polite/reply", "100:1");
    load(&p, "\xe4\xb8\xad\xe6\x96\x87", "100:2");
    CHECK_FAILS(lore_adapters_find(p.adapters, LORE_STR("law"), true, &err), LORE_ERR_NOT_FOUND,
                &err, "of 2 that there are: ");
    CHECK(strstr(err.message, "polite/reply") != NULL);
    CHECK_OK(lore_adapters_find(p.adapters, LORE_STR("polite/reply"), false, &err), &err);
    lore_adapter_spec spec = spec_of("polite/reply", "100:3");
    CHECK_FAILS(lore_adapters_load(p.adapters, &spec, PATIENT, &err), LORE_ERR_INVALID, &err,
                "is there already, from '100:1'");
    spec = spec_of("base-model", "100:3");
    CHECK_FAILS(lore_adapters_load(p.adapters, &spec, PATIENT, &err), LORE_ERR_INVALID, &err,
                "'base-model' is the decoder's own name");
    spec = spec_of("none", "no-such-folder");
    CHECK_FAILS(lore_adapters_add(p.adapters, &spec, &err), LORE_ERR_NOT_FOUND, &err,
                "no adapter_config.json");
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        load(&p, name, "100:1");
    }
    spec = spec_of("over", "100:1");
    CHECK_FAILS(lore_adapters_load(p.adapters, &spec, PATIENT, &err), LORE_ERR_LIMIT, &err,
                "limits.adapters_max is 6");
    CHECK_FAILS(lore_adapters_remove(p.adapters, LORE_STR("over"), PATIENT, &err),
                LORE_ERR_NOT_FOUND, &err, "'over'");
    pool_close(&p);
}

/* What is only registered is read when somebody asks for it. */
TEST(folders_wait_on_the_disk)
{
    pool p;
    lore_error err;
    pool_open(&p, 2, 1000, 1000);
    char folder[128];
    make_folder(folder, "5:9");
    lore_adapter_spec spec = spec_of("a", folder);
    CHECK_OK(lore_adapters_add(p.adapters, &spec, &err), &err);
    CHECK_FAILS(lore_adapters_add(p.adapters, &spec, &err), LORE_ERR_INVALID, &err, "already");
    CHECK_INT(state_of(&p, "a"), LORE_ADAPTER_DISK);
    CHECK_INT(atomic_load(&p.s.opens), 0);
    CHECK_OK(lore_adapters_find(p.adapters, LORE_STR("a"), true, &err), &err);
    wait_for_state(&p, "a", LORE_ADAPTER_FAILED); /* the source takes no such path */
    spec.is_replacing = true;
    spec.is_pinned = true;
    CHECK_OK(lore_adapters_add(p.adapters, &spec, &err), &err); /* pinned: read at once */
    wait_for_state(&p, "a", LORE_ADAPTER_FAILED);
    CHECK_INT(atomic_load(&p.s.opens), 2);
    pool_close(&p);
}

/* ---- budgets ---- */

TEST(the_least_recently_used_leave_first)
{
    pool p;
    pool_open(&p, 4, 250, 150);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "100:3");
    CHECK_INT(ask(&p, "a"), 1);
    CHECK_INT(ask(&p, "b"), 2);
    CHECK_INT(state_of(&p, "a"), LORE_ADAPTER_DEVICE);
    CHECK_INT(ask(&p, "a"), 1);
    CHECK_INT(ask(&p, "c"), 3); /* b goes: a was used since */
    CHECK_INT(state_of(&p, "a"), LORE_ADAPTER_DEVICE);
    CHECK(state_of(&p, "b") != LORE_ADAPTER_DEVICE);
    CHECK_INT(state_of(&p, "c"), LORE_ADAPTER_DEVICE);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(ask(&p, i % 2 == 0 ? "b" : "a"), i % 2 == 0 ? 2 : 1);
    }
    const lore_adapters_stats stats = stats_of(&p);
    CHECK_INT(stats.device_bytes, 200);
    CHECK(stats.host_bytes <= 250); /* the budget, and one that was just read */
    CHECK(stats.device_evictions >= 2);
    CHECK(stats.host_evictions >= 1);
    CHECK_INT(stats.failures, 0);
    CHECK_INT(stats.requests, 0);
    CHECK_INT(stats.by_state[LORE_ADAPTER_DEVICE], 2);
    const lore_adapter_view a = view_of(&p, "a", false);
    CHECK(a.used_ms > 0 && a.info.rank_max == 4 && a.info.modules == 2);
    pool_close(&p);
}

TEST(pinned_ones_stay)
{
    pool p;
    lore_error err;
    pool_open(&p, 4, 250, 1000);
    lore_adapter_spec pinned = spec_of("p", "150:9");
    pinned.is_pinned = true;
    CHECK_OK(lore_adapters_load(p.adapters, &pinned, PATIENT, &err), &err);
    CHECK_INT(state_of(&p, "p"), LORE_ADAPTER_DEVICE); /* before anybody asked */
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "big", "101:3");
    for (int i = 0; i < 6; i++) {
        CHECK_INT(ask(&p, i % 2 == 0 ? "a" : "b"), 1 + i % 2);
        CHECK_INT(state_of(&p, "p"), LORE_ADAPTER_DEVICE);
    }
    CHECK_INT(ask(&p, "p"), 9);
    lore_adapter_version *version = NULL; /* it can never fit beside the pinned one */
    lore_status status = lore_adapters_lease(p.adapters, LORE_STR("big"), &version, &err);
    int32_t slot = -1;
    while (status == LORE_OK &&
           (status = try_enter(&p, version, 0, &slot, &err)) == LORE_ERR_BUSY) {
        status = LORE_OK;
    }
    CHECK_FAILS(status, LORE_ERR_LIMIT, &err, "pinned ones have 150");
    CHECK(strstr(err.message, "adapter 'big'") != NULL);
    if (version != NULL) {
        lore_adapters_release(p.adapters, version);
    }
    CHECK_INT(ask(&p, "a"), 1); /* and nobody else is harmed */
    pinned = spec_of("q", "150:9");
    pinned.is_pinned = true;
    CHECK_FAILS(lore_adapters_load(p.adapters, &pinned, PATIENT, &err), LORE_ERR_LIMIT, &err,
                "'q'");
    CHECK_FAILS(lore_adapters_find(p.adapters, LORE_STR("q"), false, &err), LORE_ERR_NOT_FOUND,
                &err, "'q'");
    CHECK_OK(lore_adapters_remove(p.adapters, LORE_STR("p"), PATIENT, &err), &err);
    CHECK_INT(ask(&p, "big"), 3); /* now there is room */
    pool_close(&p);
}

/* The budget is larger than what the device has: what it has not is no room. */
TEST(a_full_device_is_no_room)
{
    pool p;
    lore_error err;
    pool_open(&p, 4, 1000, 1000);
    p.s.device_cap = 220;
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "100:3");
    for (int i = 0; i < 9; i++) {
        const char name[] = {(char)('a' + i % 3), '\0'};
        CHECK_INT(ask(&p, name), 1 + i % 3);
    }
    load(&p, "big", "221:4");
    lore_adapter_version *version = lease(&p, "big");
    int32_t slot = -1;
    lore_status status = LORE_ERR_BUSY;
    while (status == LORE_ERR_BUSY) {
        status = try_enter(&p, version, 0, &slot, &err);
    }
    CHECK_FAILS(status, LORE_ERR_LIMIT, &err, "adapter 'big': it takes 221 bytes");
    lore_adapters_release(p.adapters, version);
    CHECK_INT(ask(&p, "a"), 1);
    pool_close(&p);
    pool_open(&p, 4, 1000, 1000);
    p.s.device_cap = 50;
    load(&p, "a", "100:1");
    version = lease(&p, "a");
    for (status = LORE_ERR_BUSY; status == LORE_ERR_BUSY;) {
        status = try_enter(&p, version, 0, &slot, &err);
    }
    CHECK_FAILS(status, LORE_ERR_NOMEM, &err, "the device is full");
    lore_adapters_release(p.adapters, version);
    pool_close(&p);
}

/* ---- waiting ---- */

static bool is_gone(void *self)
{
    (void)self;
    return true;
}

TEST(a_load_holds_nobody_up)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 4, 1000, 1000);
    load(&p, "a", "100:1");
    CHECK_INT(ask(&p, "a"), 1);
    load(&p, "b", "100:2");
    wait_for_state(&p, "b", LORE_ADAPTER_DEVICE);
    char folder[128];
    make_folder(folder, "slow");
    lore_adapter_spec spec = spec_of("slow", folder);
    CHECK_OK(lore_adapters_add(p.adapters, &spec, &err), &err);
    source_hold(&p.s, true);
    p.s.is_mended = true; /* takes any path */
    lore_adapter_version *slow = lease(&p, "slow");
    while (atomic_load(&p.s.opens) < 3) {
        lore_clock_sleep_ms(1); /* it has begun with the lease */
    }
    CHECK_INT(state_of(&p, "slow"), LORE_ADAPTER_LOADING);
    CHECK_INT(try_enter(&p, slow, 0, &slot, &err), LORE_ERR_BUSY);
    CHECK_INT(ask(&p, "a"), 1);
    CHECK_INT(ask(&p, "b"), 2);
    const lore_adapter_patience short_of_time = {.deadline_ns = lore_clock_ns() + SECOND_NS / 50};
    spec = spec_of("later", "100:5"); /* its deadline passes in the line */
    CHECK_FAILS(lore_adapters_load(p.adapters, &spec, &short_of_time, &err), LORE_ERR_TIMEOUT, &err,
                "adapter 'later' is not loaded");
    const lore_adapter_patience gone = {.is_gone = is_gone};
    CHECK_FAILS(lore_adapters_load(p.adapters, &spec, &gone, &err), LORE_ERR_CANCELLED, &err,
                "adapter 'later' is not loaded: nobody waits");
    source_hold(&p.s, false);
    CHECK(enter(&p, slow) >= 0);
    lore_adapters_leave(p.adapters, slow, p.steps);
    CHECK_FAILS(lore_adapters_find(p.adapters, LORE_STR("later"), false, &err), LORE_ERR_NOT_FOUND,
                &err, "later");
    pool_close(&p);
}

/* Room that is in use is not taken: the third waits until the first has ended and no step in flight
 * has rows of it. */
TEST(memory_outlives_the_steps_that_read_it)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 4, 200, 1000);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "100:3");
    lore_adapter_version *a = lease(&p, "a"), *b = lease(&p, "b");
    const int32_t slot_a = enter(&p, a);
    (void)enter(&p, b);
    p.steps = (lore_adapter_steps){.submitted = 5, .collected = 3};
    lore_adapter_version *c = lease(&p, "c");
    lore_clock_sleep_ms(50);
    CHECK_INT(try_enter(&p, c, lore_clock_ns(), &slot, &err), LORE_ERR_BUSY);
    lore_adapters_leave(p.adapters, a, p.steps);
    p.steps = (lore_adapter_steps){.submitted = 6, .collected = 4};
    lore_clock_sleep_ms(50);
    CHECK_INT(try_enter(&p, c, lore_clock_ns(), &slot, &err), LORE_ERR_BUSY);
    CHECK_INT(p.s.slots[slot_a]->value, 1); /* step 5 reads it */
    p.steps.collected = 5;
    CHECK_INT(p.s.slots[enter(&p, c)]->value, 3);
    CHECK(state_of(&p, "a") != LORE_ADAPTER_DEVICE);
    lore_adapters_leave(p.adapters, b, p.steps);
    lore_adapters_leave(p.adapters, c, p.steps);
    pool_close(&p);
}

/* Of two slots, with three adapters in memory; one that comes back while its last step is in flight
 * keeps its slot. */
TEST(slots_are_used_again)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 2, 1000, 1000);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "100:3");
    lore_adapter_version *a = lease(&p, "a"), *b = lease(&p, "b"), *c = lease(&p, "c");
    const int32_t slot_a = enter(&p, a);
    (void)enter(&p, b);
    wait_for_state(&p, "c", LORE_ADAPTER_DEVICE);
    CHECK_INT(try_enter(&p, c, lore_clock_ns(), &slot, &err), LORE_ERR_BUSY);
    p.steps.submitted = 1;
    lore_adapters_leave(p.adapters, a, p.steps);
    a = lease(&p, "a");
    CHECK_INT(enter(&p, a), slot_a);
    lore_adapters_leave(p.adapters, a, p.steps);
    p.steps.collected = 1;
    CHECK_INT(enter(&p, c), slot_a);
    /* Who has waited for long for a slot goes before what came later. */
    const int64_t long_ago = lore_clock_ns() - 2 * LORE_ADAPTER_PATIENCE_NS;
    lore_adapter_version *again = lease(&p, "b");
    a = lease(&p, "a");
    CHECK_INT(try_enter(&p, a, long_ago, &slot, &err), LORE_ERR_BUSY);
    uint64_t serial = 0;
    CHECK_INT(lore_adapters_enter(p.adapters, again, lore_clock_ns(), &slot, &serial, &err),
              LORE_ERR_BUSY);
    lore_adapters_leave(p.adapters, c, p.steps);
    CHECK_INT(enter(&p, a), slot_a);
    (void)enter(&p, again);
    lore_adapters_leave(p.adapters, a, p.steps);
    lore_adapters_leave(p.adapters, b, p.steps);
    lore_adapters_leave(p.adapters, again, p.steps);
    pool_close(&p);
}

/* Steady requests for what is in memory: one that finds no room has its turn, since it is late, and
 * so has what had to make room for it. */
TEST(nobody_is_kept_out_for_ever)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 4, 100, 1000);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    lore_adapter_version *running = lease(&p, "a");
    (void)enter(&p, running);
    const int64_t begin_ns = lore_clock_ns();
    lore_adapter_version *b = lease(&p, "b");
    lore_adapter_version *waiting = NULL;
    while (waiting == NULL) { /* of a, one after the other, each before the last one ends */
        lore_adapter_version *next = lease(&p, "a");
        CHECK(try_enter(&p, b, begin_ns, &slot, &err) == LORE_ERR_BUSY);
        if (try_enter(&p, next, lore_clock_ns(), &slot, &err) == LORE_OK) {
            lore_adapters_leave(p.adapters, running, p.steps);
            running = next;
        } else {
            waiting = next;
        }
        CHECK(lore_clock_ns() - begin_ns < 20 * SECOND_NS);
    }
    CHECK(lore_clock_ns() - begin_ns >= LORE_ADAPTER_PATIENCE_NS);
    lore_adapters_leave(p.adapters, running, p.steps);
    CHECK_INT(p.s.slots[enter(&p, b)]->value, 2); /* although somebody waits for a */
    lore_adapters_leave(p.adapters, b, p.steps);
    CHECK_INT(p.s.slots[enter(&p, waiting)]->value, 1);
    lore_adapters_leave(p.adapters, waiting, p.steps);
    pool_close(&p);
}

/* The same of one that needs the room of two, for both of which others wait. */
TEST(a_large_one_has_its_turn)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 4, 200, 1000);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "200:3");
    lore_adapter_version *running[2], *waiting[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        running[i] = lease(&p, i == 0 ? "a" : "b");
        (void)enter(&p, running[i]);
    }
    const int64_t begin_ns = lore_clock_ns();
    lore_adapter_version *c = lease(&p, "c");
    while (waiting[0] == NULL || waiting[1] == NULL) {
        for (int i = 0; i < 2; i++) {
            if (waiting[i] != NULL) {
                continue;
            }
            lore_adapter_version *next = lease(&p, i == 0 ? "a" : "b");
            if (try_enter(&p, next, lore_clock_ns(), &slot, &err) == LORE_OK) {
                lore_adapters_leave(p.adapters, running[i], p.steps);
                running[i] = next;
            } else {
                waiting[i] = next;
            }
        }
        CHECK(lore_clock_ns() - begin_ns < 20 * SECOND_NS);
    }
    for (int i = 0; i < 2; i++) {
        lore_adapters_leave(p.adapters, running[i], p.steps);
        lore_adapters_settle(p.adapters, p.steps);
        for (int k = 0; k < 2; k++) { /* neither comes back before c */
            CHECK_INT(try_enter(&p, waiting[k], lore_clock_ns(), &slot, &err), LORE_ERR_BUSY);
        }
        lore_clock_sleep_ms(60);
    }
    CHECK_INT(p.s.slots[enter(&p, c)]->value, 3);
    lore_adapters_leave(p.adapters, c, p.steps);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(p.s.slots[enter(&p, waiting[i])]->value, 1 + i);
        lore_adapters_leave(p.adapters, waiting[i], p.steps);
    }
    pool_close(&p);
}

/* One that was placed long ago and never asked for gives way to a late one, although a request for
 * it comes then, which waits for the late one. Requests for a pinned one need not. */
TEST(what_was_placed_for_nobody_gives_way)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    lore_adapter_spec pinned = spec_of("p", "100:4");
    pinned.is_pinned = true;
    pool_open(&p, 4, 300, 1000);
    CHECK_OK(lore_adapters_load(p.adapters, &pinned, PATIENT, &err), &err);
    load(&p, "a", "100:1");
    load(&p, "c", "200:3");
    lore_adapter_version *a = lease(&p, "a");
    (void)enter(&p, a);
    load(&p, "b", "100:2");
    wait_for_state(&p, "b", LORE_ADAPTER_DEVICE);
    lore_adapter_version *c = lease(&p, "c");
    lore_clock_sleep_ms(2 * LORE_ADAPTER_PATIENCE_NS / 1000000);
    lore_adapter_version *b = lease(&p, "b");
    const int64_t b_ns = lore_clock_ns();
    CHECK_INT(try_enter(&p, b, b_ns, &slot, &err), LORE_ERR_BUSY);
    lore_adapter_version *always = lease(&p, "p");
    CHECK_OK(try_enter(&p, always, b_ns, &slot, &err), &err);
    lore_adapters_leave(p.adapters, always, p.steps);
    lore_adapters_leave(p.adapters, a, p.steps);
    CHECK_INT(p.s.slots[enter(&p, c)]->value, 3);
    CHECK_INT(try_enter(&p, b, b_ns, &slot, &err), LORE_ERR_BUSY);
    lore_adapters_leave(p.adapters, c, p.steps);
    CHECK_INT(p.s.slots[enter(&p, b)]->value, 2);
    lore_adapters_leave(p.adapters, b, p.steps);
    pool_close(&p);
}

/* What is about to be asked for is not what goes first. */
TEST(a_prefetch_is_a_use)
{
    pool p;
    lore_error err;
    pool_open(&p, 4, 200, 1000);
    load(&p, "a", "100:1");
    load(&p, "b", "100:2");
    load(&p, "c", "100:3");
    CHECK_INT(ask(&p, "b"), 2);
    CHECK_INT(ask(&p, "c"), 3);
    CHECK_OK(lore_adapters_find(p.adapters, LORE_STR("a"), true, &err), &err);
    wait_for_state(&p, "a", LORE_ADAPTER_DEVICE);
    CHECK_INT(ask(&p, "b"), 2);
    CHECK_INT(state_of(&p, "a"), LORE_ADAPTER_DEVICE);
    pool_close(&p);
}

/* ---- failures ---- */

TEST(a_failed_load_fails_who_waited)
{
    pool p;
    lore_error err;
    int32_t slot = -1;
    pool_open(&p, 2, 1000, 1000);
    load(&p, "a", "100:1");
    const lore_adapter_spec broken = spec_of("b", "broken"), gone = spec_of("g", "gone");
    CHECK_FAILS(lore_adapters_load(p.adapters, &broken, PATIENT, &err), LORE_ERR_CORRUPT, &err,
                "adapter 'b': the tensor is damaged");
    CHECK_FAILS(lore_adapters_load(p.adapters, &gone, PATIENT, &err), LORE_ERR_NOT_FOUND, &err,
                "'gone'");
    CHECK_FAILS(lore_adapters_find(p.adapters, LORE_STR("b"), false, &err), LORE_ERR_NOT_FOUND,
                &err, "of 1 that there are: a");
    p.s.is_mended = true;
    load(&p, "b", "broken");
    p.s.is_mended = false;
    wait_for_state(&p, "b", LORE_ADAPTER_DEVICE);
    CHECK_INT(ask(&p, "a"), 1);
    pool_close(&p);

    /* A folder that is damaged while it serves: it is out of memory and has to be read again. */
    pool_open(&p, 2, 100, 1);
    p.s.is_mended = true;
    load(&p, "b", "broken"); /* of 0 bytes */
    load(&p, "a", "100:1");
    const lore_adapter_spec again = {
        .name = LORE_STR("b"), .folder = LORE_STR("broken"), .is_replacing = true};
    CHECK_INT(ask(&p, "b"), 0);
    p.s.is_mended = false;
    CHECK_FAILS(lore_adapters_load(p.adapters, &again, PATIENT, &err), LORE_ERR_CORRUPT, &err, "b");
    CHECK_INT(ask(&p, "b"), 0); /* what it was goes on */
    pool_close(&p);

    pool_open(&p, 2, 100, 1);
    char folder[128];
    make_folder(folder, "mended");
    const lore_adapter_spec spec = spec_of("b", folder);
    CHECK_OK(lore_adapters_add(p.adapters, &spec, &err), &err);
    source_hold(&p.s, true);
    lore_adapter_version *one = lease(&p, "b"), *two = lease(&p, "b");
    source_hold(&p.s, false);
    wait_for_state(&p, "b", LORE_ADAPTER_FAILED);
    CHECK_FAILS(try_enter(&p, one, 0, &slot, &err), LORE_ERR_CORRUPT, &err, "adapter 'b': ");
    CHECK_FAILS(try_enter(&p, two, 0, &slot, &err), LORE_ERR_CORRUPT, &err, "damaged");
    lore_adapters_release(p.adapters, one);
    lore_adapters_release(p.adapters, two);
    CHECK_FAILS(lore_adapters_lease(p.adapters, LORE_STR("b"), &one, &err), LORE_ERR_CORRUPT, &err,
                "damaged"); /* at once, the disk is left alone */
    CHECK_INT(atomic_load(&p.s.opens), 1);
    p.s.is_mended = true;
    lore_clock_sleep_ms(1050);
    CHECK_INT(ask(&p, "b"), 0);
    CHECK_INT(stats_of(&p).failures, 1);
    pool_close(&p);
}

/* ---- replacing and unloading ---- */

TEST(replacing_leaves_answers_what_they_have)
{
    pool p;
    lore_error err;
    pool_open(&p, 4, 1000, 1000);
    load(&p, "a", "100:1");
    lore_adapter_version *old = lease(&p, "a");
    const int32_t slot = enter(&p, old);
    const uint64_t serial = view_of(&p, "a", false).serial;
    lore_adapter_spec spec = spec_of("a", "120:2");
    spec.is_replacing = true;
    CHECK_OK(lore_adapters_load(p.adapters, &spec, PATIENT, &err), &err);
    CHECK_INT(p.s.slots[slot]->value, 1);
    CHECK_INT(ask(&p, "a"), 2);
    CHECK_INT(p.s.slots[slot]->value, 1);
    CHECK(view_of(&p, "a", false).serial != serial);
    CHECK_INT(view_of(&p, "a", true).requests, 1);
    CHECK_INT(view_of(&p, "a", true).serial, (int64_t)serial);
    lore_adapters_leave(p.adapters, old, p.steps);
    lore_adapters_settle(p.adapters, p.steps);
    const int64_t deadline_ns = soon();
    while (stats_of(&p).device_bytes != 120) {
        CHECK(lore_clock_ns() < deadline_ns);
        lore_clock_sleep_ms(1);
    }
    pool_close(&p);
}

typedef struct removal {
    pool *p;
    lore_status status;
    atomic_bool is_done;
} removal;

static void *run_removal(void *self)
{
    removal *r = self;
    lore_error err;
    r->status = lore_adapters_remove(r->p->adapters, LORE_STR("a"), PATIENT, &err);
    atomic_store(&r->is_done, true);
    return NULL;
}

TEST(unloading_refuses_at_once_and_waits)
{
    pool p;
    lore_error err;
    lore_thread thread = {0};
    pool_open(&p, 4, 1000, 1000);
    load(&p, "a", "100:1");
    lore_adapter_version *version = lease(&p, "a"), *other = NULL;
    (void)enter(&p, version);
    removal r = {.p = &p};
    CHECK_OK(lore_thread_start(&thread, "removal", run_removal, &r, &err), &err);
    const int64_t deadline_ns = soon();
    while (lore_adapters_lease(p.adapters, LORE_STR("a"), &other, &err) == LORE_OK) {
        lore_adapters_release(p.adapters, other);
        CHECK(lore_clock_ns() < deadline_ns);
    }
    lore_clock_sleep_ms(20);
    CHECK(!atomic_load(&r.is_done));
    load(&p, "a", "100:2"); /* the name is free */
    CHECK_INT(ask(&p, "a"), 2);
    p.steps.submitted++;
    lore_adapters_leave(p.adapters, version, p.steps);
    lore_adapters_settle(p.adapters, p.steps);
    lore_clock_sleep_ms(20);
    CHECK(!atomic_load(&r.is_done)); /* a step in flight reads it */
    p.steps.collected++;
    lore_adapters_settle(p.adapters, p.steps);
    lore_thread_join(&thread);
    CHECK_INT(r.status, LORE_OK);
    CHECK_INT(atomic_load(&p.s.placed_now), 1);
    version = lease(&p, "a");
    const lore_adapter_patience none = {.deadline_ns = lore_clock_ns() + 1000};
    CHECK_FAILS(lore_adapters_remove(p.adapters, LORE_STR("a"), &none, &err), LORE_ERR_TIMEOUT,
                &err, "some are still under way");
    lore_adapters_release(p.adapters, version);
    pool_close(&p);
}

/* ---- memory ---- */

static lore_status run_short(void *self)
{
    (void)self;
    static const lore_limits limits = {
        .adapters_max = 4, .adapter_bytes_max = 150, .adapter_host_bytes_max = 1000};
    lore_error err;
    lore_arena arena;
    source s;
    lore_adapters *adapters = NULL;
    lore_adapter_version *version = NULL;
    lore_adapter_view *list = NULL;
    int32_t count = 0;
    const lore_adapter_source from = source_init(&s, 2);
    const lore_adapter_spec a = spec_of("a", "100:1"), b = spec_of("b", "100:2");
    lore_arena_init(&arena, 0);
    lore_status status = lore_adapters_new(&from, &limits, source_wake, &s, &adapters, &err);
    if (status == LORE_OK) {
        status = lore_adapters_load(adapters, &a, PATIENT, &err);
    }
    if (status == LORE_OK) {
        status = lore_adapters_load(adapters, &b, PATIENT, &err);
    }
    if (status == LORE_OK) {
        status = lore_adapters_lease(adapters, LORE_STR("b"), &version, &err);
    }
    if (status == LORE_OK) {
        int32_t slot = -1;
        uint64_t serial = 0;
        do {
            lore_adapters_settle(adapters, (lore_adapter_steps){0});
            status = lore_adapters_enter(adapters, version, 0, &slot, &serial, &err);
        } while (status == LORE_ERR_BUSY);
        if (status == LORE_OK) {
            lore_adapters_leave(adapters, version, (lore_adapter_steps){0});
        } else {
            lore_adapters_release(adapters, version);
        }
    }
    if (status == LORE_OK) {
        status = lore_adapters_list(adapters, &arena, &list, &count, &err);
    }
    lore_adapters_free(adapters);
    lore_arena_destroy(&arena);
    source_destroy(&s);
    return status;
}

TEST(every_failing_allocation_is_an_error)
{
    check_alloc_sweep(run_short, NULL);
}

TEST(a_thread_that_does_not_start_is_an_error)
{
    lore_error err;
    source s;
    lore_adapters *adapters = NULL;
    const lore_limits limits = limits_of(10, 10);
    const lore_adapter_source from = source_init(&s, 2);
    lore_thread_fail_at(1);
    lore_status status = lore_adapters_new(&from, &limits, source_wake, &s, &adapters, &err);
    lore_thread_fail_at(0);
    CHECK(status != LORE_OK);
    source_destroy(&s);
}

CHECK_MAIN(names_are_checked, folders_wait_on_the_disk, the_least_recently_used_leave_first,
           pinned_ones_stay, a_full_device_is_no_room, a_load_holds_nobody_up,
           memory_outlives_the_steps_that_read_it, slots_are_used_again,
           nobody_is_kept_out_for_ever, a_large_one_has_its_turn,
           what_was_placed_for_nobody_gives_way, a_prefetch_is_a_use,
           a_failed_load_fails_who_waited, replacing_leaves_answers_what_they_have,
           unloading_refuses_at_once_and_waits, every_failing_allocation_is_an_error,
           a_thread_that_does_not_start_is_an_error)
