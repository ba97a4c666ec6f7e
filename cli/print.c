/* Answers as people read them. */
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>

void lore_print_span(const lore_chunk *chunk, size_t start, size_t end, FILE *out)
{
    int64_t page = lore_chunk_page(chunk, start);
    if (page > 0) {
        fprintf(out, "page %" PRId64 ", ", page);
    }
    fprintf(out, "bytes %zu-%zu", start, end);
}

/* "Title > Heading (source, page 3, bytes 120-152)" */
static void print_place(const lore_chunk *chunk, size_t start, size_t end, FILE *out)
{
    lore_str title = chunk->title.len > 0 ? chunk->title : chunk->document_id;
    lore_print_plain(out, title);
    if (chunk->heading.len > 0) {
        fputs(" > ", out);
        lore_print_plain(out, chunk->heading);
    }
    lore_str source = chunk->source.len > 0 ? chunk->source
                      : chunk->url.len > 0  ? chunk->url
                                            : chunk->document_id;
    fputs(" (", out);
    lore_print_plain(out, source);
    fputs(", ", out);
    lore_print_span(chunk, start, end, out);
    fputs(")\n", out);
}

void lore_print_citations(const lore_answer *answer, FILE *out)
{
    for (int32_t i = 0; i < answer->citation_count; i++) {
        const lore_citation *citation = &answer->citations[i];
        fprintf(out, "[%d] ", (int)citation->marker);
        print_place(&answer->hits.items[citation->hit].chunk, citation->start, citation->end, out);
        lore_wrap wrap;
        lore_wrap_begin(&wrap, out, 4);
        lore_wrap_text(&wrap, LORE_STR("\""));
        lore_wrap_text(&wrap, citation->cited_text);
        lore_wrap_text(&wrap, LORE_STR("\""));
        lore_wrap_end(&wrap);
    }
}

void lore_print_passages(const lore_answer *answer, FILE *out)
{
    for (int32_t i = 0; i < answer->hits.count; i++) {
        const lore_hit *hit = &answer->hits.items[i];
        fprintf(out, "%s[%d] ", i > 0 ? "\n" : "", (int)(i + 1));
        print_place(&hit->chunk, hit->chunk.start, hit->chunk.end, out);
        fprintf(out, "    score %.3f (dense %.3f, lexical ", (double)hit->score,
                (double)hit->dense);
        if (isnan(hit->lexical)) {
            fputs("-)\n", out);
        } else {
            fprintf(out, "%.2f)\n", (double)hit->lexical);
        }
        lore_wrap wrap;
        lore_wrap_begin(&wrap, out, 4);
        lore_wrap_text(&wrap, hit->chunk.text);
        lore_wrap_end(&wrap);
    }
    if (answer->hits.count == 0) {
        fputs("Nothing was found.\n", out);
    }
}

void lore_print_answer(const lore_answer *answer, bool with_text, FILE *out)
{
    if (answer->mode == LORE_MODE_CONTEXT) {
        lore_print_passages(answer, out);
        return;
    }
    if (answer->mode == LORE_MODE_PROMPT) { /* as the model sees it: nothing wrapped or dropped */
        fwrite(answer->text.ptr, 1, answer->text.len, out);
        if (!lore_str_ends(answer->text, LORE_STR("\n"))) {
            fputc('\n', out);
        }
        return;
    }
    if (with_text) {
        lore_wrap wrap;
        lore_wrap_begin(&wrap, out, 0);
        lore_wrap_text(&wrap, answer->text);
        lore_wrap_end(&wrap);
    }
    if (answer->citation_count > 0) {
        fputc('\n', out);
        lore_print_citations(answer, out);
    }
}
