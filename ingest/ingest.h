/* Documents in: everything a user of this floor needs, in the order of the walk.
 *
 * source.h yields raw documents, clean.h makes text of them, models/sentence.h and chunk.h cut it,
 * pipeline.h runs all of it and writes to the index. */
#ifndef LORE_INGEST_INGEST_H
#define LORE_INGEST_INGEST_H

#include "ingest/chunk.h"
#include "ingest/clean.h"
#include "ingest/folder_watch.h"
#include "ingest/pipeline.h"
#include "ingest/source.h"
#include "models/sentence.h"

#endif
