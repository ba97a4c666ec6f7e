/* The tables of lore.db, and how folders of earlier formats come to have them. Thread: the one that
 * opens. */
#ifndef LORE_INDEX_SCHEMA_INT_H
#define LORE_INDEX_SCHEMA_INT_H

#include "index/index_int.h"

int64_t lore_schema_format(void); /* that this version writes */
/* The SQL that makes it of the format before, 1 .. lore_schema_format(). Borrowed. */
const char *lore_schema_step(int64_t format);
/* 0: the database is empty. LORE_ERR_CORRUPT where it is none of ours, _UNSUPPORTED where a later
 * version made it. */
LORE_MUST_USE lore_status lore_schema_read(const char *path, lore_db *db, int64_t *format,
                                           lore_error *err);
/* May it be read as it is? LORE_ERR_UNSUPPORTED names an earlier format, too. */
LORE_MUST_USE lore_status lore_schema_check(const char *path, lore_db *db, lore_error *err);
/* Makes or brings forward what the writing connection has open: all of it or nothing. */
LORE_MUST_USE lore_status lore_schema_upgrade(lore_index *index, lore_error *err);

#endif
