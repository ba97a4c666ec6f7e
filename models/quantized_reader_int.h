/* One quantised matrix on its way: what quantized.c (codes, the result) and quantized_groups.c
 * (groups of columns, scales, zeros) share. */
#ifndef LORE_MODELS_QUANTIZED_READER_INT_H
#define LORE_MODELS_QUANTIZED_READER_INT_H

#include "models/quantized_int.h"

typedef struct lore_quantized_reader {
    const lore_quantized_config *config;
    const lore_quantized_set *set;
    lore_error *err;
    int32_t rows, cols, bits;
    int32_t groups, group; /* how many, and of how many columns; group 0: as group_of says */
    int32_t *group_of;     /* [cols], or NULL: column / group */
    const uint8_t *codes;  /* [rows, row_bytes] */
    size_t row_bytes;
    lore_quantized out;
} lore_quantized_reader;

/* How many groups there are, of which columns, and out.scales, out.zeros: f32 and one byte each,
 * [rows, groups]; no zeros where all are the middle of the codes. group_of is the caller's to free.
 */
LORE_MUST_USE lore_status lore_quantized_read_groups(lore_quantized_reader *r);
/* For matrices with group_of: out.columns, the columns sorted by their group and in their order
 * within it (NULL where they are), and the size of the groups where all but the last are equal (0
 * otherwise). */
LORE_MUST_USE lore_status lore_quantized_sort_columns(lore_quantized_reader *r);

/* Refuse a tensor, saying what it should have been; a value in it. */
lore_status lore_quantized_refuse(const lore_quantized_reader *r, const lore_tensor *t,
                                  const char *type, int64_t first, int64_t second);
lore_status lore_quantized_refuse_value(const lore_quantized_reader *r, const lore_tensor *t,
                                        const char *what, int64_t value);
lore_status lore_quantized_fail_memory(const lore_quantized_reader *r);
/* Rows times cols elements of so many bytes; NULL when there is no memory, or no such size. */
void *lore_quantized_take(size_t rows, size_t cols, size_t element_bytes);
bool lore_tensor_is(const lore_tensor *t, const char *type);
bool lore_tensor_is_float(const lore_tensor *t); /* that can be read as f32 */
bool lore_tensor_is_words(const lore_tensor *t); /* of 32 bits */
bool lore_tensor_is_shape(const lore_tensor *t, int64_t first, int64_t second);
uint32_t lore_tensor_word(const lore_tensor *t, size_t index);
/* Words that hold so many codes. */
int64_t lore_quantized_words(int64_t codes, int32_t bits);
/* Row, of eight, of the k-th code of a word that AWQ packed. */
int32_t lore_quantized_awq_row(int32_t k);

#endif
