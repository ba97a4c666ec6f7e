/* A regular expression on its way: parsed to a tree (regex_parse.c), written as a program
 * (regex_compile.c), run (regex.c).
 *
 * A program in the manner of Thompson and Pike; const once compiled. No instruction looks back. */
#ifndef LORE_MODELS_REGEX_PROGRAM_INT_H
#define LORE_MODELS_REGEX_PROGRAM_INT_H

#include "models/regex_int.h"

enum { LORE_REGEX_COUNT_MAX = 1000 }; /* of {n,m} */

typedef enum lore_regex_op {
    LORE_REGEX_SET, /* one character of sets[set] */
    LORE_REGEX_RUN, /* first .. second (-1: any number of) characters of sets[set], as many as there
                       are */
    LORE_REGEX_AHEAD, /* a character of sets[set] follows; or, with is_negative, none does */
    LORE_REGEX_SPLIT, /* try `first`, then `second` */
    LORE_REGEX_JUMP,  /* to `first` */
    LORE_REGEX_LINE_START,
    LORE_REGEX_LINE_END,
    LORE_REGEX_TEXT_START,
    LORE_REGEX_TEXT_END,
    LORE_REGEX_MATCH
} lore_regex_op;

typedef struct lore_regex_step {
    lore_regex_op op;
    bool is_negative;
    int32_t set; /* of a SPLIT: which bit marks it */
    int32_t first, second;
    int32_t run; /* of a RUN without bound: its place in search->runs */
} lore_regex_step;

typedef struct lore_regex_range {
    int32_t low, high;
    struct lore_regex_range *next; /* while the pattern is parsed */
} lore_regex_range;

/* What a set may hold beside ranges: classes[0], or what is not in them: classes[1]. */
typedef enum lore_regex_class {
    LORE_REGEX_CLASS_SPACE = 1,
    LORE_REGEX_CLASS_WORD = 2
} lore_regex_class;

typedef struct lore_regex_set {
    uint64_t ascii[2]; /* the answer for code points below 128 */
    bool is_negative;
    int32_t range_count;
    lore_regex_range *ranges; /* [range_count], ascending and apart */
    uint32_t categories;      /* bit for each of LORE_UTF8_CATEGORIES */
    uint32_t classes[2];
} lore_regex_set;

typedef enum lore_regex_node_kind {
    LORE_REGEX_NODE_EMPTY,
    LORE_REGEX_NODE_LEAF,
    LORE_REGEX_NODE_CHAIN,
    LORE_REGEX_NODE_CHOICE,
    LORE_REGEX_NODE_REPEAT
} lore_regex_node_kind;

typedef struct lore_regex_node lore_regex_node;
struct lore_regex_node {
    lore_regex_node_kind kind;
    lore_regex_step leaf;
    int32_t low, high; /* repeat; high -1: no bound */
    bool is_lazy, is_possessive;
    lore_regex_node *left, *right; /* chain and choice; a repeat's operand is left */
};

typedef struct lore_regex_tree {
    const lore_regex_node *root;
    const lore_regex_set *sets;
} lore_regex_tree;

struct lore_regex {
    const lore_regex_step *program;
    const lore_regex_set *sets;
    int32_t splits, runs;
    bool may_be_empty;
    lore_str pattern;
    bool starts[256]; /* a match may start with this byte */
};

LORE_MUST_USE lore_status lore_regex_parse(lore_str pattern, lore_arena *arena,
                                           lore_regex_tree *tree, lore_error *err);
/* A leaf of one set. */
bool lore_regex_is_one_set(const lore_regex_node *n);
/* Whether the set holds the code point; its `ascii` says so faster below 128. */
bool lore_regex_set_holds(const lore_regex_set *set, int32_t c);

#endif
