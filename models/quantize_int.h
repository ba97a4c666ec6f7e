/* The parts of the writer of quantised folders: rows to codes (quantize_rows.c), and a folder that
 * appears whole or not at all (folder_write.c). Thread: any, no state. */
#ifndef LORE_MODELS_QUANTIZE_INT_H
#define LORE_MODELS_QUANTIZE_INT_H

#include "base/str.h"

#include <limits.h>

/* One row to int4: `codes` gets (cols + 7) / 8 words of nibbles, code + 8, first column lowest;
 * `scales` one bf16 for each group of columns. Returns the sum of squared errors.
 *
 * The scale of a group is the one of a row of clipping ratios that leaves the least squared error,
 * moved to the least-squares optimum of its codes. importance: [cols], not negative, how much the
 * error of a column counts; NULL: all alike. */
double lore_quantize_row_i4(uint8_t *codes, uint16_t *scales, const float *x,
                            const float *importance, int32_t cols, int32_t group);

/* A folder being written: `temporary` is `out` with ".tmp" behind it. In the arena. */
LORE_MUST_USE lore_status lore_folder_begin(const char *out, lore_arena *arena,
                                            const char **temporary, lore_error *err);
/* Copy what belongs to a model and is no tensor: all regular files of `folder` and of folders in it
 * except `skip_count` names, tensors of the folder itself, and formats we do not read. */
LORE_MUST_USE lore_status lore_folder_copy(const char *folder, const char *temporary,
                                           const char *const *skip, int32_t skip_count,
                                           lore_error *err);
/* The path of a file in it. LORE_ERR_INVALID: too long. */
LORE_MUST_USE lore_status lore_folder_path(const char *temporary, const char *name,
                                           char path[PATH_MAX], lore_error *err);
/* Everything in it is synced by now: give the folder its name. */
LORE_MUST_USE lore_status lore_folder_commit(const char *temporary, const char *out,
                                             lore_error *err);
/* Remove what was begun. */
void lore_folder_abort(const char *temporary);

#endif
