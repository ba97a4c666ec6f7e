/* What `lore eval` found, for people, as JSON, and against gates.
 *
 * Thread: one. */
#ifndef LORE_CLI_EVAL_REPORT_H
#define LORE_CLI_EVAL_REPORT_H

#include "cli/cli.h"
#include "eval/evaluate.h"

typedef struct lore_gate {
    int32_t figure; /* of the table */
    double limit;
    bool is_drop; /* against the baseline: it may fall by `limit` at most; else it must reach it */
    double value; /* of the figure, or its fall */
    bool is_held;
} lore_gate;

typedef struct lore_eval_report {
    const char *collection, *source; /* source: the folder or file of the questions */
    const lore_topics *topics;
    const lore_evaluation *evaluation;
    const lore_table *table;
    const lore_estimate *estimates;
    const char *baseline;               /* NULL: none */
    const lore_difference *differences; /* with a baseline */
    int32_t common;                     /* queries of the baseline too */
    const lore_fit *fit;                /* NULL: no weights were tried */
    lore_tuning configured;             /* the weight of the configuration */
    lore_gate *gates;
    int32_t gate_count;
} lore_eval_report;

/* Fill value and is_held of each gate; false: one does not hold. A figure that nothing was counted
 * for holds no gate. */
bool lore_eval_check_gates(lore_eval_report *report);
void lore_eval_print(const lore_eval_report *report, FILE *out);
void lore_eval_write(const lore_eval_report *report, lore_buf *json);

#endif
