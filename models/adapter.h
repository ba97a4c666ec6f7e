/* Adapters: low-rank changes of a decoder's linear layers (LoRA, Hu et al., ICLR 2022), read from
 * folders as PEFT writes them.
 *
 * y += scale * (x A^T) B^T at each adapted matrix. A folder (docs/formats.md, section 7) is held
 * against the decoder it is for before anything of it can be used: what would not be computed
 * exactly as PEFT computes it is refused by name, and the decoder never learns of it. An open
 * adapter is const: any number of threads may read it; it needs neither file nor decoder. */
#ifndef LORE_MODELS_ADAPTER_H
#define LORE_MODELS_ADAPTER_H

#include "models/decoder.h"

typedef struct lore_adapter lore_adapter;

typedef struct lore_adapter_info {
    int32_t modules;  /* matrices that it changes */
    int32_t rank_max; /* of any of them */
    size_t size_bytes;
} lore_adapter_info;

/* Read the folder for this decoder, of which only the configuration is looked at. dtype: what its
 * values are kept in, LORE_F32 or LORE_BF16. The messages of LORE_ERR_CORRUPT (damaged, or made for
 * another model), LORE_ERR_UNSUPPORTED and LORE_ERR_LIMIT name the file and the tensor or the
 * field; LORE_ERR_NOT_FOUND, LORE_ERR_IO, LORE_ERR_NOMEM. Close with lore_adapter_close. */
LORE_MUST_USE lore_status lore_adapter_open(const char *folder, const lore_decoder *base,
                                            lore_dtype dtype, const lore_limits *limits,
                                            lore_adapter **adapter, lore_error *err);
void lore_adapter_close(lore_adapter *adapter);
lore_adapter_info lore_adapter_get_info(const lore_adapter *adapter);

#endif
