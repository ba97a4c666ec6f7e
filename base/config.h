/* Configuration: every switch and every bound of the system, in one place, with unit, default and
 * reason.
 *
 * One X-macro table per struct in config.c drives defaults, the JSON file, LORE_* variables, flags
 * and `lore config --explain`; a field that is not in the table does not exist. Built once at
 * start, const afterwards, passed by pointer, never global. Precedence: flag, environment, file,
 * default. */
#ifndef LORE_BASE_CONFIG_H
#define LORE_BASE_CONFIG_H

#include "base/log.h"
#include "base/str.h"

#define LORE_VERSION "0.1.0"

/* Bounds. At a limit the input is refused with an error that names the limit; nothing is cut
 * silently. */
typedef struct lore_limits {
    /* HTTP */
    int64_t body_bytes_max;         /* 16 MiB: one request body */
    int64_t header_bytes_max;       /* 32 KiB: request line and headers of one connection */
    int64_t connections_max;        /* 256: threads of the HTTP server */
    int64_t connections_per_ip_max; /* 64: from one IPv4 address or IPv6 /64, loopback included */
    int64_t idle_timeout_ms;        /* 30,000: a connection that sends nothing */
    int64_t request_timeout_ms;     /* 120,000: one request, arrival to last byte */
    int64_t drain_timeout_ms;       /* 20,000: open requests after SIGTERM */
    int64_t json_depth_max;         /* 32 */
    /* queries */
    int64_t question_bytes_max;   /* 8,192 */
    int64_t history_messages_max; /* 32 */
    int64_t history_bytes_max;    /* 65,536 in all */
    int64_t top_k_max;            /* 50 passages */
    int64_t stop_strings_max;     /* 8 */
    int64_t stop_bytes_max;       /* 256 each */
    int64_t filter_nodes_max;     /* 64 */
    int64_t variables_max;        /* 64 prompt variables */
    int64_t arena_bytes_max;      /* 64 MiB: memory of one request or one document */
    /* documents */
    int64_t file_bytes_max;        /* 64 MiB: one source file */
    int64_t document_bytes_max;    /* 32 MiB of cleaned text */
    int64_t document_chunks_max;   /* 65,536 */
    int64_t metadata_bytes_max;    /* 65,536 of JSON per document */
    int64_t id_bytes_max;          /* 512: document ids, collection names 128 */
    int64_t jsonl_line_bytes_max;  /* 32 MiB */
    int64_t markup_depth_max;      /* 256: nesting of HTML and XML elements */
    int64_t archive_depth_max;     /* 4: archives and messages inside one another */
    int64_t unpacked_bytes_max;    /* 256 MiB: all that one packed file or archive unpacks to */
    int64_t pdf_ms_max;            /* 4,000 of pdftotext for each started MiB of a file */
    int64_t pdf_memory_bytes_max;  /* 480 MiB of address space of pdftotext */
    int64_t fetch_timeout_ms;      /* 120,000: one request to the web */
    int64_t fetch_redirects_max;   /* 5: from a URL to its page */
    int64_t fetch_pages_max;       /* 50,000: URLs of one sitemap, and of one run */
    int64_t fetch_connections_max; /* 8: requests at one time */
    int64_t folder_depth_max;      /* 32 */
    int64_t folder_entries_max;    /* 1,000,000 */
    /* search */
    int64_t candidates_max;        /* 200 per retriever */
    int64_t query_terms_max;       /* 128 full-text terms of one question */
    int64_t row_budget;            /* 30,000 rows that one full-text query may touch */
    int64_t row_budget_min_chunks; /* 20,000: below this collection size no term is dropped */
    /* generation */
    int64_t batch_sequences_max; /* decoding together; 0: 32, on a GPU 128 */
    int64_t step_tokens_max;     /* rows in one step; 0: 512, on a GPU 1,024 */
    int64_t step_ms_max;         /* 30: of a step while answers run; prompts come in such pieces */
    int64_t queue_requests_max;  /* 256 waiting for the engine; beyond: 429 */
    int64_t answer_tokens_max;   /* 1,024: upper bound of max_tokens */
    int64_t prompt_tokens_max;   /* 8,192, or the model's context if smaller */
    int64_t kv_bytes_max;        /* key/value pages; 0: 512 MiB, on a GPU what has room */
    int64_t
        kv_cached_bytes_max; /* of these for prompts that begin alike; 0: 64 MiB, on a GPU all */
    int64_t vram_bytes_max;  /* of a GPU for the decoder; 0: see models/decoder_pages.c */
    /* models */
    int64_t model_file_bytes_max;   /* 64 GiB */
    int64_t model_header_bytes_max; /* 64 MiB: safetensors header */
    int64_t model_json_bytes_max;   /* 64 MiB: config.json, tokenizer.json */
    int64_t adapter_file_bytes_max; /* 8 GiB: read whole, so that a change of it harms nobody */
    int64_t adapter_rank_max;       /* 512 */
    int64_t adapters_max;           /* 4,096 names; 0: adapters are off */
    int64_t adapter_bytes_max;      /* in the decoder's memory; 0: 1 GiB, of a GPU a sixteenth */
    int64_t adapter_host_bytes_max; /* of host memory, to be there sooner again; 0: 256 MiB, 4 GiB
                                       where the decoder is on a GPU */
    int64_t encoder_tokens_max;     /* 8,192 of one text; longer ones are cut as at the model's own
                                       maximum */
} lore_limits;

typedef struct lore_config {
    lore_limits limits;
    char data[1024];     /* folder; --data, LORE_DATA, default ./lore-data */
    char device[32];     /* auto (a GPU where one can be used, else cpu), ref, cpu, cuda, cuda:N */
    char precision[8];   /* auto, f32, bf16, int8: matmul on the CPU */
    char kv_dtype[8];    /* auto, f32, bf16 */
    char encoder[1024];  /* model folder; default weights/encoder beside the binary or its install
                            prefix */
    char reranker[1024]; /* model folder of a cross-encoder; default "none" */
    char decoder[1024]; /* model folder; default weights/decoder; "none": extractive answers only */
    char chat_template[1024];   /* auto, a built-in one, or a file; see generation/template.h */
    char adapters[4096];        /* "none", or NAME=FOLDER and folders of adapters, with commas */
    char adapters_pinned[1024]; /* "none", or names with commas */
    char prompts[1024];         /* folder of prompt templates; default prompts/ found likewise */
    char listen[128];           /* 127.0.0.1:8080 */
    char log_level[8];          /* warn */
    int64_t threads;            /* 0: all cores this process may use */
    /* ingest */
    char json_map[1024];             /* "none", or parts of documents in JSON: ingest/source.h */
    int64_t chunk_tokens;            /* 200: target length of a chunk */
    int64_t chunk_overlap_sentences; /* 1 */
    bool fetch_private_addresses;    /* URLs may lead to private, loopback, link-local addresses */
    int64_t commit_documents;        /* 32 documents in one transaction at most ... */
    int64_t commit_ms;               /* 500: ... or what arrived in this time */
    /* request log (log.db) */
    int64_t request_log_rows;   /* 1,000,000 requests kept; 0: none, and no usage either */
    bool request_log_questions; /* false: what was asked is not kept */
    /* search */
    int64_t top_k;           /* 5 */
    double fusion_weight;    /* .3: share of the dense score; the rest is lexical; a collection may
                                hold its own */
    double expansion;        /* 0: share of terms of the best passages in a second full-text search;
                                a collection may hold its own */
    bool fusion_rrf;         /* false: reciprocal rank fusion instead */
    int64_t rerank_pairs;    /* 20 passages that the reranker reads for one query, at most 50 */
    int64_t rerank_ms;       /* 300: a query that would wait longer keeps its passages as found */
    int64_t ann_min_vectors; /* 200,000: above this FAISS sorts the vectors into lists, in the
                                background, and searches read those near the question */
    /* answers */
    double refuse_below;   /* evidence score under which nothing supports an answer */
    bool guard;            /* true: hold each sentence of the decoder against the evidence */
    double guard_ratio;    /* an answer sentence must score this share of the best evidence */
    double extract_ratio;  /* a second sentence joins an extractive answer when it scores this share
                              of the first */
    int64_t evidence_hits; /* 6 passages whose sentences are ranked */
    int64_t evidence_passages;  /* 3 passages in the prompt */
    int64_t evidence_sentences; /* 3 sentences of each */
    int64_t max_tokens;         /* 256: default answer length */
} lore_config;

void lore_config_default(lore_config *config);
/* Put in place of the zeros what suits the decoder's device. */
void lore_limits_settle(lore_limits *limits, bool is_gpu);
/* Read a JSON file over config. Unknown keys and wrong types are errors that name the key and leave
 * config unchanged. */
LORE_MUST_USE lore_status lore_config_load(lore_config *config, const char *path, lore_error *err);
/* The same from a file's bytes; `name` is for messages. */
LORE_MUST_USE lore_status lore_config_parse(lore_config *config, lore_str json, const char *name,
                                            lore_error *err);
/* Apply every LORE_<KEY> environment variable (key upper case, limits as LORE_LIMITS_<KEY>). */
LORE_MUST_USE lore_status lore_config_environment(lore_config *config, lore_error *err);
/* Set one key from text: "top_k", "limits.body_bytes_max". */
LORE_MUST_USE lore_status lore_config_set(lore_config *config, lore_str key, lore_str value,
                                          lore_error *err);
/* Check the relations between values ("top_k must not be more than limits.top_k_max"): once, when
 * all sources have been applied. */
LORE_MUST_USE lore_status lore_config_check(const lore_config *config, lore_error *err);
/* Append every key with value, default, and one sentence (explain) or as one JSON object (not
 * explain). */
void lore_config_print(const lore_config *config, bool explain, lore_buf *out);

#endif
