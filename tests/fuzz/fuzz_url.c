/* Fuzz target of addresses and request ids: percent-decoding and routing of any bytes.
 *
 * Property: a decoded text is valid UTF-8 without control characters, no longer than what was sent,
 * and percent-encoded again it decodes to itself. A path is found, not found, known under other
 * methods, or refused with a message; what is found has as many segments as its pattern, none
 * empty. A request id is printable, at most 128 characters, and the client's own where that is. */
#include "api/routes.h"
#include "tests/fuzz/fuzz.h"

static void check_decode(lore_str text, lore_arena *arena)
{
    lore_str decoded, again;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_url_decode(text, arena, &decoded, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        return;
    }
    lore_buf encoded;
    lore_buf_init(&encoded, 0);
    LORE_ASSERT(decoded.len <= text.len);
    LORE_ASSERT(lore_utf8_valid(decoded) == decoded.len);
    for (size_t i = 0; i < decoded.len; i++) {
        unsigned char c = (unsigned char)decoded.ptr[i];
        LORE_ASSERT(c >= 0x20 && c != 0x7F);
        lore_buf_printf(&encoded, "%%%02X", (unsigned)c);
    }
    LORE_ASSERT(lore_url_decode(lore_buf_str(&encoded), arena, &again, &err) == LORE_OK);
    LORE_ASSERT(lore_str_equal(again, decoded));
    lore_buf_destroy(&encoded);
}

static void check_route(const char *method, lore_str path, lore_arena *arena)
{
    lore_http_request request = {.id = "r", .method = method, .path = path, .arena = arena};
    lore_error err = {.status = LORE_OK};
    const char *allowed = NULL;
    int32_t route = 0, wanted = 0;
    lore_status status = lore_route_find(&request, &route, &allowed, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        return;
    }
    LORE_ASSERT(route >= -2 && route < lore_route_count);
    LORE_ASSERT((route == -2) == (allowed != NULL && route < 0));
    if (route >= 0) {
        for (const char *at = lore_routes[route].pattern; *at != '\0'; at++) {
            wanted += *at == '{' ? 1 : 0;
        }
        LORE_ASSERT(wanted <= LORE_ROUTE_SEGMENTS_MAX);
        for (int32_t i = 0; i < wanted; i++) {
            LORE_ASSERT(request.segments[i].len > 0);
        }
    }
}

static void check_id(const char *given)
{
    char id[LORE_REQUEST_ID_CAP];
    lore_request_id(given, id);
    size_t length = strnlen(id, sizeof id);
    LORE_ASSERT(length > 0 && length < sizeof id);
    for (size_t i = 0; i < length; i++) {
        LORE_ASSERT(id[i] > ' ' && id[i] < 127 && id[i] != '"' && id[i] != '\\');
    }
    bool is_given = strcmp(id, given) == 0;
    LORE_ASSERT(is_given || strncmp(id, "r_", 2) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_str text = {size == 0 ? "" : (const char *)data, size};
    lore_arena_init(&arena, 0);
    check_decode(text, &arena);
    check_route("GET", text, &arena);
    check_route("PUT", text, &arena);
    char *copy = lore_str_to_c(&arena, text);
    LORE_ASSERT(copy != NULL);
    check_id(copy);
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
