/* Bytes to queries and answers to bytes: the JSON of interfaces (docs/api.md).
 *
 * All limits on a request are checked here, so nobody behind this file asks again. Writers append
 * to the caller's buffer, whose sticky flag is their only failure. Pure; any thread. */
#ifndef LORE_API_WIRE_H
#define LORE_API_WIRE_H

#include "api/answer.h"
#include "base/json.h"

typedef struct lore_wire_query {
    lore_query query;
    bool is_streaming;
    lore_json *root; /* owns the strings; free with lore_json_free after the query */
} lore_wire_query;

/* Body of POST /query and POST /retrieve. Wrong types and limits: LORE_ERR_INVALID / LORE_ERR_LIMIT
 * naming the field; unknown fields are ignored. Arrays live in the arena. On failure nothing is
 * owned. */
LORE_MUST_USE lore_status lore_wire_parse_query(lore_str body, const lore_config *config,
                                                lore_arena *arena, lore_wire_query *parsed,
                                                lore_error *err);

/* The objects of the contract, appended to out. */
void lore_wire_answer(const lore_answer *answer, bool with_passages, lore_buf *out);
void lore_wire_retrieval(const lore_answer *answer, lore_buf *out); /* the reply of /retrieve */
void lore_wire_passages(const lore_answer *answer, lore_buf *out);  /* the array */
void lore_wire_citation(const lore_answer *answer, const lore_citation *citation, lore_buf *out);

/* {"error":{"message","type","param","code"}}; param is taken from a message that starts with a
 * field path. Returns the HTTP status. */
int lore_wire_error(const lore_error *error, lore_buf *out);
/* The same for refusals that HTTP itself makes (405, 415). Returns http_status. */
int lore_wire_error_as(int http_status, lore_str message, lore_str param, const char *code,
                       lore_buf *out);
int lore_wire_status(lore_status status); /* HTTP status of a failure */
/* "c_<row>", how the outside names a chunk. */
void lore_wire_page(lore_json_writer *w, const lore_chunk *chunk, size_t offset);
lore_str lore_wire_chunk_id(int64_t row, lore_arena *arena);

#endif
