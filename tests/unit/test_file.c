/* Proves reading with its limits, that a replaced file is the old or the new one whatever fails,
 * locks between processes, folders, and SHA-256 against published digests. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char path[4][200];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", check_temp_dir(), name);
    return out;
}

static void write_plain(const char *path, lore_str text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, text.ptr, text.len), text.len);
    close(fd);
}

static bool holds(const char *path, const char *text)
{
    lore_buf buf;
    lore_error err;
    lore_buf_init(&buf, 0);
    lore_status status = lore_file_read(path, 1000000, &buf, &err);
    bool same = status == LORE_OK && lore_str_equal(lore_buf_str(&buf), lore_str_from(text));
    lore_buf_destroy(&buf);
    return same;
}

TEST(reads_whole_files)
{
    lore_buf buf;
    lore_error err;
    lore_buf_init(&buf, 0);
    write_plain(path_of("a"), LORE_STR("a\0b"));
    lore_buf_append(&buf, LORE_STR(">"));
    CHECK_OK(lore_file_read(path_of("a"), 3, &buf, &err), &err);
    CHECK_INT(buf.len, 4);
    CHECK(memcmp(buf.ptr, ">a\0b", 4) == 0);
    write_plain(path_of("empty"), LORE_STR(""));
    CHECK_OK(lore_file_read(path_of("empty"), 0, &buf, &err), &err);
    CHECK_INT(buf.len, 4);
    CHECK_OK(lore_file_read("/proc/self/stat", 100000, &buf, &err), &err); /* says its size is 0 */
    CHECK(buf.len > 20);
    lore_buf_destroy(&buf);
}

TEST(refuses_what_it_must_not_read)
{
    lore_buf buf;
    lore_error err;
    lore_buf_init(&buf, 0);
    write_plain(path_of("five"), LORE_STR("12345"));
    CHECK_FAILS(lore_file_read(path_of("five"), 4, &buf, &err), LORE_ERR_LIMIT, &err,
                "five' is larger");
    CHECK_FAILS(lore_file_read(path_of("none"), 4, &buf, &err), LORE_ERR_NOT_FOUND, &err, "none'");
    CHECK_FAILS(lore_file_read(check_temp_dir(), 4, &buf, &err), LORE_ERR_INVALID, &err,
                "a folder");
    CHECK_FAILS(lore_file_read("/dev/zero", 4, &buf, &err), LORE_ERR_INVALID, &err, "regular");
    CHECK_INT(mkfifo(path_of("pipe"), 0600), 0);
    CHECK_FAILS(lore_file_read(path_of("pipe"), 4, &buf, &err), LORE_ERR_INVALID, &err, "regular");
    CHECK_FAILS(lore_file_read("/proc/self/maps", 10, &buf, &err), LORE_ERR_LIMIT, &err,
                "10 bytes");
    lore_buf_destroy(&buf);
    lore_buf_init(&buf, 5);
    CHECK_OK(lore_file_read(path_of("five"), 100, &buf, &err), &err); /* exactly the cap */
    lore_buf_reset(&buf);
    write_plain(path_of("six"), LORE_STR("123456"));
    CHECK_FAILS(lore_file_read(path_of("six"), 100, &buf, &err), LORE_ERR_LIMIT, &err, "5 bytes");
    lore_buf_destroy(&buf);
}

TEST(reads_descriptors)
{
    int ends[2];
    lore_buf buf;
    lore_error err;
    CHECK_INT(pipe(ends), 0);
    lore_buf_init(&buf, 0);
    CHECK_INT(write(ends[1], "hello", 5), 5);
    close(ends[1]);
    CHECK_OK(lore_file_read_fd(ends[0], "standard input", 5, &buf, &err), &err);
    CHECK_STR(lore_buf_str(&buf), "hello");
    close(ends[0]);
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(write(ends[1], "longer", 6), 6);
    close(ends[1]);
    CHECK_FAILS(lore_file_read_fd(ends[0], "pipe", 5, &buf, &err), LORE_ERR_LIMIT, &err, "'pipe'");
    close(ends[0]);
    CHECK_FAILS(lore_file_read_fd(ends[0], "closed", 5, &buf, &err), LORE_ERR_IO, &err, "'closed'");
    lore_buf_destroy(&buf);
}

static lore_status read_a_file(void *self)
{
    lore_buf buf;
    lore_error err;
    lore_buf_init(&buf, 0);
    lore_status status = lore_file_read(self, 1000000, &buf, &err);
    lore_buf_destroy(&buf);
    return status;
}

TEST(reading_survives_failures)
{
    char path[200];
    snprintf(path, sizeof path, "%s", path_of("a"));
    write_plain(path, LORE_STR("some text"));
    check_alloc_sweep(read_a_file, path);
}

TEST(maps)
{
    lore_map map = {0};
    lore_error err;
    write_plain(path_of("map"), LORE_STR("mapped"));
    CHECK_OK(lore_map_open(path_of("map"), &map, &err), &err);
    CHECK_INT(map.size_bytes, 6);
    CHECK(memcmp(map.ptr, "mapped", 6) == 0);
    lore_map_close(&map);
    lore_map_close(&map);
    lore_map_close(NULL);
    write_plain(path_of("map"), LORE_STR(""));
    CHECK_OK(lore_map_open(path_of("map"), &map, &err), &err);
    CHECK(map.ptr == NULL && map.size_bytes == 0);
    CHECK_FAILS(lore_map_open(path_of("none"), &map, &err), LORE_ERR_NOT_FOUND, &err, "none'");
    CHECK_FAILS(lore_map_open(check_temp_dir(), &map, &err), LORE_ERR_INVALID, &err, "a folder");
}

TEST(replaces_all_or_nothing)
{
    lore_error err;
    const char *path = path_of("replaced");
    CHECK_OK(lore_file_replace(path, LORE_STR("first"), &err), &err);
    CHECK(holds(path, "first"));
    const lore_file_op ops[] = {LORE_FILE_OP_WRITE, LORE_FILE_OP_FSYNC, LORE_FILE_OP_RENAME};
    for (size_t i = 0; i < 3; i++) {
        lore_file_fail_at(ops[i], 1);
        CHECK_FAILS(lore_file_replace(path, LORE_STR("second"), &err), LORE_ERR_IO, &err,
                    "replaced");
        CHECK(holds(path, "first"));
        CHECK(!lore_file_exists(path_of("replaced.tmp")));
    }
    /* The second fsync is that of the folder: the file is new, but the caller hears of the doubt.
     */
    lore_file_fail_at(LORE_FILE_OP_FSYNC, 2);
    CHECK_FAILS(lore_file_replace(path, LORE_STR("third"), &err), LORE_ERR_IO, &err, "cannot sync");
    CHECK(holds(path, "third"));
    lore_file_fail_at(LORE_FILE_OP_FSYNC, 0);
    CHECK_OK(lore_file_replace(path, (lore_str){NULL, 0}, &err), &err);
    CHECK(holds(path, ""));
    CHECK_FAILS(lore_file_replace(path_of("no/folder"), LORE_STR("x"), &err), LORE_ERR_IO, &err,
                "no/folder.tmp");
}

TEST(replaces_in_steps)
{
    lore_error err;
    int fd = -1;
    CHECK_OK(lore_file_begin(path_of("steps"), &fd, &err), &err);
    CHECK_OK(lore_file_write(fd, path_of("steps"), "ab", 2, &err), &err);
    CHECK(!lore_file_exists(path_of("steps")));
    CHECK_OK(lore_file_write(fd, path_of("steps"), "cd", 2, &err), &err);
    CHECK_OK(lore_file_commit(fd, path_of("steps"), &err), &err);
    CHECK(holds(path_of("steps"), "abcd"));
    CHECK_OK(lore_file_begin(path_of("steps"), &fd, &err), &err);
    lore_file_abort(fd, path_of("steps"));
    lore_file_abort(-1, path_of("steps"));
    CHECK(holds(path_of("steps"), "abcd"));
    CHECK(!lore_file_exists(path_of("steps.tmp")));
}

TEST(makes_and_lists_folders)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 99;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_dir_make(path_of("x/y//z"), &err), &err);
    CHECK_OK(lore_dir_make(path_of("x/y/z/"), &err), &err);
    CHECK(lore_file_is_dir(path_of("x/y/z")));
    CHECK_OK(lore_dir_list(&arena, path_of("x/y/z"), 10, &names, &count, &err), &err);
    CHECK_INT(count, 0);
    const char *files[] = {"b", "a", "B", "\xC3\xA4", "a b", ".hidden"};
    for (size_t i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "x/y/z/%s", files[i]);
        write_plain(path_of(name), LORE_STR("x"));
    }
    CHECK_OK(lore_dir_list(&arena, path_of("x/y/z"), 6, &names, &count, &err), &err);
    const char *sorted[] = {".hidden", "B", "a", "a b", "b", "\xC3\xA4"};
    CHECK_INT(count, 6);
    for (size_t i = 0; i < count; i++) {
        CHECK_STR(names[i], sorted[i]);
    }
    CHECK_FAILS(lore_dir_list(&arena, path_of("x/y/z"), 5, &names, &count, &err), LORE_ERR_LIMIT,
                &err, "more than 5");
    CHECK_FAILS(lore_dir_list(&arena, path_of("no"), 5, &names, &count, &err), LORE_ERR_NOT_FOUND,
                &err, "no'");
    CHECK_FAILS(lore_dir_make(path_of("x/y/z/a"), &err), LORE_ERR_IO, &err, "a file has that name");
    CHECK_FAILS(lore_dir_make(path_of("x/y/z/a/b"), &err), LORE_ERR_IO, &err, "z/a");
    CHECK_FAILS(lore_dir_make("", &err), LORE_ERR_INVALID, &err, "empty");
    lore_file_fail_at(LORE_FILE_OP_FSYNC, 1); /* a folder that might vanish is none */
    CHECK_FAILS(lore_dir_make(path_of("unsynced"), &err), LORE_ERR_IO, &err, "cannot sync");
    CHECK(!lore_file_exists(path_of("unsynced")));
    CHECK(!lore_file_is_dir(path_of("x/y/z/a")) && lore_file_exists(path_of("x/y/z/a")));
    CHECK(lore_file_mtime_ms(path_of("x/y/z/a")) > INT64_C(1600000000000));
    CHECK_INT(lore_file_mtime_ms(path_of("no")), -1);
    lore_arena_destroy(&arena);
}

static lore_status list_a_folder(void *self)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    lore_arena_init(&arena, 0);
    lore_status status = lore_dir_list(&arena, self, 1000, &names, &count, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(listing_survives_failures)
{
    char path[200];
    snprintf(path, sizeof path, "%s", path_of("many"));
    lore_error err;
    CHECK_OK(lore_dir_make(path, &err), &err);
    for (int i = 0; i < 200; i++) {
        char name[250];
        snprintf(name, sizeof name, "%s/%d", path, i);
        write_plain(name, LORE_STR(""));
    }
    check_alloc_sweep(list_a_folder, path);
}

TEST(locks_exclude_processes)
{
    lore_error err;
    lore_buf holder;
    int fd = -1;
    lore_buf_init(&holder, 0);
    CHECK_OK(lore_file_lock(path_of("lock"), &fd, &holder, &err), &err);
    CHECK_OK(lore_file_lock_note(fd, LORE_STR("a longer first note"), &err), &err);
    CHECK_OK(lore_file_lock_note(fd, LORE_STR("pid 7"), &err), &err);
    pid_t child = fork();
    if (child == 0) {
        int other = -1;
        lore_status status = lore_file_lock(path_of("lock"), &other, &holder, &err);
        bool right = status == LORE_ERR_BUSY && other == -1 &&
                     lore_str_equal(lore_buf_str(&holder), LORE_STR("pid 7"));
        _exit(right ? 0 : 1);
    }
    int result = 1;
    CHECK(waitpid(child, &result, 0) == child);
    CHECK_INT(result, 0);
    lore_file_unlock(fd);
    lore_file_unlock(-1);
    CHECK_OK(lore_file_lock(path_of("lock"), &fd, NULL, &err), &err);
    lore_file_unlock(fd);
    CHECK_FAILS(lore_file_lock(path_of("no/lock"), &fd, NULL, &err), LORE_ERR_IO, &err, "no/lock");
    lore_buf_destroy(&holder);
}

static void check_digest(lore_str text, const char *expected)
{
    /* Whatever the pieces, the digest is that of the whole. */
    for (size_t piece = 1; piece < 200; piece += piece < 3 ? 1 : 31) {
        lore_sha256 sha;
        uint8_t digest[32];
        char hex[65];
        lore_sha256_init(&sha);
        for (size_t at = 0; at < text.len; at += piece) {
            size_t end = at + piece < text.len ? at + piece : text.len;
            lore_sha256_update(&sha, lore_str_slice(text, at, end));
        }
        lore_sha256_final(&sha, digest);
        lore_sha256_hex(digest, hex);
        CHECK_STR(lore_str_from(hex), expected);
    }
}

/* FIPS 180-4 examples, and lengths on both sides of where the padding takes a block of its own. */
TEST(hashes_as_published)
{
    check_digest((lore_str){NULL, 0},
                 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest(LORE_STR("abc"),
                 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest(LORE_STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    static char a[1000000];
    memset(a, 'a', sizeof a);
    check_digest((lore_str){a, 55},
                 "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    check_digest((lore_str){a, 64},
                 "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
    lore_sha256 sha;
    uint8_t digest[32];
    char hex[65];
    lore_sha256_init(&sha);
    lore_sha256_update(&sha, (lore_str){a, sizeof a});
    lore_sha256_final(&sha, digest);
    lore_sha256_hex(digest, hex);
    CHECK_STR(lore_str_from(hex),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

CHECK_MAIN(reads_whole_files, refuses_what_it_must_not_read, reads_descriptors,
           reading_survives_failures, maps, replaces_all_or_nothing, replaces_in_steps,
           makes_and_lists_folders, listing_survives_failures, locks_exclude_processes,
           hashes_as_published)
