/* Viterbi over the bytes of a text: node i is the best path that ends before byte i of a stretch.
 *
 * Every character is reached, by its own piece or as an unknown one. So where no piece that begins
 * earlier reaches farther than this character, all paths go through here: what lies before is
 * settled, its pieces are emitted and the nodes are used again. The score is carried along, so sums
 * are rounded as if the text had been one stretch, and ties fall as they do in the libraries: the
 * path found first stays, starts ascending, then lengths. One text in a thousand has a tie that
 * only rounding decides, and sentencepiece rounds more: it adds in f32, and takes 100,000 off sums
 * that have grown so far.
 *
 * A text that is a piece, the best path of its own, is most words of a natural text cut at spaces;
 * which pieces are is found out once, at loading, by the same search.
 *
 * Unknown neighbours are one piece, over the edges of stretches too; `tokenizers` looks the joined
 * text up in the vocabulary again, and so do we. */
#include "models/unigram_int.h"

#include "base/utf8.h"

#include <math.h>

enum {
    NODES_MIN = 4096,
    WHOLE_BYTES_MAX = 24 /* of pieces that are tried as a word: loading searches them all */
};

static const double UNK_PENALTY = 10.0;
static const double SINGLE_SUM_MAX = 100000.0;
static const uint32_t NOWHERE = UINT32_MAX;

typedef struct lore_unigram_node {
    double score;
    int32_t id;
    uint32_t start; /* where the last piece begins; NOWHERE: not reached */
} node;

typedef struct unigram_run {
    const lore_unigram *u;
    lore_str text;
    size_t from;  /* byte of the text that node 0 stands before */
    size_t reach; /* the last node that is set */
    lore_unigram_scratch *scratch;
    lore_pieces *pieces;
    size_t unk_start, unk_end; /* unknown text that waits for its end; equal: none */
    lore_error *err;
} unigram_run;

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for pieces");
}

/* ---- loading ---- */

/* Byte pieces and the keys of the trie. */
static lore_status take_pieces(lore_unigram *u, const lore_unigram_piece *pieces, int32_t count,
                               lore_trie_key *keys, size_t *keys_count, lore_error *err)
{
    double least = INFINITY;
    size_t kept = 0;
    for (int32_t id = 0; id < count; id++) {
        lore_str text = pieces[id].text;
        if (!isfinite(pieces[id].score)) {
            return lore_fail(err, LORE_ERR_INVALID, "the score of piece %d is not a number", id);
        }
        if (text.len > LORE_UNIGRAM_PIECE_BYTES_MAX) {
            return lore_fail(err, LORE_ERR_LIMIT, "piece %d has %zu bytes, over the limit of %d",
                             id, text.len, LORE_UNIGRAM_PIECE_BYTES_MAX);
        }
        bool counts = !u->is_single || !pieces[id].is_hidden;
        least = counts && pieces[id].score < least ? pieces[id].score : least;
        int32_t byte = lore_piece_byte(text);
        if (byte >= 0) {
            u->byte_ids[byte] = id;
        }
        if (text.len > 0 && !pieces[id].is_hidden) {
            keys[kept++] = (lore_trie_key){text, id};
            u->piece_bytes_max = text.len > u->piece_bytes_max ? text.len : u->piece_bytes_max;
        }
    }
    u->unk_score = isfinite(least) ? least - UNK_PENALTY : -UNK_PENALTY;
    u->unk_score = u->is_single ? (double)(float)u->unk_score : u->unk_score;
    *keys_count = kept;
    return LORE_OK;
}

/* ---- emitting ---- */

/* Emit the bytes of unknown text. False: one has no piece, nothing was emitted. */
static bool emit_bytes(unigram_run *run, lore_str text, lore_status *status)
{
    for (size_t i = 0; i < text.len; i++) {
        if (run->u->byte_ids[(uint8_t)text.ptr[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < text.len && *status == LORE_OK; i++) {
        int32_t id = run->u->byte_ids[(uint8_t)text.ptr[i]];
        *status = lore_pieces_push(run->pieces, id, run->unk_start) ? LORE_OK : no_memory(run->err);
    }
    return true;
}

static lore_status emit_unknown(unigram_run *run)
{
    lore_str text = lore_str_slice(run->text, run->unk_start, run->unk_end);
    if (text.len == 0) {
        return LORE_OK;
    }
    lore_status status = LORE_OK;
    int32_t found = lore_trie_find(&run->u->trie, text);
    int32_t id = found >= 0 ? run->u->entries[found].id : -1;
    if (id >= 0 || !run->u->has_byte_fallback || !emit_bytes(run, text, &status)) {
        id = id >= 0 ? id : run->u->unk_id;
        status = lore_pieces_push(run->pieces, id, run->unk_start) ? LORE_OK : no_memory(run->err);
    }
    run->unk_start = run->unk_end;
    return status;
}

static lore_status emit(unigram_run *run, int32_t id, size_t start, size_t end)
{
    if (id == run->u->unk_id) {
        run->unk_start = run->unk_start == run->unk_end ? start : run->unk_start;
        run->unk_end = end;
        return LORE_OK;
    }
    lore_status status = run->unk_start == run->unk_end ? LORE_OK : emit_unknown(run);
    if (status == LORE_OK && !lore_pieces_push(run->pieces, id, start)) {
        status = no_memory(run->err);
    }
    return status;
}

/* Emit the best path to node `end` and begin a new stretch there. */
static lore_status settle(unigram_run *run, size_t end)
{
    node *nodes = run->scratch->nodes;
    double score = nodes[end].score;
    uint32_t next = NOWHERE;
    for (uint32_t at = (uint32_t)end; at > 0;) { /* turn the links round */
        uint32_t start = nodes[at].start;
        nodes[at].start = next;
        next = at;
        at = start;
    }
    for (uint32_t start = 0; next != NOWHERE;) {
        lore_status status = emit(run, nodes[next].id, run->from + start, run->from + next);
        if (status != LORE_OK) {
            return status;
        }
        start = next;
        next = nodes[next].start;
    }
    run->from += end;
    run->reach = 0;
    nodes[0] = (node){score, -1, NOWHERE};
    return LORE_OK;
}

/* ---- searching ---- */

static lore_status reserve(unigram_run *run, size_t nodes)
{
    lore_unigram_scratch *scratch = run->scratch;
    if (nodes <= scratch->room) {
        return LORE_OK;
    }
    size_t room = scratch->room * 2 > nodes ? scratch->room * 2 : nodes;
    room = room < NODES_MIN ? NODES_MIN : room;
    node *grown = room < NOWHERE ? lore_arena_push(scratch->arena, room * sizeof *grown) : NULL;
    if (grown == NULL) {
        return no_memory(run->err);
    }
    if (scratch->nodes != NULL) {
        memcpy(grown, scratch->nodes, (run->reach + 1) * sizeof *grown);
    }
    scratch->nodes = grown;
    scratch->room = room;
    return LORE_OK;
}

static inline bool offer(unigram_run *run, size_t at, size_t end, double score, int32_t id)
{
    node *nodes = run->scratch->nodes;
    while (run->reach < end) {
        nodes[++run->reach].start = NOWHERE;
    }
    if (nodes[end].start != NOWHERE && !(score > nodes[end].score)) {
        return false;
    }
    nodes[end] = (node){score, id, (uint32_t)at};
    return true;
}

static inline double add(const lore_unigram *u, double sum, double score)
{
    return u->is_single ? (double)((float)sum + (float)score) : sum + score;
}

/* Sums from node `at` on become small again. */
static void rebase(unigram_run *run, size_t at)
{
    node *nodes = run->scratch->nodes;
    double offset = nodes[at].score;
    for (size_t i = at; i <= run->reach; i++) {
        if (i == at || nodes[i].start != NOWHERE) {
            nodes[i].score = add(run->u, nodes[i].score, -offset);
        }
    }
}

/* Offer all pieces that begin at node `at`, whose character has `size` bytes. */
static lore_status search(unigram_run *run, size_t at, size_t size)
{
    const lore_unigram *u = run->u;
    const uint8_t *bytes = (const uint8_t *)run->text.ptr + run->from + at;
    size_t left = run->text.len - run->from - at;
    if (u->is_single && fabs(run->scratch->nodes[at].score) > SINGLE_SUM_MAX) {
        rebase(run, at);
    }
    double score = run->scratch->nodes[at].score;
    bool has_single = false;
    int64_t unit = LORE_TRIE_ROOT;
    for (size_t i = 0; i < left;) {
        unit = lore_trie_step(&u->trie, unit, bytes[i++]);
        if (unit == LORE_TRIE_NONE) {
            break;
        }
        int32_t found = lore_trie_value(&u->trie, unit);
        if (found >= 0) {
            const lore_unigram_entry *entry = &u->entries[found];
            offer(run, at, at + i, add(u, score, entry->score), entry->id);
            has_single = has_single || i == size;
        }
    }
    if (!has_single && offer(run, at, at + size, add(u, score, u->unk_score), u->unk_id) &&
        u->unk_id < 0) {
        return lore_fail(run->err, LORE_ERR_INVALID,
                         "a character is no piece, and the model has none for unknown text");
    }
    return LORE_OK;
}

static size_t character_size(lore_str text, size_t at)
{
    if ((uint8_t)text.ptr[at] < 0x80) {
        return 1;
    }
    size_t end = at;
    lore_utf8_next(text, &end);
    return end - at;
}

static lore_status encode(const lore_unigram *unigram, lore_str text, lore_unigram_scratch *scratch,
                          lore_pieces *pieces, lore_error *err)
{
    unigram_run run = {
        .u = unigram, .text = text, .scratch = scratch, .pieces = pieces, .err = err};
    lore_status status = reserve(&run, NODES_MIN);
    if (status == LORE_OK) {
        scratch->nodes[0] = (node){0, -1, NOWHERE};
    }
    for (size_t at = 0; at < text.len && status == LORE_OK;) {
        if (at - run.from == run.reach && at > run.from) {
            status = settle(&run, run.reach);
        }
        size_t size = character_size(text, at);
        if (status == LORE_OK) {
            status = reserve(&run, at - run.from + unigram->piece_bytes_max + 5);
        }
        if (status == LORE_OK) {
            status = search(&run, at - run.from, size);
        }
        at += size;
    }
    if (status == LORE_OK && text.len > 0) {
        status = settle(&run, text.len - run.from);
    }
    return status == LORE_OK ? emit_unknown(&run) : status;
}

lore_status lore_unigram_encode(const lore_unigram *unigram, lore_str text,
                                lore_unigram_scratch *scratch, lore_pieces *pieces, lore_error *err)
{
    if (text.len > UINT32_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "a text of %zu bytes is too long to cut", text.len);
    }
    int32_t found = text.len <= WHOLE_BYTES_MAX ? lore_trie_find(&unigram->trie, text) : -1;
    if (found < 0 || !unigram->entries[found].is_whole) {
        return encode(unigram, text, scratch, pieces, err);
    }
    return lore_pieces_push(pieces, unigram->entries[found].id, 0) ? LORE_OK : no_memory(err);
}

/* ---- the model ---- */

/* Find the pieces that are the best path of their own text: a word that is one needs no search. */
static lore_status mark_whole(lore_unigram *u, const lore_trie_key *keys, size_t count,
                              lore_error *err)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_unigram_scratch scratch = {.arena = &arena};
    lore_pieces pieces = {.arena = &arena};
    lore_status status = LORE_OK;
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        pieces.count = 0;
        if (keys[i].text.len <= WHOLE_BYTES_MAX && u->entries[i].id != u->unk_id) {
            status = encode(u, keys[i].text, &scratch, &pieces, err);
            u->entries[i].is_whole = pieces.count == 1 && pieces.items[0].id == u->entries[i].id;
        }
        if (status == LORE_ERR_INVALID) {
            status = LORE_OK; /* some of its characters are unknown, and there is no unk_id */
        }
    }
    lore_arena_destroy(&arena);
    return status;
}

static lore_status build(lore_unigram *u, lore_arena *arena, const lore_unigram_piece *pieces,
                         lore_trie_key *keys, size_t count, lore_error *err)
{
    count = lore_trie_sort(keys, count);
    u->entries = LORE_PUSH(arena, lore_unigram_entry, count);
    if (u->entries == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        int32_t id = keys[i].value;
        u->entries[i] = (lore_unigram_entry){pieces[id].score, id, false};
        keys[i].value = (int32_t)i;
    }
    lore_status status = lore_trie_build(&u->trie, arena, keys, count, err);
    return status == LORE_OK ? mark_whole(u, keys, count, err) : status;
}

lore_status lore_unigram_init(lore_unigram *unigram, lore_arena *arena,
                              const lore_unigram_piece *pieces, int32_t count,
                              lore_unigram_options options, lore_error *err)
{
    LORE_ASSERT(count >= 0);
    if (options.unk_id < -1 || options.unk_id >= count) {
        return lore_fail(err, LORE_ERR_INVALID, "the unknown piece %d is not one of %d pieces",
                         options.unk_id, count);
    }
    *unigram = (lore_unigram){.unk_id = options.unk_id,
                              .has_byte_fallback = options.has_byte_fallback,
                              .is_single = options.is_single};
    for (int32_t byte = 0; byte < 256; byte++) {
        unigram->byte_ids[byte] = -1;
    }
    lore_trie_key *keys = lore_alloc_zero((size_t)count, sizeof *keys);
    size_t keys_count = 0;
    lore_status status =
        keys != NULL ? take_pieces(unigram, pieces, count, keys, &keys_count, err) : no_memory(err);
    if (status == LORE_OK) {
        status = build(unigram, arena, pieces, keys, keys_count, err);
    }
    lore_free(keys);
    return status;
}
