/* Kinds of scaling and where they come from:
 *
 *   plain    f(i) = theta^(-2i / dim)                                   (Su et al. 2021)
 *   linear   f(i) / factor                            (Chen et al. 2023, position interpolation)
 *   dynamic  theta grows with the length of the text beyond the original  (NTK-aware scaling)
 *   llama3   long waves are divided by factor, short ones kept, those between blended (Llama 3.1)
 *   yarn     pairs below ramp_low kept, above ramp_high divided, between blended; the result is
 *            scaled                                                      (Peng et al. 2023)
 *   long     f(i) / factors[i], the result is scaled                 (Ding et al. 2024, LongRoPE)
 *
 * Constants are computed in double; f and the angle p * f in single precision and in the order of
 * transformers: at position 2000 one rounding of f turns a pair by 1e-4, which is to be the same
 * turn. */
#include "models/rope_int.h"

#include <math.h>
#include <string.h>

/* A theta of 1 has no logarithm to divide by, and all pairs the same frequency. */
#define THETA_MIN 1.0001
#define THETA_MAX 1e12
#define PI 3.14159265358979323846
#define FACTOR_MIN 1e-3
#define FACTOR_MAX 1e6

enum { CHUNK_ROWS = 512 };

/* ---- reading ---- */

/* The object that describes the scaling, with its name; what is not in it may stand at the top. */
typedef struct scaling {
    lore_config_reader *r;
    const lore_rope_rules *rules;
    const lore_json *node; /* NULL: none */
    const char *name;
} scaling;

static lore_status find_scaling(scaling *s)
{
    static const char *const PLACES[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < sizeof PLACES / sizeof PLACES[0] && s->node == NULL; i++) {
        const lore_json *node = lore_json_get(s->r->root, PLACES[i]);
        if (lore_json_is_object(node) && lore_json_count(node) > 0) {
            s->node = node;
            s->name = PLACES[i];
        } else if (node != NULL && !lore_json_is_object(node) && !lore_json_is_null(node)) {
            return lore_fail(s->r->err, LORE_ERR_CORRUPT, "%s must be an object", PLACES[i]);
        }
    }
    for (const lore_json *n = lore_json_first(s->node); n != NULL; n = lore_json_next(n)) {
        if (lore_json_is_object(n)) {
            return lore_fail(s->r->err, LORE_ERR_UNSUPPORTED,
                             "%s that differ between layers are not supported", s->name);
        }
    }
    return LORE_OK;
}

/* Absent or null leaves *out as it is. */
static lore_status may_number(const scaling *s, const char *key, double min, double max,
                              double *out)
{
    return lore_json_get_number(s->node, s->name, key, min, max, out, s->r->err);
}

static lore_status need_number(const scaling *s, const char *key, double min, double max,
                               double *out)
{
    if (!lore_json_is_number(lore_json_get(s->node, key))) {
        return lore_fail(s->r->err, LORE_ERR_CORRUPT, "%s.%s must be a number", s->name, key);
    }
    return may_number(s, key, min, max, out);
}

static lore_status refuse_kind(const scaling *s, lore_str kind)
{
    return lore_fail(s->r->err, LORE_ERR_UNSUPPORTED,
                     "%s of type '" LORE_STR_FMT "' is not supported", s->name,
                     LORE_STR_ARG(lore_str_slice(kind, 0, kind.len < 64 ? kind.len : 64)));
}

static lore_status read_kind(const scaling *s, lore_rope_kind *out)
{
    static const char *const KINDS[] = {
        [LORE_ROPE_PLAIN] = "default",   [LORE_ROPE_LINEAR] = "linear",
        [LORE_ROPE_DYNAMIC] = "dynamic", [LORE_ROPE_LLAMA3] = "llama3",
        [LORE_ROPE_YARN] = "yarn",       [LORE_ROPE_LONG] = "longrope"};
    lore_str kind = LORE_STR("default");
    if (s->node == NULL) {
        *out = LORE_ROPE_PLAIN;
        return LORE_OK;
    }
    lore_status status = lore_json_get_str(s->node, s->name, "type", &kind, s->r->err);
    if (status == LORE_OK) {
        status = lore_json_get_str(s->node, s->name, "rope_type", &kind, s->r->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    bool is_old_name =
        lore_str_equal(kind, LORE_STR("su")) || lore_str_equal(kind, LORE_STR("yarn"));
    if (s->rules->is_plain_or_long && is_old_name) {
        *out = LORE_ROPE_LONG;
        return LORE_OK;
    }
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        bool is_known = i == LORE_ROPE_PLAIN || i == LORE_ROPE_LONG || !s->rules->is_plain_or_long;
        if (is_known && lore_str_equal(kind, lore_str_from(KINDS[i]))) {
            *out = (lore_rope_kind)i;
            return LORE_OK;
        }
    }
    return refuse_kind(s, kind);
}

/* theta and the share of a head that is rotated. */
static lore_status read_plain(const scaling *s, lore_rope_config *c)
{
    const lore_json *root = s->r->root;
    double share = 1;
    c->theta = 10000;
    lore_status status =
        lore_json_get_number(root, "", "rope_theta", THETA_MIN, THETA_MAX, &c->theta, s->r->err);
    if (status == LORE_OK) {
        status = lore_json_get_number(root, "", "partial_rotary_factor", 0, 1, &share, s->r->err);
    }
    if (status == LORE_OK && s->node != NULL) {
        status = may_number(s, "rope_theta", THETA_MIN, THETA_MAX, &c->theta);
    }
    if (status == LORE_OK && s->node != NULL) {
        status = may_number(s, "partial_rotary_factor", 0, 1, &share);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (share < 1 && !s->rules->is_partial) {
        return lore_fail(s->r->err, LORE_ERR_UNSUPPORTED,
                         "partial_rotary_factor below 1 is not supported");
    }
    c->dim = (int32_t)(s->rules->head_dim * share);
    if (c->dim < 2 || c->dim % 2 != 0) {
        return lore_fail(s->r->err, LORE_ERR_CORRUPT,
                         "partial_rotary_factor %g rotates %d of the %d elements of a head, must "
                         "be an even number",
                         share, c->dim, s->rules->head_dim);
    }
    return LORE_OK;
}

/* The length before stretching: at the top, or in the object, else that of the model. A family with
 * a default of its own does not look into the object. */
static lore_status read_original(const scaling *s, lore_rope_config *c)
{
    static const char KEY[] = "original_max_position_embeddings";
    int64_t original = s->rules->original > 0 ? s->rules->original : s->rules->context;
    lore_status status = LORE_OK;
    if (s->rules->original == 0) {
        status =
            lore_json_get_int(s->node, s->name, KEY, 2, LORE_CONTEXT_MAX, &original, s->r->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_int(s->r->root, "", KEY, 2, LORE_CONTEXT_MAX, &original, s->r->err);
    }
    if (status == LORE_OK && original < 2) { /* its logarithm is divided by */
        status =
            lore_fail(s->r->err, LORE_ERR_CORRUPT, "max_position_embeddings %d is too few for %s",
                      s->rules->context, s->name);
    }
    c->original = (int32_t)original;
    return status;
}

static lore_status read_llama3(const scaling *s, lore_rope_config *c)
{
    lore_status status =
        need_number(s, "low_freq_factor", FACTOR_MIN, FACTOR_MAX, &c->low_freq_factor);
    if (status == LORE_OK) {
        status = need_number(s, "high_freq_factor", FACTOR_MIN, FACTOR_MAX, &c->high_freq_factor);
    }
    return status == LORE_OK && c->high_freq_factor <= c->low_freq_factor
               ? lore_fail(s->r->err, LORE_ERR_CORRUPT,
                           "%s.high_freq_factor %g must be more than low_freq_factor %g", s->name,
                           c->high_freq_factor, c->low_freq_factor)
               : status;
}

static double mscale(double factor, double weight)
{
    return factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1;
}

/* The pair whose wave turns so many times within the original length; not a whole number. */
static double pair_of(const lore_rope_config *c, double turns)
{
    return c->dim * log(c->original / (turns * 2 * PI)) / (2 * log(c->theta));
}

static lore_status read_yarn(const scaling *s, lore_rope_config *c)
{
    double beta_fast = 0, beta_slow = 0, weight = 0, weight_all = 0;
    bool is_truncated = true;
    const struct {
        const char *key;
        double *out;
    } fields[] = {{"beta_fast", &beta_fast},
                  {"beta_slow", &beta_slow},
                  {"mscale", &weight},
                  {"mscale_all_dim", &weight_all}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lore_status status = may_number(s, fields[i].key, 0, FACTOR_MAX, fields[i].out);
        if (status != LORE_OK) {
            return status;
        }
    }
    lore_status status = lore_json_get_bool(s->node, s->name, "truncate", &is_truncated, s->r->err);
    if (status != LORE_OK) {
        return status;
    }
    c->scale = mscale(c->factor, 1);
    if (weight > 0 && weight_all > 0) {
        c->scale = mscale(c->factor, weight) / mscale(c->factor, weight_all);
    }
    double low = pair_of(c, beta_fast > 0 ? beta_fast : 32);
    double high = pair_of(c, beta_slow > 0 ? beta_slow : 1);
    if (is_truncated) {
        low = floor(low);
        high = ceil(high);
    }
    c->ramp_low = fmax(low, 0);
    c->ramp_high = fmin(high, c->dim - 1);
    if (c->ramp_low == c->ramp_high) {
        c->ramp_high += 0.001;
    }
    return LORE_OK;
}

static lore_status read_factors(const scaling *s, const char *key, int32_t count, float *out)
{
    const lore_json *array = lore_json_get(s->node, key);
    if (!lore_json_is_array(array) || lore_json_count(array) != count) {
        return lore_fail(s->r->err, LORE_ERR_CORRUPT, "%s.%s must be %d numbers", s->name, key,
                         count);
    }
    for (const lore_json *n = lore_json_first(array); n != NULL; n = lore_json_next(n)) {
        double factor = lore_json_number(n);
        if (!(factor >= FACTOR_MIN && factor <= FACTOR_MAX)) {
            return lore_fail(s->r->err, LORE_ERR_CORRUPT, "%s.%s holds an impossible factor",
                             s->name, key);
        }
        *out++ = (float)factor;
    }
    return LORE_OK;
}

static lore_status read_long(const scaling *s, lore_rope_config *c)
{
    lore_status status = read_factors(s, "short_factor", c->dim / 2, c->short_factors);
    if (status == LORE_OK) {
        status = read_factors(s, "long_factor", c->dim / 2, c->long_factors);
    }
    c->scale = c->factor <= 1 ? 1 : sqrt(1 + log(c->factor) / log(c->original));
    return status;
}

static lore_status read_scaled(const scaling *s, lore_rope_config *c)
{
    bool is_derived = c->kind == LORE_ROPE_YARN || c->kind == LORE_ROPE_LONG;
    lore_status status = read_original(s, c);
    if (status != LORE_OK) {
        return status;
    }
    c->factor = (double)s->rules->context / c->original;
    status = is_derived ? may_number(s, "factor", FACTOR_MIN, FACTOR_MAX, &c->factor)
                        : need_number(s, "factor", FACTOR_MIN, FACTOR_MAX, &c->factor);
    if (status == LORE_OK && c->kind == LORE_ROPE_LLAMA3) {
        status = read_llama3(s, c);
    } else if (status == LORE_OK && c->kind == LORE_ROPE_YARN) {
        status = read_yarn(s, c);
    } else if (status == LORE_OK && c->kind == LORE_ROPE_LONG) {
        status = read_long(s, c);
    } else if (c->kind == LORE_ROPE_DYNAMIC) {
        c->original = s->rules->context; /* transformers stretches what max_position_... says */
    }
    return status == LORE_OK && is_derived
               ? may_number(s, "attention_factor", FACTOR_MIN, FACTOR_MAX, &c->scale)
               : status;
}

lore_status lore_rope_config_read(lore_config_reader *r, const lore_rope_rules *rules,
                                  lore_rope_config *config)
{
    scaling s = {.r = r, .rules = rules};
    lore_rope_config c = {.factor = 1, .scale = 1};
    lore_status status = find_scaling(&s);
    if (status == LORE_OK) {
        status = read_kind(&s, &c.kind);
    }
    if (status == LORE_OK) {
        status = read_plain(&s, &c);
    }
    if (status == LORE_OK && c.kind == LORE_ROPE_DYNAMIC && c.dim < 4) {
        status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "%s of type 'dynamic' for heads of %d elements is not supported", s.name,
                           c.dim);
    }
    if (status == LORE_OK && c.kind != LORE_ROPE_PLAIN) {
        status = read_scaled(&s, &c);
    }
    if (status == LORE_OK) {
        *config = c;
    }
    return status;
}

int32_t lore_rope_context(const lore_rope_config *config, int32_t context)
{
    double stretched = context;
    if (config->kind == LORE_ROPE_LINEAR || config->kind == LORE_ROPE_DYNAMIC) {
        stretched = context * config->factor;
    } else if (config->kind == LORE_ROPE_YARN) {
        stretched = config->original * config->factor;
    }
    if (stretched < context) {
        return context;
    }
    return stretched < LORE_CONTEXT_MAX ? (int32_t)stretched : LORE_CONTEXT_MAX;
}

/* ---- tables ---- */

/* theta as it is for a text of so many tokens. */
static double theta_for(const lore_rope_config *c, int32_t tokens)
{
    if (c->kind != LORE_ROPE_DYNAMIC || tokens <= c->original) {
        return c->theta;
    }
    double longer = c->factor * tokens / c->original - (c->factor - 1);
    return c->theta * pow(longer, (double)c->dim / (c->dim - 2));
}

static float llama3(const lore_rope_config *c, float f)
{
    float low = (float)c->low_freq_factor, high = (float)c->high_freq_factor;
    float wave = (float)(2 * PI) / f;
    float turns = (float)c->original / wave; /* within the original length */
    if (turns > high) {
        return f;
    }
    if (turns < low) {
        return f / (float)c->factor;
    }
    float kept = (turns - low) / (float)(c->high_freq_factor - c->low_freq_factor);
    return (1 - kept) * f / (float)c->factor + kept * f;
}

static float yarn(const lore_rope_config *c, int32_t i, float wave)
{
    float stretched = ((float)i - (float)c->ramp_low) / (float)(c->ramp_high - c->ramp_low);
    float kept = 1 - fminf(fmaxf(stretched, 0), 1);
    return 1 / ((float)c->factor * wave) * (1 - kept) + 1 / wave * kept;
}

/* f of all pairs for a text of so many tokens. */
static void fill_frequencies(const lore_rope_config *c, int32_t tokens, float *out)
{
    double theta = theta_for(c, tokens);
    const float *factors = tokens > c->original ? c->long_factors : c->short_factors;
    for (int32_t i = 0; i < c->dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->dim;
        float wave = (float)pow(theta, exponent);
        out[i] = 1 / wave;
        if (c->kind == LORE_ROPE_LINEAR) {
            out[i] /= (float)c->factor;
        } else if (c->kind == LORE_ROPE_LLAMA3) {
            out[i] = llama3(c, out[i]);
        } else if (c->kind == LORE_ROPE_YARN) {
            out[i] = yarn(c, i, wave);
        } else if (c->kind == LORE_ROPE_LONG) {
            out[i] = 1 / (factors[i] * wave);
        }
    }
}

void lore_rope_rows(const lore_rope_config *c, int32_t first, int32_t count, float *cosine,
                    float *sine)
{
    float frequencies[LORE_HEAD_DIM_MAX / 2];
    size_t half = (size_t)c->dim / 2;
    LORE_ASSERT(c->dim <= LORE_HEAD_DIM_MAX);
    fill_frequencies(c, first + 1, frequencies);
    for (int32_t r = 0; r < count; r++) {
        int32_t p = first + r;
        bool is_second = c->kind == LORE_ROPE_LONG && p >= c->original; /* table */
        if ((is_second && p == c->original) || (c->kind == LORE_ROPE_DYNAMIC && p >= c->original)) {
            fill_frequencies(c, p + 1, frequencies);
        }
        p -= is_second ? c->original : 0;
        for (size_t i = 0; i < half; i++) {
            double angle = (float)p * frequencies[i];
            cosine[(size_t)r * half + i] = (float)(cos(angle) * c->scale);
            sine[(size_t)r * half + i] = (float)(sin(angle) * c->scale);
        }
    }
}

int32_t lore_rope_row_count(const lore_rope_config *config, int32_t positions)
{
    return positions + lore_rope_start(config, positions);
}

int32_t lore_rope_start(const lore_rope_config *config, int32_t tokens)
{
    return config->kind == LORE_ROPE_LONG && tokens > config->original ? config->original : 0;
}

/* Rows are made in chunks: a context of 128k positions has tables of 64 MiB, and no second copy. */
static lore_status fill_tables(const lore_rope_config *c, int32_t rows_all, lore_queue *queue,
                               float *cosine, float *sine, lore_error *err)
{
    size_t half = (size_t)c->dim / 2, chunk = CHUNK_ROWS * half;
    float *host = lore_alloc(2 * chunk * sizeof(float));
    if (host == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the table of positions");
    }
    for (int32_t p = 0; p < rows_all; p += CHUNK_ROWS) {
        int32_t rows = rows_all - p < CHUNK_ROWS ? rows_all - p : CHUNK_ROWS;
        size_t bytes = (size_t)rows * half * sizeof(float);
        lore_rope_rows(c, p, rows, host, host + chunk);
        lore_queue_upload(queue, cosine + (size_t)p * half, host, bytes);
        lore_queue_upload(queue, sine + (size_t)p * half, host + chunk, bytes);
    }
    lore_status status = lore_queue_sync(queue, err);
    lore_free(host);
    return status;
}

lore_status lore_rope_upload(const lore_rope_config *config, int32_t positions,
                             lore_backend *backend, lore_queue *queue, float **cosine, float **sine,
                             lore_error *err)
{
    int32_t rows = lore_rope_row_count(config, positions);
    size_t bytes = (size_t)rows * (size_t)(config->dim / 2) * sizeof(float);
    void *tables[2] = {NULL, NULL};
    lore_status status = lore_backend_alloc(backend, bytes, &tables[0], err);
    if (status == LORE_OK) {
        status = lore_backend_alloc(backend, bytes, &tables[1], err);
    }
    if (status == LORE_OK) {
        status = fill_tables(config, rows, queue, tables[0], tables[1], err);
    }
    if (status == LORE_OK) {
        *cosine = tables[0];
        *sine = tables[1];
        return LORE_OK;
    }
    for (size_t i = 0; i < 2; i++) {
        if (tables[i] != NULL) {
            lore_backend_free(backend, tables[i]);
        }
    }
    return status;
}
