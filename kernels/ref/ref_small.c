/* The small ops of ref: norms, activation, pooling, gather, sampling, scan. One row at a time, sums
 * in double. */
#include "kernels/ref/ref_int.h"

#include <math.h>

void lore_ref_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps)
{
    (void)queue;
    for (int32_t r = 0; r < x.rows; r++) {
        const float *from = x.data + r * x.stride;
        float *to = out.data + r * out.stride;
        double sum = 0.0;
        for (int32_t c = 0; c < x.cols; c++) {
            sum += (double)from[c] * (double)from[c];
        }
        const double inverse = 1.0 / sqrt(sum / x.cols + (double)eps);
        for (int32_t c = 0; c < x.cols; c++) {
            to[c] = (float)((double)from[c] * inverse * (double)w[c]);
        }
    }
}

void lore_ref_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                        const float *b, float eps)
{
    (void)queue;
    for (int32_t r = 0; r < x.rows; r++) {
        const float *from = x.data + r * x.stride;
        float *to = out.data + r * out.stride;
        double sum = 0.0;
        for (int32_t c = 0; c < x.cols; c++) {
            sum += (double)from[c];
        }
        const double mean = sum / x.cols;
        double squares = 0.0;
        for (int32_t c = 0; c < x.cols; c++) {
            squares += ((double)from[c] - mean) * ((double)from[c] - mean);
        }
        const double inverse = 1.0 / sqrt(squares / x.cols + (double)eps);
        for (int32_t c = 0; c < x.cols; c++) {
            const double bias = b != NULL ? (double)b[c] : 0.0;
            to[c] = (float)(((double)from[c] - mean) * inverse * (double)w[c] + bias);
        }
    }
}

double lore_ref_activate(double x, lore_activation activation)
{
    static const double two_over_pi = 0.63661977236758134308;
    switch (activation) {
    case LORE_ACT_NONE:
        break;
    case LORE_ACT_GELU:
        return 0.5 * x * (1.0 + erf(x / sqrt(2.0)));
    case LORE_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(two_over_pi) * (x + 0.044715 * x * x * x)));
    case LORE_ACT_SILU:
        return x / (1.0 + exp(-x));
    case LORE_ACT_TANH:
        return tanh(x);
    }
    return x;
}

void lore_ref_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation)
{
    (void)queue;
    for (int32_t r = 0; r < out.rows; r++) {
        const float *gate = gate_up.data + r * gate_up.stride;
        const float *up = gate + out.cols;
        float *to = out.data + r * out.stride;
        for (int32_t c = 0; c < out.cols; c++) {
            to[c] = (float)(lore_ref_activate((double)gate[c], activation) * (double)up[c]);
        }
    }
}

void lore_ref_add(lore_queue *queue, lore_view out, lore_view x)
{
    (void)queue;
    for (int32_t r = 0; r < out.rows; r++) {
        for (int32_t c = 0; c < out.cols; c++) {
            out.data[r * out.stride + c] += x.data[r * x.stride + c];
        }
    }
}

void lore_ref_softcap(lore_queue *queue, lore_view x, float cap)
{
    (void)queue;
    for (int32_t r = 0; r < x.rows; r++) {
        float *to = x.data + r * x.stride;
        for (int32_t c = 0; c < x.cols; c++) {
            to[c] = (float)((double)cap * tanh((double)to[c] / (double)cap));
        }
    }
}

void lore_ref_pool(lore_queue *queue, lore_view out, lore_view x, const int32_t *row_start,
                   lore_pooling pooling, bool is_normalised)
{
    (void)queue;
    for (int32_t i = 0; i < out.rows; i++) {
        int32_t first = row_start[i], end = row_start[i + 1];
        LORE_ASSERT(first < end);
        if (pooling == LORE_POOL_CLS) {
            end = first + 1;
        } else if (pooling == LORE_POOL_LAST) {
            first = end - 1;
        }
        float *to = out.data + i * out.stride;
        double squares = 0.0;
        for (int32_t c = 0; c < out.cols; c++) {
            double sum = 0.0;
            for (int32_t r = first; r < end; r++) {
                sum += (double)x.data[r * x.stride + c];
            }
            to[c] = (float)(sum / (end - first));
            squares += (double)to[c] * (double)to[c];
        }
        const double length = is_normalised ? fmax(sqrt(squares), 1e-12) : 1.0;
        for (int32_t c = 0; c < out.cols; c++) {
            to[c] = (float)((double)to[c] / length);
        }
    }
}

void lore_ref_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows)
{
    (void)queue;
    for (int32_t i = 0; i < out.rows; i++) {
        LORE_ASSERT(rows[i] >= 0 && rows[i] < x.rows);
        for (int32_t c = 0; c < out.cols; c++) {
            out.data[i * out.stride + c] = x.data[rows[i] * x.stride + c];
        }
    }
}

static float clean(float *x, int32_t count)
{
    float top = -INFINITY;
    for (int32_t i = 0; i < count; i++) {
        x[i] = isnan(x[i]) ? -INFINITY : x[i];
        top = x[i] > top ? x[i] : top;
    }
    return top;
}

static double sum_exp(const float *x, int32_t count, float top)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += x[i] == top ? 1.0 : exp((double)x[i] - (double)top);
    }
    return sum;
}

static const lore_row_math row_math = {clean, sum_exp};

void lore_ref_tops(lore_queue *queue, lore_likely *tops, lore_view logits,
                   const lore_sample *samples)
{
    lore_host_tops(queue, tops, logits, samples, &row_math);
}

void lore_ref_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                     const lore_sample *samples, lore_drawing widest)
{
    (void)widest; /* a row is looked at by itself */
    lore_candidate *candidates = lore_host_scratch(queue, (size_t)logits.cols * sizeof *candidates);
    if (candidates == NULL) {
        return;
    }
    for (int32_t r = 0; r < logits.rows; r++) {
        lore_sample_row(&ids[r], &logprobs[r], logits.data + r * logits.stride, logits.cols,
                        &samples[r], candidates, &row_math);
    }
}

void lore_ref_scan(lore_queue *queue, float *scores, const int8_t *query, float query_scale,
                   const int8_t *vectors, const float *scales, int64_t count, int32_t dim)
{
    (void)queue;
    for (int64_t i = 0; i < count; i++) {
        int64_t sum = 0; /* exact for every dim */
        for (int32_t c = 0; c < dim; c++) {
            sum += query[c] * vectors[i * dim + c];
        }
        scores[i] = (float)sum * (query_scale * scales[i]);
    }
}
