/* What adapters add to a decoding step of a 7B Mistral: its products in a recording, with and
 * without, 32 rows. */
#ifndef LORE_BENCH_OPS_LORA_H
#define LORE_BENCH_OPS_LORA_H

#include "bench/bench_ops_device.h"

/* Nothing where the backend cannot record. */
LORE_MUST_USE lore_status lore_bench_ops_lora(lore_backend *backend, lore_queue *queue,
                                              const lore_bench_ops_device_options *options,
                                              lore_error *err);

#endif
