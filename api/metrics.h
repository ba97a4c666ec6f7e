/* Counters of the service in the text format of Prometheus (exposition format 0.0.4).
 *
 * What happens is counted as it happens; what is (engine, index, memory) is read when somebody
 * asks. One lock, held for a few additions. Thread: any. */
#ifndef LORE_API_METRICS_H
#define LORE_API_METRICS_H

#include "api/app.h"

typedef struct lore_metrics lore_metrics;

lore_metrics *lore_metrics_new(void); /* NULL: out of memory */
void lore_metrics_free(lore_metrics *metrics);

/* One request is over. route: index into lore_routes, or lore_route_count for none of them;
 * http_status 0: the client left before there was one. */
void lore_metrics_request(lore_metrics *metrics, int32_t route, int32_t http_status,
                          int64_t elapsed_ns);
/* One answer was given. */
void lore_metrics_answer(lore_metrics *metrics, const lore_answer *answer);
void lore_metrics_active(lore_metrics *metrics, int32_t change); /* requests under way: +1, -1 */
void lore_metrics_connection(lore_metrics *metrics, int32_t change); /* open ones, likewise */
void lore_metrics_refused(lore_metrics *metrics); /* a connection over one of the caps */

/* The whole page, appended. */
LORE_MUST_USE lore_status lore_metrics_print(lore_metrics *metrics, const lore_app *app,
                                             lore_buf *out, lore_error *err);

#endif
