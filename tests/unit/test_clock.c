/* Proves that tests can own the time, that the generator is the published one, and the form of ids.
 */
#include "tests/check.h"

#include "base/clock.h"

static int64_t now_ns;

static int64_t fake_now(void)
{
    return now_ns;
}

TEST(real_clocks_move)
{
    int64_t start_ns = lore_clock_ns();
    lore_clock_sleep_ms(3);
    CHECK(lore_clock_ns() - start_ns >= 3000000);
    CHECK(lore_clock_unix_ms() > INT64_C(1600000000000));
    CHECK(!lore_clock_is_replaced());
}

TEST(time_can_be_owned)
{
    lore_clock_set_source(fake_now);
    now_ns = 5000000;
    CHECK_INT(lore_clock_ns(), 5000000);
    CHECK_INT(lore_clock_unix_ms(), 5);
    CHECK(lore_clock_is_replaced());
    lore_clock_sleep_ms(1000000000); /* returns at once */
    CHECK(!lore_deadline_passed(5000001));
    CHECK(lore_deadline_passed(5000000));
    CHECK(!lore_deadline_passed(0));
    lore_clock_set_source(NULL);
    CHECK(lore_clock_ns() != 5000000);
}

TEST(generator_is_splitmix64)
{
    uint64_t state = 1234567; /* values published with the reference implementation */
    CHECK(lore_random_next(&state) == 6457827717110365317u);
    CHECK(lore_random_next(&state) == 3203168211198807973u);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        float unit = lore_random_unit(&state);
        CHECK(unit >= 0 && unit < 1);
        sum += (double)unit;
    }
    CHECK_NEAR(sum / 100000, 0.5, 0.01);
}

TEST(random_bytes_differ)
{
    unsigned char a[64] = {0};
    unsigned char b[64] = {0};
    lore_random_bytes(a, sizeof a);
    lore_random_bytes(b, sizeof b);
    CHECK(memcmp(a, b, sizeof a) != 0);
    lore_random_bytes(a, 0);
}

TEST(ids_sort_by_time)
{
    char first[32];
    char second[32];
    lore_clock_set_source(fake_now);
    now_ns = INT64_C(1769860800123) * 1000000;
    lore_id_new("q_", first, sizeof first);
    CHECK_INT(strlen(first), 28);
    CHECK_INT(strspn(first + 2, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), 26);
    lore_id_new("q_", second, 29); /* exactly what it needs */
    CHECK(strcmp(first, second) != 0 && memcmp(first, second, 12) == 0);
    now_ns += 1000000;
    lore_id_new("q_", second, sizeof second);
    lore_clock_set_source(NULL);
    CHECK(strcmp(first, second) < 0);
}

CHECK_MAIN(real_clocks_move, time_can_be_owned, generator_is_splitmix64, random_bytes_differ,
           ids_sort_by_time)
