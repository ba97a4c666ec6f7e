/* Time, and random numbers, through one replaceable source so that simulations own both. Thread:
 * any. */
#ifndef LORE_BASE_CLOCK_H
#define LORE_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int64_t lore_clock_ns(void);      /* monotonic */
int64_t lore_clock_unix_ms(void); /* wall clock */
void lore_clock_sleep_ms(int64_t duration_ms);
/* Tests: make both clocks return values of this function (ns); NULL restores the real ones. */
void lore_clock_set_source(int64_t (*now_ns)(void));
/* True while a test owns the time: nothing may then wait for real time to pass. lore_clock_sleep_ms
 * only yields. */
bool lore_clock_is_replaced(void);

/* Deadlines are absolute lore_clock_ns values; 0 means none. */
bool lore_deadline_passed(int64_t deadline_ns);

/* Random bytes of the operating system, for ids. */
void lore_random_bytes(void *out, size_t size_bytes);

/* A small seeded generator (splitmix64) for sampling and tests: state in, next value out. */
uint64_t lore_random_next(uint64_t *state);
float lore_random_unit(uint64_t *state); /* [0, 1), 24 bits */

/* A sortable unique id: prefix, then 26 characters of Crockford base 32 (48 bits of time, 80
 * random), NUL. out holds prefix length + 27 bytes at least; cap is checked. */
void lore_id_new(const char *prefix, char *out, size_t cap_bytes);

#endif
