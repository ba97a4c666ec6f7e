/* Unicode: decoding loops, classes, and the fence around utf8proc.
 *
 * The two text forms work piece by piece. A piece ends before an ASCII byte, because no ASCII
 * character changes under normalisation together with what stands before it, so the forms of the
 * pieces joined are the form of the whole and the scratch memory stays small for long documents.
 *
 * The search form drops accents, that is the combining marks that writers of Latin, Greek,
 * Cyrillic, Hebrew and Arabic leave out at will. It keeps the marks of Indic scripts, Thai and
 * kana, where they are letters in all but name ("ka" and "ga" differ by one). Hangul is put
 * together again. */
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

enum {
    PIECE_BYTES = 4096, /* a piece is at least this long, if the text is */
    EXPANSION_MAX = 32, /* code points that one may decompose into; Unicode's longest has 18 */
    CLASSES = 256,      /* canonical combining classes */
    REPLACEMENT = 0xFFFD
};

typedef struct range {
    int32_t first;
    int32_t last;
} range;

static bool in_ranges(int32_t codepoint, const range *ranges, size_t count)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (codepoint > ranges[middle].last) {
            low = middle + 1;
        } else if (codepoint < ranges[middle].first) {
            high = middle;
        } else {
            return true;
        }
    }
    return false;
}

#define IN_RANGES(codepoint, table) in_ranges((codepoint), (table), sizeof(table) / sizeof(range))

/* ---- decoding ---- */

/* Decode at s.ptr[at]. Gives the length in bytes, 0 when the bytes are not valid (RFC 3629 table).
 */
static size_t decode(lore_str s, size_t at, int32_t *codepoint)
{
    const unsigned char *p = (const unsigned char *)s.ptr + at;
    size_t left = s.len - at;
    if (p[0] < 0x80) {
        *codepoint = p[0];
        return 1;
    }
    if (p[0] < 0xC2 || p[0] > 0xF4) {
        return 0;
    }
    size_t length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (left < length) {
        return 0;
    }
    int32_t value = p[0] & (0x7F >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
        value = value << 6 | (p[i] & 0x3F);
    }
    bool is_overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
    if (is_overlong || (value >= 0xD800 && value <= 0xDFFF) || value > 0x10FFFF) {
        return 0;
    }
    *codepoint = value;
    return length;
}

/* Length of the ASCII run at the start: eight bytes a step. */
static size_t ascii_run(const char *text, size_t len)
{
    size_t at = 0;
    while (len - at >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, text + at, sizeof word);
        if ((word & 0x8080808080808080u) != 0) {
            break;
        }
        at += sizeof word;
    }
    while (at < len && (unsigned char)text[at] < 0x80) {
        at++;
    }
    return at;
}

size_t lore_utf8_valid(lore_str s)
{
    for (size_t at = 0; at < s.len;) {
        if ((unsigned char)s.ptr[at] < 0x80) {
            at += ascii_run(s.ptr + at, s.len - at);
            continue;
        }
        int32_t codepoint = 0;
        size_t length = decode(s, at, &codepoint);
        if (length == 0) {
            return at;
        }
        at += length;
    }
    return s.len;
}

int32_t lore_utf8_next(lore_str s, size_t *at)
{
    LORE_ASSERT(*at < s.len);
    int32_t codepoint = REPLACEMENT;
    size_t length = decode(s, *at, &codepoint);
    *at += length == 0 ? 1 : length;
    return codepoint;
}

int32_t lore_utf8_prev(lore_str s, size_t *at)
{
    LORE_ASSERT(*at > 0);
    LORE_ASSERT(*at <= s.len);
    for (size_t length = 1; length <= 4 && length <= *at; length++) {
        int32_t codepoint = 0;
        size_t start = *at - length;
        if (((unsigned char)s.ptr[start] & 0xC0) != 0x80) {
            if (decode(lore_str_slice(s, 0, *at), start, &codepoint) != length) {
                break;
            }
            *at = start;
            return codepoint;
        }
    }
    *at -= 1;
    return REPLACEMENT;
}

size_t lore_utf8_encode(int32_t codepoint, char out[4])
{
    uint32_t c = (uint32_t)codepoint;
    if (codepoint < 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        c = REPLACEMENT;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t lore_utf8_count(lore_str s)
{
    size_t count = 0;
    for (size_t at = 0; at < s.len;) {
        lore_utf8_next(s, &at);
        count++;
    }
    return count;
}

/* ---- classes ---- */

int32_t lore_utf8_category(int32_t codepoint)
{
    return (int32_t)utf8proc_category(codepoint); /* the names are in this order */
}

bool lore_utf8_is_letter(int32_t codepoint)
{
    utf8proc_category_t category = utf8proc_category(codepoint);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool lore_utf8_is_number(int32_t codepoint)
{
    utf8proc_category_t category = utf8proc_category(codepoint);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool lore_utf8_is_mark(int32_t codepoint)
{
    utf8proc_category_t category = utf8proc_category(codepoint);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool lore_utf8_is_space(int32_t codepoint)
{
    static const range spaces[] = {
        {0x09, 0x0D},     {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
        {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
    return IN_RANGES(codepoint, spaces);
}

bool lore_utf8_is_upper(int32_t codepoint)
{
    return utf8proc_category(codepoint) == UTF8PROC_CATEGORY_LU;
}

bool lore_utf8_is_punct(int32_t codepoint)
{
    utf8proc_category_t category = utf8proc_category(codepoint);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool lore_utf8_is_nonspacing(int32_t codepoint)
{
    return utf8proc_category(codepoint) == UTF8PROC_CATEGORY_MN;
}

bool lore_utf8_is_control(int32_t codepoint)
{
    utf8proc_category_t category = utf8proc_category(codepoint);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CO;
}

int32_t lore_utf8_lower(int32_t codepoint)
{
    return utf8proc_tolower(codepoint);
}

bool lore_utf8_is_cjk(int32_t codepoint)
{
    static const range scripts[] = {
        {0x0E01, 0x0E3A},   {0x0E40, 0x0E4E},   /* Thai */
        {0x0E81, 0x0EDF},                       /* Lao */
        {0x1000, 0x109F},                       /* Myanmar */
        {0x1100, 0x11FF},                       /* Hangul jamo */
        {0x1780, 0x17D3},   {0x17D7, 0x17DD},   /* Khmer */
        {0x2E80, 0x2FDF},                       /* Han radicals */
        {0x3005, 0x3007},   {0x3021, 0x3029},   /* Han iteration mark, numerals */
        {0x3031, 0x3035},   {0x3038, 0x303C},   /* kana repeat marks, Han numerals */
        {0x3041, 0x3096},   {0x3099, 0x309A},   /* hiragana, voicing marks */
        {0x309D, 0x309F},   {0x30A1, 0x30FA},   /* katakana */
        {0x30FC, 0x30FF},                       /* long vowel, iteration */
        {0x3105, 0x312F},   {0x3131, 0x318E},   /* Bopomofo, Hangul compatibility */
        {0x31A0, 0x31BF},   {0x31F0, 0x31FF},   /* Bopomofo and katakana extensions */
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   /* Han */
        {0xA960, 0xA97C},   {0xA9E0, 0xA9FE},   /* Hangul jamo, Myanmar extensions */
        {0xAA60, 0xAA7F},   {0xAC00, 0xD7A3},   /* Myanmar extension, Hangul */
        {0xD7B0, 0xD7FB},   {0xF900, 0xFAFF},   /* Hangul jamo, Han compatibility */
        {0xFF66, 0xFFDC},                       /* half-width kana and Hangul */
        {0x1B000, 0x1B16F}, {0x20000, 0x2FA1F}, /* kana supplements, Han extensions */
        {0x30000, 0x323AF}                      /* Han extensions */
    };
    return IN_RANGES(codepoint, scripts);
}

/* ---- forms ---- */

/* Marks that the search form drops. */
static bool is_accent(int32_t codepoint)
{
    static const range accents[] = {
        {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x05BF, 0x05BF}, {0x05C1, 0x05C2},
        {0x05C4, 0x05C5}, {0x05C7, 0x05C7}, {0x0610, 0x061A}, {0x0640, 0x0640}, {0x064B, 0x065F},
        {0x0670, 0x0670}, {0x06D6, 0x06DC}, {0x06DF, 0x06E4}, {0x06E7, 0x06E8}, {0x06EA, 0x06ED},
        {0x1AB0, 0x1ACE}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20F0}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
    return IN_RANGES(codepoint, accents);
}

/* Where the piece that starts at `start` ends. */
static size_t piece_end(lore_str s, size_t start)
{
    if (s.len - start <= PIECE_BYTES) {
        return s.len;
    }
    size_t end = start + PIECE_BYTES;
    while (end < s.len && (unsigned char)s.ptr[end] >= 0x80) {
        end++;
    }
    return end;
}

typedef struct scratch {
    utf8proc_int32_t *codepoints; /* [2 * cap], the second half for sorting */
    size_t cap;
} scratch;

/* Room for `needed` code points; what is there stays. */
static bool grow(scratch *work, size_t needed)
{
    size_t size = 0;
    size_t cap = needed + needed / 2;
    void *grown = lore_size_mul(cap, 2 * sizeof(utf8proc_int32_t), &size)
                      ? lore_realloc(work->codepoints, size)
                      : NULL;
    if (grown == NULL) {
        return false;
    }
    work->codepoints = grown;
    work->cap = cap;
    return true;
}

static size_t combining_class(utf8proc_int32_t codepoint)
{
    return (size_t)utf8proc_get_property(codepoint)->combining_class;
}

static size_t class_at(const char *marks, size_t index, size_t size)
{
    int32_t codepoint;
    memcpy(&codepoint, marks + index * size, sizeof codepoint);
    return combining_class(codepoint);
}

void lore_utf8_sort_marks(void *marks, size_t count, size_t size, void *spare)
{
    char *from = marks, *to = spare;
    size_t place[CLASSES + 1], ordered = 1;
    while (ordered < count && class_at(from, ordered - 1, size) <= class_at(from, ordered, size)) {
        ordered++;
    }
    if (ordered >= count) {
        return;
    }
    memset(place, 0, sizeof place);
    for (size_t i = 0; i < count; i++) {
        place[class_at(from, i, size) + 1]++;
    }
    for (size_t i = 0; i < CLASSES; i++) {
        place[i + 1] += place[i];
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(to + place[class_at(from, i, size)]++ * size, from + i * size, size);
    }
    memcpy(from, to, count * size);
}

/* Canonical ordering (Unicode chapter 3.11). utf8proc_decompose would do it, too, but by exchanging
 * neighbours: a million accents on one letter would take it a day. */
static void order_marks(scratch *work, size_t count)
{
    utf8proc_int32_t *c = work->codepoints;
    for (size_t start = 0; start < count;) {
        size_t end = start + 1;
        while (combining_class(c[start]) != 0 && end < count && combining_class(c[end]) != 0) {
            end++;
        }
        lore_utf8_sort_marks(c + start, end - start, sizeof *c, c + work->cap);
        start = end;
    }
}

/* Decompose one piece into scratch, grown as needed. Gives the number of code points, or an error
 * of the library. */
static utf8proc_ssize_t decompose(lore_str piece, utf8proc_option_t options, scratch *work)
{
    size_t count = 0;
    int boundary = UTF8PROC_BOUNDCLASS_START;
    for (size_t at = 0; at < piece.len;) {
        int32_t c = 0;
        size_t length = decode(piece, at, &c);
        if (length == 0) {
            return UTF8PROC_ERROR_INVALIDUTF8;
        }
        at += length;
        if (work->cap - count < EXPANSION_MAX && !grow(work, count + EXPANSION_MAX + piece.len)) {
            return UTF8PROC_ERROR_NOMEM;
        }
        utf8proc_ssize_t made = utf8proc_decompose_char(
            c, work->codepoints + count, (utf8proc_ssize_t)(work->cap - count), options, &boundary);
        if (made < 0) {
            return made;
        }
        LORE_ASSERT((size_t)made <= work->cap - count);
        count += (size_t)made;
    }
    order_marks(work, count);
    return (utf8proc_ssize_t)count;
}

static size_t drop_accents(utf8proc_int32_t *codepoints, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_accent(codepoints[i])) {
            codepoints[kept++] = codepoints[i];
        }
    }
    return kept;
}

static lore_status append_codepoints(const utf8proc_int32_t *codepoints, size_t count,
                                     lore_buf *out, lore_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        lore_buf_append(out, (lore_str){bytes, lore_utf8_encode(codepoints[i], bytes)});
    }
    if (lore_buf_failed(out)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for normalised text");
    }
    return LORE_OK;
}

/* The form of s that `options` asks for, composed, appended to out. */
static lore_status append_form(lore_str s, utf8proc_option_t options, bool without_accents,
                               lore_buf *out, lore_error *err)
{
    scratch work = {0};
    lore_status status = LORE_OK;
    for (size_t start = 0; start < s.len && status == LORE_OK;) {
        size_t end = piece_end(s, start);
        utf8proc_ssize_t count = decompose(lore_str_slice(s, start, end), options, &work);
        if (count == UTF8PROC_ERROR_NOMEM) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for normalised text");
        } else if (count < 0) {
            status = lore_fail(err, LORE_ERR_INVALID, "text cannot be normalised: %s",
                               utf8proc_errmsg(count));
        } else if (count > 0) {
            size_t kept = (size_t)count;
            if (without_accents) {
                kept = drop_accents(work.codepoints, kept);
            }
            count = utf8proc_normalize_utf32(work.codepoints, (utf8proc_ssize_t)kept,
                                             UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            LORE_ASSERT(count >= 0);
            status = append_codepoints(work.codepoints, (size_t)count, out, err);
        }
        start = end;
    }
    lore_free(work.codepoints);
    return status;
}

lore_status lore_utf8_fold(lore_str s, lore_buf *out, lore_error *err)
{
    if (ascii_run(s.ptr, s.len) == s.len) {
        if (!lore_buf_reserve(out, s.len)) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for normalised text");
        }
        for (size_t i = 0; i < s.len; i++) {
            char c = s.ptr[i];
            out->ptr[out->len++] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
        }
        return LORE_OK;
    }
    return append_form(s,
                       UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD |
                           UTF8PROC_IGNORE,
                       true, out, err);
}

lore_status lore_utf8_nfc(lore_str s, lore_buf *out, lore_error *err)
{
    if (lore_utf8_is_nfc(s)) {
        lore_buf_append(out, s);
        if (lore_buf_failed(out)) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for normalised text");
        }
        return LORE_OK;
    }
    return append_form(s, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, false, out, err);
}

/* Code points that are their own NFC form and do not combine with what stands before them. */
bool lore_utf8_is_nfc(lore_str s)
{
    static const range safe[] = {
        {0x0000, 0x02FF}, /* Latin with its composed letters */
        {0x0370, 0x0373},   {0x0375, 0x0377},  {0x037A, 0x037D},
        {0x0384, 0x0386},   {0x0388, 0x0482}, /* Greek and Cyrillic without singletons and marks */
        {0x048A, 0x052F},   {0x1E00, 0x1EFF}, /* Cyrillic, Latin extended additional */
        {0x2010, 0x2027},   {0x2030, 0x205E}, /* punctuation */
        {0x2070, 0x20BF},                     /* super- and subscripts, currencies */
        {0x2100, 0x2125},   {0x2127, 0x2129},  {0x212C, 0x2328}, /* letterlike, arrows, operators */
        {0x232B, 0x2ADB}, /* technical, boxes, symbols, dingbats, braille */
        {0x3001, 0x3029},   {0x3030, 0x3098},  {0x309B, 0x30FF}, /* CJK punctuation, kana */
        {0x3105, 0x318E},   {0x3400, 0x4DBF},  {0x4E00, 0x9FFF}, /* Bopomofo, Han */
        {0xAC00, 0xD7A3},   {0xFF01, 0xFFEF},                    /* Hangul, half and full width */
        {0x1F000, 0x1FAFF}, {0x20000, 0x2A6DF}                   /* pictographs, Han extension */
    };
    for (size_t at = 0; at < s.len;) {
        at += ascii_run(s.ptr + at, s.len - at);
        if (at < s.len) {
            if (!IN_RANGES(lore_utf8_next(s, &at), safe)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- parts of forms ---- */

bool lore_utf8_is_inert(int32_t codepoint)
{
    /* Starters that a composite is made of, and what lies between them (Unicode 16). utf8proc has
     * no function that tells, and its struct tells it in another way since version 2.10. */
    static const range joining[] = {
        {0x003C, 0x007A},   {0x00A8, 0x0113},   {0x014C, 0x017F},   {0x01A0, 0x01B7},
        {0x01EA, 0x01EB},   {0x0226, 0x022F},   {0x0292, 0x0292},   {0x0391, 0x03D2},
        {0x0406, 0x0475},   {0x04D8, 0x04E9},   {0x0627, 0x0627},   {0x0648, 0x064A},
        {0x06C1, 0x06D5},   {0x0928, 0x0933},   {0x09BE, 0x09D7},   {0x0B3E, 0x0B57},
        {0x0B92, 0x0B92},   {0x0BBE, 0x0BD7},   {0x0C46, 0x0C46},   {0x0CBF, 0x0CD6},
        {0x0D3E, 0x0D57},   {0x0DCF, 0x0DDF},   {0x1025, 0x102E},   {0x1100, 0x11FF},
        {0x1B05, 0x1B11},   {0x1B35, 0x1B42},   {0x1E36, 0x1E37},   {0x1E5A, 0x1E63},
        {0x1EA0, 0x1ECD},   {0x1F00, 0x1F7C},   {0x1FB6, 0x1FC6},   {0x1FF6, 0x1FFE},
        {0x2190, 0x2194},   {0x21D0, 0x21D4},   {0x2203, 0x22B5},   {0x3046, 0x307B},
        {0x309D, 0x30FD},   {0x105D2, 0x105DA}, {0x11099, 0x110A5}, {0x11127, 0x11132},
        {0x1133E, 0x11357}, {0x11382, 0x11390}, {0x113B8, 0x113C9}, {0x114B0, 0x114BD},
        {0x115AF, 0x115B9}, {0x11930, 0x11935}, {0x1611E, 0x16129}, {0x16D63, 0x16D69}};
    int32_t parts[LORE_UTF8_DECOMPOSED_MAX];
    if (IN_RANGES(codepoint, joining) || combining_class(codepoint) != 0) {
        return false;
    }
    return lore_utf8_decompose(codepoint, true, parts) == 1 && parts[0] == codepoint;
}

int32_t lore_utf8_combining_class(int32_t codepoint)
{
    return utf8proc_get_property(codepoint)->combining_class;
}

size_t lore_utf8_decompose(int32_t codepoint, bool is_compatible,
                           int32_t out[LORE_UTF8_DECOMPOSED_MAX])
{
    utf8proc_option_t compatible = is_compatible ? UTF8PROC_COMPAT : 0;
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t count =
        utf8proc_decompose_char(codepoint, out, LORE_UTF8_DECOMPOSED_MAX,
                                UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | compatible, &boundary);
    if (count <= 0 || count > LORE_UTF8_DECOMPOSED_MAX) { /* no code point */
        out[0] = codepoint;
        return 1;
    }
    return (size_t)count;
}

int32_t lore_utf8_compose(int32_t first, int32_t second)
{
    int32_t pair[2] = {first, second};
    bool is_one = utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) == 1;
    return is_one ? pair[0] : -1;
}

bool lore_utf8_is_grapheme_break(int32_t left, int32_t right, int32_t *state)
{
    return utf8proc_grapheme_break_stateful(left, right, state);
}
