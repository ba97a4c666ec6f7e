/* Tests make their own safetensors files: tensors are added one by one, then header and data are
 * put together as the format says. */
#ifndef LORE_TESTS_SAFETENSORS_FIXTURE_H
#define LORE_TESTS_SAFETENSORS_FIXTURE_H

#include "tests/unit/models_fixture.h"

typedef struct tensor_file {
    lore_buf header, data;
} tensor_file;

CHECK_UNUSED static void tensors_begin(tensor_file *f)
{
    lore_buf_init(&f->header, 0);
    lore_buf_init(&f->data, 0);
}

/* shape: "2, 3". */
CHECK_UNUSED static void tensors_add(tensor_file *f, const char *name, const char *dtype,
                                     const char *shape, const void *data, size_t size_bytes)
{
    lore_buf_printf(
        &f->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
        f->header.len > 0 ? "," : "", name, dtype, shape, f->data.len, f->data.len + size_bytes);
    lore_buf_append(&f->data, (lore_str){data, size_bytes});
}

/* Write folder/name and forget the tensors. */
CHECK_UNUSED static void tensors_write(tensor_file *f, const char *folder, const char *name)
{
    lore_buf file;
    lore_buf_init(&file, 0);
    uint64_t length = f->header.len + 2;
    for (int i = 0; i < 8; i++) {
        lore_buf_byte(&file, (char)(length >> (8 * i)));
    }
    lore_buf_byte(&file, '{');
    lore_buf_append(&file, lore_buf_str(&f->header));
    lore_buf_byte(&file, '}');
    lore_buf_append(&file, lore_buf_str(&f->data));
    CHECK(!lore_buf_failed(&file));
    write_file(folder, name, lore_buf_str(&file));
    lore_buf_destroy(&file);
    lore_buf_destroy(&f->header);
    lore_buf_destroy(&f->data);
}

#endif
