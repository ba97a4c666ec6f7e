/* Paths find their routes, ids come out decoded, and what is broken in an address is refused. */
#include "api/routes.h"

#include "tests/check.h"

static int32_t find(const char *method, const char *path, lore_http_request *request,
                    const char **allowed, lore_arena *arena)
{
    int32_t route = -9;
    lore_error err;
    *request = (lore_http_request){.method = method, .path = lore_str_from(path), .arena = arena};
    return lore_route_find(request, &route, allowed, &err) == LORE_OK ? route : -8;
}

static const char *pattern_of(const char *method, const char *path, lore_http_request *request,
                              lore_arena *arena)
{
    const char *allowed = NULL;
    int32_t route = find(method, path, request, &allowed, arena);
    return route < 0 ? "" : lore_routes[route].pattern;
}

TEST(paths_find_their_routes)
{
    lore_arena arena;
    lore_http_request request;
    lore_arena_init(&arena, 0);
    for (int32_t i = 0; i < lore_route_count; i++) { /* every pattern finds itself */
        char path[128];
        snprintf(path, sizeof path, "%s", lore_routes[i].pattern);
        for (char *c = path; *c != '\0'; c++) {
            *c = *c == '{' || *c == '}' ? 'x' : *c;
        }
        const char *allowed = NULL;
        CHECK_INT(find(lore_routes[i].method, path, &request, &allowed, &arena), i);
    }
    CHECK_STR(lore_str_from(pattern_of("HEAD", "/health", &request, &arena)), "/health");
    CHECK_STR(lore_str_from(pattern_of("GET", "/health/", &request, &arena)), "");
    CHECK_STR(lore_str_from(pattern_of("GET", "", &request, &arena)), "");
    CHECK_STR(lore_str_from(pattern_of("GET", "/collections//documents", &request, &arena)), "");
    CHECK_STR(lore_str_from(pattern_of("GET", "/collections/a/documents/b/c", &request, &arena)),
              "");
    lore_arena_destroy(&arena);
}

TEST(segments_are_split_before_they_are_decoded)
{
    lore_arena arena;
    lore_http_request request;
    lore_arena_init(&arena, 0);
    CHECK_STR(lore_str_from(pattern_of("GET", "/collections/a.b/documents/kb%2Fx%20y%E8%B7%AF",
                                       &request, &arena)),
              "/collections/{}/documents/{}");
    CHECK_STR(request.segments[0], "a.b");
    CHECK_STR(request.segments[1], "kb/x y路");
    lore_arena_destroy(&arena);
}

TEST(other_methods_are_told_apart_from_other_paths)
{
    lore_arena arena;
    lore_http_request request;
    const char *allowed = NULL;
    lore_arena_init(&arena, 0);
    CHECK_INT(find("PATCH", "/query", &request, &allowed, &arena), -2);
    CHECK_STR(lore_str_from(allowed), "POST");
    CHECK_INT(find("GET", "/nothing", &request, &allowed, &arena), -1);
    CHECK_INT(find("PATCH", "/collections/a/documents", &request, &allowed, &arena), -2);
    CHECK_STR(lore_str_from(allowed), "GET, HEAD, POST");
    CHECK_INT(find("POST", "/collections/a/documents/b", &request, &allowed, &arena), -2);
    CHECK_STR(lore_str_from(allowed), "GET, HEAD, PUT, DELETE");
    lore_arena_destroy(&arena);
}

TEST(broken_addresses_are_refused)
{
    static const char *const BROKEN[] = {"%", "%4", "%zz", "a%00b", "%0a", "%ff", "a\x01", "%7f"};
    lore_arena arena;
    lore_error err;
    lore_str decoded = {0};
    lore_arena_init(&arena, 0);
    for (size_t i = 0; i < sizeof BROKEN / sizeof BROKEN[0]; i++) {
        CHECK_FAILS(lore_url_decode(lore_str_from(BROKEN[i]), &arena, &decoded, &err),
                    LORE_ERR_INVALID, &err, "address");
    }
    CHECK_OK(lore_url_decode(LORE_STR("%41%e4%bd%a0+%25"), &arena, &decoded, &err), &err);
    CHECK_STR(decoded, "A你+%");
    CHECK_OK(lore_url_decode(LORE_STR(""), &arena, &decoded, &err), &err);
    CHECK_INT(decoded.len, 0);
    lore_arena_destroy(&arena);
}

TEST(request_ids)
{
    char id[LORE_REQUEST_ID_CAP], longest[LORE_REQUEST_ID_CAP + 1];
    lore_request_id("a-1", id);
    CHECK_STR(lore_str_from(id), "a-1");
    static const char *const BAD[] = {NULL, "", "a b", "a\"b", "a\\b", "a\n", "\xff"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        lore_request_id(BAD[i], id);
        CHECK(lore_str_starts(lore_str_from(id), LORE_STR("r_")));
    }
    memset(longest, 'x', sizeof longest);
    longest[LORE_REQUEST_ID_CAP] = '\0';
    lore_request_id(longest, id);
    CHECK(id[0] == 'r');
    longest[LORE_REQUEST_ID_CAP - 1] = '\0';
    lore_request_id(longest, id);
    CHECK_STR(lore_str_from(id), longest);
}

/* Only the routes that take documents take bodies as long as a file. */
TEST(limits_of_bodies)
{
    lore_limits limits = {.body_bytes_max = 10, .file_bytes_max = 40};
    CHECK_INT(lore_route_body_max(-1, &limits), 10);
    for (int32_t i = 0; i < lore_route_count; i++) {
        bool is_document = strstr(lore_routes[i].pattern, "/documents") != NULL &&
                           strcmp(lore_routes[i].method, "GET") != 0 &&
                           strcmp(lore_routes[i].method, "DELETE") != 0;
        CHECK_INT(lore_route_body_max(i, &limits), is_document ? 40 : 10);
    }
    limits.body_bytes_max = 50;
    for (int32_t i = 0; i < lore_route_count; i++) {
        CHECK_INT(lore_route_body_max(i, &limits), 50);
    }
}

CHECK_MAIN(request_ids, paths_find_their_routes, segments_are_split_before_they_are_decoded,
           other_methods_are_told_apart_from_other_paths, broken_addresses_are_refused,
           limits_of_bodies)
