/* One plain statement of a request's length passes; every way of making two of it is refused. */
#include "api/framing.h"

#include "tests/check.h"

/* headers: "Name: value" one behind the other, NULL at the end. */
static int check(const char *version, const char *const *headers, lore_error *err)
{
    lore_framing framing = {0};
    for (size_t i = 0; headers[i] != NULL; i++) {
        lore_str line = lore_str_from(headers[i]);
        size_t colon = lore_str_find(line, LORE_STR(": "), 0);
        CHECK(colon != SIZE_MAX);
        lore_framing_add(&framing, lore_str_slice(line, 0, colon),
                         lore_str_slice(line, colon + 2, line.len));
    }
    return lore_framing_check(&framing, version, err);
}

#define HEADERS(...) ((const char *const[]){__VA_ARGS__, NULL})

TEST(folded_headers_are_refused)
{
    lore_error err;
    lore_framing framing = {.hosts = 1, .is_folded = true};
    CHECK_INT(lore_framing_check(&framing, "HTTP/1.1", &err), 400);
    framing.is_folded = false;
    CHECK_INT(lore_framing_check(&framing, "HTTP/1.1", &err), 0);
}

TEST(plain_requests_pass)
{
    lore_error err;
    CHECK_INT(check("HTTP/1.1", HEADERS("Host: a"), &err), 0);
    CHECK_INT(check("HTTP/1.1", HEADERS("hOST: a", "content-length: 3"), &err), 0);
    CHECK_INT(check("HTTP/1.1", HEADERS("Host: a", "Transfer-Encoding: Chunked"), &err), 0);
    CHECK_INT(check("HTTP/1.1", HEADERS("Host: a", "Expect: 100-Continue"), &err), 0);
    CHECK_INT(check("HTTP/1.1", HEADERS("Host: a", "X-Name!#$%&'*+-.^_`|~9: caf\xe9\t1"), &err), 0);
    CHECK_INT(check("HTTP/1.0", HEADERS("Content-Length: 3"), &err), 0);
}

TEST(doubtful_ones_are_refused)
{
    const struct {
        const char *const *headers;
        const char *version;
        int http_status;
        const char *words;
    } cases[] = {
        {HEADERS("X: y"), "HTTP/1.1", 400, "one Host"},
        {HEADERS("Host: a", "host: a"), "HTTP/1.1", 400, "one Host"},
        {HEADERS("Host: a", "Content-Length: 3", "content-length: 3"), "HTTP/1.1", 400, "twice"},
        {HEADERS("Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "HTTP/1.1",
         400, "twice"},
        {HEADERS("Host: a", "Content-Length: 3", "Transfer-Encoding: chunked"), "HTTP/1.1", 400,
         "exclude"},
        {HEADERS("Transfer-Encoding: chunked"), "HTTP/1.0", 400, "needs HTTP/1.1"},
        {HEADERS("Host: a", "Transfer-Encoding: gzip, chunked"), "HTTP/1.1", 501, "chunked"},
        {HEADERS("Host: a", "Transfer-Encoding: "), "HTTP/1.1", 501, "chunked"},
        {HEADERS("Host: a", "Expect: miracles"), "HTTP/1.1", 417, "Expect"},
        {HEADERS("Host: a", "Content-Length : 3"), "HTTP/1.1", 400, "name"},
        {HEADERS("Host: a", ": 3"), "HTTP/1.1", 400, "name"},
        {HEADERS("Host: a", "X\xe9: 3"), "HTTP/1.1", 400, "name"},
        {HEADERS("Host: a", "X: a\rb"), "HTTP/1.1", 400, "control"},
        {HEADERS("Host: a", "X: \x7f"), "HTTP/1.1", 400, "control"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lore_error err = {0};
        CHECK_INT(check(cases[i].version, cases[i].headers, &err), cases[i].http_status);
        CHECK(strstr(err.message, cases[i].words) != NULL);
    }
}

TEST(nul_is_no_character_of_a_header)
{
    lore_error err;
    lore_framing name = {.hosts = 1}, value = {.hosts = 1};
    lore_framing_add(&name, (lore_str){"X\0y", 3}, LORE_STR("1"));
    CHECK_INT(lore_framing_check(&name, "HTTP/1.1", &err), 400);
    lore_framing_add(&value, LORE_STR("X"), (lore_str){"1\0", 2});
    CHECK_INT(lore_framing_check(&value, "HTTP/1.1", &err), 400);
}

CHECK_MAIN(plain_requests_pass, doubtful_ones_are_refused, folded_headers_are_refused,
           nul_is_no_character_of_a_header)
