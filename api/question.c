/* Follow-ups. Word lists, English and Chinese: a question that is missed is merely searched for as
 * it stands, one that is taken for a follow-up by mistake drags the last topic along, so the lists
 * hold only words that point back. */
#include "api/question.h"

#include "base/utf8.h"

#include <string.h>

enum {
    FOLLOW_UP_BYTES = 12 /* a question as short as this says nothing on its own */
};

bool lore_question_is_cjk(lore_str text)
{
    for (size_t at = 0; at < text.len;) {
        if (lore_utf8_is_cjk(lore_utf8_next(text, &at))) {
            return true;
        }
    }
    return false;
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "no memory for the question");
}

/* Whether what stands before words[at] ends in one of the words of `list`, a blank around each. */
static bool follows_one_of(lore_str words, size_t at, lore_str list)
{
    size_t start = at;
    while (start > 0 && words.ptr[start - 1] != ' ') {
        start--;
    }
    lore_str word = lore_str_slice(words, start, at);
    size_t found = word.len > 0 ? lore_str_find(list, word, 0) : SIZE_MAX;
    return found != SIZE_MAX && found > 0 && list.ptr[found - 1] == ' ' &&
           list.ptr[found + word.len] == ' ';
}

/* "that" of "the fee that applies" joins; that of "what does that cost" points back. */
static bool that_points(lore_str words, size_t at, size_t end)
{
    return at == 0 || end == words.len - 1 ||
           follows_one_of(words, at,
                          LORE_STR(" is does do did was about of for with to in on at by can will "
                                   "would after before like why how and "));
}

/* "is there a fee" says that something is; "how do I get there" points back. */
static bool there_points(lore_str words, size_t at, size_t end)
{
    lore_str rest = lore_str_slice(words, end, words.len);
    return !follows_one_of(words, at, LORE_STR(" is are was were isn aren will ")) &&
           !lore_str_starts(rest, LORE_STR(" is ")) && !lore_str_starts(rest, LORE_STR(" are "));
}

/* "is it possible to", "does it cost to": it is what follows. */
static bool it_points(lore_str words, size_t at, size_t end)
{
    (void)at;
    size_t next = lore_str_find(words, LORE_STR(" "), end + 1);
    return next == SIZE_MAX ||
           !lore_str_starts(lore_str_slice(words, next, words.len), LORE_STR(" to "));
}

static bool is_at_start(lore_str words, size_t at, size_t end)
{
    (void)words;
    (void)end;
    return at == 0;
}

static bool is_at_end(lore_str words, size_t at, size_t end)
{
    (void)at;
    return end == words.len - 1;
}

/* 那 alone begins a question; elsewhere it is part of a name (那不勒斯) unless a noun is counted.
 */
static bool na_points(lore_str words, size_t at, size_t end)
{
    static const char *const COUNTED[] = {"个", "個", "么", "麼", "里", "裡", "些",
                                          "款", "种", "種", "样", "樣", "时", "時"};
    lore_str rest = lore_str_slice(words, end, words.len);
    bool is_counted = false;
    for (size_t i = 0; i < sizeof COUNTED / sizeof COUNTED[0]; i++) {
        is_counted = is_counted || lore_str_starts(rest, lore_str_from(COUNTED[i]));
    }
    return is_counted || (at == 1 && !lore_str_starts(rest, LORE_STR("不勒")));
}

/* A word that points back, and where it does: words[at, end) is what stands there, without the
 * blank behind it; words has a blank at both ends. */
typedef struct pointer {
    const char *word;
    bool (*points)(lore_str words, size_t at, size_t end); /* NULL: everywhere */
} pointer;

static bool points_back(lore_str words)
{
    static const pointer POINTERS[] = {{" it ", it_points},
                                       {" its ", NULL},
                                       {" that ", that_points},
                                       {" this ", NULL},
                                       {" they ", NULL},
                                       {" them ", NULL},
                                       {" their ", NULL},
                                       {" those ", NULL},
                                       {" these ", NULL},
                                       {" there ", there_points},
                                       {" and ", is_at_start},
                                       {" what about ", NULL},
                                       {" how about ", NULL},
                                       {"它", NULL},
                                       {"那", na_points},
                                       {"这", NULL},
                                       {"這", NULL},
                                       {"呢", is_at_end}};
    for (size_t i = 0; i < sizeof POINTERS / sizeof POINTERS[0]; i++) {
        lore_str word = lore_str_from(POINTERS[i].word);
        for (size_t at = 0; (at = lore_str_find(words, word, at)) != SIZE_MAX; at++) {
            size_t end = at + word.len - (word.ptr[0] == ' ');
            if (POINTERS[i].points == NULL || POINTERS[i].points(words, at, end)) {
                return true;
            }
        }
    }
    return false;
}

/* Whether the question leans on the one before it: it is tiny, or it points back ("and for how long
 * is it ...?"). */
static lore_status is_follow_up(lore_str question, lore_arena *arena, bool *leans, lore_error *err)
{
    lore_buf folded;
    lore_buf_init(&folded, 0);
    lore_status status = lore_utf8_fold(question, &folded, err);
    lore_str words = lore_buf_str(&folded);
    while (words.len > 0 && words.ptr[words.len - 1] == '?') {
        words.len--;
    }
    if (status == LORE_OK) {
        words = lore_str_printf(arena, " " LORE_STR_FMT " ", LORE_STR_ARG(words));
        status = words.ptr == NULL ? no_memory(err) : LORE_OK;
    }
    lore_buf_destroy(&folded);
    *leans = question.len <= FOLLOW_UP_BYTES || (status == LORE_OK && points_back(words));
    return status;
}

/* The questions that a follow-up leans on: the last that stood on its own, and what followed it,
 * with blanks between them. Empty when there is none. */
static lore_status read_topic(const lore_query *query, lore_arena *arena, lore_str *topic,
                              lore_error *err)
{
    lore_status status = LORE_OK;
    bool leans = true;
    *topic = (lore_str){0};
    for (int32_t i = query->history_count - 1; i >= 0 && leans && status == LORE_OK; i--) {
        lore_str asked = query->history[i].content;
        if (!lore_str_equal(query->history[i].role, LORE_STR("user"))) {
            continue;
        }
        status = is_follow_up(asked, arena, &leans, err);
        *topic = topic->len == 0 ? asked
                                 : lore_str_printf(arena, LORE_STR_FMT " " LORE_STR_FMT,
                                                   LORE_STR_ARG(asked), LORE_STR_ARG(*topic));
        if (status == LORE_OK && topic->ptr == NULL && asked.len > 0) {
            status = no_memory(err);
        }
    }
    return status;
}

/* The first bytes_max bytes at most, cut between characters. */
static lore_str first_bytes(lore_str text, size_t bytes_max)
{
    size_t end = 0;
    for (size_t at = 0; at < text.len;) {
        lore_utf8_next(text, &at);
        if (at > bytes_max) {
            break;
        }
        end = at;
    }
    return lore_str_slice(text, 0, end);
}

lore_status lore_question_choose(const lore_query *query, size_t bytes_max, lore_arena *arena,
                                 lore_str *chosen, lore_error *err)
{
    lore_str before = {0};
    bool leans = false;
    *chosen = query->question;
    if (query->history_count == 0 || query->question.len + 1 >= bytes_max) {
        return LORE_OK;
    }
    lore_status status = is_follow_up(query->question, arena, &leans, err);
    if (status == LORE_OK && leans) {
        status = read_topic(query, arena, &before, err);
    }
    if (status != LORE_OK || before.len == 0) {
        return status;
    }
    before = first_bytes(before, bytes_max - query->question.len - 1);
    lore_str both = lore_str_printf(arena, LORE_STR_FMT " " LORE_STR_FMT, LORE_STR_ARG(before),
                                    LORE_STR_ARG(query->question));
    if (both.ptr == NULL) {
        return no_memory(err);
    }
    *chosen = both;
    return LORE_OK;
}
