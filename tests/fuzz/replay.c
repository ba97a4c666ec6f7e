/* The driver of a fuzz target where there is no libFuzzer: it runs the target on the empty input,
 * on every file of the corpus folders given, and on seeded variations of each (bytes changed, cut,
 * doubled), so that plain ctest still looks around the known inputs. A variation that crashes is
 * found again by its printed file and number. */
#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

enum {
    FILES_MAX = 100000,
    FILE_BYTES_MAX = 16 * 1024 * 1024,
    VARIATIONS = 64,
    VARIED_BYTES_MAX = 1024 * 1024 /* larger files are replayed as they are: time */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t random_below(uint64_t *state, size_t bound)
{
    return bound == 0 ? 0 : (size_t)(lore_random_next(state) % bound);
}

/* Change a copy of an input in place, with room for its double. Gives the new size. */
static size_t vary(uint8_t *data, size_t size, uint64_t *state)
{
    static const uint8_t telling[] = {0,   '\n', '"', '\\', '{', '}',  '[',  ']',
                                      '<', '>',  '&', '#',  '`', 0x80, 0xC0, 0xFF};
    size_t changes = 1 + random_below(state, 8);
    for (size_t i = 0; i < changes && size > 0; i++) {
        size_t at = random_below(state, size);
        switch (lore_random_next(state) % 5) {
        case 0:
            data[at] = (uint8_t)lore_random_next(state);
            break;
        case 1:
            data[at] = telling[random_below(state, sizeof telling)];
            break;
        case 2:
            data[at] ^= (uint8_t)(1u << random_below(state, 8));
            break;
        case 3: { /* remove a piece */
            size_t length = 1 + random_below(state, size - at);
            memmove(data + at, data + at + length, size - at - length);
            size -= length;
            break;
        }
        default:
            if (i == 0) { /* double the input once: nesting and repeated keys */
                memcpy(data + size, data, size);
                size *= 2;
            }
        }
    }
    return size;
}

static void replay(const char *path, lore_str content)
{
    LLVMFuzzerTestOneInput((const uint8_t *)content.ptr, content.len);
    if (content.len > VARIED_BYTES_MAX) {
        return;
    }
    uint64_t state = lore_str_hash(lore_str_from(path));
    for (int i = 0; i < VARIATIONS; i++) {
        /* A block of exactly the input's size, so that a sanitizer sees a read behind its end. */
        uint8_t *copy = lore_alloc(content.len * 2 + 1);
        LORE_ASSERT(copy != NULL);
        memcpy(copy, content.ptr, content.len);
        size_t size = vary(copy, content.len, &state);
        uint8_t *exact = lore_alloc(size);
        LORE_ASSERT(exact != NULL);
        memcpy(exact, copy, size);
        lore_free(copy);
        LLVMFuzzerTestOneInput(exact, size);
        lore_free(exact);
    }
}

/* Replay every file of a folder. Gives how many, -1 on failure. */
static int64_t replay_folder(const char *folder)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    lore_arena_init(&arena, 0);
    int64_t done = 0;
    if (lore_dir_list(&arena, folder, FILES_MAX, &names, &count, &err) != LORE_OK) {
        fprintf(stderr, "%s\n", err.message);
        done = -1;
    }
    for (size_t i = 0; i < count && done >= 0; i++) {
        lore_str path = lore_str_printf(&arena, "%s/%s", folder, names[i].ptr);
        LORE_ASSERT(path.ptr != NULL);
        if (lore_file_is_dir(path.ptr)) {
            continue;
        }
        lore_buf content;
        lore_buf_init(&content, 0);
        if (lore_file_read(path.ptr, FILE_BYTES_MAX, &content, &err) == LORE_OK) {
            printf("%s\n", path.ptr);
            fflush(stdout); /* the last line names the input that crashed */
            replay(names[i].ptr, lore_buf_str(&content));
            done++;
        } else {
            fprintf(stderr, "%s\n", err.message);
            done = -1;
        }
        lore_buf_destroy(&content);
    }
    lore_arena_destroy(&arena);
    return done;
}

int main(int argc, char **argv)
{
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    int64_t total = 0;
    for (int i = 1; i < argc; i++) {
        if (!lore_file_is_dir(argv[i])) {
            fprintf(stderr, "no corpus folder %s\n", argv[i]);
            return 1;
        }
        int64_t done = replay_folder(argv[i]);
        if (done < 0) {
            return 1;
        }
        total += done;
    }
    printf("%lld inputs replayed\n", (long long)total);
    return total > 0 ? 0 : 1;
}
