/* Addresses are taken apart as documented, a free port is found and named, and refusals say why. */
#include "api/listener.h"

#include "tests/check.h"

#include <unistd.h>

TEST(a_free_port_is_named)
{
    lore_listener listener;
    lore_error err;
    CHECK_OK(lore_listener_open("127.0.0.1:0", &listener, &err), &err);
    CHECK(lore_str_starts(lore_str_from(listener.address), LORE_STR("127.0.0.1:")));
    CHECK(strcmp(listener.address, "127.0.0.1:0") != 0);
    CHECK_STR(lore_str_from(listener.local), listener.address);
    lore_listener second;
    CHECK_FAILS(lore_listener_open(listener.address, &second, &err), LORE_ERR_IO, &err, "in use");
    close(listener.fd);
}

TEST(all_addresses_have_a_local_one)
{
    lore_listener listener;
    lore_error err;
    CHECK_OK(lore_listener_open("0.0.0.0:0", &listener, &err), &err);
    CHECK(lore_str_starts(lore_str_from(listener.address), LORE_STR("0.0.0.0:")));
    CHECK(lore_str_starts(lore_str_from(listener.local), LORE_STR("127.0.0.1:")));
    close(listener.fd);
}

TEST(ipv6_has_brackets)
{
    lore_listener listener;
    lore_error err;
    if (lore_listener_open("[::1]:0", &listener, &err) != LORE_OK) {
        CHECK_SKIP("no IPv6 on this machine");
    }
    CHECK(listener.is_ipv6);
    CHECK(lore_str_starts(lore_str_from(listener.address), LORE_STR("[::1]:")));
    close(listener.fd);
}

TEST(what_is_no_address_is_refused)
{
    static const char *const BAD[] = {"",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:x",
                                      "127.0.0.1:70000",
                                      "127.0.0.1:-1",
                                      "1.2.3.4.5:80",
                                      "[::1:80"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        lore_listener listener;
        lore_error err;
        CHECK_FAILS(lore_listener_open(BAD[i], &listener, &err), LORE_ERR_INVALID, &err, "listen");
    }
}

CHECK_MAIN(a_free_port_is_named, all_addresses_have_a_local_one, ipv6_has_brackets,
           what_is_no_address_is_refused)
