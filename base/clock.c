/* Time and random numbers.
 *
 * The source is one atomic function pointer: tests set it before they start threads, and a thread
 * that reads it a moment later still reads a whole pointer. */
#include "base/clock.h"

#include "base/error.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    NS_PER_MS = 1000000,
    ID_TIME_CHARS = 10,  /* 48 bits of time, 5 bits a character */
    ID_RANDOM_CHARS = 16 /* 80 random bits */
};

static int64_t (*_Atomic replaced_source)(void);

static int64_t read_clock(clockid_t which)
{
    struct timespec now;
    int failed = clock_gettime(which, &now);
    LORE_ASSERT(failed == 0);
    return (int64_t)now.tv_sec * 1000 * NS_PER_MS + now.tv_nsec;
}

int64_t lore_clock_ns(void)
{
    int64_t (*source)(void) = atomic_load_explicit(&replaced_source, memory_order_relaxed);
    return source != NULL ? source() : read_clock(CLOCK_MONOTONIC);
}

int64_t lore_clock_unix_ms(void)
{
    int64_t (*source)(void) = atomic_load_explicit(&replaced_source, memory_order_relaxed);
    return (source != NULL ? source() : read_clock(CLOCK_REALTIME)) / NS_PER_MS;
}

void lore_clock_sleep_ms(int64_t duration_ms)
{
    if (lore_clock_is_replaced()) {
        sched_yield();
        return;
    }
    if (duration_ms <= 0) {
        return;
    }
    struct timespec left = {.tv_sec = duration_ms / 1000,
                            .tv_nsec = duration_ms % 1000 * NS_PER_MS};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

void lore_clock_set_source(int64_t (*now_ns)(void))
{
    atomic_store_explicit(&replaced_source, now_ns, memory_order_relaxed);
}

bool lore_clock_is_replaced(void)
{
    return atomic_load_explicit(&replaced_source, memory_order_relaxed) != NULL;
}

bool lore_deadline_passed(int64_t deadline_ns)
{
    return deadline_ns != 0 && lore_clock_ns() >= deadline_ns;
}

void lore_random_bytes(void *out, size_t size_bytes)
{
    char *at = out;
    while (size_bytes > 0) {
        ssize_t got = getrandom(at, size_bytes, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        /* Without randomness ids would repeat, and every kernel we run on has the call. */
        LORE_ASSERT(got > 0);
        at += got;
        size_bytes -= (size_t)got;
    }
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
uint64_t lore_random_next(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

float lore_random_unit(uint64_t *state)
{
    return (float)(lore_random_next(state) >> 40) * 0x1p-24f;
}

void lore_id_new(const char *prefix, char *out, size_t cap_bytes)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    size_t length = strlen(prefix);
    LORE_ASSERT(length + ID_TIME_CHARS + ID_RANDOM_CHARS + 1 <= cap_bytes);
    memcpy(out, prefix, length);
    char *at = out + length;
    uint64_t time_ms = (uint64_t)lore_clock_unix_ms();
    for (int i = ID_TIME_CHARS - 1; i >= 0; i--) {
        at[i] = digits[time_ms & 31];
        time_ms >>= 5;
    }
    unsigned char random[ID_RANDOM_CHARS];
    lore_random_bytes(random, sizeof random);
    for (int i = 0; i < ID_RANDOM_CHARS; i++) {
        at[ID_TIME_CHARS + i] = digits[random[i] & 31];
    }
    at[ID_TIME_CHARS + ID_RANDOM_CHARS] = '\0';
}
