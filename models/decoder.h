/* The decoder: Llama, Mistral, Qwen2, Qwen3, Phi-3 and Gemma 2, run for a mixed batch, one step at
 * a time.
 *
 * A step is any mix of prompt pieces and single decoding rows of many sequences. lore_step says
 * which tokens sit where; the scheduler (generation/) fills it, this floor runs it and reads it
 * nowhere else. Keys and values live in pages that the decoder owns and the scheduler numbers.
 * Steps may be submitted before those before them are collected: a device then never waits for the
 * host. Nothing is allocated in a step, but for what a device records. Thread: the engine's
 * alone. */
#ifndef LORE_MODELS_DECODER_H
#define LORE_MODELS_DECODER_H

#include "models/tokenizer.h"
#include "models/weights.h"

typedef struct lore_decoder lore_decoder;
typedef struct lore_adapter lore_adapter; /* adapter.h */
typedef struct lore_adapter_placed lore_adapter_placed;

typedef struct lore_decoder_options {
    int32_t rows_max;      /* rows of one step; 0: limits.step_tokens_max */
    int32_t sequences_max; /* sequences (and rows that want logits) of one step; 0:
                              limits.batch_sequences_max */
    int32_t page_tokens;   /* 0: 32 */
    int32_t page_count;    /* 0: as many as limits.kv_bytes_max, or a GPU's memory within
                              limits.vram_bytes_max, allows */
    lore_dtype kv_dtype;   /* LORE_F32 or LORE_BF16 */
    int32_t adapter_slots; /* adapters that steps can choose from; 0: none, and nothing is paid */
    int64_t adapter_bytes; /* of a GPU's memory that pages leave to placed adapters */
} lore_decoder_options;

/* In lore_step.ids: the id that draw k of the step submitted just before will give; the host does
 * not know it yet. Only where info.steps_in_flight is above 1. */
#define LORE_ID_DRAWN(k) (-1 - (k))

/* One step. All arrays are host memory, borrowed for the call. */
typedef struct lore_step {
    const int32_t *ids;         /* [batch.rows], in the vocabulary or LORE_ID_DRAWN */
    lore_batch batch;           /* host arrays; the decoder uploads them */
    const int32_t *logits_rows; /* [logits_count] batch rows whose next token is drawn */
    const lore_sample *samples; /* [logits_count] */
    int32_t logits_count;
    const lore_penalty *penalties; /* [logits_count], of ids that are known; NULL: none */
    lore_likely *tops; /* out, [logits_count, LORE_TOPS_MAX] as lore_op_tops; NULL: none wanted */
    /* [batch.sequences] tokens of each text, those of later steps and the one that is being drawn
     * too: longrope rotates by it; NULL: past + rows */
    const int32_t *lengths;
    /* [batch.sequences] the slot whose adapter changes this sequence, or -1: the base's own; NULL:
     * all -1, which costs nothing */
    const int32_t *adapters;
} lore_step;

enum { LORE_EOS_MAX = 8 };
#define LORE_PENALTY_MIN 0.01 /* repetition_penalty, whoever says it: logits stay finite */
#define LORE_PENALTY_MAX 100.0

/* How the model's authors draw tokens (generation_config.json). do_sample and temperature are for
 * people to read: without a temperature of its own a request is greedy. */
typedef struct lore_generation_defaults {
    bool is_sampled;          /* do_sample */
    float temperature;        /* 1 */
    float top_p;              /* 1: off */
    int32_t top_k;            /* 50, as in transformers; 0: off */
    float repetition_penalty; /* 1: off */
} lore_generation_defaults;

typedef struct lore_decoder_info {
    int32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
    int32_t page_tokens, page_count;
    int64_t kv_bytes;  /* of all pages */
    bool kv_on_device; /* they lie in a GPU's memory, not in this machine's */
    int64_t parameters;
    int64_t weight_bytes; /* that a step with logits reads: packed layers and head */
    int32_t eos_ids[LORE_EOS_MAX];
    int32_t eos_count;
    int32_t bos_id;          /* -1: none */
    int32_t steps_in_flight; /* steps that may be submitted and not collected; 1 on ref and cpu */
    int32_t turn_tokens; /* a text that grows beyond so many tokens is rotated otherwise from its
                            first one on: computed anew (longrope); 0: none */
    lore_generation_defaults generation;
    int32_t adapter_slots;    /* as asked for */
    int32_t step_shapes;      /* grows where a seated adapter gives steps shapes they had not */
    lore_dtype adapter_dtype; /* what adapters have to be opened in (lore_adapter_open) */
    bool needs_guard; /* the model's card asks for the strict support guard (lore.json in the
                         folder) */
    const char *name; /* served name: lore.json "name", else the folder's last part */
    const char *architecture; /* model_type */
} lore_decoder_info;

LORE_MUST_USE lore_status lore_decoder_open(const char *folder, lore_backend *backend,
                                            const lore_limits *limits,
                                            const lore_decoder_options *options,
                                            lore_decoder **decoder, lore_error *err);
void lore_decoder_close(lore_decoder *decoder);
const lore_decoder_info *lore_decoder_get_info(const lore_decoder *decoder);
const lore_tokenizer *lore_decoder_tokenizer(const lore_decoder *decoder);

/* At most so many steps may be submitted and not yet collected, on any backend. */
enum { LORE_STEPS_MAX = 2 };

/* Begin a step behind those submitted before it: keys and values of all rows are written, a token
 * is drawn for each of logits_rows. ref and cpu do all of it before they return. The step's arrays
 * may be reused on return, but for tops, which is lent until the step is collected. Contract on
 * step: ids in the vocabulary or drawn by the step before, positions below context, pages in range
 * (asserted). LORE_ERR_DEVICE, LORE_ERR_NOMEM: the step is not to be collected, those before it
 * are. */
LORE_MUST_USE lore_status lore_decoder_submit(lore_decoder *decoder, const lore_step *step,
                                              lore_error *err);
/* Wait for the oldest step not collected: ids[i] and logprobs[i] are the draw of its
 * logits_rows[i]. LORE_ERR_DEVICE: it has failed, and with it whatever builds on it. */
LORE_MUST_USE lore_status lore_decoder_collect(lore_decoder *decoder, int32_t *ids, float *logprobs,
                                               lore_error *err);
/* Submit and collect, where no other step is on its way. logits, where not NULL, receives the f32
 * rows [logits_count, vocab] (tests, perplexity). */
LORE_MUST_USE lore_status lore_decoder_step(lore_decoder *decoder, const lore_step *step,
                                            int32_t *ids, float *logprobs, float *logits,
                                            lore_error *err);
/* ---- adapters ----
 * An adapter is placed (its values are copied to where the decoder's products read them), then
 * seated in a slot, which a step names. A step keeps to the adapters that the slots had when it was
 * submitted: seating never waits for steps, nor do they notice. */

/* Bytes of backend memory that an adapter takes once it is placed. */
size_t lore_decoder_adapter_bytes(const lore_decoder *decoder, const lore_adapter *adapter);
/* Copy an adapter, opened in info.adapter_dtype for this decoder, which has slots. All is copied on
 * return: the adapter may be closed. Thread: any, beside steps, which do not wait for it; of
 * several threads one at a time. LORE_ERR_NOMEM: the backend has no room for it, LORE_ERR_DEVICE;
 * then nothing is taken. */
LORE_MUST_USE lore_status lore_decoder_adapter_place(lore_decoder *decoder,
                                                     const lore_adapter *adapter,
                                                     lore_adapter_placed **placed, lore_error *err);
/* From the next submitted step on, slot 0 .. adapter_slots - 1 is this adapter; NULL: it is empty,
 * and steps do not name it. Thread: that of steps. */
void lore_decoder_adapter_seat(lore_decoder *decoder, int32_t slot,
                               const lore_adapter_placed *placed);
/* Give its memory back, once no slot has it and every step that named it is collected; before
 * lore_decoder_close. NULL: nothing. Thread: any, as place. */
void lore_decoder_adapter_unplace(lore_decoder *decoder, lore_adapter_placed *placed);

/* For when there is nothing else to do and no step is on its way: run, and with the next call
 * record, one more of the shapes that steps of single rows run in, some milliseconds of a device
 * each. *is_done: there is none left, as always on ref and cpu. Fails as submit does. */
LORE_MUST_USE lore_status lore_decoder_prepare(lore_decoder *decoder, bool *is_done,
                                               lore_error *err);

#endif
