/* CRC-64: the value everybody knows, and the same sum whatever way the bytes take. */
#include "tests/unit/index_fixture.h"

TEST(checksum_is_the_one_of_xz)
{
    CHECK(lore_crc64(0, "123456789", 9) == 0x995DC9BBDF1939FAu);
    CHECK(lore_crc64(lore_crc64(0, "1234", 4), "56789", 5) == 0x995DC9BBDF1939FAu);
    CHECK(lore_crc64(0, "", 0) == 0);
}

/* One bit at a time, as the definition says. */
static uint64_t slow(const unsigned char *data, size_t size)
{
    uint64_t crc = ~UINT64_C(0);
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT64_C(0xC96C5795D7870F42) : 0);
        }
    }
    return ~crc;
}

/* Every length up to several blocks, at every alignment, whole and in two pieces. */
TEST(all_lengths_and_places)
{
    enum { LENGTH_MAX = 700 };
    unsigned char data[LENGTH_MAX + 16];
    uint64_t state = 7;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)lore_random_next(&state);
    }
    for (size_t length = 0; length <= LENGTH_MAX; length++) {
        const unsigned char *at = data + length % 16;
        uint64_t expected = slow(at, length);
        size_t cut = length / 3;
        CHECK(lore_crc64(0, at, length) == expected);
        CHECK(lore_crc64(lore_crc64(0, at, cut), at + cut, length - cut) == expected);
    }
}

CHECK_MAIN(checksum_is_the_one_of_xz, all_lengths_and_places)
