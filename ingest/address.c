/* Which addresses documents do not come from.
 *
 * A page of a stranger may redirect, or its name may lead, to the router, the metadata service of a
 * cloud or a database next door. So what is asked is the address that is connected to, not the
 * name. */
#include "ingest/web_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

typedef struct block {
    uint8_t prefix[16];
    uint8_t bits;
    const char *kind; /* "": public after all */
} block;

static const block V4_BLOCKS[] = {{{0}, 8, "unspecified"},         {{10}, 8, "private"},
                                  {{100, 64}, 10, "shared"},       {{127}, 8, "loopback"},
                                  {{169, 254}, 16, "link-local"},  {{172, 16}, 12, "private"},
                                  {{192, 0, 0}, 24, "reserved"},   {{192, 0, 2}, 24, "reserved"},
                                  {{192, 88, 99}, 24, "reserved"}, {{192, 168}, 16, "private"},
                                  {{198, 18}, 15, "reserved"},     {{198, 51, 100}, 24, "reserved"},
                                  {{203, 0, 113}, 24, "reserved"}, {{224}, 4, "multicast"},
                                  {{240}, 4, "reserved"}};

/* Only 2000::/3 is given out; these are its exceptions. */
static const block V6_BLOCKS[] = {{{0x20, 0x01}, 23, "reserved"}, /* Teredo and its like */
                                  {{0x20, 0x01, 0x0d, 0xb8}, 32, "reserved"},
                                  {{0x3f, 0xff}, 20, "reserved"},
                                  {{0x20}, 3, ""},
                                  {{0xfc}, 7, "private"},
                                  {{0xfe, 0x80}, 10, "link-local"},
                                  {{0xfe, 0xc0}, 10, "private"},
                                  {{0xff}, 8, "multicast"}};

/* IPv6 prefixes with an IPv4 address behind them: mapped, translated (RFC 6052), compatible and
 * 6to4. */
static const struct {
    block block;
    size_t at;
} V4_INSIDE[] = {{{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, ""}, 12},
                 {{{0, 0x64, 0xff, 0x9b}, 96, ""}, 12},
                 {{{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, ""}, 12},
                 {{{0x20, 0x02}, 16, ""}, 2}};

static bool is_inside(const uint8_t *address, const block *b)
{
    size_t whole = b->bits / 8;
    uint8_t mask = (uint8_t)(0xFF00u >> (b->bits % 8));
    return memcmp(address, b->prefix, whole) == 0 &&
           (b->bits % 8 == 0 || ((address[whole] ^ b->prefix[whole]) & mask) == 0);
}

static const char *kind_of_v4(const uint8_t address[4])
{
    for (size_t i = 0; i < sizeof V4_BLOCKS / sizeof V4_BLOCKS[0]; i++) {
        if (is_inside(address, &V4_BLOCKS[i])) {
            return V4_BLOCKS[i].kind;
        }
    }
    return NULL;
}

static const char *kind_of_v6(const uint8_t address[16])
{
    static const uint8_t loopback[16] = {[15] = 1};
    if (memcmp(address, loopback, sizeof loopback) == 0) {
        return "loopback";
    }
    for (size_t i = 0; i < sizeof V4_INSIDE / sizeof V4_INSIDE[0]; i++) {
        if (is_inside(address, &V4_INSIDE[i].block)) {
            return kind_of_v4(address + V4_INSIDE[i].at);
        }
    }
    for (size_t i = 0; i < sizeof V6_BLOCKS / sizeof V6_BLOCKS[0]; i++) {
        if (is_inside(address, &V6_BLOCKS[i])) {
            return V6_BLOCKS[i].kind[0] == '\0' ? NULL : V6_BLOCKS[i].kind;
        }
    }
    return "reserved";
}

const char *lore_address_kind(const struct sockaddr *address)
{
    uint8_t bytes[16];
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        memcpy(bytes, &v4.sin_addr, 4);
        return kind_of_v4(bytes);
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        memcpy(bytes, &v6.sin6_addr, 16);
        return kind_of_v6(bytes);
    }
    return "no internet";
}

const char *lore_host_kind(lore_str host)
{
    char text[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    bool has_brackets = host.len > 2 && host.ptr[0] == '[';
    lore_str inner = has_brackets ? lore_str_slice(host, 1, host.len - 1) : host;
    const char *zone = memchr(inner.ptr, '%', inner.len);
    inner.len = has_brackets && zone != NULL ? (size_t)(zone - inner.ptr) : inner.len;
    while (!has_brackets && inner.len > 0 && inner.ptr[inner.len - 1] == '.') {
        inner.len--;
    }
    if (inner.len > 0 && inner.len < sizeof text) {
        memcpy(text, inner.ptr, inner.len);
        text[inner.len] = '\0';
        if (inet_pton(AF_INET, text, bytes) == 1) {
            return kind_of_v4(bytes);
        }
        if (inet_pton(AF_INET6, text, bytes) == 1) {
            return kind_of_v6(bytes);
        }
    }
    bool is_local =
        lore_str_equal_nocase(inner, LORE_STR("localhost")) ||
        (inner.len > 10 && lore_str_equal_nocase(lore_str_slice(inner, inner.len - 10, inner.len),
                                                 LORE_STR(".localhost")));
    return is_local ? "loopback" : NULL;
}
