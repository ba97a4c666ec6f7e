/* Footnotes and endnotes of a Word document, read before its body so that each can stand in
 * brackets where it is called. */
#include "ingest/docx_int.h"

enum { SEARCH_MAX = 1024 }; /* how far from the last one a note is looked for */

void lore_docx_notes_init(lore_docx_notes *notes)
{
    *notes = (lore_docx_notes){0};
    lore_buf_init(&notes->text, 0);
    lore_buf_init(&notes->notes, 0);
}

void lore_docx_notes_destroy(lore_docx_notes *notes)
{
    lore_buf_destroy(&notes->text);
    lore_buf_destroy(&notes->notes);
}

static lore_docx_note *all(const lore_docx_notes *notes, size_t *count)
{
    *count = notes->notes.len / sizeof(lore_docx_note);
    return (lore_docx_note *)(void *)notes->notes.ptr;
}

static bool is_note(lore_str name)
{
    return lore_str_equal(name, LORE_STR("footnote")) || lore_str_equal(name, LORE_STR("endnote"));
}

static void notes_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    lore_docx_notes *notes = self;
    lore_docx_note fresh = {.start = notes->text.len, .source = source, .is_end = notes->is_end};
    if (is_note(name)) {
        /* Those with a type are the lines that separate notes from the text. */
        notes->is_open = lore_xml_attribute(attributes, "type").len == 0;
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "id"), &fresh.id);
        if (notes->is_open) {
            lore_buf_append(&notes->notes, (lore_str){(const char *)&fresh, sizeof fresh});
        }
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        notes->texts++;
    }
}

static void notes_text(void *self, lore_str text, size_t source)
{
    lore_docx_notes *notes = self;
    size_t count = 0;
    lore_docx_note *list = all(notes, &count);
    if (notes->is_open && notes->texts > 0 && !lore_buf_failed(&notes->notes)) {
        lore_docx_note *last = &list[count - 1];
        last->source = last->length == 0 ? source : last->source;
        lore_buf_append(&notes->text, text);
        last->length = notes->text.len - last->start;
    }
}

static void notes_end(void *self, lore_str name, size_t source)
{
    static const char *const blanks[] = {"p", "tab", "br", "tc", NULL};
    lore_docx_notes *notes = self;
    if (lore_str_equal(name, LORE_STR("t"))) {
        notes->texts--;
    } else if (is_note(name)) {
        notes->is_open = false;
    } else if (lore_office_is_one(name, blanks)) {
        notes->texts++;
        notes_text(notes, LORE_STR(" "), source);
        notes->texts--;
    }
}

lore_status lore_docx_notes_read(lore_docx_notes *notes, const lore_package *package,
                                 lore_error *err)
{
    static const char *const names[] = {"word/footnotes.xml", "word/endnotes.xml"};
    const lore_xml_handler handler = {
        .self = notes, .start = notes_start, .end = notes_end, .text = notes_text};
    lore_status status = LORE_OK;
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        const lore_part *part = lore_package_part(package, lore_str_from(names[i]));
        notes->is_end = i == 1;
        notes->is_open = false;
        notes->texts = 0;
        status = part == NULL ? LORE_OK : lore_package_xml(package, part, &handler, err);
    }
    bool has_memory = !lore_buf_failed(&notes->text) && !lore_buf_failed(&notes->notes);
    return status != LORE_OK || has_memory
               ? status
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for notes");
}

const lore_docx_note *lore_docx_notes_call(lore_docx_notes *notes, int64_t id, bool is_end)
{
    size_t count = 0;
    lore_docx_note *list = all(notes, &count);
    for (size_t i = 0; i < count && i < SEARCH_MAX; i++) {
        lore_docx_note *note = &list[(notes->next + i) % count];
        if (note->id == id && note->is_end == is_end && !note->is_told) {
            notes->next = (notes->next + i + 1) % count;
            note->is_told = true;
            return note;
        }
    }
    return NULL;
}

const lore_docx_note *lore_docx_notes_left(lore_docx_notes *notes)
{
    size_t count = 0;
    lore_docx_note *list = all(notes, &count);
    for (notes->next = notes->next < count ? notes->next : 0; notes->next < count; notes->next++) {
        if (!list[notes->next].is_told) {
            list[notes->next].is_told = true;
            return &list[notes->next];
        }
    }
    return NULL;
}

lore_str lore_docx_note_text(const lore_docx_notes *notes, const lore_docx_note *note)
{
    return lore_str_trim((lore_str){notes->text.ptr + note->start, note->length});
}
