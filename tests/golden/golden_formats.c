/* Every format that is read: a document made here, and in tests/golden/formats/NAME.expected what
 * `lore ingest` would see of it: each document of the file with title, metadata and sections. A
 * document is small but has of everything that its format can say, in English and Chinese. Whoever
 * changes a result on purpose runs this with LORE_GOLDEN_WRITE=1 and reviews the difference. */
#include "tests/unit/packed_fixture.h"

#include "ingest/source.h"

#include <unistd.h>

#define FOLDER LORE_SOURCE_DIR "/tests/golden/formats"

/* ---- what is seen ---- */

static void put_field(lore_buf *out, const char *name, lore_str value)
{
    if (value.len > 0) {
        lore_buf_printf(out, "%s: " LORE_STR_FMT "\n", name, LORE_STR_ARG(value));
    }
}

static void describe(const lore_raw_document *raw, lore_arena *arena, lore_buf *out)
{
    lore_clean_document clean;
    lore_error err = {0};
    CHECK_OK(lore_clean(raw, &LIMITS, NULL, arena, &clean, &err), &err);
    put_field(out, "title", clean.title);
    put_field(out, "id", raw->id);
    put_field(out, "media", lore_str_from(lore_media_name(raw->media)));
    put_field(out, "metadata", raw->metadata);
    put_field(out, "author", clean.author);
    put_field(out, "date", clean.date);
    for (int32_t i = 0; i < clean.section_count; i++) {
        const lore_section *section = &clean.sections[i];
        lore_buf_printf(out, "[" LORE_STR_FMT "]\n", LORE_STR_ARG(section->heading));
        lore_buf_append(out, lore_str_slice(clean.text, section->start, section->end));
    }
    lore_buf_append(out, LORE_STR("\n"));
}

/* Every document of the file, as the walk of a folder gives them. */
static void describe_file(const char *path, const char *json_map, lore_buf *out)
{
    lore_source_options options = {
        .paths = &path, .path_count = 1, .json_map = lore_str_from(json_map)};
    size_t skip = strlen(check_temp_dir()) + 1;
    lore_source *source = NULL;
    lore_raw_document raw;
    lore_arena arena;
    lore_error err = {0};
    bool done = false;
    CHECK_OK(lore_source_open(&options, &LIMITS, &source, &err), &err);
    lore_arena_init(&arena, 0);
    for (;;) {
        lore_arena_reset(&arena);
        lore_status status = lore_source_next(source, &arena, &raw, &done, &err);
        if (status == LORE_OK && done) {
            break;
        }
        put_field(out, "== source", lore_str_slice(raw.source, skip, raw.source.len));
        if (status == LORE_OK) {
            describe(&raw, &arena, out);
        } else {
            lore_buf_printf(out, "error: %s: %s\n", lore_status_name(status), err.message);
        }
    }
    lore_arena_destroy(&arena);
    lore_source_close(source);
}

/* name: of the file, which tells its format only where its content cannot. */
static void check_mapped(const char *name, lore_str content, const char *json_map)
{
    char path[512], expected_path[512];
    lore_buf found, expected;
    snprintf(path, sizeof path, "%s/%s", check_temp_dir(), name);
    snprintf(expected_path, sizeof expected_path, FOLDER "/%s.expected", name);
    write_file(path, content);
    lore_buf_init(&found, 0);
    describe_file(path, json_map, &found);
    CHECK_INT(unlink(path), 0);
    if (getenv("LORE_GOLDEN_WRITE") != NULL) {
        write_file(expected_path, lore_buf_str(&found));
    }
    read_file(expected_path, &expected);
    if (!lore_str_equal(lore_buf_str(&found), lore_buf_str(&expected))) {
        CHECK_STOP("%s: seen as\n" LORE_STR_FMT "\nnot as\n" LORE_STR_FMT, name,
                   LORE_STR_ARG(lore_buf_str(&found)), LORE_STR_ARG(lore_buf_str(&expected)));
    }
    lore_buf_destroy(&found);
    lore_buf_destroy(&expected);
}

static void check_file(const char *name, lore_str content)
{
    check_mapped(name, content, "none");
}

static void check_pack(const char *name, const packed_file *files, bool is_tar)
{
    lore_buf bytes;
    lore_buf_init(&bytes, 0);
    pack(files, is_tar, &bytes);
    check_file(name, lore_buf_str(&bytes));
    lore_buf_destroy(&bytes);
}

/* ---- texts ---- */

TEST(texts)
{
    check_file("letter.txt", LORE_STR("质保说明\r\n========\r\n\r\n路由器质保\r\n24 个月。\r\n\r\n"
                                      "The warranty covers parts\r\nand labour.\r\n\r\n- cables\r\n"
                                      "- 电源\r\n"));
    check_file(
        "guide.md",
        LORE_STR("---\ntitle: 指南 Guide\n---\n# 指南 Guide\n\nHold *reset* for **ten** "
                 "seconds.\n\n## 恢复出厂设置\n\n1. 断电\n2. Wait &amp; see\n\n| 灯 | state |\n"
                 "|---|---|\n| 蓝 | ready |\n\n```\nlore  query\n```\n"));
    check_file("page.html",
               LORE_STR("<!DOCTYPE html><html><head><meta charset='utf-8'><title>保修 Warranty"
                        "</title></head><body><nav>Home | Shop</nav><main><h1>保修 Warranty</h1>"
                        "<p>Two&nbsp;years,<br>两年。</p><h2>Parts</h2><ul><li>battery</li><li>电池"
                        "</li></ul><table><tr><th>Item</th><td>主机</td></tr></table></main>"
                        "<footer>(c)</footer></body></html>"));
}

TEST(tables)
{
    check_file("cities.csv",
               LORE_STR("城市,Year,\"Note, long\"\r\n北京,1949,\"say \"\"hi\"\"\r\nagain\""
                        "\r\nBonn,,\r\n"));
    check_file("plain.tsv", LORE_STR("1\t二\t\t4\n5\t6\t7\t8\n"));
}

TEST(json)
{
    check_file("value.json",
               LORE_STR("{\"name\":\"路由器\",\"ports\":[1,2],\"on\":true,\"none\":null,"
                        "\"maker\":{\"city\":\"Bonn\"}}"));
    check_file(
        "documents.jsonl",
        LORE_STR(
            "{\"id\":\"a\",\"title\":\"甲\",\"text\":\"第一篇。\",\"metadata\":{\"year\":2024}}\n"
            "\n{\"markdown\":\"# B\\n\\nSecond.\",\"url\":\"http://b\"}\n{\"title\":\"C\"}\n"));
    check_mapped(
        "posts.json",
        LORE_STR("{\"data\":[{\"key\":7,\"body\":\"<p>正文 body</p>\",\"meta\":{\"name\":\"标题\"},"
                 "\"on\":\"2024-05-06\",\"by\":\"Ada\"},{\"key\":8}]}"),
        "items=data,id=key,html=body,title=meta.name,date=on,metadata=by");
}

/* ---- Office ---- */

#define TYPES                                       \
    {                                               \
        "[Content_Types].xml", LORE_STR("<Types/>") \
    }
static const lore_str CORE_XML =
    LORE_STR("<c xmlns:dc='d'><dc:title>手册 Manual</dc:title><dc:creator>王伟</dc:creator>"
             "<modified>2024-05-06T07:08:09Z</modified></c>");
#define CORE                          \
    {                                 \
        "docProps/core.xml", CORE_XML \
    }
#define P(text) "<w:p><w:r><w:t>" text "</w:t></w:r></w:p>"
#define H(style, text) \
    "<w:p><w:pPr><w:pStyle w:val='" style "'/></w:pPr><w:r><w:t>" text "</w:t></w:r></w:p>"
#define ITEM(level, text)                                                                    \
    "<w:p><w:pPr><w:numPr><w:ilvl w:val='" level "'/><w:numId w:val='1'/></w:numPr></w:pPr>" \
    "<w:r><w:t>" text "</w:t></w:r></w:p>"

TEST(word)
{
    const packed_file files[] = {
        TYPES,
        CORE,
        {"word/styles.xml",
         LORE_STR(
             "<w:styles xmlns:w='w'><w:style w:styleId='1'><w:name w:val='heading 1'/></w:style>"
             "<w:style w:styleId='2'><w:name w:val='heading 2'/></w:style></w:styles>")},
        {"word/numbering.xml",
         LORE_STR("<w:n xmlns:w='w'><w:abstractNum w:abstractNumId='0'><w:lvl w:ilvl='0'><w:numFmt "
                  "w:val='decimal'/><w:lvlText w:val='%1.'/></w:lvl><w:lvl w:ilvl='1'><w:numFmt "
                  "w:val='lowerLetter'/><w:lvlText w:val='%1.%2)'/></w:lvl></w:abstractNum>"
                  "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num></w:n>")},
        {"word/footnotes.xml",
         LORE_STR("<w:f xmlns:w='w'><w:footnote w:id='2'>" P("见第 5 页") "</w:footnote></w:f>")},
        {"word/document.xml",
         LORE_STR(
             "<w:d xmlns:w='w'>" H("1", "安装 Setup") P("接通电源。Plug in &amp; wait.") ITEM(
                 "0", "断电") ITEM("1", "unplug") ITEM("1", "wait") ITEM("0", "通电")
                 H("2", "Lights") "<w:tbl><w:tr><w:tc>" P("灯") "</w:tc><w:tc>" P(
                     "state") "</w:tc></w:tr><w:tr><w:tc>" P("蓝") "</w:tc><w:tc>" P("ready") "</"
                                                                                              "w:"
                                                                                              "tc><"
                                                                                              "/w:"
                                                                                              "tr><"
                                                                                              "/w:"
                                                                                              "tbl>"
                                                                                              "<w:"
                                                                                              "p><"
                                                                                              "w:r>"
                                                                                              "<w:"
                                                                                              "t>"
                                                                                              "Blue"
                                                                                              " is "
                                                                                              "good"
                                                                                              "</"
                                                                                              "w:t>"
                                                                                              "</"
                                                                                              "w:r>"
                                                                                              "<w:"
                                                                                              "r>"
                                                                                              "<w:"
                                                                                              "foot"
                                                                                              "note"
                                                                                              "Refe"
                                                                                              "renc"
                                                                                              "e "
                                                                                              "w:"
                                                                                              "id='"
                                                                                              "2'/"
                                                                                              "></"
                                                                                              "w:r>"
                                                                                              "<w:"
                                                                                              "r><"
                                                                                              "w:t>"
                                                                                              ".</"
                                                                                              "w:t>"
                                                                                              "</"
                                                                                              "w:r>"
                                                                                              "</"
                                                                                              "w:p>"
                                                                                              "</"
                                                                                              "w:"
                                                                                              "d"
                                                                                              ">")},
        {0}};
    check_pack("manual.docx", files, false);
}

TEST(slides)
{
#define SHAPE(kind, text) \
    "<p:sp><p:ph type='" kind "'/><a:p><a:r><a:t>" text "</a:t></a:r></a:p></p:sp>"
    const packed_file files[] = {
        TYPES,
        CORE,
        {"ppt/presentation.xml", LORE_STR("<p:p xmlns:p='p' xmlns:r='r'><p:sldId id='1' r:id='b'/>"
                                          "<p:sldId id='2' r:id='a'/></p:p>")},
        {"ppt/_rels/presentation.xml.rels",
         LORE_STR("<R><Relationship Id='a' Type='t/slide' Target='slides/slide1.xml'/>"
                  "<Relationship Id='b' Type='t/slide' Target='slides/slide2.xml'/></R>")},
        {"ppt/slides/slide1.xml",
         LORE_STR("<p:s xmlns:p='p' xmlns:a='a'>" SHAPE("body", "Costs fall") SHAPE("title",
                                                                                    "成本 Costs")
                      SHAPE("sldNum", "2") "<p:graphicFrame><a:tbl><a:tr><a:tc><a:p><a:t>年</a:t>"
                                           "</a:p></a:tc><a:tc><a:p><a:t>Sum</a:t></a:p></a:tc>"
                                           "</a:tr></a:tbl></p:graphicFrame></p:s>")},
        {"ppt/slides/_rels/slide1.xml.rels",
         LORE_STR(
             "<R><Relationship Id='n' Type='t/notesSlide' Target='../notesSlides/n1.xml'/></R>")},
        {"ppt/notesSlides/n1.xml",
         LORE_STR("<p:n xmlns:p='p' xmlns:a='a'>" SHAPE("body", "说明：say it slowly") "</p:n>")},
        {"ppt/slides/slide2.xml",
         LORE_STR("<p:s xmlns:p='p' xmlns:a='a'>" SHAPE("body", "Welcome 欢迎") "</p:s>")},
        {0}};
    check_pack("talk.pptx", files, false);
}

TEST(sheets)
{
#define TEXT(place, text) "<c r='" place "' t='inlineStr'><is><t>" text "</t></is></c>"
    const packed_file files[] = {
        TYPES,
        CORE,
        {"xl/workbook.xml", LORE_STR("<w xmlns:r='r'><sheet name='价格 Prices' r:id='a'/><sheet "
                                     "name='Plan' r:id='b'/></w>")},
        {"xl/_rels/workbook.xml.rels",
         LORE_STR("<R><Relationship Id='a' Type='t/worksheet' Target='worksheets/1.xml'/>"
                  "<Relationship Id='b' Type='t/worksheet' Target='worksheets/2.xml'/>"
                  "<Relationship Id='c' Type='t/sharedStrings' Target='sharedStrings.xml'/>"
                  "<Relationship Id='d' Type='t/styles' Target='styles.xml'/></R>")},
        {"xl/styles.xml",
         LORE_STR("<s><cellXfs><xf numFmtId='0'/><xf numFmtId='14'/></cellXfs></s>")},
        {"xl/sharedStrings.xml", LORE_STR("<s><si><t>产品</t></si><si><t>Price</t></si></s>")},
        {"xl/worksheets/1.xml",
         LORE_STR("<s><row><c r='A1' t='s'><v>0</v></c><c r='B1' t='s'><v>1</v></c>" TEXT(
             "C1", "Since") "</row><row>" TEXT("A2",
                                               "路由器") "<c r='B2'><f>1+1</f><v>59.9</v></c>"
                                                         "<c r='C2' "
                                                         "s='1'><v>43831</v></c></row><row>" TEXT(
                                                             "A3",
                                                             "Lamp") "<c r='C3' s='1'>"
                                                                     "<v>43832</v></c></row></s>")},
        {"xl/worksheets/2.xml",
         LORE_STR("<s><row>" TEXT("B2", "一月")
                      TEXT("E2", "May") "</row><row><c r='B3' t='b'><v>1</v></c></row></s>")},
        {0}};
    check_pack("prices.xlsx", files, false);
}

TEST(opendocument)
{
    const packed_file text[] = {
        {"mimetype", LORE_STR("application/vnd.oasis.opendocument.text")},
        {"meta.xml", LORE_STR("<m xmlns:dc='d'><dc:title>台灯 Lamp</dc:title><dc:creator>Bo"
                              "</dc:creator><dc:date>2020-02-02</dc:date></m>")},
        {"content.xml",
         LORE_STR(
             "<o:c xmlns:o='o' xmlns:t='t'><t:h t:outline-level='1'>保养 Care</t:h><t:p>Wipe"
             "<t:s/>it<t:note><t:note-citation>1</t:note-citation><t:note-body><t:p>用干布"
             "</t:p></t:note-body></t:note>.</t:p><t:list><t:list-item><t:p>一</t:p>"
             "</t:list-item><t:list-item><t:p>two</t:p></t:list-item></t:list><t:table>"
             "<t:table-row><t:table-cell><t:p>瓦</t:p></t:table-cell><t:table-cell><t:p>5</t:p>"
             "</t:table-cell></t:table-row></t:table></o:c>")},
        {0}};
    check_pack("lamp.odt", text, false);
    const packed_file sheet[] = {
        {"mimetype", LORE_STR("application/vnd.oasis.opendocument.spreadsheet")},
        {"content.xml",
         LORE_STR(
             "<o:c xmlns:o='o' xmlns:t='t'><o:spreadsheet><t:table t:name='库存 Stock'>"
             "<t:table-row><t:table-cell><t:p>Item</t:p></t:table-cell><t:table-cell><t:p>数量"
             "</t:p></t:table-cell></t:table-row><t:table-row><t:table-cell><t:p>灯</t:p>"
             "</t:table-cell><t:table-cell><t:p>12</t:p></t:table-cell></t:table-row></t:table>"
             "</o:spreadsheet></o:c>")},
        {0}};
    check_pack("stock.ods", sheet, false);
}

TEST(book)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/epub+zip")},
        {"META-INF/container.xml",
         LORE_STR("<c><rootfiles><rootfile full-path='O/b.opf'/></rootfiles></c>")},
        {"O/b.opf",
         LORE_STR(
             "<p xmlns:dc='d'><metadata><dc:title>故事 Tales</dc:title><dc:creator>鲁迅"
             "</dc:creator><dc:date>1923</dc:date><dc:language>zh</dc:language></metadata>"
             "<manifest><item id='2' href='2.xhtml' media-type='application/xhtml+xml'/>"
             "<item id='1' href='1.xhtml' media-type='application/xhtml+xml'/><item id='n' "
             "href='nav.xhtml' properties='nav' media-type='application/xhtml+xml'/></manifest>"
             "<spine><itemref idref='n'/><itemref idref='1'/><itemref idref='2'/></spine></p>")},
        {"O/2.xhtml", LORE_STR("<html><body><h1>Second</h1><p>The end.</p></body></html>")},
        {"O/1.xhtml", LORE_STR("<html><body><h1>第一章</h1><p>很久以前&#x3002;</p></body></html>")},
        {"O/nav.xhtml", LORE_STR("<html><body><p>Contents</p></body></html>")},
        {0}};
    check_pack("tales.epub", files, false);
}

/* ---- what holds documents ---- */

#define MESSAGE                                                                               \
    "From: =?utf-8?B?546L5Lyf?= <w@example.org>\r\nTo: b@example.org\r\nSubject: "            \
    "=?GBK?B?sai82w==?="                                                                      \
    " offer\r\nDate: Tue, 7 May 2024 08:09:10 +0800\r\nMIME-Version: 1.0\r\nContent-Type: "   \
    "multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/alternative; "         \
    "boundary=y\r\n"                                                                          \
    "\r\n--y\r\nContent-Type: text/html; "                                                    \
    "charset=utf-8\r\n\r\n<p>rich</p>\r\n--y\r\nContent-Type: "                               \
    "text/plain; charset=gb18030\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"      \
    "=C4=FA=BA=C3=A3=ACthe price is =\r\n59.9.\r\n--y--\r\n--x\r\nContent-Type: text/csv\r\n" \
    "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename*=utf-8''" \
    "%E8%A1%A8.csv\r\n\r\n5Lqn5ZOBLFByaWNlCueBrywxMgo=\r\n--x\r\nContent-Type: "              \
    "message/rfc822\r\n\r\n"                                                                  \
    "From: c@example.org\r\nSubject: inner\r\nContent-Type: text/html; charset=gbk\r\n\r\n"   \
    "<html><head><meta charset=gbk></head><p>\xC4\xFA\xBA\xC3 deep</p></html>\r\n--x--\r\n"

TEST(mail)
{
    check_file("offer.eml", LORE_STR(MESSAGE));
    check_file("box.mbox", LORE_STR("From a@example.org Tue May  7 08:09:10 2024\r\n" MESSAGE
                                    "\r\nFrom b@example.org Tue May  7 09:09:10 2024\r\nFrom: b\r\n"
                                    "Subject: =?utf-8?Q?=E5=9B=9E=E5=A4=8D?=\r\n\r\n>From here on, "
                                    "好。\r\n\r\nFrom there as well.\r\n"));
}

TEST(archives)
{
    lore_buf inner;
    lore_buf_init(&inner, 0);
    const packed_file in[] = {{"说明.md", LORE_STR("# 说明\n\nInside a tar.\n")}, {0}};
    pack(in, true, &inner);
    const packed_file files[] = {{"kb/a.md", LORE_STR("# A\n\nFirst 第一。\n")},
                                 {"kb/picture.png", LORE_STR("\x89PNG")},
                                 {"in.tar.gz", lore_buf_str(&inner)},
                                 {"old.doc", LORE_STR("{\\rtf1 old}")},
                                 {"list.csv", LORE_STR("名,Size\n大,9\n")},
                                 {0}};
    check_pack("all.zip", files, false);
    check_pack("all.tgz", files, true);
    lore_buf_destroy(&inner);
}

CHECK_MAIN(texts, tables, json, word, slides, sheets, opendocument, book, mail, archives)
