/* See ranking.h. Sums run in order of rank, as trec_eval's do, so that the last digit agrees. */
#include "eval/ranking.h"

#include <math.h>

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

void lore_ranking_grades(const lore_topic *topic, const lore_str *documents, int32_t count,
                         int32_t *grades)
{
    for (int32_t i = 0; i < count; i++) {
        int32_t low = 0, high = topic->judgement_count;
        while (low < high) { /* judgements are in order of document */
            int32_t middle = low + (high - low) / 2;
            bool is_less = lore_str_compare(topic->judgements[middle].document, documents[i]) < 0;
            low = is_less ? middle + 1 : low;
            high = is_less ? high : middle;
        }
        bool is_judged = low < topic->judgement_count &&
                         lore_str_equal(topic->judgements[low].document, documents[i]);
        grades[i] = is_judged ? topic->judgements[low].grade : 0;
    }
}

static double discounted(int32_t grade, int32_t rank)
{
    return grade > 0 ? (double)grade / log2((double)(rank + 2)) : 0.0;
}

double lore_ranking_ndcg(const lore_topic *topic, const int32_t *grades, int32_t count, int32_t cut)
{
    double gained = 0.0, ideal = 0.0;
    for (int32_t i = 0; i < smaller(count, cut); i++) {
        gained += discounted(grades[i], i);
    }
    for (int32_t i = 0; i < smaller(topic->relevant_count, cut); i++) {
        ideal += discounted(topic->ideal[i], i);
    }
    return gained / ideal;
}

double lore_ranking_recall(const lore_topic *topic, const int32_t *grades, int32_t count,
                           int32_t cut)
{
    int32_t found = 0;
    for (int32_t i = 0; i < smaller(count, cut); i++) {
        found += grades[i] > 0;
    }
    return (double)found / (double)topic->relevant_count;
}

double lore_ranking_reciprocal(const int32_t *grades, int32_t count, int32_t cut)
{
    for (int32_t i = 0; i < smaller(count, cut); i++) {
        if (grades[i] > 0) {
            return 1.0 / (double)(i + 1);
        }
    }
    return 0.0;
}

double lore_ranking_average_precision(const lore_topic *topic, const int32_t *grades, int32_t count)
{
    double sum = 0.0;
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        if (grades[i] > 0) {
            found++;
            sum += (double)found / (double)(i + 1);
        }
    }
    return sum / (double)topic->relevant_count;
}
