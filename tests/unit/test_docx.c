/* Word: headings by style name, outline level and inheritance, lists, tables by rows, notes, what
 * is left out, and what hostile files get. */
#include "tests/unit/packed_fixture.h"

#define W(body) \
    LORE_STR("<w:document xmlns:w='w' xmlns:mc='m'><w:body>" body "</w:body></w:document>")
#define P(text) "<w:p><w:r><w:t>" text "</w:t></w:r></w:p>"
#define STYLED(style, text) \
    "<w:p><w:pPr><w:pStyle w:val='" style "'/></w:pPr><w:r><w:t>" text "</w:t></w:r></w:p>"
#define TYPES                                       \
    {                                               \
        "[Content_Types].xml", LORE_STR("<Types/>") \
    }

static const lore_str STYLES =
    LORE_STR("<w:styles xmlns:w='w'><w:style w:styleId='berschrift1'><w:name w:val='heading 1'/>"
             "</w:style><w:style w:styleId='Own'><w:basedOn w:val='berschrift1'/><w:name "
             "w:val='Own'/></w:style><w:style w:styleId='List'><w:name w:val='List Bullet'/><w:pPr>"
             "<w:numPr/></w:pPr></w:style><w:style w:styleId='T'><w:name w:val='Title'/></w:style>"
             "</w:styles>");

TEST(document)
{
    const packed_file files[] = {
        TYPES,
        {"docProps/core.xml",
         LORE_STR(
             "<cp xmlns:dc='d'><dc:title>Manual</dc:title><dc:creator>Ada L.</dc:creator>"
             "<dc:language>de-DE</dc:language><modified>2024-05-06T07:08:09Z</modified></cp>")},
        {"word/styles.xml", STYLES},
        {"word/document.xml",
         W(STYLED("berschrift1", "Setup") P("Plug &amp; play.") STYLED("List", "one") STYLED("List",
                                                                                             "two")
               STYLED("Own", "Tables") "<w:tbl><w:tr><w:tc>" P("a") P("b") "</w:tc><w:tc/><w:tc>" P(
                   "c") "</w:tc></w:tr><w:tr>"
                        "<w:tc><w:p/></w:tc></w:tr></w:tbl>"
                        "<w:p><w:pPr><w:outlineLvl "
                        "w:val='1'/></w:pPr><w:r><w:t>Sub</w:t></w:r></w:p>"
                        "<w:p><w:r><w:t>kept</w:t><w:tab/><w:delText>gone</"
                        "w:delText><w:instrText>PAGE"
                        "</w:instrText></w:r><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom></"
                        "w:p>"
                        "<mc:AlternateContent><mc:Choice>" P("box") "</mc:Choice><mc:Fallback>" P(
                            "box") "</mc:Fallback></mc:AlternateContent>")},
        {"word/footnotes.xml",
         LORE_STR("<w:footnotes xmlns:w='w'><w:footnote w:type='separator'>" P(
             "---") "</w:footnote><w:footnote>" P("A note.") "</w:footnote></w:footnotes>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_DOCX, files);
    CHECK_STR(describe_sections(&arena, &clean),
              "[Setup]Setup\nPlug & play.\n- one\n- two\n[Tables]Tables\na b | | c\n"
              "[Tables > Sub]Sub\nkept\nbox\nA note.");
    CHECK_STR(clean.title, "Manual");
    CHECK_STR(clean.author, "Ada L.");
    CHECK_STR(clean.language, "de-DE");
    CHECK_STR(clean.date, "2024-05-06T07:08:09Z");
    check_exact(&clean, "two");
    check_exact(&clean, "A note.");
    lore_arena_destroy(&arena);
}

/* Items count in their list and level, start over below another and where told to, and show the
 * numbers of upper levels; notes stand where they are called. */
#define ITEM(list, level, text)                                                        \
    "<w:p><w:pPr><w:numPr><w:ilvl w:val='" level "'/><w:numId w:val='" list            \
    "'/></w:numPr><w:pPrChange><w:pPr><w:outlineLvl w:val='0'/></w:pPr></w:pPrChange>" \
    "</w:pPr><w:r><w:t>" text "</w:t></w:r></w:p>"
#define NUM(id, more) "<w:num w:numId='" id "'><w:abstractNumId w:val='7'/>" more "</w:num>"
#define LEVEL(level, format, text)                                                            \
    "<w:lvl w:ilvl='" level "'><w:start w:val='1'/><w:numFmt w:val='" format "'/><w:lvlText " \
    "w:val='" text "'/></w:lvl>"

TEST(lists_and_notes)
{
    const packed_file files[] = {
        TYPES,
        {"word/numbering.xml",
         LORE_STR(
             "<w:numbering xmlns:w='w'><w:abstractNum w:abstractNumId='7'>" LEVEL("0", "decimal",
                                                                                  "%1.")
                 LEVEL("1", "lowerRoman", "%1.%2)") LEVEL("2", "chineseCounting", "第%3条") LEVEL(
                     "3", "bullet", "x") LEVEL("4", "none", "") "</w:abstractNum>" NUM("1", "")
                     NUM("2",
                         "<w:lvlOverride w:ilvl='0'><w:startOverride w:val='5'/></w:lvlOverride>")
                         NUM("3", "") "</w:numbering>")},
        {"word/document.xml",
         W(ITEM("1", "0", "a") ITEM("1", "1", "b") ITEM("1", "1", "c") ITEM("1", "2", "d")
               ITEM("1", "3", "e") ITEM("1", "0", "f") ITEM("1", "1", "g") ITEM("2", "0", "h") ITEM(
                   "2", "0", "i") ITEM("3", "0", "j") ITEM("3", "4", "k") ITEM("0", "0", "l")
                   ITEM("9", "0", "m") "<w:p><w:r><w:t>Text</w:t><w:footnoteReference w:id='4'/>"
                                       "<w:t>.</w:t><w:endnoteReference w:id='4'/></w:r></w:p>")},
        {"word/footnotes.xml", LORE_STR("<w:footnotes xmlns:w='w'><w:footnote w:id='3'>" P(
                                   "left") "</w:footnote><w:footnote w:id='4'>" P("one")
                                            P("two") "</w:footnote></w:footnotes>")},
        {"word/endnotes.xml", LORE_STR("<w:endnotes xmlns:w='w'><w:endnote w:id='4'>" P(
                                  "end") "</w:endnote></w:endnotes>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_DOCX, files);
    CHECK_STR(clean.text,
              "1. a\n1.i) b\n1.ii) c\n第一条 d\n- e\n2. f\n2.i) g\n5. h\n6. i\n7. j\nk\n"
              "l\n- m\nText (one two). (end)\nleft");
    lore_arena_destroy(&arena);
}

/* The main part is the one that the package names; a title stands in for what core.xml lacks. */
TEST(main_part)
{
    const packed_file files[] = {
        TYPES,
        {"_rels/.rels", LORE_STR("<Relationships><Relationship Id='r' Type='x/officeDocument' "
                                 "Target='/word/document2.xml'/></Relationships>")},
        {"word/styles.xml", STYLES},
        {"word/document2.xml", W(STYLED("T", "The title") P("Body."))},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_DOCX, files);
    CHECK_STR(clean.title, "The title");
    CHECK_STR(clean.text, "Body.");
    lore_arena_destroy(&arena);
}

TEST(hostile)
{
    const packed_file none[] = {TYPES, {"word/styles.xml", STYLES}, {0}};
    check_refused(none, &LIMITS, LORE_ERR_INVALID, "word/document.xml");
    const packed_file broken[] = {TYPES, {"word/document.xml", W("<w:p>")}, {0}};
    check_refused(broken, &LIMITS, LORE_ERR_INVALID, "line 1");
    const packed_file entities[] = {
        TYPES,
        {"word/document.xml",
         LORE_STR("<!DOCTYPE a [<!ENTITY b 'bbb'><!ENTITY c '&b;&b;&b;'>]><a>&c;</a>")},
        {0}};
    check_refused(entities, &LIMITS, LORE_ERR_INVALID, "entities");
    lore_buf deep;
    lore_buf_init(&deep, 0);
    for (int i = 0; i < 300; i++) {
        lore_buf_append(&deep, LORE_STR("<a>"));
    }
    const packed_file nested[] = {TYPES, {"word/document.xml", lore_buf_str(&deep)}, {0}};
    check_refused(nested, &LIMITS, LORE_ERR_LIMIT, "markup_depth_max");
    lore_buf_destroy(&deep);
}

/* Little that unpacks to much ends at the memory of a document. */
TEST(bomb)
{
    lore_buf big;
    lore_buf_init(&big, 0);
    lore_buf_append(&big, LORE_STR("<w:document xmlns:w='w'>"));
    for (int i = 0; i < 200000; i++) {
        lore_buf_append(&big, LORE_STR(P("aaaaaaaaaa")));
    }
    lore_buf_append(&big, LORE_STR("</w:document>"));
    const packed_file files[] = {TYPES, {"word/document.xml", lore_buf_str(&big)}, {0}};
    lore_limits small = LIMITS;
    small.arena_bytes_max = 1 << 20;
    check_refused(files, &small, LORE_ERR_LIMIT, "unpacks to more than");
    small = LIMITS;
    small.file_bytes_max = 1 << 20;
    check_refused(files, &small, LORE_ERR_LIMIT, "file_bytes_max");
    lore_buf_destroy(&big);
}

CHECK_MAIN(document, lists_and_notes, main_part, hostile, bomb)
