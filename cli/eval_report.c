/* See eval_report.h. */
#include "cli/eval_report.h"

#include "base/json.h"

#include <inttypes.h>
#include <math.h>

bool lore_eval_check_gates(lore_eval_report *report)
{
    bool is_held = true;
    for (int32_t i = 0; i < report->gate_count; i++) {
        lore_gate *gate = &report->gates[i];
        if (gate->is_drop) {
            gate->value = -report->differences[gate->figure].value;
            gate->is_held = gate->value <= gate->limit; /* NaN does not hold */
        } else {
            gate->value = report->estimates[gate->figure].value;
            gate->is_held = gate->value >= gate->limit;
        }
        is_held = is_held && gate->is_held;
    }
    return is_held;
}

/* ---- for people ---- */

static void print_notes(const lore_eval_report *report, FILE *out)
{
    const lore_topics *topics = report->topics;
    fprintf(out, "%d questions of '%s' on collection '%s'\n", topics->count, report->source,
            report->collection);
    if (topics->unjudged + topics->irrelevant + topics->unknown > 0) {
        fprintf(out,
                "left out: %d without judgements, %d with nothing relevant; %d judged without a "
                "text\n",
                topics->unjudged, topics->irrelevant, topics->unknown);
    }
    if (report->evaluation->absent > 0) {
        fprintf(out, "%" PRId64 " judgements are of documents that the collection does not have\n",
                report->evaluation->absent);
    }
    if (report->evaluation->rerank_missed > 0) {
        fprintf(out,
                "%d questions were not reranked in time, so these figures are not reproducible: "
                "raise rerank_ms\n",
                report->evaluation->rerank_missed);
    }
}

static void print_figures(const lore_eval_report *report, FILE *out)
{
    bool has_baseline = report->baseline != NULL;
    fprintf(out, "\n%-20s %7s  %-15s %9s", "figure", "value", "95 %", "questions");
    if (has_baseline) {
        fprintf(out, "  %8s  %-17s %6s", "change", "95 %", "p");
    }
    fputc('\n', out);
    for (int32_t f = 0; f < report->table->figure_count; f++) {
        const lore_estimate *e = &report->estimates[f];
        if (e->rows == 0) {
            continue;
        }
        fprintf(out, "%-20.*s %7.4f  %.4f - %.4f %9d", LORE_STR_ARG(report->table->figures[f]),
                e->value, e->low, e->high, e->rows);
        if (has_baseline && report->differences[f].rows > 0) {
            const lore_difference *d = &report->differences[f];
            fprintf(out, "  %+8.4f  %+.4f - %+.4f %6.4f", d->value, d->low, d->high, d->p);
        }
        fputc('\n', out);
    }
    if (has_baseline) {
        fprintf(out, "change: against '%s', %d questions in common\n", report->baseline,
                report->common);
    }
}

static void print_tuning(lore_tuning tuning, FILE *out)
{
    fprintf(out, "%.2f %.2f", tuning.fusion_weight, tuning.expansion);
}

static void print_fit(const lore_eval_report *report, FILE *out)
{
    const lore_fit *fit = report->fit;
    fputs("\nweight of the dense score, share of the best passages' terms: ", out);
    print_tuning(fit->tuning, out);
    fputs(" is best; on folds of the others", out);
    for (int32_t i = 0; i < LORE_FIT_FOLDS; i++) {
        fputs(i == 0 ? " " : ", ", out);
        print_tuning(fit->fold_tunings[i], out);
    }
    if (fit->is_better) {
        fprintf(out, "\nstored with collection '%s'\n", report->collection);
    } else {
        fprintf(out,
                "\nnot better on questions it was not fitted to: collection '%s' goes by the "
                "configuration (%.2f %.2f)\n",
                report->collection, report->configured.fusion_weight, report->configured.expansion);
    }
}

void lore_eval_print(const lore_eval_report *report, FILE *out)
{
    print_notes(report, out);
    print_figures(report, out);
    if (report->fit != NULL) {
        print_fit(report, out);
    }
    for (int32_t i = 0; i < report->gate_count; i++) {
        const lore_gate *gate = &report->gates[i];
        fprintf(out, "%s: " LORE_STR_FMT " %s %.4f, %s %.4f\n", gate->is_held ? "held" : "FAILED",
                LORE_STR_ARG(report->table->figures[gate->figure]),
                gate->is_drop ? "fell by" : "is", gate->value,
                gate->is_drop ? "at most" : "at least", gate->limit);
    }
}

/* ---- JSON ---- */

static void write_figures(const lore_eval_report *report, lore_json_writer *w)
{
    lore_json_array(w, "figures");
    for (int32_t f = 0; f < report->table->figure_count; f++) {
        const lore_estimate *e = &report->estimates[f];
        lore_json_object(w, NULL);
        lore_json_string(w, "name", report->table->figures[f]);
        lore_json_double(w, "value", e->value);
        lore_json_double(w, "low", e->low);
        lore_json_double(w, "high", e->high);
        lore_json_int(w, "questions", e->rows);
        if (report->baseline != NULL) {
            const lore_difference *d = &report->differences[f];
            lore_json_object(w, "change");
            lore_json_double(w, "before", d->before);
            lore_json_double(w, "after", d->after);
            lore_json_double(w, "value", d->value);
            lore_json_double(w, "low", d->low);
            lore_json_double(w, "high", d->high);
            lore_json_double(w, "p", d->p);
            lore_json_int(w, "questions", d->rows);
            lore_json_end(w);
        }
        lore_json_end(w);
    }
    lore_json_end(w);
}

static void write_tuning(lore_json_writer *w, const char *name, lore_tuning tuning)
{
    lore_json_object(w, name);
    lore_json_double(w, "fusion_weight", tuning.fusion_weight);
    lore_json_double(w, "expansion", tuning.expansion);
}

static void write_fit(const lore_eval_report *report, lore_json_writer *w)
{
    const lore_fit *fit = report->fit;
    lore_tuning tried[LORE_FIT_TRIED];
    lore_fit_tunings(report->configured, tried);
    lore_json_object(w, "fit");
    write_tuning(w, "best", fit->tuning);
    lore_json_end(w);
    write_tuning(w, "configured", report->configured);
    lore_json_end(w);
    lore_json_boolean(w, "stored", fit->is_better);
    lore_json_array(w, "folds");
    for (int32_t i = 0; i < LORE_FIT_FOLDS; i++) {
        write_tuning(w, NULL, fit->fold_tunings[i]);
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_array(w, "tried");
    for (int32_t i = 0; i < LORE_FIT_STEPS; i++) {
        write_tuning(w, NULL, tried[i]);
        lore_json_double(w, "ndcg@10", fit->means[i]);
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_end(w);
}

static void write_gates(const lore_eval_report *report, lore_json_writer *w)
{
    lore_json_array(w, "gates");
    for (int32_t i = 0; i < report->gate_count; i++) {
        const lore_gate *gate = &report->gates[i];
        lore_json_object(w, NULL);
        lore_json_string(w, "figure", report->table->figures[gate->figure]);
        lore_json_double(w, gate->is_drop ? "fall_at_most" : "at_least", gate->limit);
        lore_json_double(w, "value", gate->value);
        lore_json_boolean(w, "held", gate->is_held);
        lore_json_end(w);
    }
    lore_json_end(w);
}

void lore_eval_write(const lore_eval_report *report, lore_buf *json)
{
    lore_json_writer w;
    const lore_topics *topics = report->topics;
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.evaluation"));
    lore_json_string(&w, "collection", lore_str_from(report->collection));
    lore_json_int(&w, "questions", topics->count);
    lore_json_int(&w, "unjudged", topics->unjudged);
    lore_json_int(&w, "without_relevant", topics->irrelevant);
    lore_json_int(&w, "without_text", topics->unknown);
    lore_json_int(&w, "absent_documents", report->evaluation->absent);
    lore_json_int(&w, "not_reranked", report->evaluation->rerank_missed);
    write_figures(report, &w);
    if (report->baseline != NULL) {
        lore_json_int(&w, "baseline_questions", report->common);
    }
    if (report->fit != NULL) {
        write_fit(report, &w);
    }
    write_gates(report, &w);
    lore_json_end(&w);
}
