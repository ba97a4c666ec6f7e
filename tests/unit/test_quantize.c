/* A quantised copy opens like any other folder and holds the numbers it should: int8 rows as
 * lore_quantize_row makes them, int4 groups nearer to the source than rounding alone; it appears
 * whole or not at all. Covers quantize_plan.c and quantize_rows.c. */
#include "tests/unit/safetensors_fixture.h"

#include "base/clock.h"
#include "models/quantize.h"
#include "models/quantize_int.h"

enum { ROWS = 40, WIDTH = 256, ODD = 100 };

static float embed[ROWS][WIDTH], linear[ROWS][WIDTH], odd[ROWS][ODD];

/* Sums of four uniform numbers: bell-shaped, as weights are. */
static float random_weight(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (float)(lore_random_next(state) % 20001) / 10000.0f - 1.0f;
    }
    return sum * 0.02f;
}

static void path_of(char path[256], const char *name)
{
    snprintf(path, 256, "%s/%s", check_temp_dir(), name);
}

/* A model of every kind of tensor, with files beside it. */
static void write_source(const char *folder)
{
    char pooling[512];
    float vector[WIDTH];
    uint64_t state = 11;
    tensor_file f;
    tensors_begin(&f);
    for (int i = 0; i < ROWS; i++) {
        for (int k = 0; k < WIDTH; k++) {
            embed[i][k] = random_weight(&state);
            linear[i][k] = random_weight(&state);
            vector[k] = (float)k;
        }
        for (int k = 0; k < ODD; k++) {
            odd[i][k] = random_weight(&state);
        }
    }
    tensors_add(&f, "model.embed_tokens.weight", "F32", "40, 256", embed, sizeof embed);
    tensors_add(&f, "model.norm.weight", "F32", "256", vector, sizeof vector);
    tensors_add(&f, "model.a.weight", "F32", "40, 256", linear, sizeof linear);
    tensors_add(&f, "model.a.bias", "F32", "40", vector, 160);
    tensors_add(&f, "model.odd.weight", "F32", "40, 100", odd, sizeof odd);
    tensors_add(&f, "classifier.weight", "F32", "40, 100", odd, sizeof odd);
    tensors_write(&f, folder, "model.safetensors");
    write_file(folder, "config.json",
               LORE_STR("{\"model_type\": \"x\", \"eps\": 1e-06, \"list\": [1, 2]}"));
    write_file(folder, "tokenizer.json", LORE_STR("{\"a\": 1}"));
    write_file(folder, "pytorch_model.bin", LORE_STR("much"));
    write_file(folder, ".gitattributes", LORE_STR("much"));
    snprintf(pooling, sizeof pooling, "%s/1_Pooling", folder);
    write_file(pooling, "config.json", LORE_STR("{\"b\": 2}"));
}

static bool exists(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
    return lore_file_exists(path);
}

static void remove_all(const char *folder)
{
    lore_folder_abort(folder);
    CHECK(!lore_file_exists(folder));
}

static double squared_error(const lore_matrix *m, const float *wanted)
{
    static float row[WIDTH];
    double error = 0;
    for (int32_t i = 0; i < m->rows; i++) {
        lore_matrix_read_row(m, i, row);
        for (int32_t k = 0; k < m->cols; k++) {
            double off = (double)row[k] - (double)wanted[i * m->cols + k];
            error += off * off;
        }
    }
    return error;
}

/* What rounding to the scale of the largest number leaves. */
static double rounding_error(const float *x, int32_t count, int32_t group)
{
    double error = 0;
    for (int32_t first = 0; first < count; first += group) {
        float top = 0;
        for (int32_t i = first; i < first + group; i++) {
            top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        }
        for (int32_t i = first; i < first + group; i++) {
            double off = (double)(x[i] - top / 7 * rintf(x[i] * 7 / top));
            error += off * off;
        }
    }
    return error;
}

static void take(lore_weights *w, const char *name, int32_t cols, lore_dtype dtype, lore_matrix *m)
{
    lore_error err = {0};
    CHECK_OK(lore_weights_matrix(w, name, ROWS, cols, m, &err), &err);
    CHECK_INT(m->dtype, dtype);
}

/* Nobody is left over, and vectors are what they were. */
static void check_rest(lore_weights *w, const fixture *f)
{
    lore_error err = {0};
    lore_matrix m;
    float *v = NULL;
    CHECK_OK(lore_weights_vector(w, "model.norm.weight", WIDTH, f->backend, &v, &err), &err);
    CHECK_NEAR(v[200], 200, 0);
    lore_backend_free(f->backend, v);
    CHECK_OK(lore_weights_vector(w, "model.a.bias", ROWS, f->backend, &v, &err), &err);
    lore_backend_free(f->backend, v);
    take(w, "classifier.weight", ODD, LORE_F32, &m);
    CHECK_OK(lore_weights_finish(w, &err), &err);
    CHECK_INT(lore_weights_parameters(w), 2 * ROWS * WIDTH + 2 * ROWS * ODD + WIDTH + ROWS);
}

TEST(int8_rows)
{
    char from[256], to[256];
    static int8_t codes[WIDTH];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "int8");
    write_source(from);
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    const lore_quantize_options options = {.to = LORE_I8};
    CHECK_OK(lore_quantize(from, to, &LIMITS, &options, &result, &err), &err);
    CHECK(exists(to, "tokenizer.json") && exists(to, "1_Pooling/config.json"));
    CHECK(!exists(to, "pytorch_model.bin") && !exists(to, ".gitattributes"));
    CHECK_INT(result.matrices_i8, 3);
    CHECK_INT(result.matrices_i4, 0);
    CHECK_INT(result.tensors_kept, 3);
    CHECK(result.relative_error > 0 && result.relative_error < 0.01);
    CHECK_OK(lore_weights_open(to, &LIMITS, &w, &err), &err);
    CHECK_INT(lore_weights_bytes(w), result.bytes_after);
    take(w, "model.embed_tokens.weight", WIDTH, LORE_I8, &m);
    for (int i = 0; i < ROWS; i++) {
        CHECK_NEAR(m.scales[i], lore_quantize_row(codes, embed[i], WIDTH), 0);
        CHECK(memcmp((const int8_t *)m.data + i * WIDTH, codes, WIDTH) == 0);
    }
    take(w, "model.a.weight", WIDTH, LORE_I8, &m);
    take(w, "model.odd.weight", ODD, LORE_I8, &m);
    check_rest(w, &f);
    lore_weights_close(w);
    fixture_close(&f);
    remove_all(to);
}

/* The same again as a source: what was coded is coded anew, and nothing is lost twice. */
TEST(quantised_folders_are_sources)
{
    char from[256], to[256], again[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "int8");
    path_of(again, "again");
    write_source(from);
    const lore_quantize_options int8 = {.to = LORE_I8}, int4 = {.to = LORE_I4};
    CHECK_OK(lore_quantize(from, to, &LIMITS, &int8, &result, &err), &err);
    CHECK_OK(lore_quantize(to, again, &LIMITS, &int8, &result, &err), &err);
    CHECK(result.relative_error < 1e-6 && result.bytes_before == result.bytes_after);
    remove_all(again);
    CHECK_OK(lore_quantize(to, again, &LIMITS, &int4, &result, &err), &err);
    CHECK_INT(result.matrices_i4, 1);
    CHECK_OK(lore_weights_open(again, &LIMITS, &w, &err), &err);
    take(w, "model.a.weight", WIDTH, LORE_I4, &m);
    CHECK(squared_error(&m, linear[0]) < rounding_error(linear[0], ROWS * WIDTH, 128));
    lore_weights_close(w);
    remove_all(again);
    CHECK_OK(lore_quantize(from, again, &LIMITS, &int4, &result, &err), &err);
    remove_all(to);
    CHECK_OK(lore_quantize(again, to, &LIMITS, &int8, &result, &err), &err); /* from int4 */
    CHECK_INT(result.matrices_i8, 3);
    CHECK_OK(lore_weights_open(to, &LIMITS, &w, &err), &err);
    take(w, "model.a.weight", WIDTH, LORE_I8, &m);
    lore_weights_close(w);
    remove_all(again);
    remove_all(to);
}

TEST(int4_groups)
{
    char from[256], to[256];
    lore_error err = {0};
    lore_matrix m;
    path_of(from, "source");
    path_of(to, "int4");
    write_source(from);
    for (int32_t group = 64; group <= 128; group += 64) {
        lore_weights *w = NULL;
        lore_quantize_result result;
        fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
        const lore_quantize_options options = {.to = LORE_I4, .group = group, .pool = f.pool};
        CHECK_OK(lore_quantize(from, to, &LIMITS, &options, &result, &err), &err);
        CHECK_INT(result.matrices_i4, 1);
        CHECK_INT(result.matrices_i8, 2); /* the table, and columns that make no groups */
        CHECK_OK(lore_weights_open(to, &LIMITS, &w, &err), &err);
        take(w, "model.a.weight", WIDTH, LORE_I4, &m);
        CHECK_INT(m.group, group);
        CHECK(m.zeros == NULL && m.columns == NULL);
        double rounding = rounding_error(linear[0], ROWS * WIDTH, group);
        CHECK(squared_error(&m, linear[0]) < 0.9 * rounding);
        take(w, "model.embed_tokens.weight", WIDTH, LORE_I8, &m);
        take(w, "model.odd.weight", ODD, LORE_I8, &m);
        check_rest(w, &f);
        lore_weights_close(w);
        fixture_close(&f);
        remove_all(to);
    }
}

/* Plain numbers where another program wants them, whatever the source holds. */
TEST(portable_folders_keep_the_table)
{
    char from[256], to[256], again[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "portable");
    path_of(again, "again");
    write_source(from);
    const lore_quantize_options int8 = {.to = LORE_I8};
    const lore_quantize_options portable = {.to = LORE_I4, .is_portable = true};
    CHECK_OK(lore_quantize(from, to, &LIMITS, &portable, &result, &err), &err);
    CHECK_OK(lore_weights_open(to, &LIMITS, &w, &err), &err);
    take(w, "model.embed_tokens.weight", WIDTH, LORE_F32, &m);
    CHECK(memcmp(m.data, embed, sizeof embed) == 0);
    lore_weights_close(w);
    remove_all(to);
    CHECK_OK(lore_quantize(from, to, &LIMITS, &int8, &result, &err), &err);
    CHECK_OK(lore_quantize(to, again, &LIMITS, &portable, &result, &err), &err);
    CHECK_INT(result.tensors_kept, 4);
    CHECK_OK(lore_weights_open(again, &LIMITS, &w, &err), &err);
    take(w, "model.embed_tokens.weight", WIDTH, LORE_BF16, &m);
    CHECK(squared_error(&m, embed[0]) < 0.01 * rounding_error(embed[0], ROWS * WIDTH, 128));
    lore_weights_close(w);
    remove_all(to);
    remove_all(again);
}

TEST(the_configuration_says_what_was_done)
{
    char from[256], to[256], path[512];
    lore_error err = {0};
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "int4");
    write_source(from);
    const lore_quantize_options options = {.to = LORE_I4};
    CHECK_OK(lore_quantize(from, to, &LIMITS, &options, &result, &err), &err);
    snprintf(path, sizeof path, "%s/config.json", to);
    lore_json *root = read_json(path);
    const lore_json *q = lore_json_get(root, "quantization_config");
    const lore_json *groups = lore_json_get(q, "config_groups");
    const lore_json *targets = lore_json_get(lore_json_get(groups, "group_1"), "targets");
    CHECK_STR(lore_json_str(lore_json_get(root, "model_type")), "x");
    CHECK_NEAR(lore_json_number(lore_json_get(root, "eps")), 1e-6, 0);
    CHECK_INT(lore_json_count(lore_json_get(root, "list")), 2);
    CHECK_STR(lore_json_str(lore_json_get(q, "format")), "mixed-precision");
    CHECK_INT(lore_json_count(groups), 2);
    CHECK_INT(lore_json_count(targets), 2);
    CHECK_STR(lore_json_str(lore_json_first(targets)), "model.embed_tokens");
    CHECK_STR(lore_json_str(lore_json_next(lore_json_first(targets))), "model.odd");
    const lore_json *ignored = lore_json_first(lore_json_get(q, "ignore"));
    CHECK_STR(lore_json_str(ignored), "classifier");
    CHECK_STR(lore_json_str(lore_json_next(ignored)), "lm_head");
    lore_json_free(root);
    remove_all(to);
}

/* Numbers on the grid of a scale come back exactly, zeros and lone outliers too. */
TEST(rows_on_a_grid_are_exact)
{
    static float x[300];
    static uint8_t codes[152];
    uint16_t scales[3];
    for (int i = 0; i < 300; i++) {
        x[i] = i / 128 == 1 ? 0.0f : (float)(i * 7 % 16 - 8) * (i < 128 ? 0.125f : 3.0f);
    }
    CHECK_NEAR(lore_quantize_row_i4(codes, scales, x, NULL, 300, 128), 0, 0);
    CHECK_NEAR(lore_bf16_to_f32(scales[0]), 0.125, 0);
    CHECK_NEAR(lore_bf16_to_f32(scales[1]), 0, 0);
    CHECK_NEAR(lore_bf16_to_f32(scales[2]), 3, 0);
    CHECK_INT(codes[0] & 15, 0);
    CHECK_INT(codes[0] >> 4, 7);
    CHECK_INT(codes[64], 0x88);
    CHECK_INT(codes[150], 0); /* words are filled up */
    CHECK_INT(codes[151], 0);
    memset(x, 0, sizeof x);
    x[5] = -1;
    CHECK(lore_quantize_row_i4(codes, scales, x, NULL, 300, 128) < 1e-4);
}

/* Columns that count more are met better, at the cost of the others. */
TEST(importance_moves_the_scale)
{
    static float x[128], importance[128];
    static uint8_t codes[64];
    uint16_t scale;
    double errors[2] = {0, 0};
    uint64_t state = 3;
    for (int i = 0; i < 128; i++) {
        x[i] = random_weight(&state);
        importance[i] = i % 8 == 0 ? 100.0f : 0.01f;
    }
    double plain = lore_quantize_row_i4(codes, &scale, x, NULL, 128, 128);
    for (int with = 0; with < 2; with++) {
        double all = lore_quantize_row_i4(codes, &scale, x, with ? importance : NULL, 128, 128);
        CHECK(with ? all >= plain : all <= plain);
        for (int i = 0; i < 128; i += 8) {
            double off =
                (double)(x[i] - lore_bf16_to_f32(scale) * (float)((codes[i / 2] & 15) - 8));
            errors[with] += off * off;
        }
    }
    CHECK(errors[1] < errors[0]);
    memset(importance, 0,
           sizeof importance); /* nothing was ever seen of these: any scale will do */
    CHECK(lore_quantize_row_i4(codes, &scale, x, importance, 128, 128) < 4 * plain);
}

TEST(large_models_have_several_files)
{
    char from[256], to[256], first[64];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "shards");
    write_source(from);
    const lore_quantize_options options = {.to = LORE_I8, .shard_bytes_max = 12000};
    CHECK_OK(lore_quantize(from, to, &LIMITS, &options, &result, &err), &err);
    CHECK(result.files > 2);
    CHECK(exists(to, "model.safetensors.index.json") && !exists(to, "model.safetensors"));
    snprintf(first, sizeof first, "model-00001-of-%05d.safetensors", (int)result.files);
    CHECK(exists(to, first));
    CHECK_OK(lore_weights_open(to, &LIMITS, &w, &err), &err);
    CHECK_INT(lore_weights_bytes(w), result.bytes_after);
    lore_weights_close(w);
    remove_all(to);
}

TEST(nothing_is_written_over)
{
    char from[256], to[256], other[256];
    lore_error err = {0};
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "there");
    path_of(other, "there.tmp");
    write_source(from);
    const lore_quantize_options options = {.to = LORE_I8};
    write_file(to, "note", LORE_STR("mine"));
    CHECK_FAILS(lore_quantize(from, to, &LIMITS, &options, &result, &err), LORE_ERR_INVALID, &err,
                "exists");
    CHECK(exists(to, "note") && !exists(other, ""));
    remove_all(to);
    write_file(other, "note", LORE_STR("mine"));
    CHECK_FAILS(lore_quantize(from, to, &LIMITS, &options, &result, &err), LORE_ERR_INVALID, &err,
                "there.tmp");
    CHECK(exists(other, "note"));
    remove_all(other);
    CHECK_OK(lore_dir_make(other, &err), &err);
    CHECK(symlink(other, to) == 0); /* no rename goes over it: known before anything is written */
    CHECK_FAILS(lore_quantize(from, to, &LIMITS, &options, &result, &err), LORE_ERR_INVALID, &err,
                "exists");
    CHECK(unlink(to) == 0);
    remove_all(other);
    CHECK_OK(lore_dir_make(to, &err), &err); /* an empty folder is fine, slashes are */
    snprintf(to + strlen(to), 3, "//");
    CHECK_OK(lore_quantize(from, to, &LIMITS, &options, &result, &err), &err);
    CHECK(exists(to, "model.safetensors"));
    remove_all(to);
    CHECK_FAILS(lore_quantize("/nonexistent", to, &LIMITS, &options, &result, &err),
                LORE_ERR_NOT_FOUND, &err, "/nonexistent");
    CHECK(!exists(to, ""));
}

/* A disk that fails at the n-th write, sync or rename leaves neither folder. */
TEST(a_failing_disk_leaves_nothing)
{
    char from[256], to[256], beside[256];
    lore_error err = {0};
    lore_quantize_result result;
    path_of(from, "source");
    path_of(to, "failing");
    path_of(beside, "failing.tmp");
    write_source(from);
    const lore_quantize_options options = {.to = LORE_I4};
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        int64_t failures = 0;
        for (int64_t n = 1;; n++) {
            lore_file_fail_at((lore_file_op)op, n);
            lore_status status = lore_quantize(from, to, &LIMITS, &options, &result, &err);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(!exists(beside, ""));
            if (status == LORE_OK) {
                break;
            }
            CHECK_INT(status, LORE_ERR_IO);
            CHECK(!exists(to, ""));
            failures++;
        }
        CHECK(failures > 2);
        remove_all(to);
    }
}

static bool give_up(void *self, int64_t done, int64_t total)
{
    int64_t *last = self;
    CHECK(done >= *last && done <= total);
    *last = done;
    return done * 2 < total;
}

TEST(it_can_be_interrupted)
{
    char from[256], to[256], beside[256];
    lore_error err = {0};
    lore_quantize_result result;
    int64_t last = 0;
    path_of(from, "source");
    path_of(to, "given-up");
    path_of(beside, "given-up.tmp");
    write_source(from);
    const lore_quantize_options options = {.to = LORE_I4, .progress = give_up, .self = &last};
    CHECK_FAILS(lore_quantize(from, to, &LIMITS, &options, &result, &err), LORE_ERR_CANCELLED, &err,
                "interrupted");
    CHECK(last > 0 && !exists(to, "") && !exists(beside, ""));
}

TEST(numbers_must_be_finite)
{
    char from[256], to[256];
    lore_error err = {0};
    lore_quantize_result result;
    tensor_file f;
    path_of(from, "infinite");
    path_of(to, "refused");
    memset(linear, 0, sizeof linear);
    linear[3][3] = INFINITY;
    tensors_begin(&f);
    tensors_add(&f, "model.a.weight", "F32", "40, 256", linear, sizeof linear);
    tensors_write(&f, from, "model.safetensors");
    write_file(from, "config.json", LORE_STR("{}"));
    const lore_quantize_options options = {.to = LORE_I4};
    CHECK_FAILS(lore_quantize(from, to, &LIMITS, &options, &result, &err), LORE_ERR_CORRUPT, &err,
                "'model.a.weight' is not finite");
    CHECK(!exists(to, ""));
}

static lore_status quantize_and_remove(void *from)
{
    char to[256], beside[256];
    lore_error err = {0};
    lore_quantize_result result;
    path_of(to, "swept");
    path_of(beside, "swept.tmp");
    const lore_quantize_options options = {.to = LORE_I4};
    lore_status status = lore_quantize(from, to, &LIMITS, &options, &result, &err);
    CHECK(!exists(beside, "") && exists(to, "") == (status == LORE_OK));
    lore_folder_abort(to);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    char from[256];
    tensor_file f;
    path_of(from, "small"); /* every file of a folder is synced, in every run */
    tensors_begin(&f);
    tensors_add(&f, "model.a.weight", "F32", "40, 256", embed, sizeof embed);
    tensors_add(&f, "model.embed.weight", "F32", "40, 256", embed, sizeof embed);
    tensors_write(&f, from, "model.safetensors");
    write_file(from, "config.json", LORE_STR("{}"));
    check_alloc_sweep(quantize_and_remove, from);
}

CHECK_MAIN(int8_rows, quantised_folders_are_sources, int4_groups, portable_folders_keep_the_table,
           the_configuration_says_what_was_done, rows_on_a_grid_are_exact,
           importance_moves_the_scale, large_models_have_several_files, nothing_is_written_over,
           a_failing_disk_leaves_nothing, it_can_be_interrupted, numbers_must_be_finite,
           out_of_memory_is_an_error)
