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

/* Whether the question leans on the one before it: it is tiny, or it points back ("and for how long
 * is it ...?"). */
static lore_status is_follow_up(lore_str question, lore_arena *arena, bool *leans, lore_error *err)
{
    static const char *const POINTING[] = {
        " it ",        " its ",   " that ",  " this ",  " they ", " them ",
        " their ",     " those ", " these ", " there ", " and ",  " what about ",
        " how about ", "它",      "那",      "这",      "呢"};
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
    *leans = question.len <= FOLLOW_UP_BYTES;
    for (size_t i = 0; status == LORE_OK && i < sizeof POINTING / sizeof POINTING[0]; i++) {
        /* "and" points back at the start only; the others anywhere */
        size_t at = lore_str_find(words, lore_str_from(POINTING[i]), 0);
        *leans |= at != SIZE_MAX && (at == 0 || strcmp(POINTING[i], " and ") != 0);
    }
    return status;
}

/* The last question of the user, empty when there is none. */
static lore_str last_question(const lore_query *query)
{
    for (int32_t i = query->history_count - 1; i >= 0; i--) {
        if (lore_str_equal(query->history[i].role, LORE_STR("user"))) {
            return query->history[i].content;
        }
    }
    return (lore_str){0};
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
    lore_str before = last_question(query);
    bool leans = false;
    *chosen = query->question;
    if (before.len == 0 || query->question.len + 1 >= bytes_max) {
        return LORE_OK;
    }
    lore_status status = is_follow_up(query->question, arena, &leans, err);
    if (status != LORE_OK || !leans) {
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
