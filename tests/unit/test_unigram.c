/* The search in settled stretches gives what the definition gives over the whole text: for every
 * place the first of the best predecessors, by start and then length, sums from the left; unknown
 * neighbours joined. Ties are made on purpose, where scores are no sums of powers of two such that
 * rounding decides them. (golden_pieces compares with `tokenizers`, tokenizer_agreement_long with
 * `sentencepiece`.) */
#include "models/unigram_int.h"
#include "tests/check.h"

#include "base/clock.h"

enum { PIECES = 40, TEXT = 60, RUNS = 3000, BYTES_FROM = 1000 };

static lore_arena arena;
static lore_unigram_piece pieces[PIECES + 256];
static char texts[PIECES][8];
static char byte_texts[256][8];
static int32_t count;

static void random_pieces(uint64_t *seed, bool has_bytes, double unit)
{
    count = 1;
    pieces[0] = (lore_unigram_piece){LORE_STR("<unk>"), 0, false};
    while (count < PIECES) {
        size_t len = 1 + lore_random_next(seed) % 4;
        for (size_t i = 0; i < len; i++) {
            texts[count][i] = (char)('a' + lore_random_next(seed) % 3);
        }
        double score = -(double)(float)(unit * (double)(lore_random_next(seed) % 4));
        pieces[count] = (lore_unigram_piece){{texts[count], len}, score, count % 7 == 0};
        count++;
    }
    for (int32_t byte = 0; has_bytes && byte < 256; byte++) {
        snprintf(byte_texts[byte], 8, "<0x%02X>", (unsigned)byte);
        pieces[count++] = (lore_unigram_piece){lore_str_from(byte_texts[byte]), 0, true};
    }
}

/* Of equal texts the last counts. */
static int32_t find(lore_str text)
{
    for (int32_t i = count - 1; i > 0; i--) {
        if (!pieces[i].is_hidden && lore_str_equal(pieces[i].text, text)) {
            return i;
        }
    }
    return lore_str_equal(text, pieces[0].text) ? 0 : -1;
}

static double sum(bool is_single, double a, double b)
{
    return is_single ? (double)((float)a + (float)b) : a + b;
}

/* sentencepiece takes the sum at `at` off all sums from there on, once it is large. */
static void rebase(double *best, size_t at, size_t len)
{
    double offset = best[at];
    for (size_t i = at; i <= len && fabs(offset) > 100000.0; i++) {
        best[i] = sum(true, best[i], -offset);
    }
}

static double unknown_score(bool is_single)
{
    double least = INFINITY;
    for (int32_t i = 0; i < count; i++) {
        bool counts = !is_single || !pieces[i].is_hidden;
        least = counts && pieces[i].score < least ? pieces[i].score : least;
    }
    return sum(is_single, least, -10.0);
}

/* By the definition; gives ids and starts. ASCII only. */
static int32_t search_slowly(lore_str text, bool has_bytes, bool is_single, int32_t *ids,
                             uint32_t *starts)
{
    double best[TEXT + 1] = {0}, unknown = unknown_score(is_single);
    int32_t from[TEXT + 1], id[TEXT + 1], order[TEXT + 1], total = 0;
    for (size_t i = 0; i <= text.len; i++) {
        from[i] = -1;
    }
    for (size_t at = 0; at < text.len; at++) {
        bool has_single = false;
        if (is_single) {
            rebase(best, at, text.len);
        }
        for (size_t end = at + 1; end <= text.len && end <= at + 5; end++) {
            int32_t piece = find(lore_str_slice(text, at, end));
            if (piece >= 0) {
                has_single = has_single || end == at + 1;
                double score = sum(is_single, pieces[piece].score, best[at]);
                if (from[end] < 0 || score > best[end]) {
                    best[end] = score;
                    from[end] = (int32_t)at;
                    id[end] = piece;
                }
            }
        }
        double score = sum(is_single, unknown, best[at]);
        if (!has_single && (from[at + 1] < 0 || score > best[at + 1])) {
            best[at + 1] = score;
            from[at + 1] = (int32_t)at;
            id[at + 1] = 0;
        }
    }
    for (int32_t end = (int32_t)text.len; end > 0; end = from[end]) {
        order[total++] = end;
    }
    int32_t made = 0;
    for (int32_t i = total - 1; i >= 0; i--) {
        int32_t end = order[i], start = from[end], piece = id[end];
        if (piece != 0) {
            ids[made] = piece;
            starts[made++] = (uint32_t)start;
            continue;
        }
        for (; i > 0 && id[order[i - 1]] == 0; i--) {
            end = order[i - 1];
        }
        int32_t joined = find(lore_str_slice(text, (size_t)start, (size_t)end));
        for (int32_t byte = start; joined < 0 && has_bytes && byte < end; byte++) {
            ids[made] = BYTES_FROM + (uint8_t)text.ptr[byte];
            starts[made++] = (uint32_t)start;
        }
        if (joined >= 0 || !has_bytes) {
            ids[made] = joined >= 0 ? joined : 0;
            starts[made++] = (uint32_t)start;
        }
    }
    return made;
}

static void compare(const lore_unigram *u, lore_str text, bool has_bytes, lore_pieces *made,
                    lore_unigram_scratch *scratch)
{
    bool is_single = u->is_single;
    int32_t ids[8 * TEXT];
    uint32_t starts[8 * TEXT];
    lore_error err;
    int32_t wanted = search_slowly(text, has_bytes, is_single, ids, starts);
    made->count = 0;
    CHECK_OK(lore_unigram_encode(u, text, scratch, made, &err), &err);
    CHECK_INT(made->count, wanted);
    for (int32_t i = 0; i < wanted; i++) {
        int32_t id = made->items[i].id;
        CHECK_INT(id < PIECES ? id : id - PIECES + BYTES_FROM, ids[i]);
        CHECK_INT(made->items[i].start, starts[i]);
    }
}

TEST(as_the_definition)
{
    for (uint64_t run = 1; run <= RUNS; run++) {
        uint64_t seed = run;
        lore_error err;
        lore_unigram u;
        bool has_bytes = run % 2 == 0, is_single = run % 4 >= 2;
        double unit = run % 3 == 0 ? 1 : run % 3 == 1 ? 0.1 : 30000.1;
        lore_arena_init(&arena, 0);
        random_pieces(&seed, has_bytes, unit);
        lore_unigram_options options = {0, has_bytes, is_single};
        CHECK_OK(lore_unigram_init(&u, &arena, pieces, count, options, &err), &err);
        lore_pieces made = {.arena = &arena};
        lore_unigram_scratch scratch = {.arena = &arena};
        char text[TEXT];
        for (size_t len = 0; len <= TEXT; len += 1 + len / 3) {
            for (size_t i = 0; i < len; i++) {
                text[i] = (char)('a' + lore_random_next(&seed) % 4); /* d is unknown */
            }
            compare(&u, (lore_str){text, len}, has_bytes, &made, &scratch);
        }
        lore_arena_destroy(&arena);
    }
}

TEST(long_stretches_and_bad_bytes)
{
    enum { LONG = 100000 };
    lore_error err;
    lore_unigram u;
    lore_unigram_piece few[] = {{LORE_STR("<unk>"), 0, false},
                                {LORE_STR("a"), -1, false},
                                {LORE_STR("aa"), -1.5, false},
                                {LORE_STR("\xc3\xa9"), -1, false},
                                {LORE_STR(""), -1, false}};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_unigram_init(&u, &arena, few, 5, (lore_unigram_options){0, true, false}, &err),
             &err);
    lore_pieces made = {.arena = &arena};
    lore_unigram_scratch scratch = {.arena = &arena};
    char *text = lore_arena_push(&arena, LONG);
    CHECK(text != NULL);
    memset(text, 'a', LONG);
    CHECK_OK(lore_unigram_encode(&u, (lore_str){text, LONG}, &scratch, &made, &err), &err);
    CHECK_INT(made.count, LONG / 2);
    made.count = 0;
    lore_str odd = LORE_STR("a\xff\xc3\xa9\xc3");
    CHECK_OK(lore_unigram_encode(&u, odd, &scratch, &made, &err), &err);
    CHECK_INT(made.count, 4); /* no byte pieces: <unk> */
    CHECK_INT(made.items[1].id, 0);
    CHECK_INT(made.items[2].id, 3);
    CHECK_INT(made.items[3].start, 4);
    lore_arena_destroy(&arena);
}

TEST(bad_models_are_refused)
{
    static char big[LORE_UNIGRAM_PIECE_BYTES_MAX + 1];
    lore_error err;
    lore_unigram u;
    lore_unigram_piece one = {LORE_STR("a"), NAN, false};
    lore_unigram_options options = {-1, false, false};
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_unigram_init(&u, &arena, &one, 1, options, &err), LORE_ERR_INVALID, &err,
                "score of piece 0");
    one.score = -INFINITY;
    CHECK_FAILS(lore_unigram_init(&u, &arena, &one, 1, options, &err), LORE_ERR_INVALID, &err,
                "score");
    one = (lore_unigram_piece){{big, sizeof big}, 0, false};
    CHECK_FAILS(lore_unigram_init(&u, &arena, &one, 1, options, &err), LORE_ERR_LIMIT, &err,
                "over the limit");
    CHECK_FAILS(
        lore_unigram_init(&u, &arena, &one, 1, (lore_unigram_options){1, false, false}, &err),
        LORE_ERR_INVALID, &err, "unknown piece 1");
    one = (lore_unigram_piece){LORE_STR("a"), 0, false};
    CHECK_OK(lore_unigram_init(&u, &arena, &one, 1, options, &err), &err);
    lore_pieces made = {.arena = &arena};
    lore_unigram_scratch scratch = {.arena = &arena};
    CHECK_FAILS(lore_unigram_encode(&u, LORE_STR("ab"), &scratch, &made, &err), LORE_ERR_INVALID,
                &err, "unknown");
    lore_arena_destroy(&arena);
}

TEST(memory_runs_out)
{
    lore_error err;
    lore_status status = LORE_ERR_NOMEM;
    uint64_t seed = 3;
    random_pieces(&seed, true, 1);
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_unigram u;
        lore_arena_init(&arena, 0);
        lore_pieces made = {.arena = &arena};
        lore_unigram_scratch scratch = {.arena = &arena};
        lore_mem_fail_at(n, true);
        status = lore_unigram_init(&u, &arena, pieces, count,
                                   (lore_unigram_options){0, true, false}, &err);
        if (status == LORE_OK) {
            status = lore_unigram_encode(&u, LORE_STR("abcabcdddabc"), &scratch, &made, &err);
        }
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        lore_arena_destroy(&arena);
    }
}

CHECK_MAIN(as_the_definition, long_stretches_and_bad_bytes, bad_models_are_refused, memory_runs_out)
