/* Reading the protocol buffer of a sentencepiece model (sentencepiece_model.proto): pieces with
 * scores and types, and of the two specifications what changes the tokens.
 *
 * The wire format is fields of (number << 3 | type) and a value; a message may hold fields that we
 * do not know, which are stepped over, and a field that comes again takes the place of the first.
 */
#include "models/tokenizer_files_int.h"

#include "base/utf8.h"
#include "models/merges_int.h"

#include <math.h>
#include <string.h>

enum { PIECES_MAX = 1 << 21, PIECE_BYTES_MAX = 4096 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

typedef struct piece {
    lore_str text;
    double score;
    uint64_t type;
} piece;

typedef struct reader {
    const lore_json *config;
    lore_arena *arena;
    piece *pieces;
    int32_t count;
    uint64_t model_type;
    bool has_fallback, is_suffix;
    int32_t unk_id, bos_id, eos_id;
    int32_t mask_id; /* of fairseq's ids, else -1 */
    lore_normalizer_spec spec;
    lore_error *err;
} reader;

/* ---- the wire format ---- */

typedef struct field {
    uint64_t number;
    int wire;
    uint64_t value; /* of a varint */
    lore_str bytes; /* of the others */
} field;

static bool read_varint(lore_str *rest, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < 10 && i < rest->len; i++) {
        uint8_t byte = (uint8_t)rest->ptr[i];
        *value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *rest = lore_str_slice(*rest, i + 1, rest->len);
            return true;
        }
    }
    return false;
}

/* Take one field off. False: the bytes are no message. */
static bool read_field(lore_str *rest, field *f)
{
    uint64_t key = 0, size = 0;
    if (!read_varint(rest, &key)) {
        return false;
    }
    *f = (field){.number = key >> 3, .wire = (int)(key & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(rest, &f->value);
    case WIRE_64:
        size = 8;
        break;
    case WIRE_32:
        size = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(rest, &size)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (size > rest->len) {
        return false;
    }
    f->bytes = lore_str_slice(*rest, 0, (size_t)size);
    *rest = lore_str_slice(*rest, (size_t)size, rest->len);
    return true;
}

static lore_status broken(const reader *r, const char *what)
{
    return lore_fail(r->err, LORE_ERR_CORRUPT,
                     "sentencepiece model: %s is cut off or no protocol buffer", what);
}

/* ---- messages ---- */

static lore_status read_piece(reader *r, lore_str message)
{
    piece *p = &r->pieces[r->count];
    field f;
    *p = (piece){.type = PIECE_NORMAL};
    while (message.len > 0) {
        if (!read_field(&message, &f)) {
            return broken(r, "a piece");
        }
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            p->text = f.bytes;
        } else if (f.number == 2 && f.wire == WIRE_32) {
            float score;
            memcpy(&score, f.bytes.ptr,
                   sizeof score); /* little endian, as every machine we run on */
            p->score = score;
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            p->type = f.value;
        }
    }
    bool is_text = p->text.len > 0 && p->text.len <= PIECE_BYTES_MAX &&
                   lore_utf8_valid(p->text) == p->text.len &&
                   memchr(p->text.ptr, '\0', p->text.len) == NULL;
    if (!is_text || !isfinite(p->score) || p->type < PIECE_NORMAL || p->type > PIECE_BYTE) {
        return lore_fail(
            r->err, LORE_ERR_CORRUPT,
            "sentencepiece model: piece %d is no text of 1 to %d bytes with a score and "
            "a known type",
            r->count, PIECE_BYTES_MAX);
    }
    if (p->type == PIECE_UNKNOWN) {
        r->unk_id = r->count;
    }
    r->count++;
    return LORE_OK;
}

static lore_status read_trainer(reader *r, lore_str message)
{
    field f;
    while (message.len > 0) {
        if (!read_field(&message, &f)) {
            return broken(r, "the trainer's specification");
        }
        if (f.wire != WIRE_VARINT) {
            continue;
        }
        int32_t id = f.value < PIECES_MAX ? (int32_t)f.value : -1;
        if (f.number == 3) {
            r->model_type = f.value;
        } else if (f.number == 24) {
            r->is_suffix = f.value != 0;
        } else if (f.number == 35) {
            r->has_fallback = f.value != 0;
        } else if (f.number == 41) {
            r->bos_id = id;
        } else if (f.number == 42) {
            r->eos_id = id;
        }
    }
    return LORE_OK;
}

static lore_status read_normalizer(reader *r, lore_str message)
{
    field f;
    while (message.len > 0) {
        if (!read_field(&message, &f)) {
            return broken(r, "the normalizer's specification");
        }
        if (f.number == 2 && f.wire == WIRE_BYTES) {
            r->spec.charsmap = f.bytes;
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            r->spec.add_dummy_prefix = f.value != 0;
        } else if (f.number == 4 && f.wire == WIRE_VARINT) {
            r->spec.remove_extra_whitespaces = f.value != 0;
        } else if (f.number == 5 && f.wire == WIRE_VARINT) {
            r->spec.escape_whitespaces = f.value != 0;
        }
    }
    return LORE_OK;
}

/* How many pieces there are, so that the table can be made. */
static lore_status count_pieces(const reader *r, lore_str model, size_t *count)
{
    field f;
    for (*count = 0; model.len > 0;) {
        if (!read_field(&model, &f)) {
            return broken(r, "the file");
        }
        *count += f.number == 1 && f.wire == WIRE_BYTES;
    }
    if (*count == 0 || *count > PIECES_MAX) {
        return lore_fail(r->err, *count == 0 ? LORE_ERR_CORRUPT : LORE_ERR_LIMIT,
                         "sentencepiece model: it must have 1 to %d pieces", PIECES_MAX);
    }
    return LORE_OK;
}

static lore_status read_model(reader *r, lore_str model)
{
    size_t count = 0;
    lore_status status = count_pieces(r, model, &count);
    if (status != LORE_OK) {
        return status;
    }
    r->pieces = LORE_PUSH(r->arena, piece, count);
    if (r->pieces == NULL) {
        return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a sentencepiece model");
    }
    while (model.len > 0 && status == LORE_OK) {
        field f;
        bool is_field = read_field(&model, &f);
        LORE_ASSERT(is_field); /* count_pieces has walked the same bytes */
        if (f.wire != WIRE_BYTES) {
            continue;
        }
        status = f.number == 1   ? read_piece(r, f.bytes)
                 : f.number == 2 ? read_trainer(r, f.bytes)
                 : f.number == 3 ? read_normalizer(r, f.bytes)
                                 : LORE_OK;
    }
    if (status == LORE_OK && r->model_type != MODEL_UNIGRAM && r->model_type != MODEL_BPE) {
        status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "sentencepiece model: only the types unigram and bpe are supported");
    }
    if (status == LORE_OK && r->is_suffix) {
        status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "sentencepiece model: treat_whitespace_as_suffix is not supported");
    }
    return status;
}

/* The pieces in fairseq's order. The first three of the file are named anew, whatever they are
 * called there. */
static lore_status renumber(reader *r)
{
    static const struct {
        lore_str text;
        uint64_t type;
    } FIRST[4] = {{{"<s>", 3}, PIECE_CONTROL},
                  {{"<pad>", 5}, PIECE_CONTROL},
                  {{"</s>", 4}, PIECE_CONTROL},
                  {{"<unk>", 5}, PIECE_UNKNOWN}};
    bool is_known = r->count >= 3 && r->model_type == MODEL_UNIGRAM && r->unk_id == 0 &&
                    r->pieces[1].type == PIECE_CONTROL && r->pieces[2].type == PIECE_CONTROL;
    if (!is_known) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "sentencepiece model: XLM-RoBERTa's is a unigram model that begins with "
                         "the unknown piece and two control pieces");
    }
    piece *pieces = LORE_PUSH(r->arena, piece, r->count + 2);
    if (pieces == NULL) {
        return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a sentencepiece model");
    }
    for (int32_t i = 0; i < 4; i++) {
        pieces[i] = (piece){.text = FIRST[i].text, .type = FIRST[i].type};
    }
    memcpy(pieces + 4, r->pieces + 3, (size_t)(r->count - 3) * sizeof *pieces);
    r->mask_id = r->count + 1;
    pieces[r->mask_id] = (piece){.text = LORE_STR("<mask>"), .type = PIECE_CONTROL};
    r->pieces = pieces;
    r->count += 2;
    r->bos_id = 0;
    r->eos_id = 2;
    r->unk_id = 3;
    return LORE_OK;
}

/* ---- as tokenizer.json ---- */

/* A key for the writer, which wants them NUL-terminated. Pieces hold no NUL. */
static const char *as_key(lore_str text, char key[PIECE_BYTES_MAX + 1])
{
    memcpy(key, text.ptr, text.len);
    key[text.len] = '\0';
    return key;
}

static lore_status write_merges(reader *r, lore_json_writer *w)
{
    lore_merge_pair *pairs = NULL;
    size_t count = 0;
    lore_str *tokens = LORE_PUSH(r->arena, lore_str, r->count);
    double *scores = LORE_PUSH(r->arena, double, r->count);
    if (tokens == NULL || scores == NULL) {
        return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a sentencepiece model");
    }
    for (int32_t i = 0; i < r->count; i++) {
        uint64_t type = r->pieces[i].type;
        scores[i] = r->pieces[i].score;
        if (type == PIECE_NORMAL || type == PIECE_USER_DEFINED || type == PIECE_UNUSED) {
            tokens[i] = r->pieces[i].text;
        }
    }
    lore_merge_source source = {tokens, scores, r->count};
    lore_status status = lore_merges_find(&source, r->arena, &pairs, &count, r->err);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_array(w, "merges");
    for (size_t i = 0; i < count; i++) {
        lore_json_array(w, NULL);
        lore_json_string(w, NULL, tokens[pairs[i].left]);
        lore_json_string(w, NULL, tokens[pairs[i].right]);
        lore_json_end(w);
    }
    lore_json_end(w);
    return LORE_OK;
}

static lore_status write_bpe(reader *r, lore_json_writer *w)
{
    char key[PIECE_BYTES_MAX + 1];
    lore_json_object(w, "model");
    lore_json_string(w, "type", LORE_STR("BPE"));
    lore_json_boolean(w, "fuse_unk", true);
    lore_json_boolean(w, "byte_fallback", r->has_fallback);
    if (r->unk_id >= 0) {
        lore_json_string(w, "unk_token", r->pieces[r->unk_id].text);
    }
    lore_json_object(w, "vocab");
    for (int32_t i = 0; i < r->count; i++) {
        lore_json_int(w, as_key(r->pieces[i].text, key), i);
    }
    lore_json_end(w);
    lore_status status = write_merges(r, w);
    lore_json_end(w);
    return status;
}

static void write_unigram(reader *r, lore_json_writer *w)
{
    lore_json_object(w, "model");
    lore_json_string(w, "type", LORE_STR("Unigram"));
    lore_json_boolean(w, "byte_fallback", r->has_fallback);
    if (r->unk_id >= 0) {
        lore_json_int(w, "unk_id", r->unk_id);
    }
    lore_json_array(w, "vocab");
    for (int32_t i = 0; i < r->count; i++) {
        lore_json_array(w, NULL);
        lore_json_string(w, NULL, r->pieces[i].text);
        lore_json_float(w, NULL, r->pieces[i].score);
        if (r->pieces[i].type == PIECE_BYTE || r->pieces[i].type == PIECE_UNUSED) {
            lore_json_boolean(w, NULL, true); /* never matched in text */
        }
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_end(w);
}

/* Control pieces are special tokens; those that a user defined are found whole, but are text. */
static lore_status write_added(reader *r, lore_json_writer *w)
{
    int32_t count = 0;
    lore_special_token *tokens = LORE_PUSH(r->arena, lore_special_token, r->count);
    if (tokens == NULL) {
        return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a sentencepiece model");
    }
    for (int32_t i = 0; i < r->count; i++) {
        uint64_t type = r->pieces[i].type;
        bool is_special = type == PIECE_CONTROL || type == PIECE_UNKNOWN;
        if (is_special || type == PIECE_USER_DEFINED) {
            tokens[count++] =
                (lore_special_token){i, r->pieces[i].text, is_special, i == r->mask_id};
        }
    }
    return lore_tokenizer_write_added(w, r->config, tokens, count, r->err);
}

/* A space before every stretch of text between special tokens is the old way, which sentencepiece
 * itself has too; a config that says "legacy": false has it before the whole text only, and never
 * twice. */
static void write_prefix(reader *r, lore_json_writer *w)
{
    bool is_legacy = lore_tokenizer_flag(r->config, "legacy", true);
    r->spec.add_dummy_prefix =
        lore_tokenizer_flag(r->config, "add_prefix_space", r->spec.add_dummy_prefix);
    if (is_legacy || !r->spec.add_dummy_prefix || !r->spec.escape_whitespaces) {
        return;
    }
    r->spec.add_dummy_prefix = r->spec.escape_whitespaces = false;
    lore_json_object(w, "pre_tokenizer");
    lore_json_string(w, "type", LORE_STR("Metaspace"));
    lore_json_string(w, "prepend_scheme", LORE_STR("first"));
    lore_json_boolean(w, "split", false);
    lore_json_end(w);
}

static void write_decoder(const reader *r, lore_json_writer *w, bool has_prefix)
{
    lore_json_object(w, "decoder");
    lore_json_string(w, "type", LORE_STR("Sequence"));
    lore_json_array(w, "decoders");
    lore_json_object(w, NULL);
    lore_json_string(w, "type", LORE_STR("Replace"));
    lore_json_object(w, "pattern");
    lore_json_string(w, "String", LORE_STR("\xe2\x96\x81"));
    lore_json_end(w);
    lore_json_string(w, "content", LORE_STR(" "));
    lore_json_end(w);
    if (r->has_fallback) {
        lore_tokenizer_write_type(w, NULL, "ByteFallback");
    }
    lore_tokenizer_write_type(w, NULL, "Fuse");
    if (has_prefix) {
        lore_json_object(w, NULL);
        lore_json_string(w, "type", LORE_STR("Strip"));
        lore_json_string(w, "content", LORE_STR(" "));
        lore_json_int(w, "start", 1);
        lore_json_int(w, "stop", 0);
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_end(w);
}

static lore_status write_json(reader *r, lore_buf *json)
{
    lore_json_writer w;
    bool is_bpe = r->model_type == MODEL_BPE;
    bool has_bos = lore_tokenizer_flag(r->config, "add_bos_token", is_bpe);
    bool has_eos = lore_tokenizer_flag(r->config, "add_eos_token", false);
    bool has_prefix = lore_tokenizer_flag(r->config, "add_prefix_space", r->spec.add_dummy_prefix);
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_status status = write_added(r, &w);
    if (status == LORE_OK) {
        write_prefix(r, &w);
        if (r->mask_id >= 0) {
            lore_tokenizer_write_processing(&w, "RobertaProcessing", r->pieces[r->bos_id].text,
                                            r->bos_id, r->pieces[r->eos_id].text, r->eos_id);
        } else {
            lore_tokenizer_write_template(&w, has_bos && r->bos_id < r->count ? r->bos_id : -1,
                                          has_eos && r->eos_id < r->count ? r->eos_id : -1);
        }
        write_decoder(r, &w, has_prefix);
        if (is_bpe) {
            status = write_bpe(r, &w);
        } else {
            write_unigram(r, &w);
        }
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_json_end(&w);
    return lore_buf_failed(json)
               ? lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a sentencepiece model")
               : LORE_OK;
}

lore_status lore_sentencepiece_read(lore_str model, const lore_json *config,
                                    lore_tokenizer_family family, lore_buf *json,
                                    lore_normalizer_spec *spec, lore_error *err)
{
    lore_arena arena;
    /* What the format says where a field is not there. */
    reader r = {.config = config,
                .arena = &arena,
                .model_type = MODEL_UNIGRAM,
                .unk_id = -1,
                .bos_id = 1,
                .eos_id = 2,
                .mask_id = -1,
                .spec = {.add_dummy_prefix = true,
                         .remove_extra_whitespaces = true,
                         .escape_whitespaces = true},
                .err = err};
    lore_arena_init(&arena, 0);
    lore_status status = read_model(&r, model);
    if (status == LORE_OK && family == LORE_FAMILY_XLM_ROBERTA) {
        status = renumber(&r);
    }
    if (status == LORE_OK) {
        status = write_json(&r, json);
    }
    lore_arena_destroy(&arena);
    if (status == LORE_OK) {
        *spec = r.spec;
    }
    return status;
}
