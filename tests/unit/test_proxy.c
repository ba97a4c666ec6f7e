/* Proves which proxy the environment means: by scheme, in small letters before capitals, HTTP_PROXY
 * never, and no_proxy by name, by domain and for everything. */
#include "tests/check.h"

#include "ingest/web_int.h"

#include <string.h>

static const char *const (*VARIABLES)[2];
static size_t VARIABLE_COUNT;

static const char *variable(const char *name)
{
    for (size_t i = 0; i < VARIABLE_COUNT; i++) {
        if (strcmp(VARIABLES[i][0], name) == 0) {
            return VARIABLES[i][1];
        }
    }
    return NULL;
}

static void check_proxy(const char *const (*variables)[2], size_t count, const char *scheme,
                        const char *host, const char *proxy)
{
    VARIABLES = variables;
    VARIABLE_COUNT = count;
    CHECK_STR(lore_proxy_of(lore_str_from(scheme), lore_str_from(host), variable), proxy);
}
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

TEST(by_scheme)
{
    static const char *const all[][2] = {{"http_proxy", "http://a:1"},
                                         {"HTTPS_PROXY", " http://b:2 "},
                                         {"all_proxy", "socks5h://c:3"}};
    check_proxy(all, COUNT(all), "http", "example.com", "http://a:1");
    check_proxy(all, COUNT(all), "https", "example.com", "http://b:2");
    static const char *const capitals[][2] = {{"HTTP_PROXY", "http://evil:1"},
                                              {"ALL_PROXY", "http://c:3"}};
    check_proxy(capitals, COUNT(capitals), "http", "example.com", "http://c:3");
    check_proxy(capitals, 1, "http", "example.com", "");
    check_proxy(capitals, 0, "https", "example.com", "");
    static const char *const both[][2] = {{"https_proxy", "http://small:1"},
                                          {"HTTPS_PROXY", "http://large:1"}};
    check_proxy(both, COUNT(both), "https", "example.com", "http://small:1");
}

TEST(exempt)
{
    static const char *const list[][2] = {
        {"https_proxy", "http://p:1"},
        {"NO_PROXY", "localhost, .example.com,intern.org *.wild.net 10.0.0.1,::1"}};
    static const struct {
        const char *host;
        bool is_exempt;
    } hosts[] = {{"localhost", true},        {"example.com", true}, {"a.EXAMPLE.com", true},
                 {"badexample.com", false},  {"intern.org", true},  {"x.intern.org", true},
                 {"intern.org.evil", false}, {"a.wild.net", true},  {"10.0.0.1", true},
                 {"110.0.0.1", false},       {"[::1]", true},       {"other.org", false}};
    for (size_t i = 0; i < COUNT(hosts); i++) {
        check_proxy(list, COUNT(list), "https", hosts[i].host,
                    hosts[i].is_exempt ? "" : "http://p:1");
    }
    static const char *const star[][2] = {{"https_proxy", "http://p:1"}, {"no_proxy", "*"}};
    check_proxy(star, COUNT(star), "https", "other.org", "");
}

CHECK_MAIN(by_scheme, exempt)
