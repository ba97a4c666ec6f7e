/* Fuzz target of the hub's list of files: any bytes as the hub's answer.
 *
 * Property: what is accepted has a commit of 40 hex digits, and every file a name that stays inside
 * a folder (no part of it empty or beginning with a dot, at most one slash, no white space), a size
 * of -1 or more and no sum or one of 64 hex digits; what is refused is named. The file is included:
 * cli/ is a program, not a library, and the connection is played here. */
#include "cli/hub_list.c"

#include "tests/fuzz/fuzz.h"

struct lore_hub {
    lore_buf address;
    lore_str answer;
};

const char *lore_transfer_run(lore_transfer *t, int32_t *http_status)
{
    lore_buf_append(t->text, t->hub->answer);
    *http_status = 200;
    return NULL;
}

bool lore_transfer_pause(const lore_transfer *t, int32_t failures)
{
    (void)t, (void)failures;
    return true;
}

const char *lore_hub_endpoint(const lore_hub *hub)
{
    (void)hub;
    return "http://hub";
}

lore_buf *lore_hub_address(lore_hub *hub)
{
    lore_buf_reset(&hub->address);
    return &hub->address;
}

void lore_hub_append_path(lore_buf *address, lore_str path)
{
    lore_buf_append(address, path);
}

void lore_url_encode(lore_str text, lore_buf *out)
{
    lore_buf_append(out, text);
}

lore_status lore_hub_refuse(int32_t http_status, lore_str what, lore_error *err)
{
    (void)http_status, (void)what;
    return lore_fail(err, LORE_ERR_IO, "not played");
}

bool lore_hub_is_passing(int32_t http_status)
{
    return http_status >= 500;
}

lore_status lore_hub_cancelled(lore_str what, lore_error *err)
{
    (void)what;
    return lore_fail(err, LORE_ERR_CANCELLED, "not played");
}

static void check_file(const lore_hub_file *file)
{
    int32_t slashes = 0;
    LORE_ASSERT(file->name.len > 0 && file->size_bytes >= -1);
    LORE_ASSERT(file->sha256.len == 0 || file->sha256.len == 64);
    for (size_t i = 0; i < file->name.len; i++) {
        char c = file->name.ptr[i];
        bool is_first = i == 0 || file->name.ptr[i - 1] == '/';
        LORE_ASSERT((unsigned char)c > ' ' && c != '\\' && c < 0x7f);
        LORE_ASSERT(!is_first || (c != '.' && c != '/'));
        slashes += c == '/';
    }
    LORE_ASSERT(slashes <= 1 && file->name.ptr[file->name.len - 1] != '/');
    for (size_t i = 0; i < file->sha256.len; i++) {
        LORE_ASSERT(strchr("0123456789abcdef", file->sha256.ptr[i]) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_hub hub = {.answer = {size == 0 ? "" : (const char *)data, size}};
    lore_hub_list list = {0};
    lore_error err = {.status = LORE_OK};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_buf_init(&hub.address, 0);
    lore_status status = lore_hub_read(&hub, LORE_STR("acme/tiny"), LORE_STR("main"), NULL, NULL,
                                       &arena, &list, &err);
    if (status == LORE_OK) {
        LORE_ASSERT(list.commit.len == 40);
        for (int32_t i = 0; i < list.count; i++) {
            check_file(&list.files[i]);
        }
    } else {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "acme/tiny") != NULL);
    }
    fuzz_check_cost(start_ns, size);
    lore_buf_destroy(&hub.address);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
