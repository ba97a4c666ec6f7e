/* Rows of numbers to codes of four bits.
 *
 * Symmetric codes -8 .. 7 with one scale a group. The scale that just reaches the largest number
 * (clipping ratio 1) spends the codes on outliers; a smaller one clips them and is finer for the
 * rest. So a row of ratios is tried. For codes q of one ratio the best scale is x.q / q.q, and the
 * squared error it leaves is x.x - (x.q)^2 / q.q: the ratio with the largest (x.q)^2 / q.q wins
 * (the search of ggml's make_qx_quants; products are weighted by the importance of columns). The
 * scale is rounded to bf16 before the codes are made, so that they belong to the one stored. */
#include "kernels/backend.h"
#include "models/quantize_int.h"

#include <math.h>

enum { RATIO_STEPS = 16, CODE_MIN = -8, CODE_MAX = 7 };

static float code_of(float x, float inverse)
{
    const float rounder = 12582912.0f; /* 1.5 * 2^23: the sum has no bits behind the point */
    const float scaled = x * inverse;
    const float bounded = scaled < CODE_MIN ? CODE_MIN : scaled > CODE_MAX ? CODE_MAX : scaled;
    return (bounded + rounder) - rounder;
}

static float find_scale(const float *x, const float *importance, int32_t count)
{
    float top = 0, best_gain = 0, best = 0;
    for (int32_t i = 0; i < count; i++) {
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    }
    if (top < 1e-30f) { /* as int8 rows do: nothing this small survives a sum */
        return 0;
    }
    for (int32_t step = 0; step < RATIO_STEPS; step++) {
        const float ratio = 1.0f - 0.03f * (float)step;
        const float inverse = (float)CODE_MAX / (top * ratio);
        float dot = 0, norm = 0;
        for (int32_t i = 0; i < count; i++) {
            const float code = isfinite(x[i]) ? code_of(x[i], inverse) : 0; /* the caller refuses */
            const float weighted = importance != NULL ? importance[i] * code : code;
            dot += weighted * x[i];
            norm += weighted * code;
        }
        if (norm > 0 && dot * (dot / norm) > best_gain) {
            best_gain = dot * (dot / norm);
            best = dot / norm;
        }
    }
    return best > 0 ? best : top / CODE_MAX;
}

double lore_quantize_row_i4(uint8_t *codes, uint16_t *scales, const float *x,
                            const float *importance, int32_t cols, int32_t group)
{
    double error = 0;
    for (int32_t first = 0; first < cols; first += group) {
        const int32_t count = cols - first < group ? cols - first : group;
        const uint16_t stored = lore_f32_to_bf16(
            find_scale(x + first, importance != NULL ? importance + first : NULL, count));
        const float scale = lore_bf16_to_f32(stored);
        const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
        scales[first / group] = stored;
        for (int32_t i = first; i < first + count; i++) {
            const float code = code_of(x[i], inverse);
            const double off = (double)x[i] - (double)(scale * code);
            const uint8_t nibble = (uint8_t)((int32_t)code - CODE_MIN);
            codes[i / 2] = (uint8_t)(i % 2 == 0 ? nibble : codes[i / 2] | nibble << 4);
            error += off * off;
        }
    }
    for (int32_t i = (cols + 1) / 2; i < (cols + 7) / 8 * 4; i++) {
        codes[i] = 0; /* words are filled up */
    }
    return error;
}
