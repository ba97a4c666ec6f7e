/* A folder is one model however many files it has; an index is believed only where the files agree;
 * files that are cut, too long or not what they say are refused by name and at once. */
#include "tests/unit/safetensors_fixture.h"

#include "base/clock.h"

static void write_shards(const char *folder, const char *index)
{
    tensor_file file;
    float value = 1;
    tensors_begin(&file);
    tensors_add(&file, "a", "F32", "1", &value, 4);
    tensors_write(&file, folder, "one.safetensors");
    value = 2;
    tensors_begin(&file);
    tensors_add(&file, "b", "F32", "1", &value, 4);
    tensors_write(&file, folder, "two.safetensors");
    write_file(folder, "model.safetensors.index.json", lore_str_from(index));
}

TEST(several_files_are_one_model)
{
    static const char *const NAMES[] = {"a", "b"};
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    float *v = NULL;
    char first[65], second[65];
    snprintf(folder, sizeof folder, "%s/shards", check_temp_dir());
    write_shards(folder, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    CHECK_OK(lore_weights_vectors(w, NAMES, 2, 1, f.backend, &v, &err), &err);
    CHECK_NEAR(v[0], 1, 0);
    CHECK_NEAR(v[1], 2, 0);
    lore_backend_free(f.backend, v);
    CHECK_OK(lore_weights_finish(w, &err), &err);
    CHECK_OK(lore_weights_fingerprint(w, first, &err), &err);
    lore_weights_close(w);
    write_shards(folder, "{\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}");
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    CHECK_OK(lore_weights_fingerprint(w, second, &err), &err);
    CHECK(strlen(first) == 64 && strcmp(first, second) != 0);
    lore_weights_close(w);
    fixture_close(&f);
}

static void refuse_index(const char *index, const char *message)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    snprintf(folder, sizeof folder, "%s/shards", check_temp_dir());
    write_shards(folder, index);
    lore_status status = lore_weights_open(folder, &LIMITS, &w, &err);
    CHECK(status == LORE_ERR_CORRUPT || status == LORE_ERR_NOT_FOUND);
    CHECK(strstr(err.message, message) != NULL && strstr(err.message, folder) != NULL);
}

TEST(bad_indexes_are_refused)
{
    refuse_index("{}", "weight_map");
    refuse_index("{", "index.json");
    refuse_index("{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "../one.safetensors");
    refuse_index("{\"weight_map\":{\"a\":\"one.bin\"}}", "one.bin");
    refuse_index("{\"weight_map\":{\"a\":\"three.safetensors\"}}", "three.safetensors");
    refuse_index("{\"weight_map\":{\"b\":\"one.safetensors\"}}", "'b'");
}

static void write_single(const char *folder)
{
    tensor_file file;
    float values[] = {1, 2, 3};
    tensors_begin(&file);
    tensors_add(&file, "__metadata", "F32", "2", values, 8);
    tensors_add(&file, "a_tensor_with_a_name_that_makes_the_header_long", "F32", "1", values, 4);
    tensors_write(&file, folder, "model.safetensors");
}

TEST(limits_hold)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_limits limits = LIMITS;
    snprintf(folder, sizeof folder, "%s/single", check_temp_dir());
    write_single(folder);
    limits.model_header_bytes_max = 100;
    CHECK_FAILS(lore_weights_open(folder, &limits, &w, &err), LORE_ERR_LIMIT, &err,
                "model_header_bytes_max");
    limits = LIMITS;
    limits.model_file_bytes_max = 100;
    CHECK_FAILS(lore_weights_open(folder, &limits, &w, &err), LORE_ERR_LIMIT, &err,
                "model_file_bytes_max");
    CHECK_FAILS(lore_weights_open("/nonexistent", &LIMITS, &w, &err), LORE_ERR_NOT_FOUND, &err,
                "/nonexistent");
}

/* The first bytes of a good file, of every length, and with another length of the header. */
TEST(cut_files_are_refused_at_once)
{
    char folder[256], path[512];
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_buf file;
    snprintf(folder, sizeof folder, "%s/cut", check_temp_dir());
    write_single(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    lore_buf_init(&file, 0);
    CHECK_OK(lore_file_read(path, 1 << 20, &file, &err), &err);
    for (size_t length = 0; length < file.len; length++) {
        write_file(folder, "model.safetensors", lore_str_slice(lore_buf_str(&file), 0, length));
        CHECK_FAILS(lore_weights_open(folder, &LIMITS, &w, &err), LORE_ERR_CORRUPT, &err,
                    "model.safetensors");
    }
    for (int bit = 10; bit < 64; bit++) {
        uint64_t header = (uint64_t)1 << bit;
        int64_t start_ns = lore_clock_ns();
        memcpy(file.ptr, &header, 8);
        write_file(folder, "model.safetensors", lore_buf_str(&file));
        CHECK_FAILS(lore_weights_open(folder, &LIMITS, &w, &err), LORE_ERR_CORRUPT, &err,
                    "header of");
        CHECK(lore_clock_ns() - start_ns < 1000000000);
    }
    lore_buf_destroy(&file);
}

TEST(damaged_configurations_are_refused)
{
    char folder[256];
    lore_error err = {0};
    lore_weights *w = NULL;
    snprintf(folder, sizeof folder, "%s/config", check_temp_dir());
    write_single(folder);
    write_file(folder, "config.json", LORE_STR("{\"quantization_config\": [}"));
    CHECK_FAILS(lore_weights_open(folder, &LIMITS, &w, &err), LORE_ERR_CORRUPT, &err,
                "config.json");
    write_file(folder, "config.json", LORE_STR("{\"quantization_config\": []}"));
    CHECK_FAILS(lore_weights_open(folder, &LIMITS, &w, &err), LORE_ERR_CORRUPT, &err,
                "config.json': quantization_config");
    write_file(folder, "config.json", LORE_STR("{\"quantization_config\": null}"));
    CHECK_OK(lore_weights_open(folder, &LIMITS, &w, &err), &err);
    lore_weights_close(w);
}

static lore_status open_shards(void *folder)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    lore_status status = lore_weights_open(folder, &LIMITS, &w, &err);
    lore_weights_close(w);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s/shards", check_temp_dir());
    write_shards(folder, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    write_file(folder, "config.json", LORE_STR("{}"));
    check_alloc_sweep(open_shards, folder);
}

CHECK_MAIN(several_files_are_one_model, bad_indexes_are_refused, limits_hold,
           cut_files_are_refused_at_once, damaged_configurations_are_refused,
           out_of_memory_is_an_error)
