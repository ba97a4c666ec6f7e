/* Seeing the inputs of matrices without a hook in the forward pass: the decoder's queue gets a copy
 * of its table of ops in which matmul first adds up the squares of x.
 *
 * A weight is found by its address among the four that a layer has; the table and the head are none
 * of them and pass. */
#include "models/activations_int.h"

#include "models/decoder_int.h"

#include <stdlib.h>
#include <string.h>

enum { QKV, OUT, GATE_UP, DOWN, KINDS };

/* Of one weight. */
typedef struct channel_sums {
    const lore_weight *weight;
    double *squares; /* [cols] */
    int64_t rows;
    int32_t cols;
} channel_sums;

struct lore_activations {
    lore_ops ops; /* first: the queue's table, from whose address we are found */
    const lore_ops *real;
    lore_arena arena;
    channel_sums *sums; /* [layers, KINDS] */
    int32_t count;
};

static void observe_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *weight,
                           lore_epilogue epilogue)
{
    lore_activations *a = (lore_activations *)(uintptr_t)queue->ops;
    int32_t i = 0;
    while (i < a->count && a->sums[i].weight != weight) {
        i++;
    }
    for (int32_t r = 0; i < a->count && r < x.rows; r++) {
        const float *row = x.data + (size_t)r * (size_t)x.stride;
        for (int32_t k = 0; k < x.cols; k++) {
            a->sums[i].squares[k] += (double)row[k] * (double)row[k];
        }
        a->sums[i].rows++;
    }
    a->real->matmul(queue, out, x, weight, epilogue);
}

lore_status lore_activations_new(lore_activations **activations, lore_error *err)
{
    lore_activations *a = lore_alloc_zero(1, sizeof *a);
    if (a == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for activations");
    }
    lore_arena_init(&a->arena, 0);
    *activations = a;
    return LORE_OK;
}

void lore_activations_free(lore_activations *a)
{
    if (a != NULL) {
        lore_arena_destroy(&a->arena);
        lore_free(a);
    }
}

lore_status lore_activations_attach(lore_activations *a, lore_decoder *d, lore_error *err)
{
    LORE_ASSERT(a->sums == NULL); /* of one decoder, once */
    if (lore_backend_get_kind(d->backend) == LORE_BACKEND_CUDA) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "activations are not seen on this device");
    }
    a->sums = LORE_PUSH(&a->arena, channel_sums, (size_t)d->config.layers * KINDS);
    if (a->sums == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for activations");
    }
    for (int32_t i = 0; i < d->config.layers * KINDS; i++) {
        const lore_decoder_layer *layer = &d->layers[i / KINDS];
        const lore_weight *const weights[KINDS] = {[QKV] = layer->qkv,
                                                   [OUT] = layer->attention_out,
                                                   [GATE_UP] = layer->gate_up,
                                                   [DOWN] = layer->down};
        channel_sums *sums = &a->sums[i];
        sums->weight = weights[i % KINDS];
        sums->cols = lore_weight_cols(sums->weight);
        sums->squares = LORE_PUSH(&a->arena, double, sums->cols);
        if (sums->squares == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for activations");
        }
    }
    a->count = d->config.layers * KINDS;
    a->real = d->queue->ops;
    a->ops = *a->real;
    a->ops.matmul = observe_matmul;
    d->queue->ops = &a->ops;
    return LORE_OK;
}

/* "model.layers.3.self_attn.q_proj": layer 3, QKV. -1: not of a layer. */
static int32_t index_of(const char *module)
{
    static const char prefix[] = "model.layers.";
    char *end = NULL;
    if (strncmp(module, prefix, sizeof prefix - 1) != 0) {
        return -1;
    }
    long layer = strtol(module + sizeof prefix - 1, &end, 10);
    if (layer < 0 || layer > INT32_MAX / KINDS - 1) {
        return -1;
    }
    const bool is_attention = strncmp(end, ".self_attn.", 11) == 0;
    if (!is_attention && strncmp(end, ".mlp.", 5) != 0) {
        return -1;
    }
    const char *part = end + (is_attention ? 11 : 5);
    int32_t kind = is_attention ? QKV : GATE_UP;
    if (strcmp(part, is_attention ? "o_proj" : "down_proj") == 0) {
        kind = is_attention ? OUT : DOWN;
    }
    return (int32_t)layer * KINDS + kind;
}

bool lore_activations_find(const lore_activations *a, const char *module, float *means,
                           int32_t cols)
{
    const int32_t i = index_of(module);
    if (i < 0 || i >= a->count || a->sums[i].cols != cols || a->sums[i].rows == 0) {
        return false;
    }
    for (int32_t k = 0; k < cols; k++) {
        means[k] = (float)(a->sums[i].squares[k] / (double)a->sums[i].rows);
    }
    return true;
}
