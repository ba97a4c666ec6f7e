/* Inside cpu only: the loops of one instruction set as tables of functions, and what the drivers
 * around them share.
 *
 * A driver (cpu_matmul.c, cpu_attention.c, cpu_small.c; compiled for any x86-64) checks the
 * contract, cuts the work into items, spreads them over the pool and calls loops through a table.
 * The loops (cpu_*_body.h and cpu_matmul_*.c) know nothing of queues and pools. Which table:
 * cpu_backend.c, once, from what cpu_features.c found. */
#ifndef LORE_KERNELS_CPU_INT_H
#define LORE_KERNELS_CPU_INT_H

#include "kernels/backend_int.h"

/* ---- what this processor and its operating system can do ---- */
enum {
    LORE_CPU_AVX2 = 1 << 0,        /* AVX2, FMA, F16C */
    LORE_CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL and VNNI */
    LORE_CPU_AVX512_BF16 = 1 << 2, /* besides AVX512 */
    LORE_CPU_AMX_INT8 = 1 << 3,    /* besides AVX512; tile memory granted by the kernel */
    LORE_CPU_AMX_BF16 = 1 << 4
};
uint32_t lore_cpu_features(void);
lore_isa lore_cpu_best_isa(uint32_t features);

/* ---- matmul ---- */

/* What a weight is kept as. */
typedef enum lore_packing {
    LORE_PACKED_F32,
    LORE_PACKED_BF16,
    LORE_PACKED_I8,       /* from LORE_I8 alone: one scale a row, as it came */
    LORE_PACKED_I8_UNITS, /* what is rounded to int8 here: one scale a row and unit of columns */
    LORE_PACKED_I4        /* from LORE_I4 alone; multiplied with rows quantised in units */
} lore_packing;

/* What a row of activations is turned into before it meets the weights. */
typedef enum lore_row_kind {
    LORE_ROW_F32,       /* the f32 row where it lies: nothing to do */
    LORE_ROW_BF16_WIDE, /* rounded to bf16, kept as f32 */
    LORE_ROW_BF16,      /* rounded to bf16 */
    LORE_ROW_U8,        /* quantised, plus 128 */
    LORE_ROW_S8,        /* quantised */
    LORE_ROW_S16,       /* quantised, widened */
    LORE_ROW_UNITS      /* quantised, each unit of columns for itself: lore_unit_row */
} lore_row_kind;

/* Write one row as `kind` (not F32), zeros behind it up to `depth` elements. Returns the scale of
 * quantised kinds. */
typedef float (*lore_prepare_row)(lore_row_kind kind, void *to, const float *x, int32_t cols,
                                  int32_t depth);

/* What the sums over one unit of a quantised row need besides its integers. */
typedef struct lore_unit {
    float scale; /* NaN where one of the inputs is not finite */
    int32_t sum; /* of the integers: what a zero point is multiplied with */
} lore_unit;

enum {
    LORE_UNIT_MAX = 128,    /* columns of a unit: 32, 64 or 128 */
    LORE_INT8_UNIT = 64,    /* of I8_UNITS */
    LORE_INT8_ZERO = 128,   /* zero points of I8_UNITS, */
    LORE_INT4_ZERO = 8,     /* and of I4 where the parts say none */
    LORE_LOW_PARTS = 254,   /* of a step of int8, in the low plane: its half is 127 */
    LORE_OUTLIER_FACTOR = 6 /* beyond so many times the RMS of its row, a unit is an outlier */
};

/* A row in units: x[columns[k]] (x[k] where columns is NULL) for k < cols, zeros behind them to
 * `depth`. A plane is `depth` int8, then the lore_unit of each unit. With `low` there is a second
 * plane `low` bytes behind the first: what rounding left over in the units that hold outliers; the
 * scales of the others are 0 there. */
typedef struct lore_unit_row {
    int32_t cols, depth, unit;
    const int32_t *columns;
    int64_t low; /* 0: none */
} lore_unit_row;
typedef void (*lore_prepare_units)(char *to, const float *x, const lore_unit_row *row);

/* Sums of one tile on their way to the output: out (+)= act(sum * row_scale * scale + bias). */
typedef struct lore_finish {
    float *out;
    int64_t out_stride;
    int32_t rows, cols;
    const void *sums; /* [rows, sums_stride], f32 or int32 */
    int32_t sums_stride;
    bool is_integer;
    const float *row_scales; /* [rows], integers only */
    const float *scales;     /* [cols] or NULL */
    const float *bias;       /* [cols] or NULL */
    lore_activation activation;
    bool is_accumulating;
} lore_finish;

/* Rows against one packed panel: sums[r][j] = start[j] + sum over groups of a[r] b[j]. In units,
 * f32: sums[r][j] = sum over planes and units of (a[r].scale * b[j].scale) * (sum over groups of
 * a[r] b[j] - a[r].sum * zero[j]). */
typedef struct lore_tile {
    int32_t rows, groups;
    int32_t unit_groups; /* groups of a unit; 0: no units */
    int32_t units_at;    /* where the lore_unit of a row begin, */
    int64_t low;         /* and its low plane */
    bool has_zeros;      /* zero points lie behind the scales; else all are `zero` */
    int32_t zero;
    const void *a;        /* turned rows, */
    int64_t a_stride;     /* so many bytes apart */
    const void *b;        /* the panel */
    const int32_t *start; /* integers that undo the +128 of U8 rows; NULL for the other kinds */
    void *sums;           /* [rows, panel] */
    /* What comes next from memory: ahead_lines cache lines from here on for each group. A hint. */
    const char *ahead;
    int32_t ahead_lines; /* 0 to 5 */
} lore_tile;

static inline const lore_unit *lore_tile_unit(const lore_tile *tile, const char *plane, int32_t row,
                                              int32_t index)
{
    const char *units = plane + row * tile->a_stride + tile->units_at;
    return (const lore_unit *)(const void *)units + index;
}

/* Whether a row of the tile has something in its low plane there. */
static inline bool lore_tile_has_low(const lore_tile *tile, int32_t index)
{
    bool has = false;
    for (int32_t r = 0; tile->low > 0 && r < tile->rows; r++) {
        has |= lore_tile_unit(tile, (const char *)tile->a + tile->low, r, index)->scale != 0.0f;
    }
    return has;
}

/* One way to multiply rows with packed panels. */
typedef struct lore_matmul_form {
    lore_row_kind row_kind;
    int32_t rows_max; /* of one tile */
    bool is_integer;
    bool reads_whole_tile; /* reads rows_max rows of input whatever `rows` says (AMX) */
    void (*begin)(void);   /* around the tiles of one work item, or NULL */
    void (*end)(void);
    void (*sum)(const lore_tile *tile);
} lore_matmul_form;

/* A packing on an instruction set: one layout and the forms that read it.
 * Layout: [o / panel][depth / group][panel][group], depth padded to depth_step and o to panel with
 * zeros.
 * In units: depth is padded to units instead, and a panel is one unit after the other, each
 * [unit / group][panel][group], scales f32 [panel], and where one part has them zero points u8
 * [panel]. I8_UNITS: bytes plus 128, which is their zero point. I4: a group is 8 columns in 32
 * bits, byte j holds columns j (low half) and j + 4. */
typedef struct lore_matmul_kernel {
    const char *name;
    lore_isa isa;
    lore_packing packing;
    uint32_t needs; /* LORE_CPU_ bits */
    int32_t panel, group, depth_step;
    int32_t few_max; /* `few` serves batches up to this many rows, `many` the larger ones */
    const lore_matmul_form *few, *many;
    lore_prepare_row prepare; /* NULL: rows of units, prepare_units */
    lore_prepare_units prepare_units;
    void (*finish)(const lore_finish *tile);
} lore_matmul_kernel;

enum {
    LORE_MATMUL_KERNELS = 5,    /* per instruction set: one for each packing */
    LORE_MATMUL_PANEL_MAX = 64, /* outputs of one panel, */
    LORE_MATMUL_ROWS_MAX = 32   /* rows of one tile: bounds of the sums buffer on the stack */
};
extern const lore_matmul_kernel lore_matmul_scalar[LORE_MATMUL_KERNELS];
extern const lore_matmul_kernel lore_matmul_avx2[LORE_MATMUL_KERNELS];
extern const lore_matmul_kernel lore_matmul_avx512[LORE_MATMUL_KERNELS];
extern const lore_matmul_kernel
    lore_matmul_amx[LORE_MATMUL_KERNELS]; /* last entries empty: those of avx512 serve */

/* The forms that AMX shares with AVX-512 for few rows, and its row loops. */
extern const lore_matmul_form lore_form_avx512_bf16, lore_form_avx512_int8,
    lore_form_avx512_int8_units, lore_form_avx512_int4;
float lore_prepare_row_avx512(lore_row_kind kind, void *to, const float *x, int32_t cols,
                              int32_t depth);
void lore_prepare_units_avx512(char *to, const float *x, const lore_unit_row *row);
/* Multiply the integer sums [rows, 64] of unit `index` of the plane at a with its scales, which lie
 * with the zero points at `scales`, and add them to tile->sums, or begin those. */
void lore_add_unit_avx512(const lore_tile *tile, const char *a, int32_t index, const void *scales,
                          const int32_t *sums, bool is_first);
void lore_finish_avx512(const lore_finish *tile);

typedef struct lore_cpu_weight {
    lore_weight base;
    const lore_matmul_kernel *kernel;
    void *panels;
    int32_t depth; /* padded cols */
    int32_t panel_count;
    size_t panel_bytes;
    float *scales;    /* [rows], NULL: all 1 */
    int32_t unit;     /* columns of a unit; 0: no units */
    bool has_zeros;   /* I4 */
    int32_t *columns; /* I4: [cols], which element of x a stored column multiplies; NULL: its own */
    int32_t
        *start; /* [panel_count * panel]: -128 * sum of a row, for forms with U8 rows; else NULL */
    lore_matrix *parts; /* where lore_op_embed reads, borrowed rows; NULL: matmul only */
    int32_t part_count;
} lore_cpu_weight;

lore_status lore_cpu_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 lore_weight_use use, lore_weight **weight, lore_error *err);
void lore_cpu_weight_free(lore_weight *weight);
/* Whether parts can be stacked as I4: all of that dtype, with the same groups and columns. */
bool lore_cpu_int4_fits(const lore_matrix *parts, int32_t count);
/* Columns of a unit of such parts, and bytes of a panel of `depth` columns in units. */
int32_t lore_cpu_int4_unit(const lore_matrix *part);
size_t lore_cpu_units_panel_bytes(const lore_cpu_weight *w);
/* Write the panels of a weight in units; elements [depth] and wide [depth] are scratch. */
void lore_cpu_units_fill(lore_cpu_weight *w, const lore_matrix *parts, int32_t count,
                         uint8_t *elements, float *wide);
void lore_cpu_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                     lore_epilogue epilogue);

/* ---- adapters ---- */

/* How a matrix of an adapter is kept and multiplied. Panels of 16 rows (the last of what is left)
 * lie behind one another, each [groups][rows][32 bits]: one f32, two bf16, or four bytes plus 128,
 * before which stands the scale of the panel. */
typedef enum lore_lora_form {
    LORE_LORA_F32,
    LORE_LORA_WIDE, /* bf16, widened; rows are f32 */
    LORE_LORA_BF16, /* bf16 in pairs */
    LORE_LORA_INT8  /* beside weights that came in int8 */
} lore_lora_form;

/* Before a turned row: what its sums are multiplied with, and INT8: the sum of its integers. */
typedef struct lore_lora_head {
    float scale;
    int32_t sum;
} lore_lora_head;

/* Turned rows times rows begin .. end-1 of a matrix: out[to][o] (+)= sum. */
typedef struct lore_lora_job {
    lore_lora_form form;
    const char *rows; /* turned, */
    int64_t row_bytes;
    int32_t row_count;
    const int32_t *to; /* [row_count] rows of out; NULL: in order */
    const char *matrix;
    int32_t matrix_rows, groups;
    int32_t begin, end;
    float *out;
    int64_t out_stride;
    bool is_accumulating;
} lore_lora_job;

typedef struct lore_lora_loops {
    lore_lora_form bf16; /* WIDE or BF16 */
    bool has_int8;
    /* x, `cols` of it, behind its head and with zeros to whole groups; sums are multiplied with
     * scale, too. */
    void (*turn)(lore_lora_form form, char *to, const float *x, int32_t cols, float scale);
    void (*multiply)(const lore_lora_job *job);
} lore_lora_loops;
extern const lore_lora_loops lore_lora_scalar, lore_lora_avx2, lore_lora_avx512,
    lore_lora_avx512_bf16;

/* Bytes that are fetched before they are read. A machine does that by itself inside of a page of 4
 * KB, which is half of a matrix. */
enum { LORE_LORA_AHEAD = 2048 };

/* Columns of a group, and bytes of a panel of so many rows. */
static inline int32_t lore_lora_group(lore_lora_form form)
{
    return form == LORE_LORA_F32 ? 1 : form == LORE_LORA_INT8 ? 4 : 2;
}

static inline size_t lore_lora_panel_bytes(lore_lora_form form, int32_t rows, int32_t groups)
{
    return (form == LORE_LORA_INT8 ? sizeof(float) : 0) +
           (size_t)rows * (size_t)groups * sizeof(uint32_t);
}

size_t lore_cpu_lora_bytes(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols);
size_t lore_cpu_lora_pack(const lore_weight *weight, lore_dtype dtype, int32_t cols,
                          const void *rows, int32_t count, void *to);

/* What one product has to do beside itself, in items: first those that shrink, then, with each of
 * the product's own, what that has to expand. */
typedef struct lore_cpu_lora lore_cpu_lora;
size_t lore_cpu_lora_scratch(lore_queue *queue, const lore_lora *lora, const lore_weight *weight);
/* Plan in so much scratch. *items: how many shrink. */
lore_cpu_lora *lore_cpu_lora_begin(lore_queue *queue, const lore_lora *lora,
                                   const lore_weight *weight, lore_view out, lore_view x,
                                   void *scratch, int32_t *items);
void lore_cpu_lora_shrink(lore_cpu_lora *plan, int32_t item, int32_t worker);
/* Rows first .. + rows of the batch, columns begin .. end-1, where the product itself is done.
 * Waits for items that others shrink. */
void lore_cpu_lora_expand(lore_cpu_lora *plan, int32_t first, int32_t rows, int32_t begin,
                          int32_t end);
/* Fetch what expanding the columns from `begin` on reads first. A hint. */
void lore_cpu_lora_fetch(const lore_cpu_lora *plan, int32_t begin);

/* ---- attention ---- */

enum {
    LORE_ATTEND_KEYS = 256,   /* keys packed at a time */
    LORE_ATTEND_VECTORS = 256 /* query vectors (rows x heads of a group) that share them */
};

/* Queries of one work item: `rows` rows of `heads` heads that share one key/value head. Row r has
 * position + r among the keys and sees those from `behind` before it to `ahead` after it. */
typedef struct lore_attend {
    const float *queries; /* first head of the first row */
    int64_t query_stride;
    float *out;
    int64_t out_stride;
    int32_t rows, heads, head_dim;
    int32_t position, behind, ahead;
    float scale, softcap;
    lore_dtype dtype; /* of keys and values */
    /* Key i lies at keys + offset(i), in elements: with a page list (i / page_tokens)-th page *
     * page_stride + (i % page_tokens) * key_stride, else i * key_stride. */
    const void *keys, *values;
    int64_t key_stride;
    const int32_t *pages;
    int32_t page_tokens;
    int64_t page_stride;
    int32_t key_begin, key_count; /* keys key_begin .. key_count - 1 are this item's to attend */
    float *log_sums; /* [rows * heads], out: logarithm of the sum of exponentials; or NULL */
} lore_attend;

typedef struct lore_attention_loops {
    size_t (*scratch_bytes)(int32_t head_dim);
    void (*attend)(const lore_attend *job, void *scratch);
} lore_attention_loops;
extern const lore_attention_loops lore_attention_scalar, lore_attention_avx2, lore_attention_avx512;
/* Queries, keys, values and probabilities rounded to bf16, sums in f32. */
extern const lore_attention_loops lore_attention_bf16_avx512;

void lore_cpu_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch);
void lore_cpu_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch,
                           const lore_attention *attention);
void lore_cpu_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                            int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                            int32_t rows_max, bool is_causal, const lore_attention *attention);
void lore_cpu_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope, int32_t kv_heads,
                          int32_t head_dim, int32_t sequences, const int32_t *row_start);

/* ---- small ops: loops over one row of n elements ---- */

typedef struct lore_small_loops {
    void (*rmsnorm)(float *out, const float *x, const float *w, float eps, int32_t n);
    void (*layernorm)(float *out, const float *x, const float *w, const float *b, float eps,
                      int32_t n);
    void (*glu)(float *out, const float *gate, const float *up, lore_activation activation,
                int32_t n);
    /* out = values * scale (+ out), values f32, f16, bf16 or i8. */
    void (*embed)(float *out, const void *values, lore_dtype dtype, float scale,
                  bool is_accumulating, int32_t n);
    /* One head of n elements: norm (w not NULL), rotation of the first dim of them by dim / 2
     * cosines and sines, to f32 or bf16. x may be out. */
    void (*rotate)(void *out, lore_dtype dtype, const float *x, const float *w, float eps,
                   const float *cosine, const float *sine, int32_t dim, int32_t n);
    void (*convert)(void *out, lore_dtype dtype, const float *x, int32_t n); /* to f32 or bf16 */
    void (*add)(float *out, const float *x, int32_t n);
    void (*multiply)(float *out, float factor, int32_t n);
    void (*softcap)(float *x, float cap, int32_t n);
    float (*sum_squares)(const float *x, int32_t n);
    lore_row_math sampling;
    /* sums[i] = query . vectors[i]; query has zeros up to the next multiple of 64. */
    void (*dot_i8)(int32_t *sums, const int8_t *query, const int8_t *vectors, int64_t count,
                   int32_t n);
} lore_small_loops;
extern const lore_small_loops lore_small_scalar, lore_small_avx2, lore_small_avx512;

void lore_cpu_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                    const int32_t *drawn, float scale, bool is_accumulating);
void lore_cpu_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps);
void lore_cpu_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                        const float *b, float eps);
void lore_cpu_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation);
void lore_cpu_add(lore_queue *queue, lore_view out, lore_view x);
void lore_cpu_softcap(lore_queue *queue, lore_view x, float cap);
void lore_cpu_pool(lore_queue *queue, lore_view out, lore_view x, const int32_t *row_start,
                   lore_pooling pooling, bool is_normalised);
void lore_cpu_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows);
void lore_cpu_tops(lore_queue *, lore_likely *tops, lore_view logits, const lore_sample *samples);
void lore_cpu_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                     const lore_sample *samples, lore_drawing widest);
void lore_cpu_scan(lore_queue *queue, float *scores, const int8_t *query, float query_scale,
                   const int8_t *vectors, const float *scales, int64_t count, int32_t dim);

/* ---- the backend ---- */
typedef struct lore_cpu_backend {
    lore_backend base;
    uint32_t features;
    lore_isa isa; /* the best one allowed */
    const lore_small_loops *small;
    const lore_lora_loops *lora;
    const lore_attention_loops *attention;
    const lore_attention_loops *attention_bf16; /* where rounding is allowed; the same without */
} lore_cpu_backend;

static inline const lore_cpu_backend *lore_cpu_of(const lore_queue *queue)
{
    return (const lore_cpu_backend *)queue->backend;
}

/* The fastest kernel of a packing on this backend; there always is one. */
const lore_matmul_kernel *lore_cpu_find_kernel(const lore_cpu_backend *backend,
                                               lore_packing packing);

#endif
