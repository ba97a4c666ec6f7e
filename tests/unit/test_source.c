/* Sources: order, what is passed over, JSONL by lines, errors that do not stop the walk. */
#include "tests/unit/ingest_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

/* One line per document: "source|title|bytes" or "source|!status". */
static void walk(lore_source *source, lore_buf *out)
{
    lore_arena arena;
    lore_error err = {0};
    lore_raw_document raw;
    bool done = false;
    size_t skip = strlen(check_temp_dir()) + 1;
    lore_arena_init(&arena, 0);
    lore_buf_init(out, 0);
    for (;;) {
        lore_arena_reset(&arena);
        lore_status status = lore_source_next(source, &arena, &raw, &done, &err);
        if (status == LORE_OK && done) {
            break;
        }
        lore_str name = raw.source;
        if (lore_str_starts(name, lore_str_from(check_temp_dir()))) {
            name = lore_str_slice(name, skip, name.len);
        }
        if (status != LORE_OK) {
            CHECK(err.message[0] != '\0');
            lore_buf_printf(out, LORE_STR_FMT "|!%s\n", LORE_STR_ARG(name),
                            lore_status_name(status));
        } else {
            lore_buf_printf(out, LORE_STR_FMT "|" LORE_STR_FMT "|" LORE_STR_FMT "\n",
                            LORE_STR_ARG(name), LORE_STR_ARG(raw.id), LORE_STR_ARG(raw.bytes));
        }
    }
    lore_arena_destroy(&arena);
}

static lore_source *open_paths(const char *const *paths, int32_t count, const lore_limits *limits)
{
    lore_error err = {0};
    lore_source *source = NULL;
    lore_source_options options = {.paths = paths, .path_count = count};
    CHECK_OK(lore_source_open(&options, limits, &source, &err), &err);
    return source;
}

static void check_walk(const char *path, const char *expected)
{
    lore_buf found;
    lore_source *source = open_paths(&path, 1, &LIMITS);
    walk(source, &found);
    lore_source_close(source);
    CHECK_STR(lore_buf_str(&found), expected);
    lore_buf_destroy(&found);
}

static const char *in_temp(const char *name)
{
    static char paths[32][256];
    static int next;
    char *path = paths[next++ % 32];
    snprintf(path, sizeof paths[0], "%s/%s", check_temp_dir(), name);
    return path;
}

static void make(const char *name, const char *content)
{
    write_file(in_temp(name), lore_str_from(content));
}

TEST(folders)
{
    lore_error err = {0};
    CHECK_OK(lore_dir_make(in_temp("kb/sub"), &err), &err);
    CHECK_OK(lore_dir_make(in_temp("kb/.hidden"), &err), &err);
    CHECK_OK(lore_dir_make(in_temp("outside"), &err), &err);
    make("kb/b.md", "B");
    make("kb/a.txt", "A");
    make("kb/sub/c.html", "C");
    make("kb/README", "R");
    make("kb/binary", "\x7F"
                      "ELF\x01\x02");
    write_file(in_temp("kb/blob"), LORE_STR("a\0b"));
    make("kb/image.png", "P");
    make("kb/.secret.md", "S");
    make("kb/.hidden/d.md", "D");
    make("outside/e.md", "E");
    /* A link that leads round in a circle, one out of the tree, one to a file, one to nothing. */
    CHECK_INT(symlink("..", in_temp("kb/sub/up")), 0);
    CHECK_INT(symlink("../outside", in_temp("kb/out")), 0);
    CHECK_INT(symlink("../outside/e.md", in_temp("kb/link.md")), 0);
    CHECK_INT(symlink("nowhere.md", in_temp("kb/dangling.md")), 0);
    check_walk(in_temp("kb"), "kb/README||R\nkb/a.txt||A\nkb/b.md||B\nkb/binary||\x7F"
                              "ELF\x01\x02\n"
                              "kb/link.md||E\nkb/sub/c.html||C\n");
    check_walk(in_temp("kb//"), "kb/README||R\nkb/a.txt||A\nkb/b.md||B\nkb/binary||\x7F"
                                "ELF\x01\x02\n"
                                "kb/link.md||E\nkb/sub/c.html||C\n");
    const char *path = in_temp("kb");
    lore_buf found;
    lore_source *source = open_paths(&path, 1, &LIMITS);
    CHECK_INT(lore_source_total(source), 7);
    walk(source, &found);
    CHECK_INT(lore_source_total(source), 6);
    CHECK_INT(lore_source_passed_over(source), 7); /* .secret .hidden image blob up out dangling */
    lore_buf_destroy(&found);
    lore_source_close(source);
}

/* What is named is tried whatever its name, and an error is told in its place. */
TEST(named_files)
{
    make("notes.log", "plain words");
    write_file(in_temp("blob.md.bin"), LORE_STR("\x01\0\x02"));
    /* An Office file that is none is an error in a folder, too; an unknown file is not. */
    lore_error err = {0};
    CHECK_OK(lore_dir_make(in_temp("office"), &err), &err);
    write_file(in_temp("office/broken.docx"), LORE_STR("\x01\0\x02"));
    write_file(in_temp("office/blob"), LORE_STR("\x01\0\x02"));
    check_walk(in_temp("office"), "office/broken.docx|!unsupported\n");
    const char *paths[] = {in_temp("notes.log"), in_temp("missing.md"), in_temp("blob.md.bin"),
                           in_temp("notes.log")};
    lore_buf found;
    lore_source *source = open_paths(paths, 4, &LIMITS);
    walk(source, &found);
    lore_source_close(source);
    CHECK_STR(lore_buf_str(&found), "notes.log||plain words\nmissing.md|!not_found\n"
                                    "blob.md.bin|!unsupported\nnotes.log||plain words\n");
    lore_buf_destroy(&found);
}

TEST(lines)
{
    make("docs.jsonl", "\xEF\xBB\xBF{\"id\":\"x\",\"text\":\"one\"}\r\n\n  \n{broken\n"
                       "{\"text\":\"two\"}\n{\"text\":\"last\"}");
    check_walk(in_temp("docs.jsonl"),
               "docs.jsonl#1|x|one\ndocs.jsonl#4|!invalid\ndocs.jsonl#5||two\n"
               "docs.jsonl#6||last\n");
    make("empty.jsonl", "");
    check_walk(in_temp("empty.jsonl"), "");
    lore_error err = {0};
    lore_arena arena;
    lore_raw_document raw;
    bool done = false;
    const char *path = in_temp("docs.jsonl");
    lore_source *source = open_paths(&path, 1, &LIMITS);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_source_next(source, &arena, &raw, &done, &err), &err);
    CHECK_FAILS(lore_source_next(source, &arena, &raw, &done, &err), LORE_ERR_INVALID, &err,
                "line 4");
    lore_arena_destroy(&arena);
    lore_source_close(source);
}

/* A line over the limit fails alone, wherever the ends of the reads fall. */
TEST(long_lines)
{
    lore_buf file;
    lore_buf_init(&file, 0);
    lore_buf_append(&file, LORE_STR("{\"text\":\"a\"}\n{\"text\":\""));
    for (int i = 0; i < 300000; i++) {
        lore_buf_append(&file, LORE_STR("0123456789"));
    }
    lore_buf_append(&file, LORE_STR("\"}\n{\"text\":\"b\"}\n"));
    write_file(in_temp("long.jsonl"), lore_buf_str(&file));
    check_walk(in_temp("long.jsonl"), "long.jsonl#1||a\nlong.jsonl#2|!limit\nlong.jsonl#3||b\n");
    lore_buf_destroy(&file);
}

typedef struct feeder {
    int fd;
} feeder;

static void *feed(void *self)
{
    const feeder *f = self;
    const char *parts[] = {"{\"te", "xt\":\"piece", "s\"}\n{\"text\":\"more\"}"};
    for (size_t i = 0; i < 3; i++) {
        if (write(f->fd, parts[i], strlen(parts[i])) < 0) {
            break;
        }
        usleep(20000);
    }
    close(f->fd);
    return NULL;
}

TEST(standard_input)
{
    int ends[2];
    pthread_t thread;
    lore_error err = {0};
    lore_source *source = NULL;
    const char *path = "-";
    lore_buf found;
    CHECK_INT(pipe(ends), 0);
    feeder f = {ends[1]};
    lore_source_options options = {.paths = &path, .path_count = 1, .stdin_fd = ends[0]};
    CHECK_OK(lore_source_open(&options, &LIMITS, &source, &err), &err);
    CHECK_INT(pthread_create(&thread, NULL, feed, &f), 0);
    walk(source, &found);
    pthread_join(thread, NULL);
    CHECK_STR(lore_buf_str(&found), "||pieces\n||more\n");
    lore_buf_destroy(&found);
    lore_source_close(source);
    close(ends[0]);
}

static void *cancel_soon(void *self)
{
    usleep(50000);
    lore_source_cancel(self);
    return NULL;
}

/* A read that waits for ever ends when it is cancelled. */
TEST(cancel)
{
    int ends[2];
    pthread_t thread;
    lore_error err = {0};
    lore_source *source = NULL;
    lore_arena arena;
    lore_raw_document raw;
    bool done = false;
    const char *path = "-";
    CHECK_INT(pipe(ends), 0);
    lore_source_options options = {.paths = &path, .path_count = 1, .stdin_fd = ends[0]};
    CHECK_OK(lore_source_open(&options, &LIMITS, &source, &err), &err);
    lore_arena_init(&arena, 0);
    CHECK_INT(pthread_create(&thread, NULL, cancel_soon, source), 0);
    CHECK_OK(lore_source_next(source, &arena, &raw, &done, &err), &err);
    CHECK(done);
    pthread_join(thread, NULL);
    lore_arena_destroy(&arena);
    lore_source_close(source);
    close(ends[0]);
    close(ends[1]);
}

TEST(limits)
{
    lore_error err = {0};
    lore_limits small = LIMITS;
    lore_source *source = NULL;
    lore_buf found;
    CHECK_OK(lore_dir_make(in_temp("deep/1/2"), &err), &err);
    make("deep/a.md", "A");
    make("deep/1/2/b.md", "B");
    const char *path = in_temp("deep");
    small.folder_depth_max = 2;
    source = open_paths(&path, 1, &small);
    walk(source, &found);
    CHECK_STR(lore_buf_str(&found), "deep/1/2|!limit\ndeep/a.md||A\n");
    lore_buf_destroy(&found);
    lore_source_close(source);
    small.folder_entries_max = 1;
    lore_source_options options = {.paths = &path, .path_count = 1};
    CHECK_FAILS(lore_source_open(&options, &small, &source, &err), LORE_ERR_LIMIT, &err,
                "folder_entries_max");
    small = LIMITS;
    small.file_bytes_max = 0;
    source = open_paths(&path, 1, &small);
    walk(source, &found);
    CHECK_STR(lore_buf_str(&found), "deep/1/2/b.md|!limit\ndeep/a.md|!limit\n");
    lore_buf_destroy(&found);
    lore_source_close(source);
}

TEST(metadata)
{
    lore_error err = {0};
    lore_source *source = NULL;
    lore_arena arena;
    lore_raw_document raw;
    bool done = false;
    make("m.md", "M");
    const char *path = in_temp("m.md");
    lore_source_options options = {.paths = &path, .path_count = 1, .metadata = LORE_STR("[1]")};
    CHECK_FAILS(lore_source_open(&options, &LIMITS, &source, &err), LORE_ERR_INVALID, &err,
                "metadata");
    options.metadata = LORE_STR("{\"product\":\"R2\"}");
    CHECK_OK(lore_source_open(&options, &LIMITS, &source, &err), &err);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_source_next(source, &arena, &raw, &done, &err), &err);
    CHECK_STR(raw.metadata, "{\"product\":\"R2\"}");
    lore_arena_destroy(&arena);
    lore_source_close(source);
}

/* The whole walk with every allocation failing in turn: an error of the walk or of a document. */
static lore_status walk_once(void *self)
{
    lore_error err = {0};
    lore_source *source = NULL;
    lore_arena arena;
    lore_raw_document raw;
    bool done = false;
    lore_source_options options = {
        .paths = self, .path_count = 2, .metadata = LORE_STR("{\"a\":1}")};
    lore_status status = lore_source_open(&options, &LIMITS, &source, &err);
    lore_arena_init(&arena, 0);
    while (status == LORE_OK && !done) {
        status = lore_source_next(source, &arena, &raw, &done, &err);
    }
    lore_arena_destroy(&arena);
    lore_source_close(source);
    return status;
}

TEST(without_memory)
{
    make("n.jsonl", "{\"text\":\"one\",\"metadata\":{\"b\":2}}\n{\"text\":\"two\"}\n");
    make("n.md", "M");
    const char *paths[] = {in_temp("n.jsonl"), in_temp("n.md")};
    check_alloc_sweep(walk_once, (void *)paths);
}

CHECK_MAIN(folders, named_files, lines, long_lines, standard_input, cancel, limits, metadata,
           without_memory)
