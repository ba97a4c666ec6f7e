/* Folders of GPTQ, AWQ and compressed-tensors, packed here as their definitions say, give exactly
 * the matrices that were packed; what is wrong in them is refused by name. Covers
 * quantized_groups.c and quantized_config.c. */
#include "tests/unit/safetensors_fixture.h"

#include "base/clock.h"

enum { ROWS_MAX = 64, COLS_MAX = 512, GROUPS_MAX = 32 };

/* One matrix in the terms that all formats share. Codes and zeros are unsigned. */
typedef struct sample {
    int32_t rows, cols, bits, groups;
    uint8_t codes[ROWS_MAX][COLS_MAX], zeros[ROWS_MAX][GROUPS_MAX];
    uint16_t scales[ROWS_MAX][GROUPS_MAX]; /* f16 */
    int32_t group_of[COLS_MAX];
} sample;

static sample S; /* large, and one at a time */

static float value_of(const sample *s, int32_t r, int32_t c)
{
    int32_t g = s->group_of[c];
    return lore_f16_to_f32(s->scales[r][g]) * (float)(s->codes[r][c] - s->zeros[r][g]);
}

/* group 0: a whole row. is_symmetric: all zeros in the middle. */
static void fill(int32_t rows, int32_t cols, int32_t bits, int32_t group, bool is_symmetric)
{
    uint64_t state = (uint64_t)(rows * 1000003 + cols * 101 + bits * 7 + group);
    int32_t size = group > 0 ? group : cols;
    S = (sample){.rows = rows, .cols = cols, .bits = bits, .groups = (cols + size - 1) / size};
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            S.codes[r][c] = (uint8_t)(lore_random_next(&state) & ((1u << bits) - 1));
        }
        for (int32_t g = 0; g < S.groups; g++) {
            uint64_t sign = lore_random_next(&state) % 4 == 0 ? 0x8000 : 0; /* AutoRound has them */
            S.scales[r][g] = (uint16_t)(sign | (0x1000 + lore_random_next(&state) % 0x2000));
            uint64_t zero = lore_random_next(&state) & ((1u << bits) - 1);
            if (is_symmetric) {
                zero = UINT64_C(1) << (bits - 1);
            }
            S.zeros[r][g] = (uint8_t)zero;
        }
    }
    for (int32_t c = 0; c < cols; c++) {
        S.group_of[c] = c / size;
    }
}

/* Act-order: every column goes to some group, each of which keeps its size. */
static void scatter_columns(void)
{
    uint64_t state = 5;
    for (int32_t c = S.cols - 1; c > 0; c--) {
        int32_t other = (int32_t)(lore_random_next(&state) % (uint64_t)(c + 1));
        int32_t kept = S.group_of[c];
        S.group_of[c] = S.group_of[other];
        S.group_of[other] = kept;
    }
}

/* ---- the writers, from the definitions ---- */

static uint32_t words[ROWS_MAX * COLS_MAX];
static char shape[64];

static const char *shape_of(int32_t first, int32_t second)
{
    snprintf(shape, sizeof shape, "%d, %d", first, second);
    return shape;
}

static void add_words(tensor_file *f, const char *name, int32_t first, int32_t second)
{
    tensors_add(f, name, "I32", shape_of(first, second), words, (size_t)first * (size_t)second * 4);
}

/* f16 [groups, rows] (GPTQ, AWQ) or [rows, groups]. */
static void add_scales(tensor_file *f, const char *name, bool rows_first)
{
    static uint16_t values[ROWS_MAX * GROUPS_MAX];
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t g = 0; g < S.groups; g++) {
            values[rows_first ? r * S.groups + g : g * S.rows + r] = S.scales[r][g];
        }
    }
    tensors_add(f, name, "F16",
                rows_first ? shape_of(S.rows, S.groups) : shape_of(S.groups, S.rows), values,
                (size_t)(S.rows * S.groups) * 2);
}

static void add_group_of(tensor_file *f, const char *name)
{
    snprintf(shape, sizeof shape, "%d", S.cols);
    tensors_add(f, name, "I32", shape, S.group_of, (size_t)S.cols * 4);
}

/* AutoGPTQ: qweight packs n rows of the transposed weight into one, qzeros n columns of the
 * transposed zeros, minus one in the first format. */
static void add_gptq(tensor_file *f, int32_t less)
{
    const int32_t n = 32 / S.bits;
    const uint32_t mask = (1u << S.bits) - 1;
    memset(words, 0, sizeof words);
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t c = 0; c < S.cols; c++) {
            words[c / n * S.rows + r] |= (uint32_t)S.codes[r][c] << (S.bits * (c % n));
        }
    }
    add_words(f, "m.qweight", S.cols / n, S.rows);
    memset(words, 0, sizeof words);
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t g = 0; g < S.groups; g++) {
            words[g * (S.rows / n) + r / n] |= ((uint32_t)(S.zeros[r][g] - less) & mask)
                                               << (S.bits * (r % n));
        }
    }
    add_words(f, "m.qzeros", S.groups, S.rows / n);
    add_scales(f, "m.scales", false);
}

/* AutoAWQ: position k of a word holds row 8 w + ORDER[k]. */
static void add_awq(tensor_file *f, bool with_zeros)
{
    static const int32_t ORDER[] = {0, 2, 4, 6, 1, 3, 5, 7};
    const int32_t across = S.rows / 8;
    memset(words, 0, sizeof words);
    for (int32_t c = 0; c < S.cols; c++) {
        for (int32_t i = 0; i < S.rows; i++) {
            words[c * across + i / 8] |= (uint32_t)S.codes[i / 8 * 8 + ORDER[i % 8]][c]
                                         << (4 * (i % 8));
        }
    }
    add_words(f, "m.qweight", S.cols, across);
    memset(words, 0, sizeof words);
    for (int32_t g = 0; g < S.groups; g++) {
        for (int32_t i = 0; i < S.rows; i++) {
            words[g * across + i / 8] |= (uint32_t)S.zeros[i / 8 * 8 + ORDER[i % 8]][g]
                                         << (4 * (i % 8));
        }
    }
    if (with_zeros) {
        add_words(f, "m.qzeros", S.groups, across);
    }
    add_scales(f, "m.scales", false);
}

/* compressed-tensors, pack-quantized: words along the columns, the last one filled up. */
static void add_packed(tensor_file *f)
{
    const int32_t n = 32 / S.bits, across = (S.cols + n - 1) / n;
    const int64_t stored[] = {S.rows, S.cols};
    memset(words, 0, sizeof words);
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t c = 0; c < S.cols; c++) {
            words[r * across + c / n] |= (uint32_t)S.codes[r][c] << (S.bits * (c % n));
        }
    }
    add_words(f, "m.weight_packed", S.rows, across);
    add_scales(f, "m.weight_scale", true);
    tensors_add(f, "m.weight_shape", "I64", "2", stored, sizeof stored);
}

/* Packed down the rows, or one int8 each. */
static void add_zero_points(tensor_file *f, bool is_packed)
{
    static int8_t bytes[ROWS_MAX * GROUPS_MAX];
    const int32_t n = 32 / S.bits, down = (S.rows + n - 1) / n;
    memset(words, 0, sizeof words);
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t g = 0; g < S.groups; g++) {
            words[r / n * S.groups + g] |= (uint32_t)S.zeros[r][g] << (S.bits * (r % n));
            bytes[r * S.groups + g] = (int8_t)(S.zeros[r][g] - (1 << (S.bits - 1)));
        }
    }
    if (is_packed) {
        add_words(f, "m.weight_zero_point", down, S.groups);
    } else {
        tensors_add(f, "m.weight_zero_point", "I8", shape_of(S.rows, S.groups), bytes,
                    (size_t)(S.rows * S.groups));
    }
}

/* int-quantized. */
static void add_int8(tensor_file *f)
{
    static int8_t bytes[ROWS_MAX * COLS_MAX];
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t c = 0; c < S.cols; c++) {
            bytes[r * S.cols + c] = (int8_t)(S.codes[r][c] - 128);
        }
    }
    tensors_add(f, "m.weight", "I8", shape_of(S.rows, S.cols), bytes, (size_t)(S.rows * S.cols));
    add_scales(f, "m.weight_scale", true);
}

/* ---- reading ---- */

static const char *folder(void)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/quantized", check_temp_dir());
    return path;
}

/* The folder with these tensors and this quantization_config. */
static void write_folder(tensor_file *f, const char *config)
{
    char json[2048];
    snprintf(json, sizeof json, "{\"quantization_config\": {%s}}", config);
    write_file(folder(), "config.json", lore_str_from(json));
    tensors_write(f, folder(), "model.safetensors");
}

/* The value of original column c, as kernels/backend.h defines the types. */
static float matrix_value(const lore_matrix *m, int32_t r, int32_t c)
{
    size_t at = (size_t)r * (size_t)m->cols + (size_t)c;
    if (m->dtype == LORE_F32) {
        return ((const float *)m->data)[at];
    }
    if (m->dtype == LORE_I8) {
        return m->scales[r] * (float)((const int8_t *)m->data)[at];
    }
    int32_t stored = c;
    for (int32_t k = 0; m->columns != NULL && k < m->cols; k++) {
        stored = m->columns[k] == c ? k : stored;
    }
    int32_t groups = (m->cols + m->group - 1) / m->group, g = stored / m->group;
    uint8_t byte = ((const uint8_t *)m->data)[r * ((m->cols + 1) / 2) + stored / 2];
    int32_t zero = m->zeros != NULL ? m->zeros[r * groups + g] : 8;
    return m->scales[r * groups + g] * (float)((stored % 2 == 0 ? byte & 15 : byte >> 4) - zero);
}

/* Open what was written and compare every value. */
static void check_matrix(lore_dtype dtype, bool has_zeros, bool has_columns)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    CHECK_OK(lore_weights_open(folder(), &LIMITS, &w, &err), &err);
    CHECK(lore_weights_has_matrix(w, "m.weight") && !lore_weights_has_matrix(w, "n.weight"));
    CHECK_INT(lore_weights_parameters(w), S.rows * S.cols);
    CHECK_FAILS(lore_weights_finish(w, &err), LORE_ERR_CORRUPT, &err, "m.");
    CHECK_OK(lore_weights_matrix(w, "m.weight", S.rows, S.cols, &m, &err), &err);
    CHECK_OK(lore_weights_finish(w, &err), &err);
    CHECK_INT(m.dtype, dtype);
    CHECK((m.zeros != NULL) == has_zeros && (m.columns != NULL) == has_columns);
    if (dtype == LORE_I4) {
        CHECK(m.group % 32 == 0 || m.group >= m.cols);
    }
    for (int32_t r = 0; r < S.rows; r++) {
        for (int32_t c = 0; c < S.cols; c++) {
            if (matrix_value(&m, r, c) != value_of(&S, r, c)) {
                CHECK_STOP("[%d, %d] is %g, not %g", r, c, (double)matrix_value(&m, r, c),
                           (double)value_of(&S, r, c));
            }
        }
    }
    int64_t live = lore_mem_live();
    lore_weights_release(w, &m);
    CHECK(lore_mem_live() < live);
    lore_weights_close(w);
}

static const char GPTQ_V1[] = "\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": %d";
static const char GPTQ_V2[] = "\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": %d, "
                              "\"checkpoint_format\": \"gptq_v2\"";
static const char GPTQ_8[] = "\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": %d, "
                             "\"sym\": true, \"desc_act\": true";

static void check_gptq(const char *config, int32_t group, bool with_order, lore_dtype dtype,
                       bool has_zeros, bool has_columns)
{
    char text[512];
    tensor_file f;
    tensors_begin(&f);
    add_gptq(&f, config == GPTQ_V2 ? 0 : 1);
    if (with_order) {
        add_group_of(&f, "m.g_idx");
    }
    snprintf(text, sizeof text, config, group);
    write_folder(&f, text);
    check_matrix(dtype, has_zeros, has_columns);
}

TEST(gptq_gives_its_values)
{
    const int32_t groups[] = {32, 64, 128, 0};
    for (int i = 0; i < 4; i++) {
        int32_t stored = groups[i] == 0 ? -1 : groups[i];
        fill(24, 256, 4, groups[i], true);
        check_gptq(GPTQ_V1, stored, i % 2 == 0, LORE_I4, false, false);
        check_gptq(GPTQ_V2, stored, i % 2 == 1, LORE_I4, false, false);
        fill(40, 256, 4, groups[i], false);
        check_gptq(GPTQ_V1, stored, i % 2 == 1, LORE_I4, true, false);
        check_gptq(GPTQ_V2, stored, i % 2 == 0, LORE_I4, true, false);
    }
    fill(8, 160, 4, 64, false); /* the last group is shorter */
    check_gptq(GPTQ_V1, 64, false, LORE_I4, true, false);
    check_gptq(GPTQ_V1, 64, true, LORE_I4, true, false);
    fill(8, 48, 4, 16, true); /* no group of 32: no packed type */
    check_gptq(GPTQ_V1, 16, false, LORE_F32, false, false);
}

TEST(act_order_is_a_stable_permutation)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    fill(16, 256, 4, 64, false);
    scatter_columns();
    check_gptq(GPTQ_V1, 64, true, LORE_I4, true, true);
    CHECK_OK(lore_weights_open(folder(), &LIMITS, &w, &err), &err);
    CHECK_OK(lore_weights_matrix(w, "m.weight", 16, 256, &m, &err), &err);
    CHECK_INT(m.group, 64);
    for (int32_t k = 0; k < 256; k++) {
        CHECK_INT(S.group_of[m.columns[k]], k / 64);
        CHECK(k % 64 == 0 || m.columns[k - 1] < m.columns[k]);
    }
    lore_weights_close(w);
    fill(16, 160, 4, 64, true);
    scatter_columns(); /* the last group has 32 columns */
    check_gptq(GPTQ_V1, 64, true, LORE_I4, false, true);
    S.group_of[0] = (S.group_of[0] + 1) % 3; /* groups of other sizes than the file says */
    check_gptq(GPTQ_V1, 64, true, LORE_F32, false, false);
}

TEST(gptq_of_8_bits)
{
    fill(16, 64, 8, 0, true);
    check_gptq(GPTQ_8, -1, false, LORE_I8, false, false);
    check_gptq(GPTQ_8, -1, true, LORE_I8, false, false);
    fill(16, 64, 8, 32, false);
    check_gptq(GPTQ_8, 32, false, LORE_F32, false, false);
    scatter_columns();
    check_gptq(GPTQ_8, 32, true, LORE_F32, false, false);
}

TEST(awq_gives_its_values)
{
    const int32_t groups[] = {64, 128, 32};
    char config[256];
    for (int i = 0; i < 3; i++) {
        for (int with_zeros = 0; with_zeros < 2; with_zeros++) {
            tensor_file f;
            fill(48, 384, 4, groups[i], with_zeros == 0);
            tensors_begin(&f);
            add_awq(&f, with_zeros != 0);
            snprintf(config, sizeof config,
                     "\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": %d, \"version\": "
                     "\"%s\", \"zero_point\": %s",
                     groups[i], i == 0 ? "GEMM" : "gemm", with_zeros != 0 ? "true" : "false");
            write_folder(&f, config);
            check_matrix(LORE_I4, with_zeros != 0, false);
        }
    }
    tensor_file f; /* an odd number of columns, one group; the names of the first writers */
    fill(8, 51, 4, 0, false);
    tensors_begin(&f);
    add_awq(&f, true);
    write_folder(&f, "\"quant_method\": \"awq\", \"w_bit\": 4, \"q_group_size\": -1");
    check_matrix(LORE_I4, true, false);
}

static const char PACKED[] =
    "\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
    "\"quantization_status\": \"compressed\", \"ignore\": [\"lm_head\"], \"config_groups\": "
    "{\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": %d, \"type\": \"int\", "
    "\"symmetric\": true, \"strategy\": \"%s\", \"group_size\": %s, \"actorder\": null}}}";

static void check_packed(int zero_points, bool with_order, lore_dtype dtype, bool has_zeros,
                         bool has_columns)
{
    char config[1024], group[16];
    tensor_file f;
    tensors_begin(&f);
    add_packed(&f);
    if (zero_points != 0) {
        add_zero_points(&f, zero_points == 1);
    }
    if (with_order) {
        add_group_of(&f, "m.weight_g_idx");
    }
    snprintf(group, sizeof group, "%d", S.cols / S.groups);
    snprintf(config, sizeof config, PACKED, S.bits, S.groups > 1 ? "group" : "channel",
             S.groups > 1 ? group : "null");
    write_folder(&f, config);
    check_matrix(dtype, has_zeros, has_columns);
}

TEST(compressed_words_give_their_values)
{
    fill(24, 256, 4, 128, true);
    check_packed(0, false, LORE_I4, false, false);
    fill(20, 256, 4, 32, false);
    check_packed(1, false, LORE_I4, true, false);
    check_packed(2, false, LORE_I4, true, false);
    scatter_columns();
    check_packed(1, true, LORE_I4, true, true);
    fill(20, 36, 4, 0, false); /* rows end inside of a word */
    check_packed(1, false, LORE_I4, true, false);
    fill(20, 37, 4, 0, true);
    check_packed(0, false, LORE_I4, false, false);
    fill(10, 64, 8, 0, true);
    check_packed(0, false, LORE_I8, false, false);
    fill(10, 64, 8, 32, false);
    check_packed(1, false, LORE_F32, false, false);
    fill(8, 64, 4, 32, true); /* no order is written as -1 throughout */
    tensor_file f;
    char config[1024];
    int32_t unset[64];
    memset(unset, 0xff, sizeof unset);
    tensors_begin(&f);
    add_packed(&f);
    tensors_add(&f, "m.weight_g_idx", "I32", "64", unset, sizeof unset);
    snprintf(config, sizeof config, PACKED, 4, "group", "32");
    write_folder(&f, config);
    check_matrix(LORE_I4, false, false);
}

TEST(compressed_int8_gives_its_values)
{
    static const char INT8[] =
        "\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\", "
        "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": "
        "8, \"group_size\": 32}, \"input_activations\": {\"num_bits\": 8, \"dynamic\": true}}}";
    tensor_file f;
    float scale = 0.25f;
    fill(12, 50, 8, 0, true);
    tensors_begin(&f);
    add_int8(&f);
    tensors_add(&f, "m.input_scale", "F32", "1", &scale, 4); /* static activations: not ours */
    write_folder(&f, INT8);
    check_matrix(LORE_I8, false, false);
    fill(12, 64, 8, 32, true);
    tensors_begin(&f);
    add_int8(&f);
    write_folder(&f, INT8);
    check_matrix(LORE_F32, false, false);
    fill(12, 64, 8, 0, false);
    tensors_begin(&f);
    add_int8(&f);
    add_zero_points(&f, false);
    write_folder(&f, INT8);
    check_matrix(LORE_F32, false, false);
}

/* One scale for the whole matrix; a module that is not quantised; one of other bits and groups. */
TEST(modules_may_differ)
{
    static const char MIXED[] =
        "\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\", "
        "\"kv_cache_scheme\": {\"num_bits\": 8}, "
        "\"config_groups\": {\"a\": {\"weights\": {\"num_bits\": 4, \"group_size\": 32}}, \"b\": "
        "{\"weights\": {\"num_bits\": 8, \"strategy\": \"tensor\"}}, \"c\": {\"weights\": null}}";
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    tensor_file f;
    const float values[] = {1, 2, 3, 4}, scale = 0.5f;
    const int8_t bytes[] = {-128, 127, 0, 1};
    fill(8, 64, 4, 32, true);
    tensors_begin(&f);
    add_packed(&f);
    tensors_add(&f, "lm_head.weight", "F32", "2, 2", values, sizeof values);
    tensors_add(&f, "other.weight", "I8", "2, 2", bytes, sizeof bytes);
    tensors_add(&f, "other.weight_scale", "F32", "1", &scale, 4);
    tensors_add(&f, "attention.k_scale", "F32", "1", &scale, 4);
    write_folder(&f, MIXED);
    CHECK_OK(lore_weights_open(folder(), &LIMITS, &w, &err), &err);
    CHECK_INT(lore_weights_parameters(w), 8 * 64 + 4 + 4);
    CHECK_OK(lore_weights_matrix(w, "m.weight", 8, 64, &m, &err), &err);
    CHECK_INT(m.dtype, LORE_I4);
    CHECK_OK(lore_weights_matrix(w, "lm_head.weight", 2, 2, &m, &err), &err);
    CHECK_INT(m.dtype, LORE_F32);
    lore_weights_release(w, &m); /* borrowed: nothing happens */
    CHECK_NEAR(((const float *)m.data)[3], 4, 0);
    CHECK(lore_weights_ignore(w, "other.weight"));
    CHECK_OK(lore_weights_finish(w, &err), &err);
    CHECK_OK(lore_weights_matrix(w, "other.weight", 2, 2, &m, &err), &err);
    CHECK_INT(m.dtype, LORE_I8);
    CHECK_NEAR(m.scales[0], 0.5, 0);
    CHECK_NEAR(m.scales[1], 0.5, 0);
    CHECK_INT(((const int8_t *)m.data)[0], -128);
    lore_weights_close(w);
}

/* ---- refusals ---- */

static void refuse_config(const char *config, lore_status wanted, const char *message)
{
    tensor_file f;
    lore_error err = {0};
    lore_weights *w = NULL;
    float one = 1;
    tensors_begin(&f);
    tensors_add(&f, "v", "F32", "1", &one, 4);
    write_folder(&f, config);
    CHECK_FAILS(lore_weights_open(folder(), &LIMITS, &w, &err), wanted, &err, message);
    CHECK(strstr(err.message, "config.json") != NULL);
}

TEST(what_is_not_computed_is_refused_by_name)
{
    const lore_status no = LORE_ERR_UNSUPPORTED, bad = LORE_ERR_CORRUPT;
    refuse_config("", bad, "quant_method");
    refuse_config("\"quant_method\": 4", bad, "quant_method");
    refuse_config("\"quant_method\": \"bitsandbytes\"", no, "'bitsandbytes'");
    refuse_config("\"quant_method\": \"fp8\"", no, "'fp8'");
    refuse_config("\"quant_method\": \"gptq\", \"bits\": 3", no, "3 bits");
    refuse_config("\"quant_method\": \"gptq\", \"bits\": \"4\"", bad, "bits");
    refuse_config("\"quant_method\": \"gptq\", \"group_size\": 0", bad, "group_size");
    refuse_config("\"quant_method\": \"gptq\", \"group_size\": -2", bad, "group_size");
    refuse_config("\"quant_method\": \"gptq\", \"group_size\": 1e12", bad, "group_size");
    refuse_config("\"quant_method\": \"gptq\", \"checkpoint_format\": \"marlin\"", no, "'marlin'");
    refuse_config("\"quant_method\": \"gptq\", \"format\": \"bitblas\"", no, "'bitblas'");
    refuse_config("\"quant_method\": \"gptq\", \"is_marlin_format\": true", no, "marlin");
    refuse_config("\"quant_method\": \"gptq\", \"pack_dtype\": \"int16\"", no, "'int16'");
    refuse_config("\"quant_method\": \"awq\", \"bits\": 8", no, "8 bits");
    refuse_config("\"quant_method\": \"awq\", \"version\": \"gemv\"", no, "'gemv'");
#define COMPRESSED "\"quant_method\": \"compressed-tensors\", "
    refuse_config(COMPRESSED "\"format\": \"float-quantized\"", no, "'float-quantized'");
    refuse_config(COMPRESSED "\"format\": \"pack-quantized\"", bad, "config_groups");
    refuse_config(COMPRESSED "\"config_groups\": {\"a\": 3}", bad, "object");
    refuse_config(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": 3}}", bad, "object");
    refuse_config(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"type\": \"float\"}}}", no,
                  "'float'");
    refuse_config(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"num_bits\": 2}}}", no,
                  "2 bits");
    refuse_config(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"strategy\": \"block\"}}}",
                  no, "'block'");
    refuse_config(COMPRESSED "\"quantization_status\": \"calibration\"", no, "'calibration'");
    refuse_config(COMPRESSED "\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}", no,
                  "'sparse-24-bitmask'");
    refuse_config(COMPRESSED "\"transform_config\": {\"config_groups\": {\"u\": {}}}", no, "'u'");
}

/* A good GPTQ folder, but for one tensor; ROWS 16, COLS 64, groups of 32. */
static void refuse_tensor(const char *name, const char *dtype, const char *wrong_shape,
                          const void *data, size_t size_bytes, const char *message)
{
    static const char *const NAMES[] = {"m.qweight", "m.qzeros", "m.scales", "m.g_idx"};
    static const char *const DTYPES[] = {"I32", "I32", "F16", "I32"};
    static const char *const SHAPES[] = {"8, 16", "2, 2", "2, 16", "64"};
    static const size_t SIZES[] = {512, 16, 64, 256};
    static const uint8_t ZEROS[512];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    tensor_file f;
    tensors_begin(&f);
    for (int i = 0; i < 4; i++) {
        if (strcmp(NAMES[i], name) != 0) {
            tensors_add(&f, NAMES[i], DTYPES[i], SHAPES[i], ZEROS, SIZES[i]);
        } else if (dtype != NULL) {
            tensors_add(&f, name, dtype, wrong_shape, data, size_bytes);
        }
    }
    write_folder(&f, "\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32");
    CHECK_OK(lore_weights_open(folder(), &LIMITS, &w, &err), &err);
    (void)lore_weights_parameters(w);
    CHECK_FAILS(lore_weights_matrix(w, "m.weight", 16, 64, &m, &err), LORE_ERR_CORRUPT, &err,
                message);
    CHECK(strstr(err.message, "model.safetensors") != NULL);
    lore_weights_close(w);
}

TEST(impossible_tensors_are_refused)
{
    static const uint8_t zeros[2080];
    static uint16_t scales[32];
    static int32_t order[64];
    refuse_tensor("m.qweight", "I32", "8, 8", zeros, 256, "m.qweight");
    refuse_tensor("m.qweight", "I32", "128", zeros, 512, "m.qweight");
    refuse_tensor("m.qweight", "F32", "8, 16", zeros, 512, "F32");
    refuse_tensor("m.qweight", "I32", "0, 16", zeros, 0, "[0, 16]");
    refuse_tensor("m.qzeros", "I32", "2, 3", zeros, 24, "must be I32 [2, 2], is I32 [2, 3]");
    refuse_tensor("m.qzeros", "I16", "2, 2", zeros, 8, "is I16");
    refuse_tensor("m.qzeros", NULL, NULL, NULL, 0, "no zeros");
    refuse_tensor("m.scales", NULL, NULL, NULL, 0, "no scales");
    refuse_tensor("m.scales", "F16", "16, 2", zeros, 64, "m.scales");
    refuse_tensor("m.scales", "I16", "2, 16", zeros, 64, "m.scales");
    refuse_tensor("m.scales", "F16", "0, 16", zeros, 0, "m.scales");
    refuse_tensor("m.scales", "F16", "65, 16", zeros, 2080, "m.scales");
    scales[5] = 0x7e00;
    refuse_tensor("m.scales", "F16", "2, 16", scales, 64, "impossible scale in row (5)");
    scales[5] = 0xfc00; /* -inf */
    refuse_tensor("m.scales", "F16", "2, 16", scales, 64, "impossible scale in row (5)");
    refuse_tensor("m.g_idx", "I32", "63", zeros, 252, "m.g_idx");
    refuse_tensor("m.g_idx", "F32", "64", zeros, 256, "is F32");
    order[7] = 2;
    refuse_tensor("m.g_idx", "I32", "64", order, 256, "no scale (2)");
    order[7] = -1;
    refuse_tensor("m.g_idx", "I32", "64", order, 256, "no scale (-1)");
    order[7] = INT32_MIN;
    refuse_tensor("m.g_idx", "I32", "64", order, 256, "no scale (-2147483648)");
}

static void refuse_packed(const char *config, int64_t cols, const char *message)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    tensor_file f;
    int64_t stored[] = {8, cols};
    tensors_begin(&f);
    fill(8, 96, 4, 32, true);
    add_packed(&f);
    memcpy(f.data.ptr + f.data.len - 16, stored, 16);
    write_folder(&f, config);
    CHECK_OK(lore_weights_open(folder(), &LIMITS, &w, &err), &err);
    (void)lore_weights_parameters(w); /* a hostile weight_shape is not believed there either */
    lore_status status = lore_weights_matrix(w, "m.weight", 8, 96, &m, &err);
    CHECK(status == LORE_ERR_CORRUPT || status == LORE_ERR_UNSUPPORTED);
    CHECK(strstr(err.message, message) != NULL && strstr(err.message, folder()) != NULL);
    lore_weights_close(w);
}

TEST(groups_must_be_known)
{
    refuse_packed(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"group_size\": 64}}}", 96,
                  "number of groups");
    refuse_packed(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"group_size\": 32}}, "
                             "\"b\": {\"weights\": {\"group_size\": 40}}}",
                  96, "of 32 or of 40");
    refuse_packed(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"group_size\": 32}}}", 95,
                  "weight_shape");
    refuse_packed(COMPRESSED "\"config_groups\": {\"a\": {\"weights\": {\"group_size\": 32}}}",
                  INT64_MIN, "weight_shape");
}

static lore_status open_and_take(void *self)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    (void)self;
    lore_status status = lore_weights_open(folder(), &LIMITS, &w, &err);
    if (status == LORE_OK) {
        status = lore_weights_matrix(w, "m.weight", 16, 64, &m, &err);
    }
    lore_weights_close(w);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    tensor_file f;
    fill(16, 64, 4, 32, false);
    scatter_columns();
    tensors_begin(&f);
    add_gptq(&f, 1);
    add_group_of(&f, "m.g_idx");
    write_folder(&f, "\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32");
    check_alloc_sweep(open_and_take, NULL);
    S.group_of[0] = 1 - S.group_of[0]; /* and the way to f32 */
    tensors_begin(&f);
    add_gptq(&f, 1);
    add_group_of(&f, "m.g_idx");
    write_folder(&f, "\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32");
    check_alloc_sweep(open_and_take, NULL);
}

CHECK_MAIN(gptq_gives_its_values, act_order_is_a_stable_permutation, gptq_of_8_bits,
           awq_gives_its_values, compressed_words_give_their_values,
           compressed_int8_gives_its_values, modules_may_differ,
           what_is_not_computed_is_refused_by_name, impossible_tensors_are_refused,
           groups_must_be_known, out_of_memory_is_an_error)
