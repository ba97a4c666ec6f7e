/* See bench_model.h. */
#include "bench/bench_model.h"

#include "api/app.h"
#include "base/clock.h"

#include <string.h>

enum { PAGE_TOKENS = 32 /* the decoder's own choice, where just enough pages are counted here */ };

/* ---- what it computes and reads ---- */

double lore_bench_layer_weights(const lore_decoder_info *info)
{
    double attention = (double)(2 * info->heads + 2 * info->kv_heads) * info->head_dim;
    return info->layers * (double)info->width * (attention + 3.0 * info->ffn);
}

double lore_bench_head_weights(const lore_decoder_info *info)
{
    return (double)info->vocab * info->width;
}

double lore_bench_attention_operations(const lore_decoder_info *info, int32_t rows, int32_t past)
{
    const double pairs = (double)rows * past + 0.5 * rows * (rows + 1.0);
    return 4.0 * pairs * info->heads * info->head_dim * info->layers;
}

double lore_bench_model_peak(const lore_bench *bench, const lore_decoder_info *info)
{
    double weights = lore_bench_layer_weights(info) + lore_bench_head_weights(info);
    double each = (double)info->weight_bytes / weights;
    return bench->multiply_peak[each < 1.5   ? LORE_PRECISION_INT8
                                : each < 3.0 ? LORE_PRECISION_BF16
                                             : LORE_PRECISION_F32];
}

double lore_bench_kv_bytes(const lore_decoder_info *info, lore_dtype kv_dtype)
{
    return 2.0 * info->layers * info->kv_heads * info->head_dim * (double)lore_dtype_size(kv_dtype);
}

/* ---- open and close ---- */

static lore_status count_streams(lore_bench_model *m, const lore_bench_model_needs *needs,
                                 lore_error *err)
{
    const int32_t page = m->info->page_tokens;
    if (m->info->context < needs->tokens) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' has a context of %d tokens, %d are needed",
                         m->info->name, m->info->context, needs->tokens);
    }
    m->pages_each = (needs->tokens + page - 1) / page;
    const int32_t room = m->info->page_count / m->pages_each;
    const int32_t wanted = needs->streams > 0 ? needs->streams : needs->most;
    m->streams_max = room < wanted ? room : wanted;
    if (m->streams_max < 1 || (needs->streams > 0 && m->streams_max < needs->streams)) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "%d pages of keys and values hold %d streams of %d tokens, not %d",
                         m->info->page_count, room, needs->tokens, wanted);
    }
    return LORE_OK;
}

static lore_status take_arrays(lore_bench_model *m, lore_error *err)
{
    lore_arena *arena = &m->bench->arena;
    const int32_t streams = m->streams_max;
    m->filled = LORE_PUSH(arena, int32_t, streams);
    m->ids = LORE_PUSH(arena, int32_t, m->rows_max);
    m->row_start = LORE_PUSH(arena, int32_t, streams + 1);
    m->past = LORE_PUSH(arena, int32_t, streams);
    m->page_start = LORE_PUSH(arena, int32_t, streams + 1);
    m->pages = LORE_PUSH(arena, int32_t, (size_t)streams * (size_t)m->pages_each);
    m->logits_rows = LORE_PUSH(arena, int32_t, streams);
    m->drawn = LORE_PUSH(arena, int32_t, streams);
    m->samples = LORE_PUSH(arena, lore_sample, streams);
    m->logprobs = LORE_PUSH(arena, float, streams);
    m->adapters = LORE_PUSH(arena, int32_t, streams);
    m->placed = LORE_PUSH(arena, lore_adapter_placed *, m->info->adapter_slots + 1);
    return m->filled == NULL || m->ids == NULL || m->row_start == NULL || m->past == NULL ||
                   m->page_start == NULL || m->pages == NULL || m->logits_rows == NULL ||
                   m->drawn == NULL || m->samples == NULL || m->logprobs == NULL ||
                   m->adapters == NULL || m->placed == NULL
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the arrays of a step")
               : LORE_OK;
}

lore_status lore_bench_model_open(lore_bench_model *m, lore_bench *bench,
                                  const lore_bench_model_needs *needs, lore_error *err)
{
    const lore_config *config = bench->config;
    const int32_t streams = needs->streams > 0 ? needs->streams : needs->most;
    lore_decoder_options options = {.sequences_max = streams, .adapter_slots = bench->adapters};
    options.rows_max = needs->rows_max > streams ? needs->rows_max : streams;
    if (needs->streams > 0) {
        options.page_tokens = PAGE_TOKENS;
        options.page_count = streams * ((needs->tokens + PAGE_TOKENS - 1) / PAGE_TOKENS);
    }
    *m = (lore_bench_model){.bench = bench, .random = 1, .rows_max = options.rows_max};
    lore_status status = lore_backend_open(&bench->device, &m->backend, err);
    if (status == LORE_OK) {
        status = lore_engine_kv_dtype(config, m->backend, &options.kv_dtype, err);
        m->kv_dtype = options.kv_dtype;
    }
    if (status == LORE_OK) {
        status = lore_decoder_open(config->decoder, m->backend, &config->limits, &options,
                                   &m->decoder, err);
    }
    if (status == LORE_OK) {
        m->info = lore_decoder_get_info(m->decoder);
        status = count_streams(m, needs, err);
    }
    if (status == LORE_OK) {
        status = take_arrays(m, err);
    }
    if (status == LORE_OK && bench->adapters > 0) {
        status = lore_bench_model_adapt(m, bench->adapter_rank, err);
    }
    return status;
}

void lore_bench_model_close(lore_bench_model *model)
{
    lore_bench_model_unadapt(model);
    lore_decoder_close(model->decoder);
    lore_backend_close(model->backend);
    model->decoder = NULL;
    model->backend = NULL;
}

/* ---- steps ---- */

int32_t lore_bench_model_random_id(lore_bench_model *model)
{
    return (int32_t)(lore_random_next(&model->random) % (uint64_t)model->info->vocab);
}

/* A step of streams first .. first + count - 1, which have equally many tokens. */
static lore_step make_step(lore_bench_model *m, int32_t first, int32_t count, int32_t rows)
{
    const int32_t page = m->info->page_tokens, past = m->filled[first];
    const int32_t pages = (past + rows + page - 1) / page;
    LORE_ASSERT(count * rows <= m->rows_max && pages <= m->pages_each);
    for (int32_t s = 0; s <= count; s++) {
        m->row_start[s] = s * rows;
        m->page_start[s] = s * pages;
    }
    for (int32_t s = 0; s < count; s++) {
        LORE_ASSERT(m->filled[first + s] == past);
        m->past[s] = past;
        m->logits_rows[s] = (s + 1) * rows - 1;
        m->samples[s] = (lore_sample){.top_p = 1.0f, .position = past + rows};
        for (int32_t i = 0; i < pages; i++) {
            m->pages[s * pages + i] = (first + s) * m->pages_each + i;
        }
        m->filled[first + s] += rows;
        m->adapters[s] = m->is_adapted ? (first + s) % m->info->adapter_slots : -1;
    }
    return (lore_step){.ids = m->ids,
                       .batch = {.sequences = count,
                                 .rows = count * rows,
                                 .row_start = m->row_start,
                                 .past = m->past,
                                 .page_start = m->page_start,
                                 .pages = m->pages,
                                 .rows_max = rows,
                                 .context_max = past + rows},
                       .logits_rows = m->logits_rows,
                       .samples = m->samples,
                       .logits_count = count,
                       .adapters = m->is_adapted ? m->adapters : NULL};
}

static lore_status step_streams(lore_bench_model *m, int32_t first, int32_t count, int32_t rows,
                                lore_error *err)
{
    const lore_step step = make_step(m, first, count, rows);
    return lore_decoder_step(m->decoder, &step, m->drawn, m->logprobs, NULL, err);
}

lore_status lore_bench_model_step(lore_bench_model *model, int32_t count, int32_t rows,
                                  lore_error *err)
{
    return step_streams(model, 0, count, rows, err);
}

lore_status lore_bench_model_decode(lore_bench_model *m, int32_t count, int32_t steps,
                                    void (*ended)(void *self, int32_t step), void *self,
                                    lore_error *err)
{
    const int32_t in_flight_max = m->info->steps_in_flight;
    int32_t collected = 0;
    lore_status status = LORE_OK;
    for (int32_t s = 0; s < count; s++) {
        m->ids[s] = lore_bench_model_random_id(m);
    }
    for (int32_t submitted = 0; collected < steps && status == LORE_OK;) {
        if (submitted < steps && submitted - collected < in_flight_max) {
            const int64_t begin_ns = lore_clock_ns();
            const lore_step step = make_step(m, 0, count, 1);
            status = lore_decoder_submit(m->decoder, &step, err);
            m->submit_ns = lore_clock_ns() - begin_ns;
            submitted++;
            for (int32_t s = 0; s < count; s++) { /* the next one begins before this one is read */
                m->ids[s] = LORE_ID_DRAWN(s);
            }
            continue;
        }
        status = lore_decoder_collect(m->decoder, m->drawn, m->logprobs, err);
        if (in_flight_max == 1) {
            memcpy(m->ids, m->drawn, (size_t)count * sizeof m->ids[0]);
        }
        ended(self, collected++);
    }
    return status;
}

lore_status lore_bench_model_fill(lore_bench_model *m, int32_t count, int32_t context,
                                  lore_error *err)
{
    LORE_ASSERT(count <= m->streams_max);
    lore_status status = LORE_OK;
    for (int32_t s = 0; s < count; s++) {
        m->filled[s] = m->filled[s] < context ? m->filled[s] : context;
    }
    for (int32_t s = 0; s < count && status == LORE_OK;) {
        const int32_t missing = context - m->filled[s];
        const int32_t rows = missing < m->rows_max ? missing : m->rows_max;
        int32_t group = 1; /* short pieces of several streams make one step */
        while (rows > 0 && s + group < count && (group + 1) * rows <= m->rows_max &&
               m->filled[s + group] == m->filled[s]) {
            group++;
        }
        for (int32_t i = 0; i < group * rows; i++) {
            m->ids[i] = lore_bench_model_random_id(m);
        }
        status = rows > 0 ? step_streams(m, s, group, rows, err)
                          : lore_bench_check_cancelled(m->bench, err);
        s += m->filled[s] == context ? group : 0;
    }
    return status;
}
