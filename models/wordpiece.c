/* WordPiece: one trie holds all tokens; the first piece of a word is looked for from its root, the
 * later ones from the node behind the continuing prefix. */
#include "models/wordpiece_int.h"

#include "base/utf8.h"
#include "models/character_int.h"

#include <string.h>

lore_status lore_wordpiece_init(lore_wordpiece *wordpiece, lore_arena *arena,
                                const lore_str *tokens, int32_t vocab,
                                lore_wordpiece_options options, lore_error *err)
{
    if (options.unk_id < 0 || options.unk_id >= vocab) {
        return lore_fail(err, LORE_ERR_INVALID, "the unknown token %d is not one of %d tokens",
                         options.unk_id, vocab);
    }
    if (options.word_chars_max < 1 || options.word_chars_max > LORE_WORDPIECE_CHARS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "max_input_chars_per_word is %d, not in 1..%d",
                         options.word_chars_max, LORE_WORDPIECE_CHARS_MAX);
    }
    lore_trie_key *keys = lore_alloc((size_t)vocab * sizeof *keys);
    if (keys == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d tokens", vocab);
    }
    size_t count = 0;
    for (int32_t id = 0; id < vocab; id++) {
        if (tokens[id].len > 0) {
            keys[count++] = (lore_trie_key){tokens[id], id};
        }
    }
    count = lore_trie_sort(keys, count);
    lore_status status = lore_trie_build(&wordpiece->trie, arena, keys, count, err);
    lore_free(keys);
    if (status != LORE_OK) {
        return status;
    }
    wordpiece->inside = LORE_TRIE_ROOT;
    for (size_t i = 0; i < options.prefix.len && wordpiece->inside != LORE_TRIE_NONE; i++) {
        wordpiece->inside =
            lore_trie_step(&wordpiece->trie, wordpiece->inside, (uint8_t)options.prefix.ptr[i]);
    }
    wordpiece->unk_id = options.unk_id;
    wordpiece->word_chars_max = options.word_chars_max;
    return LORE_OK;
}

/* The longest token from node on that starts at text[at]; *end is behind it. -1: none. Ends inside
 * a character do not count: `tokenizers` takes characters off the end. */
static int32_t longest(const lore_trie *trie, int64_t node, lore_str text, size_t at, size_t *end)
{
    int32_t best = -1;
    while (at < text.len) {
        node = lore_trie_step(trie, node, (uint8_t)text.ptr[at++]);
        if (node == LORE_TRIE_NONE) {
            break;
        }
        int32_t id = lore_trie_value(trie, node);
        if (id >= 0 && (at == text.len || ((uint8_t)text.ptr[at] & 0xC0) != 0x80)) {
            best = id;
            *end = at;
        }
    }
    return best;
}

bool lore_wordpiece_word(const lore_wordpiece *wordpiece, lore_str word, lore_pieces *pieces)
{
    int32_t before = pieces->count;
    size_t chars_max = (size_t)wordpiece->word_chars_max;
    bool is_known = word.len <= chars_max || lore_utf8_count(word) <= chars_max;
    for (size_t at = 0; at < word.len && is_known;) {
        int64_t node = at == 0 ? LORE_TRIE_ROOT : wordpiece->inside;
        size_t end = at;
        int32_t id = node == LORE_TRIE_NONE ? -1 : longest(&wordpiece->trie, node, word, at, &end);
        if (id < 0) {
            is_known = false;
        } else if (!lore_pieces_push(pieces, id, at)) {
            return false;
        }
        at = end;
    }
    if (!is_known) {
        pieces->count = before;
        return lore_pieces_push(pieces, wordpiece->unk_id, 0);
    }
    return true;
}

/* ---- words ---- */

typedef enum word_class { WORD_LETTER, WORD_SPACE, WORD_PUNCT } word_class;

static word_class class_of(lore_str text, size_t *at)
{
    uint8_t byte = (uint8_t)text.ptr[*at];
    if (byte < 0x80) {
        *at += 1;
        bool is_letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                         (byte >= '0' && byte <= '9');
        return is_letter                                       ? WORD_LETTER
               : byte == ' ' || (byte >= '\t' && byte <= '\r') ? WORD_SPACE
               : byte > ' ' && byte < 0x7F                     ? WORD_PUNCT
                                                               : WORD_LETTER;
    }
    int32_t c = lore_utf8_next(text, at);
    return lore_utf8_is_space(c)        ? WORD_SPACE
           : lore_character_is_punct(c) ? WORD_PUNCT
                                        : WORD_LETTER;
}

bool lore_wordpiece_next(lore_str text, size_t *at, lore_str *word)
{
    size_t start = *at, end = *at;
    word_class class = WORD_SPACE;
    while (end < text.len && class == WORD_SPACE) {
        start = end;
        class = class_of(text, &end);
    }
    if (class == WORD_SPACE) {
        *at = end;
        return false;
    }
    while (class == WORD_LETTER && end < text.len) {
        size_t next = end;
        if (class_of(text, &next) != WORD_LETTER) {
            break;
        }
        end = next;
    }
    *word = lore_str_slice(text, start, end);
    *at = end;
    return true;
}
