/* Text to unit vectors: tokenise, pack, forward through an encoder, pool, normalise; from a
 * sentence-transformers folder.
 *
 * Reads config.json, the tokenizer, modules.json and the folders it names, and where they are there
 * sentence_bert_config.json, tokenizer_config.json, config_sentence_transformers.json (prompts) and
 * lore.json; the weights. Nothing of the folder is assumed: unsupported modules or settings are
 * errors that name file and field. Texts longer than the model's maximum, or
 * limits.encoder_tokens_max, are cut at it, as the model was trained, and counted. Thread: any;
 * callers that wait at the same time travel in one pack. Questions and documents differ in what the
 * model wants put before them, and in who waits: what somebody waits for goes before all other work
 * of the pool, what an ingest asks for comes after it. */
#ifndef LORE_MODELS_EMBEDDER_H
#define LORE_MODELS_EMBEDDER_H

#include "models/tokenizer.h"
#include "models/weights.h"

typedef struct lore_embedder lore_embedder;

/* backend is borrowed until close. */
LORE_MUST_USE lore_status lore_embedder_open(const char *folder, lore_backend *backend,
                                             const lore_limits *limits, lore_embedder **embedder,
                                             lore_error *err);
void lore_embedder_close(lore_embedder *embedder);
/* Where to go on for good, with one line in the log, when the embedder's backend has failed with
 * LORE_ERR_DEVICE: what failed is encoded again there. Borrowed until close; before the first
 * text. */
void lore_embedder_stand_by(lore_embedder *embedder, lore_backend *backend);
int32_t lore_embedder_dim(const lore_embedder *embedder);
int32_t lore_embedder_tokens_max(
    const lore_embedder *embedder); /* of one text, special tokens included */
const lore_tokenizer *lore_embedder_tokenizer(const lore_embedder *embedder);
/* Name for people ("encoder"), and the identity stored beside every vector: hash of weights,
 * tokenizer and all settings that change the vector of a document. Borrowed. */
const char *lore_embedder_name(const lore_embedder *embedder);
const char *lore_embedder_fingerprint(const lore_embedder *embedder);
int64_t lore_embedder_parameters(const lore_embedder *embedder);
/* How many packs were computed, and how many texts were longer than tokens_max and cut, since
 * opening. */
int64_t lore_embedder_pack_count(const lore_embedder *embedder);
int64_t lore_embedder_cut_count(const lore_embedder *embedder);

/* How many calls of lore_embedder_encode_bulk at a time keep the encoder busy, and of how many
 * texts each at least: one on a processor; on a device two, where one is computed while the other
 * is put together. One call of many more texts does nearly as well. */
int32_t lore_embedder_bulk_calls(const lore_embedder *embedder);
int32_t lore_embedder_bulk_texts(const lore_embedder *embedder);

/* vectors: f32 [count, dim], caller's. Any count; texts are sorted by length inside and packed into
 * batches of at most a fixed number of tokens. Empty texts are legal. A failed pack fails all who
 * have a text in it. LORE_ERR_NOMEM, LORE_ERR_DEVICE.
 *
 * _encode: questions. _encode_passages: text of documents that somebody waits for. _encode_bulk:
 * the same for an ingest. */
LORE_MUST_USE lore_status lore_embedder_encode(lore_embedder *embedder, const lore_str *texts,
                                               int32_t count, float *vectors, lore_error *err);
LORE_MUST_USE lore_status lore_embedder_encode_passages(lore_embedder *embedder,
                                                        const lore_str *texts, int32_t count,
                                                        float *vectors, lore_error *err);
LORE_MUST_USE lore_status lore_embedder_encode_bulk(lore_embedder *embedder, const lore_str *texts,
                                                    int32_t count, float *vectors, lore_error *err);

#endif
