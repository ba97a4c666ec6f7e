/* Where a reply ends, however it is cut into reads: with a length, in chunks, and what is none. */
#include "bench/bench_http.h"

#include "tests/check.h"

/* 0 for every part of it, and its own length for the whole and for more behind. */
static void check_whole(const char *reply)
{
    size_t length = strlen(reply);
    char longer[1024];
    for (size_t i = 0; i < length; i++) {
        CHECK_INT(lore_bench_http_end((lore_str){reply, i}, false), 0);
    }
    CHECK_INT(lore_bench_http_end((lore_str){reply, length}, false), length);
    snprintf(longer, sizeof longer, "%sHTTP/1.1 200 OK\r\n", reply);
    CHECK_INT(lore_bench_http_end(lore_str_from(longer), false), length);
}

TEST(lengths)
{
    check_whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello");
    check_whole("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
}

TEST(chunks)
{
    check_whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5\r\nhello\r\nA\r\n0123456789\r\n1f;x=y\r\n0123456789012345678901234567890\r\n"
                "0\r\n\r\n");
}

TEST(until_closed)
{
    lore_str reply = LORE_STR("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nevent: delta\n");
    CHECK_INT(lore_bench_http_end(reply, false), 0);
    CHECK_INT(lore_bench_http_end(reply, true), reply.len);
    CHECK_INT(lore_bench_http_end(LORE_STR("HTTP/1.1 200 OK\r\nConn"), true), 0);
    CHECK_INT(lore_bench_http_end(LORE_STR("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), true),
              0);
}

TEST(no_replies)
{
    static const char *const WRONG[] = {
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        CHECK_INT(lore_bench_http_end(lore_str_from(WRONG[i]), false), -1);
    }
}

CHECK_MAIN(lengths, chunks, until_closed, no_replies)
