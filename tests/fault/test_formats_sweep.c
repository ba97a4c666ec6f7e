/* Reading one file of each format, from the list of files to cleaned text, with every allocation
 * and every opening of a file failing in turn: an error that fits, nothing left behind, and the
 * next attempt succeeds. The documents are the seeds of the fuzz targets. */
#include "tests/fault/sweep.h"

#include "tests/fuzz/xml_parts.h"
#include "tests/unit/packed_fixture.h"

#include "ingest/source.h"

#define CORPUS LORE_SOURCE_DIR "/tests/fuzz/corpus/"

typedef struct reading {
    char path[300];
    int64_t documents, wanted; /* of the last run; that a whole run gives */
} reading;

static lore_status read_documents(void *self, lore_error *err)
{
    reading *r = self;
    const char *path = r->path;
    lore_source_options options = {.paths = &path, .path_count = 1};
    lore_source *source = NULL;
    lore_arena arena;
    bool done = false;
    r->documents = 0;
    lore_status status = lore_source_open(&options, &LIMITS, &source, err);
    lore_arena_init(&arena, 0);
    while (status == LORE_OK) {
        lore_raw_document raw;
        lore_clean_document clean;
        lore_arena_reset(&arena);
        status = lore_source_next(source, &arena, &raw, &done, err);
        if (status != LORE_OK || done) {
            break;
        }
        status = lore_clean(&raw, &LIMITS, NULL, &arena, &clean, err);
        r->documents += status == LORE_OK && clean.text.len > 0;
    }
    lore_arena_destroy(&arena);
    lore_source_close(source);
    return status;
}

/* A run that succeeds has lost nothing, whatever failed in it. */
static int32_t check_documents(void *self, lore_status status)
{
    const reading *r = self;
    return status == LORE_OK && r->documents != r->wanted;
}

static int64_t next_call(int64_t n)
{
    return n + 1;
}

static void sweep_file(const char *name, lore_str content, int64_t documents)
{
    reading r = {.wanted = documents};
    snprintf(r.path, sizeof r.path, "%s/%s", check_temp_dir(), name);
    write_file(r.path, content);
    static const sweep_manner opening[] = {{FAULT_OPEN, FAULT_ONCE, EIO},
                                           {FAULT_OPEN, FAULT_STICKY, EMFILE}};
    sweep memory = {.name = name,
                    .run = read_documents,
                    .check = check_documents,
                    .self = &r,
                    .next = next_call};
    sweep files = memory;
    sweep_allocations(&memory);
    sweep_all(&files, opening, sizeof opening / sizeof opening[0]);
}

/* A seed of fuzz_xml, packed. */
static void sweep_packed(const char *seed, const char *name)
{
    char path[400];
    lore_buf input, bytes;
    lore_part parts[XML_PARTS_MAX];
    packed_file files[XML_PARTS_MAX + 2] = {{"[Content_Types].xml", LORE_STR("<Types/>")}};
    snprintf(path, sizeof path, CORPUS "xml/%s", seed);
    read_file(path, &input);
    const xml_kind *kind = xml_kind_of((uint8_t)input.ptr[0]);
    lore_str xml = {input.ptr + 1, input.len - 1};
    if (kind->mimetype != NULL) {
        files[0] = (packed_file){"mimetype", lore_str_from(kind->mimetype)};
    }
    size_t count = xml_cut(kind, xml, parts);
    for (size_t i = 0; i < count; i++) {
        files[i + 1] =
            (packed_file){kind->parts[i], lore_str_slice(xml, parts[i].start, parts[i].end)};
    }
    lore_buf_init(&bytes, 0);
    pack(files, false, &bytes);
    sweep_file(name, lore_buf_str(&bytes), 1);
    lore_buf_destroy(&input);
    lore_buf_destroy(&bytes);
}

static void sweep_seed(const char *seed, const char *name, int64_t documents)
{
    char path[400];
    lore_buf input;
    snprintf(path, sizeof path, CORPUS "%s", seed);
    read_file(path, &input);
    sweep_file(name, lore_buf_str(&input), documents);
    lore_buf_destroy(&input);
}

TEST(packed)
{
    sweep_packed("docx_parts", "a.docx");
    sweep_packed("pptx_parts", "a.pptx");
    sweep_packed("xlsx_parts", "a.xlsx");
    sweep_packed("odf", "a.odt");
    sweep_packed("odf_sheet", "a.ods");
    sweep_packed("epub_parts", "a.epub");
}

TEST(others)
{
    sweep_seed("mail/multipart", "a.eml", 2);
    sweep_seed("mail/mailbox", "a.mbox", 2);
    sweep_seed("csv/quotes", "a.csv", 1);
    sweep_seed("json_text/nested", "a.json", 1);
    const packed_file files[] = {{"a.md", LORE_STR("# A\n\nText.\n")},
                                 {"b.jsonl", LORE_STR("{\"text\":\"b\"}\n")},
                                 {"c.csv", LORE_STR("名,n\n大,1\n")},
                                 {0}};
    lore_buf bytes;
    lore_buf_init(&bytes, 0);
    pack(files, true, &bytes);
    sweep_file("a.tgz", lore_buf_str(&bytes), 3);
    lore_buf_destroy(&bytes);
}

CHECK_MAIN(packed, others)
