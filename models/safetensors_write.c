/* Writing safetensors files (safetensors.c has the format): what stands before the data. */
#include "models/safetensors_write_int.h"

#include <stdio.h>

enum { LENGTH_BYTES = 8, NAME_CAP = LORE_TENSOR_NAME_CAP + 32 };

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the plan of the new files");
}

/* Keys of the writer are C strings. */
static const char *name_of(const lore_output *o, char name[NAME_CAP])
{
    snprintf(name, NAME_CAP, LORE_STR_FMT, LORE_STR_ARG(o->name));
    return name;
}

void lore_safetensors_begin(lore_json_writer *json, lore_buf *out)
{
    LORE_ASSERT(out->len == 0);
    lore_buf_append(out, LORE_STR("\0\0\0\0\0\0\0\0"));
    lore_json_write_begin(json, out);
    lore_json_object(json, NULL);
    lore_json_object(json, "__metadata__");
    lore_json_string(json, "format", LORE_STR("pt")); /* transformers asks for it */
    lore_json_end(json);
}

void lore_safetensors_add(lore_json_writer *json, const lore_output *o)
{
    char name[NAME_CAP];
    lore_json_object(json, name_of(o, name));
    lore_json_string(json, "dtype", lore_str_from(o->dtype));
    lore_json_array(json, "shape");
    for (int32_t i = 0; i < o->rank; i++) {
        lore_json_int(json, NULL, o->shape[i]);
    }
    lore_json_end(json);
    lore_json_array(json, "data_offsets");
    lore_json_int(json, NULL, (int64_t)o->offset);
    lore_json_int(json, NULL, (int64_t)(o->offset + o->size_bytes));
    lore_json_end(json);
    lore_json_end(json);
}

lore_status lore_safetensors_end(lore_json_writer *json, lore_error *err)
{
    lore_buf *out = json->buf;
    lore_json_end(json);
    while (!lore_buf_failed(out) && out->len % LENGTH_BYTES != 0) {
        lore_buf_byte(out, ' ');
    }
    if (lore_buf_failed(out)) {
        return no_memory(err);
    }
    const uint64_t length = out->len - LENGTH_BYTES;
    for (size_t i = 0; i < LENGTH_BYTES; i++) {
        out->ptr[i] = (char)(length >> (8 * i));
    }
    return LORE_OK;
}

const char *lore_safetensors_type(lore_dtype dtype)
{
    return dtype == LORE_F32 ? "F32" : dtype == LORE_F16 ? "F16" : "BF16";
}

void lore_safetensors_file(int32_t shard, int32_t count, char *name, size_t cap)
{
    if (count == 1) {
        snprintf(name, cap, "model.safetensors");
    } else {
        snprintf(name, cap, "model-%05d-of-%05d.safetensors", shard + 1, count);
    }
}

void lore_safetensors_index_begin(lore_json_writer *json, lore_buf *out)
{
    lore_json_write_begin(json, out);
    lore_json_object(json, NULL);
    lore_json_object(json, "weight_map");
}

void lore_safetensors_index_add(lore_json_writer *json, const lore_output *o, int32_t shard,
                                int32_t count)
{
    char file[64], name[NAME_CAP];
    lore_safetensors_file(shard, count, file, sizeof file);
    lore_json_string(json, name_of(o, name), lore_str_from(file));
}

lore_status lore_safetensors_index_end(lore_json_writer *json, int64_t size_bytes, lore_error *err)
{
    lore_json_end(json);
    lore_json_object(json, "metadata");
    lore_json_int(json, "total_size", size_bytes);
    lore_json_end(json);
    lore_json_end(json);
    return lore_buf_failed(json->buf) ? no_memory(err) : LORE_OK;
}
