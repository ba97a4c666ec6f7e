/* Ingest through the process that serves the data folder. */
#ifndef LORE_CLI_HANDOVER_H
#define LORE_CLI_HANDOVER_H

#include "ingest/ingest.h"

/* Walk source and POST each document to the server at `base`: ids, skipping and replacing are the
 * server's, the same as of a direct run. Counts and callbacks like lore_ingest_run. Pruning
 * deletes what the server holds from the folders among the paths, and at or below the roots, and
 * the walk did not meet. */
LORE_MUST_USE lore_status lore_handover_run(lore_str base, const lore_config *config,
                                            lore_source *source,
                                            const lore_source_options *source_options,
                                            const lore_ingest_options *options,
                                            lore_ingest_counts *counts, lore_error *err);

#endif
