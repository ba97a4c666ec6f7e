/* Shared by the runs over rankings and over answers. */
#ifndef LORE_EVAL_EVALUATE_INT_H
#define LORE_EVAL_EVALUATE_INT_H

#include "eval/evaluate.h"

/* Between two questions: report how far it is, or LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_evaluation_pause(const lore_evaluation *evaluation, int32_t done,
                                                int32_t total, lore_error *err);

#endif
