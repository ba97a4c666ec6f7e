/* Proves which addresses documents do not come from: each block of IANA's special-purpose
 * registries at its first and last address and just outside, IPv4 inside IPv6 in all its forms, and
 * hosts as they stand in URLs. */
#include "tests/check.h"

#include "ingest/web_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

static const char *kind_of(const char *text)
{
    struct sockaddr_storage storage = {.ss_family = AF_INET};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        memcpy(&storage, &v4, sizeof v4);
    } else {
        CHECK(inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
        memcpy(&storage, &v6, sizeof v6);
    }
    const char *kind = lore_address_kind((const struct sockaddr *)&storage);
    return kind == NULL ? "public" : kind;
}

static const struct {
    const char *address, *kind;
} ADDRESSES[] = {{"0.0.0.0", "unspecified"},
                 {"0.255.255.255", "unspecified"},
                 {"1.0.0.0", "public"},
                 {"9.255.255.255", "public"},
                 {"10.0.0.0", "private"},
                 {"10.255.255.255", "private"},
                 {"11.0.0.0", "public"},
                 {"100.63.255.255", "public"},
                 {"100.64.0.0", "shared"},
                 {"100.127.255.255", "shared"},
                 {"100.128.0.0", "public"},
                 {"126.255.255.255", "public"},
                 {"127.0.0.1", "loopback"},
                 {"127.255.255.255", "loopback"},
                 {"128.0.0.0", "public"},
                 {"169.253.255.255", "public"},
                 {"169.254.169.254", "link-local"}, /* the metadata of clouds */
                 {"169.255.0.0", "public"},
                 {"172.15.255.255", "public"},
                 {"172.16.0.0", "private"},
                 {"172.31.255.255", "private"},
                 {"172.32.0.0", "public"},
                 {"192.0.0.8", "reserved"},
                 {"192.0.1.0", "public"},
                 {"192.0.2.1", "reserved"},
                 {"192.88.99.1", "reserved"},
                 {"192.167.255.255", "public"},
                 {"192.168.0.1", "private"},
                 {"192.169.0.0", "public"},
                 {"198.17.255.255", "public"},
                 {"198.18.0.0", "reserved"},
                 {"198.19.255.255", "reserved"},
                 {"198.20.0.0", "public"},
                 {"198.51.100.7", "reserved"},
                 {"203.0.113.7", "reserved"},
                 {"223.255.255.255", "public"},
                 {"224.0.0.1", "multicast"},
                 {"239.255.255.255", "multicast"},
                 {"240.0.0.0", "reserved"},
                 {"255.255.255.255", "reserved"},
                 {"8.8.8.8", "public"},
                 {"::", "reserved"},
                 {"::1", "loopback"},
                 {"::2", "reserved"},
                 {"::127.0.0.1", "reserved"},
                 {"::ffff:127.0.0.1", "loopback"},
                 {"::ffff:10.1.2.3", "private"},
                 {"::ffff:8.8.8.8", "public"},
                 {"::ffff:0:10.1.2.3", "private"},
                 {"64:ff9b::a9fe:a9fe", "link-local"},
                 {"64:ff9b::808:808", "public"},
                 {"64:ff9b:1::1", "reserved"},
                 {"100::1", "reserved"},
                 {"2001::1", "reserved"},
                 {"2001:1ff:ffff::1", "reserved"},
                 {"2001:200::1", "public"},
                 {"2001:db8::1", "reserved"},
                 {"2001:db9::1", "public"},
                 {"2002:7f00:1::1", "loopback"},
                 {"2002:808:808::1", "public"},
                 {"2606:4700:4700::1111", "public"},
                 {"3fff:fff::1", "reserved"},
                 {"3fff:1000::1", "public"},
                 {"4000::1", "reserved"},
                 {"5f00::1", "reserved"},
                 {"fc00::1", "private"},
                 {"fdff::1", "private"},
                 {"fe80::1", "link-local"},
                 {"febf::1", "link-local"},
                 {"fec0::1", "private"},
                 {"ff02::1", "multicast"}};

TEST(addresses)
{
    for (size_t i = 0; i < sizeof ADDRESSES / sizeof ADDRESSES[0]; i++) {
        if (strcmp(kind_of(ADDRESSES[i].address), ADDRESSES[i].kind) != 0) {
            CHECK_STOP("%s is %s, not %s", ADDRESSES[i].address, kind_of(ADDRESSES[i].address),
                       ADDRESSES[i].kind);
        }
    }
}

TEST(no_internet)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    CHECK(strcmp(lore_address_kind((const struct sockaddr *)&local), "no internet") == 0);
}

TEST(hosts_of_urls)
{
    static const struct {
        const char *host, *kind;
    } hosts[] = {{"localhost", "loopback"},
                 {"LOCALHOST.", "loopback"},
                 {"a.localhost", "loopback"},
                 {"notlocalhost", NULL},
                 {"127.0.0.1", "loopback"},
                 {"10.0.0.1.", "private"},
                 {"[::1]", "loopback"},
                 {"[fe80::1%25eth0]", "link-local"},
                 {"[::ffff:127.0.0.1]", "loopback"},
                 {"example.com", NULL},
                 {"10.0.0.1.example.com", NULL},
                 {"8.8.8.8", NULL},
                 {"", NULL}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        const char *found = lore_host_kind(lore_str_from(hosts[i].host));
        bool is_right = hosts[i].kind == NULL ? found == NULL
                                              : found != NULL && strcmp(found, hosts[i].kind) == 0;
        if (!is_right) {
            CHECK_STOP("'%s' is %s", hosts[i].host, found == NULL ? "public" : found);
        }
    }
}

CHECK_MAIN(addresses, no_internet, hosts_of_urls)
