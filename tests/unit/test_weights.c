/* A safetensors file is believed only when its header describes exactly its data; tensors come out
 * with the values that were written, whatever their type and address; whatever is wrong is named.
 * Covers safetensors.c; folders of several files are in test_weights_open.c. */
#include "tests/unit/models_fixture.h"

static void put_length(lore_buf *out, uint64_t length)
{
    for (int i = 0; i < 8; i++) {
        lore_buf_byte(out, (char)(length >> (8 * i)));
    }
}

/* length, header, data. */
static void make_file(lore_buf *out, const char *header, const void *data, size_t data_bytes)
{
    lore_buf_reset(out);
    put_length(out, strlen(header));
    lore_buf_append(out, lore_str_from(header));
    lore_buf_append(out, (lore_str){data, data_bytes});
}

#define T(dtype, shape, begin, end) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void check_header(const char *header, size_t data_bytes, lore_status wanted,
                         const char *message)
{
    static const char data[256];
    lore_buf file;
    lore_error err = {0};
    lore_buf_init(&file, 0);
    make_file(&file, header, data, data_bytes);
    lore_status status = lore_weights_check(lore_buf_str(&file), "f.safetensors", &err);
    if (wanted == LORE_OK) {
        CHECK_OK(status, &err);
    } else {
        CHECK_FAILS(status, wanted, &err, message);
        CHECK(strstr(err.message, "f.safetensors") != NULL);
    }
    lore_buf_destroy(&file);
}

TEST(good_headers_pass)
{
    check_header("{}", 0, LORE_OK, "");
    check_header("{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T("F32", "[2,3]", 0, 24) "}   ", 24,
                 LORE_OK, "");
    check_header("{\"b\":" T("I8", "[5]", 12, 17) ",\"a\":" T("F32", "[3]", 0, 12) "}", 17, LORE_OK,
                 "");
    check_header("{\"scalar\":" T("I64", "[]", 0, 8) ",\"empty\":" T("F16", "[0,7]", 8, 8) "}", 8,
                 LORE_OK, "");
}

TEST(bad_headers_are_refused)
{
    const lore_status bad = LORE_ERR_CORRUPT;
    check_header("[]", 0, bad, "object");
    check_header("{", 0, bad, "");
    check_header("{\"a\":3}", 0, bad, "'a'");
    check_header("{\"\":" T("F32", "[1]", 0, 4) "}", 4, bad, "name");
    check_header("{\"__metadata__\":{\"x\":1}}", 0, bad, "__metadata__");
    check_header("{\"a\":" T("F33", "[1]", 0, 4) "}", 4, bad, "F33");
    check_header("{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, bad, "whole");
    check_header("{\"a\":" T("F32", "[1.5]", 0, 4) "}", 4, bad, "whole");
    check_header("{\"a\":" T("F32", "3", 0, 4) "}", 4, bad, "shape");
    check_header("{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, bad, "shape");
    check_header("{\"a\":" T("F32", "[9007199254740992,9007199254740992]", 0, 4) "}", 4, bad,
                 "shape and F32");
    check_header("{\"a\":" T("F32", "[1]", 0, 5) "}", 5, bad, "5 bytes");
    check_header("{\"a\":" T("F32", "[1]", 4, 0) "}", 4, bad, "data_offsets");
    check_header("{\"a\":" T("F32", "[1]", 0, 4) "}", 3, bad, "data_offsets");
    check_header("{\"a\":" T("F32", "[1]", -4, 0) "}", 4, bad, "data_offsets");
    check_header("{\"a\":" T("F32", "[1]", 0, 18446744073709551616) "}", 4, bad, "data_offsets");
    check_header("{\"a\":" T("F32", "[-1,-1]", 0, 4) "}", 4, bad, "whole");
    check_header("{\"a\":" T("I8", "[4294967296,4294967296]", 0, 0) "}", 0, bad, "shape and I8");
    check_header("{\"a\":" T("F32", "[1]", 0, 4) "}", 5, bad, "behind");
    check_header("{\"a\":" T("F32", "[1]", 1, 5) "}", 5, bad, "hole");
    check_header("{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 0, 4) "}", 4, bad,
                 "overlaps");
    check_header("{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("I8", "[2]", 3, 5) "}", 5, bad,
                 "overlaps");
    check_header("{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}", 8, bad, "");
    check_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, bad, "data_offsets");
}

TEST(lengths_are_not_believed)
{
    lore_buf file;
    lore_error err = {0};
    lore_buf_init(&file, 0);
    CHECK_FAILS(lore_weights_check(LORE_STR(""), "f", &err), LORE_ERR_CORRUPT, &err, "0 bytes");
    CHECK_FAILS(lore_weights_check(LORE_STR("1234567"), "f", &err), LORE_ERR_CORRUPT, &err,
                "7 bytes");
    put_length(&file, (uint64_t)1 << 60);
    lore_buf_append(&file, LORE_STR("{}"));
    CHECK_FAILS(lore_weights_check(lore_buf_str(&file), "f", &err), LORE_ERR_CORRUPT, &err,
                "header of 1152921504606846976 bytes in a file of 10");
    lore_buf_reset(&file);
    put_length(&file, UINT64_MAX);
    lore_buf_append(&file, LORE_STR("{}"));
    CHECK_FAILS(lore_weights_check(lore_buf_str(&file), "f", &err), LORE_ERR_CORRUPT, &err,
                "header of");
    lore_buf_reset(&file);
    put_length(&file, 3);
    lore_buf_append(&file, LORE_STR("{}"));
    CHECK_FAILS(lore_weights_check(lore_buf_str(&file), "f", &err), LORE_ERR_CORRUPT, &err,
                "header of");
    lore_buf_destroy(&file);
}

/* ---- folders ---- */

/* f16, bf16 and f32 vectors, an int8 matrix with scales at an odd address, a stray tensor. */
static const char MIXED_HEADER[] =
    "{\"half\":" T("F16", "[2]", 0, 4) ",\"brain\":" T("BF16", "[2]", 4, 8) ",\"full\":" T(
        "F32", "[2]", 8,
        16) ",\"q\":" T("I8", "[2,3]", 16,
                        22) ",\"odd\":" T("I8", "[1]", 22,
                                          23) ",\"q_scale\":" T("F32", "[2]", 23,
                                                                31) ",\"m\":" T("F32", "[1,2]", 31,
                                                                                39) "}";

static void write_mixed(const char *folder)
{
    static const uint8_t bytes[23] = {
        0x00, 0x3c, 0x00, 0xc0, 0x80, 0x3f, 0x00, 0xc0, /* f16 1 -2, bf16 1 -2 */
        0,    0,    0x80, 0x3f, 0,    0,    0,    0xc0, /* f32 1 -2 */
        1,    2,    3,    0xff, 0xfe, 0x7f, 9};         /* int8 */
    static const float floats[4] = {0.5f, 2.0f, 3.0f, 4.0f};
    uint8_t data[39];
    lore_buf file;
    lore_buf_init(&file, 0);
    memcpy(data, bytes, 23);
    memcpy(data + 23, floats, 16);
    make_file(&file, MIXED_HEADER, data, sizeof data);
    write_file(folder, "model.safetensors", lore_buf_str(&file));
    lore_buf_destroy(&file);
}

TEST(values_come_out)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    float *v = NULL;
    static const char *const NAMES[] = {"half", "brain", "full"};
    snprintf(folder, sizeof folder, "%s/mixed", check_temp_dir());
    write_mixed(folder);
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    CHECK(lore_weights_has(w, "q") && !lore_weights_has(w, "r"));
    CHECK_INT(lore_weights_parameters(w), 2 + 2 + 2 + 6 + 1 + 2);
    CHECK_INT(lore_weights_bytes(w), 39);
    CHECK_OK(lore_weights_vectors(w, NAMES, 3, 2, f.backend, &v, &err), &err);
    for (int i = 0; i < 6; i++) {
        CHECK_NEAR(v[i], i % 2 == 0 ? 1 : -2, 0);
    }
    lore_backend_free(f.backend, v);
    CHECK_OK(lore_weights_matrix(w, "q", 2, 3, &m, &err), &err);
    CHECK_INT(m.dtype, LORE_I8);
    CHECK_INT(((const int8_t *)m.data)[4], -2);
    CHECK_NEAR(m.scales[0], 0.5, 0);
    CHECK_NEAR(m.scales[1], 2, 0);
    CHECK_OK(lore_weights_matrix(w, "m", 1, 2, &m, &err), &err); /* at an odd address in the file */
    CHECK(m.scales == NULL && (uintptr_t)m.data % 4 == 0);
    CHECK_NEAR(((const float *)m.data)[1], 4, 0);
    CHECK_FAILS(lore_weights_finish(w, &err), LORE_ERR_CORRUPT, &err, "'odd'");
    CHECK(lore_weights_ignore(w, "odd") && !lore_weights_ignore(w, "even"));
    CHECK_OK(lore_weights_finish(w, &err), &err);
    lore_weights_close(w);
    fixture_close(&f);
}

TEST(wrong_requests_are_named)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    float *v = NULL;
    snprintf(folder, sizeof folder, "%s/mixed", check_temp_dir());
    write_mixed(folder);
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    CHECK_FAILS(lore_weights_matrix(w, "nothing", 1, 1, &m, &err), LORE_ERR_CORRUPT, &err,
                "'nothing'");
    CHECK_FAILS(lore_weights_matrix(w, "q", 3, 2, &m, &err), LORE_ERR_CORRUPT, &err,
                "must be [3, 2], is [2, 3]");
    CHECK_FAILS(lore_weights_matrix(w, "half", 1, 2, &m, &err), LORE_ERR_CORRUPT, &err, "is [2]");
    CHECK_FAILS(lore_weights_vector(w, "full", 3, f.backend, &v, &err), LORE_ERR_CORRUPT, &err,
                "must be [3], is [2]");
    CHECK_FAILS(lore_weights_vector(w, "odd", 1, f.backend, &v, &err), LORE_ERR_CORRUPT, &err,
                "is I8");
    lore_weights_close(w);
    fixture_close(&f);
}

/* An int8 matrix without scales, with impossible ones; a vector that is not finite; a type nobody
 * computes with. */
TEST(impossible_values_are_refused)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    float *v = NULL, values[3] = {NAN, -1, 0};
    lore_buf file;
    lore_buf_init(&file, 0);
    snprintf(folder, sizeof folder, "%s/odd", check_temp_dir());
    make_file(&file,
              "{\"v\":" T("F32", "[1]", 0, 4) ",\"q_scale\":" T("F32", "[1]", 4, 8) ",\"q\":" T(
                  "I8", "[1,1]", 8, 9) ",\"n\":" T("I8", "[1,1]", 9, 10) ",\"u\":" T("U8", "[1,1]",
                                                                                     10, 11) "}",
              values, 11);
    write_file(folder, "model.safetensors", lore_buf_str(&file));
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    CHECK_FAILS(lore_weights_vector(w, "v", 1, f.backend, &v, &err), LORE_ERR_CORRUPT, &err,
                "not finite");
    CHECK_FAILS(lore_weights_matrix(w, "q", 1, 1, &m, &err), LORE_ERR_CORRUPT, &err,
                "scale in row 0");
    CHECK_FAILS(lore_weights_matrix(w, "n", 1, 1, &m, &err), LORE_ERR_CORRUPT, &err, "'n_scale'");
    CHECK_FAILS(lore_weights_matrix(w, "u", 1, 1, &m, &err), LORE_ERR_CORRUPT, &err, "is U8");
    lore_weights_close(w);
    lore_buf_destroy(&file);
    fixture_close(&f);
}

static lore_status open_and_take(void *self)
{
    fixture *f = self;
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_matrix m;
    float *v = NULL;
    snprintf(folder, sizeof folder, "%s/mixed", check_temp_dir());
    lore_status status = lore_weights_open(folder, &LIMITS, &w, &err);
    if (status == LORE_OK) {
        status = lore_weights_matrix(w, "q", 2, 3, &m, &err);
    }
    if (status == LORE_OK) {
        status = lore_weights_vector(w, "full", 2, f->backend, &v, &err);
    }
    if (status == LORE_OK) {
        lore_backend_free(f->backend, v);
    }
    lore_weights_close(w);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s/mixed", check_temp_dir());
    write_mixed(folder);
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    check_alloc_sweep(open_and_take, &f);
    fixture_close(&f);
}

CHECK_MAIN(good_headers_pass, bad_headers_are_refused, lengths_are_not_believed, values_come_out,
           wrong_requests_are_named, impossible_values_are_refused, out_of_memory_is_an_error)
