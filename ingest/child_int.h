/* Inside ingest/: a program that reads hostile bytes for us, in a process of its own.
 *
 * It gets the bytes as its standard input and nothing else: no shell, no environment, no network,
 * no further processes, no files to write; memory and processor time are bounded by the kernel,
 * wall time and output by us. When this returns the process and its group are gone. Thread: any;
 * waits for the program. */
#ifndef LORE_INGEST_CHILD_INT_H
#define LORE_INGEST_CHILD_INT_H

#include "ingest/clean.h"

enum { LORE_CHILD_MESSAGE_CAP = 256, LORE_CHILD_ARGUMENTS_MAX = 8 };

typedef struct lore_child_options {
    const char *program;          /* looked for in the absolute folders of PATH */
    const char *const *arguments; /* behind the program's name; NULL ends them */
    lore_str input;
    size_t memory_bytes_max; /* address space */
    size_t output_bytes_max;
    int64_t ms_max; /* wall time, and processor time in whole seconds */
    const lore_interrupt *interrupt;
    /* Gets the output piece by piece; false ends the program and this. */
    bool (*take)(void *self, lore_str piece);
    void *self;
} lore_child_options;

typedef struct lore_child_end {
    int32_t exit_status;                  /* -1: ended by a signal */
    int32_t signal;                       /* 0: it was none */
    bool is_stopped;                      /* take had enough */
    char message[LORE_CHILD_MESSAGE_CAP]; /* the last line it wrote to standard error, printable */
} lore_child_end;

/* LORE_OK says that it ran to its end or as far as take wanted, whatever it made of it: see *end.
 * LORE_ERR_NOT_FOUND: it is not installed. LORE_ERR_LIMIT: time or output, LORE_ERR_CANCELLED,
 * LORE_ERR_NOMEM, LORE_ERR_IO; none of these messages names the document. */
LORE_MUST_USE lore_status lore_child_run(const lore_child_options *options, lore_child_end *end,
                                         lore_error *err);

#endif
