/* Fuzz target of the models of pieces: every line but the last is a piece, the last a text.
 *
 * Property: pieces are a model or refused with a reason. Unigram's and WordPiece's pieces of the
 * text begin at its start and ascend, ids are of the vocabulary, and a Unigram piece that is no
 * unknown one stands where it says; all memory is given back, in linear time. */
#include "models/unigram_int.h"
#include "models/wordpiece_int.h"
#include "tests/fuzz/fuzz.h"

enum { PIECES_MAX = 512 };

static lore_str pieces[PIECES_MAX];
static int32_t count;

static void check_pieces(const lore_pieces *made, lore_str text, bool is_whole)
{
    LORE_ASSERT(text.len == 0 || made->count > 0);
    for (int32_t i = 0; i < made->count; i++) {
        lore_piece piece = made->items[i];
        size_t end = i + 1 < made->count ? made->items[i + 1].start : text.len;
        LORE_ASSERT(piece.id >= 0);
        LORE_ASSERT(piece.id < count);
        LORE_ASSERT(piece.start < text.len);
        LORE_ASSERT(i > 0 || piece.start == 0);
        LORE_ASSERT(end >= piece.start);
        LORE_ASSERT(!is_whole || piece.id == 0 ||
                    lore_str_equal(pieces[piece.id], lore_str_slice(text, piece.start, end)));
    }
}

static void check_unigram(lore_str text, lore_arena *arena)
{
    lore_unigram_piece scored[PIECES_MAX];
    lore_unigram u;
    lore_error err = {.status = LORE_OK};
    for (int32_t i = 0; i < count; i++) {
        double score = pieces[i].len == 0 ? 0 : -(double)(pieces[i].ptr[0] & 7);
        scored[i] = (lore_unigram_piece){pieces[i], score, i == 0};
    }
    lore_unigram_options options = {.is_single = (count & 1) != 0};
    lore_status status = lore_unigram_init(&u, arena, scored, count, options, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        return;
    }
    lore_pieces made = {.arena = arena};
    lore_unigram_scratch scratch = {.arena = arena};
    LORE_ASSERT(lore_unigram_encode(&u, text, &scratch, &made, &err) == LORE_OK);
    check_pieces(&made, text, true);
}

static void check_wordpiece(lore_str text, lore_arena *arena)
{
    lore_wordpiece w;
    lore_error err = {.status = LORE_OK};
    lore_wordpiece_options options = {LORE_STR("##"), 0, 100};
    lore_status status = lore_wordpiece_init(&w, arena, pieces, count, options, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        return;
    }
    lore_str word;
    for (size_t at = 0; lore_wordpiece_next(text, &at, &word);) {
        lore_pieces made = {.arena = arena};
        LORE_ASSERT(word.len > 0);
        LORE_ASSERT(lore_wordpiece_word(&w, word, &made));
        check_pieces(&made, word, false);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str rest = {size == 0 ? "" : (const char *)data, size}, line;
    lore_arena arena;
    pieces[0] = LORE_STR("<unk>");
    for (count = 1; count < PIECES_MAX && lore_str_find(rest, LORE_STR("\n"), 0) != SIZE_MAX;) {
        LORE_ASSERT(lore_str_next_line(&rest, &line));
        pieces[count++] = line;
    }
    lore_arena_init(&arena, 0);
    check_unigram(rest, &arena);
    check_wordpiece(rest, &arena);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    fuzz_check_cost(start_ns, size);
    return 0;
}
