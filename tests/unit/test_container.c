/* Files that hold documents, through the source that opens them: archives inside archives, names
 * that climb out, bombs, mailboxes with attachments, arrays of JSON; a bad member fails alone. */
#include "tests/unit/packed_fixture.h"

#include "ingest/source.h"

#include <unistd.h>

static const char *json_map = "none";

/* "name|title|bytes" or "name|!status" for each document of a file with this content. */
static void check_documents(const char *name, lore_str content, const lore_limits *limits,
                            const char *expected)
{
    char path[256];
    const char *paths[] = {path};
    lore_arena arena;
    lore_raw_document raw;
    lore_error err = {0};
    lore_source *source = NULL;
    lore_buf found;
    bool done = false;
    size_t skip = strlen(check_temp_dir()) + 1;
    snprintf(path, sizeof path, "%s/%s", check_temp_dir(), name);
    write_file(path, content);
    lore_source_options options = {
        .paths = paths, .path_count = 1, .json_map = lore_str_from(json_map)};
    CHECK_OK(lore_source_open(&options, limits, &source, &err), &err);
    lore_arena_init(&arena, 0);
    lore_buf_init(&found, 0);
    for (;;) {
        lore_arena_reset(&arena);
        lore_status status = lore_source_next(source, &arena, &raw, &done, &err);
        if (status == LORE_OK && done) {
            break;
        }
        lore_str member = lore_str_slice(raw.source, skip, raw.source.len);
        lore_buf_printf(&found, LORE_STR_FMT, LORE_STR_ARG(member));
        if (status != LORE_OK) {
            CHECK(err.message[0] != '\0');
            lore_buf_printf(&found, "|!%s\n", lore_status_name(status));
        } else {
            lore_buf_printf(&found, "|" LORE_STR_FMT "|" LORE_STR_FMT "\n", LORE_STR_ARG(raw.title),
                            LORE_STR_ARG(raw.bytes));
        }
    }
    CHECK_STR(lore_buf_str(&found), expected);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&found);
    lore_source_close(source);
    CHECK_INT(unlink(path), 0);
}

TEST(archives)
{
    lore_buf inner, outer;
    lore_buf_init(&inner, 0);
    lore_buf_init(&outer, 0);
    const packed_file in[] = {{"a.md", LORE_STR("A")}, {"b.bin", LORE_STR("B")}, {0}};
    pack(in, true, &inner);
    const packed_file out[] = {
        {"../../etc/c.txt", LORE_STR("C")},
        {"sub/in.tar.gz", lore_buf_str(&inner)},
        {"README", LORE_STR("R")},
        {"docs.json", LORE_STR("[{\"text\":\"J\",\"title\":\"T\"},{}]")},
        {"a.jsonl", LORE_STR("\xEF\xBB\xBF{\"text\":\"1\"}\n\n{}\n{\"text\":\"4\"}")},
        {"mail.eml", LORE_STR("From: a\nSubject: S\nTo: b\n\nM")},
        {0}};
    pack(out, false, &outer);
    const char *expected = "x.zip#../../etc/c.txt||C\nx.zip#sub/in.tar.gz#a.md||A\n"
                           "x.zip#README||R\nx.zip#docs.json#1|T|J\nx.zip#docs.json#2|!invalid\n"
                           "x.zip#a.jsonl#1||1\nx.zip#a.jsonl#3|!invalid\nx.zip#a.jsonl#4||4\n"
                           "x.zip#mail.eml|S|M\n";
    check_documents("x.zip", lore_buf_str(&outer), &LIMITS, expected);
    lore_limits flat = LIMITS;
    flat.archive_depth_max = 1;
    check_documents("x.zip", lore_buf_str(&outer), &flat,
                    "x.zip#../../etc/c.txt||C\nx.zip#sub/in.tar.gz|!limit\nx.zip#README||R\n"
                    "x.zip#docs.json|!limit\nx.zip#a.jsonl|!limit\nx.zip#mail.eml|!limit\n");
    /* Cut off in the middle of the first member. */
    check_documents("cut.zip", lore_str_slice(lore_buf_str(&outer), 0, 40), &LIMITS,
                    "cut.zip|!invalid\n");
    lore_buf_destroy(&inner);
    lore_buf_destroy(&outer);
}

/* What macOS adds to archives and hidden files are nobody's documents; a file of an old format is
 * told. */
TEST(members_passed_over)
{
    const packed_file files[] = {{"__MACOSX/._a.md", LORE_STR("x")},
                                 {".git/b.md", LORE_STR("x")},
                                 {"./c.md", LORE_STR("c")},
                                 {"d.doc", LORE_STR("{\\rtf1 text}")},
                                 {0}};
    lore_buf packed;
    lore_buf_init(&packed, 0);
    pack(files, false, &packed);
    check_documents("x.zip", lore_buf_str(&packed), &LIMITS,
                    "x.zip#./c.md||c\nx.zip#d.doc|!unsupported\n");
    lore_buf_destroy(&packed);
}

/* One compressed file is an archive of one, named without its last extension. Twice compressed is
 * not opened. */
TEST(single)
{
    check_documents("b.gz", LORE_STR("\x1F\x8B\x08\0not so"), &LIMITS, "b.gz|!invalid\n");
    lore_buf once, twice;
    lore_buf_init(&once, 0);
    lore_buf_init(&twice, 0);
    compress_file(LORE_STR("中文\n"), 'x', &once);
    check_documents("c.txt.xz", lore_buf_str(&once), &LIMITS, "c.txt.xz#c.txt||中文\n\n");
    compress_file(LORE_STR("# A\n"), 'g', &twice);
    check_documents("a.md.gz", lore_buf_str(&twice), &LIMITS, "a.md.gz#a.md||# A\n\n");
    lore_buf_reset(&twice);
    compress_file(lore_buf_str(&once), 'b', &twice);
    check_documents("d.txt.bz2", lore_buf_str(&twice), &LIMITS, "d.txt.bz2|!unsupported\n");
    lore_buf_destroy(&once);
    lore_buf_destroy(&twice);
}

TEST(bombs)
{
    lore_buf zeros, packed;
    lore_limits small = LIMITS;
    lore_buf_init(&zeros, 0);
    lore_buf_init(&packed, 0);
    CHECK(lore_buf_reserve(&zeros, 1 << 20));
    memset(zeros.ptr, 'a', 1 << 20);
    zeros.len = 1 << 20;
    const packed_file files[] = {{"a.png", lore_buf_str(&zeros)},
                                 {"b.txt", lore_buf_str(&zeros)},
                                 {"c.txt", LORE_STR("c")},
                                 {0}};
    pack(files, true, &packed);
    small.file_bytes_max = 1 << 19;
    check_documents("b.tgz", lore_buf_str(&packed), &small, "b.tgz#b.txt|!limit\nb.tgz#c.txt||c\n");
    small.unpacked_bytes_max = 1 << 20;
    check_documents("b.tgz", lore_buf_str(&packed), &small, "b.tgz|!limit\n");
    lore_buf_destroy(&zeros);
    lore_buf_destroy(&packed);
}

TEST(mailbox)
{
    check_documents(
        "m.mbox",
        LORE_STR("From a@b Sat Jan  3 01:05:34 1996\nFrom: a\nSubject: one\nContent-Type: "
                 "multipart/mixed; boundary=b\n\n--b\n\nHi, me\n--b\nContent-Disposition: "
                 "attachment; filename=x.txt\n\nX\n--b--\n\nFrom a@b Sat Jan  3 01:05:34 1996\n"
                 "From: c\nSubject: two\n\nsecond\n"),
        &LIMITS, "m.mbox#1|one|Hi, me\n\nm.mbox#1#x.txt||X\n\nm.mbox#2|two|second\n\n");
    /* What is quoted loses one mark, and a sentence begins no message. */
    check_documents(
        "q.mbox",
        LORE_STR("From a\r\nSubject: =?GBK?B?1tDOxA==?=\r\n\r\n>From here\r\n>>From\r\n"
                 ">>From x\r\n\r\nFrom there on\r\nit goes\r\n\r\nFrom b\r\nX: y\r\n\r\nz"),
        &LIMITS,
        "q.mbox#1|中文|From here\r\n>>From\r\n>From x\r\n\r\nFrom there on\r\nit "
        "goes\r\n\r\n\nq.mbox#2||z\n");
    check_documents("n.mbox", LORE_STR("From nobody\nwords\n"), &LIMITS, "n.mbox#1|!invalid\n");
}

TEST(json)
{
    check_documents("one.json", LORE_STR("{\"text\":\"T\"}"), &LIMITS, "one.json||T\n");
    check_documents("any.json", LORE_STR("{\"a\":1}"), &LIMITS, "any.json||{\"a\":1}\n");
    json_map = "text=b,title=t";
    check_documents("m.json", LORE_STR("[{\"b\":\"B\",\"t\":\"T\"},{\"text\":\"no\"},3]"), &LIMITS,
                    "m.json#1|T|B\nm.json#2|!invalid\nm.json#3|!invalid\n");
    check_documents("m.jsonl", LORE_STR("{\"b\":\"B\"}\n{\"c\":1}\n"), &LIMITS,
                    "m.jsonl#1||B\nm.jsonl#2|!invalid\n");
    check_documents("o.json", LORE_STR("{\"b\":\"B\"}"), &LIMITS, "o.json||B\n");
    json_map = "items=d.list,text=b";
    check_documents("i.json", LORE_STR("{\"d\":{\"list\":[{\"b\":\"B\"}]}}"), &LIMITS,
                    "i.json#1||B\n");
    check_documents("j.json", LORE_STR("{\"d\":{}}"), &LIMITS, "j.json|!invalid\n");
    json_map = "none";
    check_documents("bad.json", LORE_STR("{\"a\":"), &LIMITS, "bad.json|!invalid\n");
}

CHECK_MAIN(archives, members_passed_over, single, bombs, mailbox, json)
