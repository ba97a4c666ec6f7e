/* Adapters of random numbers for a decoder, on every linear layer but the head, as PEFT's
 * "all-linear" has it: what they cost depends on nothing but their size. */
#include "base/clock.h"
#include "bench/bench_model.h"
#include "models/adapter_int.h"
#include "models/decoder_int.h"

#include <string.h>

/* The matrices of one product, from the end of the block on. */
static void add_linear(lore_adapter *adapter, const lore_linear_shape *shape, int32_t rank,
                       lore_adapter_linear *to)
{
    const size_t value = lore_dtype_size(adapter->dtype);
    size_t *used = &adapter->info.size_bytes;
    *to = (lore_adapter_linear){.cols = shape->cols, .part_count = shape->part_count, .a = *used};
    *used += (size_t)(rank * shape->part_count) * (size_t)shape->cols * value;
    for (int32_t i = 0, row = 0; i < shape->part_count; row += shape->parts[i++].rows) {
        to->parts[i] = (lore_adapter_part){.rank = rank,
                                           .rank_start = to->rank,
                                           .rows = shape->parts[i].rows,
                                           .row_start = row,
                                           .scale = 0.01f,
                                           .b = *used};
        *used += (size_t)shape->parts[i].rows * (size_t)rank * value;
        to->rank += rank;
    }
    adapter->info.modules += shape->part_count;
}

static lore_adapter *make_adapter(const lore_bench_model *m, int32_t rank, uint64_t *random)
{
    const lore_decoder_config *config = &m->decoder->config;
    lore_adapter *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    made->dtype = m->info->adapter_dtype;
    made->layers = config->layers;
    made->info.rank_max = rank;
    made->linears =
        lore_alloc_zero((size_t)made->layers * LORE_LINEAR_HEAD + 1, sizeof *made->linears);
    for (int32_t i = 0; made->linears != NULL && i < made->layers * LORE_LINEAR_HEAD; i++) {
        const lore_linear_shape shape =
            lore_decoder_linear(config, (lore_linear)(i % LORE_LINEAR_HEAD));
        add_linear(made, &shape, rank, &made->linears[i]);
    }
    made->data = made->linears != NULL ? lore_alloc_aligned(made->info.size_bytes) : NULL;
    if (made->data == NULL) {
        lore_adapter_close(made);
        return NULL;
    }
    for (size_t i = 0; i < made->info.size_bytes / lore_dtype_size(made->dtype); i++) {
        const float value = lore_random_unit(random) - 0.5f;
        if (made->dtype == LORE_BF16) {
            ((uint16_t *)(void *)made->data)[i] = lore_f32_to_bf16(value);
        } else {
            ((float *)(void *)made->data)[i] = value;
        }
    }
    return made;
}

lore_status lore_bench_model_adapt(lore_bench_model *m, int32_t rank, lore_error *err)
{
    uint64_t random = 7;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < m->info->adapter_slots && status == LORE_OK; i++) {
        lore_adapter *adapter = make_adapter(m, rank, &random);
        if (adapter == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for an adapter");
        }
        status = lore_decoder_adapter_place(m->decoder, adapter, &m->placed[i], err);
        if (status == LORE_OK) {
            m->adapter_bytes = (double)lore_decoder_adapter_bytes(m->decoder, adapter);
            lore_decoder_adapter_seat(m->decoder, i, m->placed[i]);
        }
        lore_adapter_close(adapter);
    }
    return status;
}

void lore_bench_model_unadapt(lore_bench_model *m)
{
    for (int32_t i = 0; m->placed != NULL && i < m->info->adapter_slots; i++) {
        lore_decoder_adapter_unplace(m->decoder, m->placed[i]);
        m->placed[i] = NULL;
    }
}
