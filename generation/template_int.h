/* The template language inside: what the lexer, the parser and the interpreter hand to each other.
 *
 * template_lex.c cuts the source into lexemes, template_parse.c (statements) and template_expr.c
 * and template_operand.c (expressions) make nodes of them, template_run.c runs statements,
 * template_eval.c evaluates expressions over the values of template_value.c, whose texts
 * (template_text.c) remember which of their bytes the template wrote itself. template_filter.c and
 * template_method.c hold the words of the language as tables; the parser looks words up in them, so
 * that an unknown one is refused when the template is loaded. Nodes are const after parsing; values
 * belong to one run. */
#ifndef LORE_GENERATION_TEMPLATE_INT_H
#define LORE_GENERATION_TEMPLATE_INT_H

#include "generation/template.h"

enum {
    LORE_JINJA_SOURCE_MAX = 256 * 1024,    /* bytes; the longest known has 20 KiB */
    LORE_JINJA_NESTING_MAX = 100,          /* of brackets and blocks */
    LORE_JINJA_DEPTH_MAX = 250,            /* of the tree: chains like a + b + c count too */
    LORE_JINJA_VALUE_DEPTH_MAX = 32,       /* of lists in lists */
    LORE_JINJA_INDENT_MAX = 8,             /* of JSON */
    LORE_JINJA_ARGUMENTS_MAX = 4,          /* of a filter, test or call, its subject included */
    LORE_JINJA_STEPS = 100000,             /* of a run: nodes, list items, ... */
    LORE_JINJA_STEPS_MESSAGE = 1000,       /* ... and so many more for each message */
    LORE_JINJA_STEP_BYTES = 64,            /* bytes of text that count as a step */
    LORE_JINJA_STEP_NAMES = 16,            /* names looked through, likewise */
    LORE_JINJA_READINGS = 64,              /* of each content that a run may make besides */
    LORE_JINJA_RUN_BYTES_MAX = 128 << 20,  /* memory of a run: all values, no value is freed */
    LORE_JINJA_OUTPUT_BYTES_MAX = 16 << 20 /* beyond any context */
};

/* ---- values ---- */

/* Text and, for each byte, whether it is foreign: from a message, not from the template. Such bytes
 * never become a special token. foreign NULL: none is. */
typedef struct lore_jinja_text {
    const char *ptr;
    const uint8_t *foreign;
    size_t len;
} lore_jinja_text;

typedef enum lore_jinja_value_kind {
    LORE_JINJA_VALUE_UNDEFINED,
    LORE_JINJA_VALUE_NONE,
    LORE_JINJA_VALUE_BOOL,
    LORE_JINJA_VALUE_INT,
    LORE_JINJA_VALUE_TEXT,
    LORE_JINJA_VALUE_LIST,
    LORE_JINJA_VALUE_MAP,
    LORE_JINJA_VALUE_NAMESPACE, /* a map that can be changed, equal only to itself */
    LORE_JINJA_VALUE_LOOP,
    LORE_JINJA_VALUE_FUNCTION
} lore_jinja_value_kind;

typedef struct lore_jinja_value lore_jinja_value;
typedef struct lore_jinja_entry lore_jinja_entry;

enum { LORE_JINJA_NAMES_MAX = 256 }; /* of a map: it is looked through from its beginning */

typedef struct lore_jinja_map {
    lore_jinja_entry *first, *last; /* in the order in which they were put */
    int32_t count;
} lore_jinja_map;

typedef struct lore_jinja_loop {
    const lore_jinja_value *items;
    int32_t index, count;
} lore_jinja_loop;

struct lore_jinja_value {
    lore_jinja_value_kind kind;
    int32_t count; /* LIST */
    union {
        int64_t number; /* INT; BOOL: 0 or 1 */
        lore_jinja_text text;
        const lore_jinja_value *items; /* LIST */
        lore_jinja_map *map;           /* MAP, NAMESPACE */
        const lore_jinja_loop *loop;
    } as;
};

struct lore_jinja_entry {
    lore_str key;
    lore_jinja_value value;
    lore_jinja_entry *next;
};

/* ---- lexemes ---- */

typedef enum lore_jinja_lexeme_kind {
    LORE_JINJA_LEXEME_END,
    LORE_JINJA_LEXEME_TEXT,         /* between tags, white space control applied; may be empty */
    LORE_JINJA_LEXEME_BLOCK_BEGIN,  /* {% */
    LORE_JINJA_LEXEME_BLOCK_END,    /* %} */
    LORE_JINJA_LEXEME_OUTPUT_BEGIN, /* {{ */
    LORE_JINJA_LEXEME_OUTPUT_END,   /* }} */
    LORE_JINJA_LEXEME_NAME,
    LORE_JINJA_LEXEME_INTEGER,
    LORE_JINJA_LEXEME_STRING,  /* escapes replaced */
    LORE_JINJA_LEXEME_OPERATOR /* ( ) [ ] , . : | = == != < <= > >= + - * // % ~ */
} lore_jinja_lexeme_kind;

typedef struct lore_jinja_lexeme {
    lore_jinja_lexeme_kind kind;
    lore_str text;
    int64_t number;
    int32_t line;
} lore_jinja_lexeme;

typedef struct lore_jinja_lexer {
    lore_arena *arena; /* of strings */
    const char *name;  /* for messages */
    lore_str source;
    size_t at;
    int32_t line;
    bool is_in_tag;
    bool is_line_start; /* the last tag took its line's end with it, or nothing came yet */
    lore_error *err;
} lore_jinja_lexer;

/* Copies source (UTF-8) into the arena. */
LORE_MUST_USE lore_status lore_jinja_lexer_init(lore_jinja_lexer *lexer, lore_str source,
                                                const char *name, lore_arena *arena,
                                                lore_error *err);
LORE_MUST_USE lore_status lore_jinja_lexer_next(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme);

/* ---- nodes ---- */

typedef enum lore_jinja_node_kind {
    LORE_JINJA_NODE_TEXT,      /* value */
    LORE_JINJA_NODE_OUTPUT,    /* first */
    LORE_JINJA_NODE_SET,       /* name (and attribute) = first */
    LORE_JINJA_NODE_IF,        /* first: condition, second: body, third: what else */
    LORE_JINJA_NODE_FOR,       /* name (and attribute: the second of a pair) in first, second: body,
                            third:       condition */
    LORE_JINJA_NODE_CONSTANT,  /* value */
    LORE_JINJA_NODE_NAME,      /* name */
    LORE_JINJA_NODE_LIST,      /* arguments */
    LORE_JINJA_NODE_NOT,       /* first */
    LORE_JINJA_NODE_NEGATE,    /* first */
    LORE_JINJA_NODE_AND,       /* first, second */
    LORE_JINJA_NODE_OR,        /* first, second */
    LORE_JINJA_NODE_CHOICE,    /* second if first else third (or NULL) */
    LORE_JINJA_NODE_BINARY,    /* first op second */
    LORE_JINJA_NODE_ATTRIBUTE, /* first . name */
    LORE_JINJA_NODE_INDEX,     /* first [ second ] */
    LORE_JINJA_NODE_SLICE, /* first [ arguments: start, end, step; each may be a constant none ] */
    LORE_JINJA_NODE_WORD   /* a filter, test, method or function: word, arguments */
} lore_jinja_node_kind;

typedef enum lore_jinja_operator {
    LORE_JINJA_OPERATOR_ADD,
    LORE_JINJA_OPERATOR_SUBTRACT,
    LORE_JINJA_OPERATOR_MULTIPLY,
    LORE_JINJA_OPERATOR_DIVIDE, /* // */
    LORE_JINJA_OPERATOR_MODULO,
    LORE_JINJA_OPERATOR_JOIN, /* ~ */
    LORE_JINJA_OPERATOR_EQUAL,
    LORE_JINJA_OPERATOR_UNEQUAL,
    LORE_JINJA_OPERATOR_LESS,
    LORE_JINJA_OPERATOR_LESS_EQUAL,
    LORE_JINJA_OPERATOR_GREATER,
    LORE_JINJA_OPERATOR_GREATER_EQUAL,
    LORE_JINJA_OPERATOR_IN
} lore_jinja_operator;

typedef struct lore_jinja_word lore_jinja_word;
typedef struct lore_jinja_node lore_jinja_node;
struct lore_jinja_node {
    lore_jinja_node_kind kind;
    lore_jinja_operator op;
    int32_t line, depth;
    lore_str name, attribute;
    lore_str keyword; /* of an argument that is given by name */
    lore_jinja_value value;
    const lore_jinja_word *word, *test; /* test: that select, selectattr, ... apply */
    const lore_jinja_node *first, *second, *third;
    const lore_jinja_node *arguments; /* linked by next */
    const lore_jinja_node *next;      /* the following statement or argument */
};

/* ---- the parser ---- */

typedef struct lore_jinja_parser {
    lore_jinja_lexer lexer;
    lore_jinja_lexeme current, next;
    lore_arena *arena;
    int32_t nesting;
    lore_error *err;
} lore_jinja_parser;

/* Statements of the whole source, or NULL for an empty one, in *body. */
LORE_MUST_USE lore_status lore_jinja_parse_source(lore_str source, const char *name,
                                                  lore_arena *arena, const lore_jinja_node **body,
                                                  lore_error *err);
/* A construct that Jinja has and this language has not, or a mistake: with file and line. */
lore_status lore_jinja_fail(lore_jinja_parser *p, lore_status status, const char *format, ...)
    LORE_PRINTF(3, 4);
LORE_MUST_USE lore_status lore_jinja_advance(lore_jinja_parser *p);
LORE_MUST_USE lore_status lore_jinja_enter(lore_jinja_parser *p); /* one nesting deeper */
void lore_jinja_leave(lore_jinja_parser *p);
bool lore_jinja_at(const lore_jinja_parser *p, lore_jinja_lexeme_kind kind, const char *text);
LORE_MUST_USE lore_status lore_jinja_expect(lore_jinja_parser *p, lore_jinja_lexeme_kind kind,
                                            const char *text);
lore_jinja_node *lore_jinja_node_new(lore_jinja_parser *p,
                                     lore_jinja_node_kind kind); /* NULL: no memory */
LORE_MUST_USE lore_status lore_jinja_node_over(lore_jinja_parser *p, lore_jinja_node_kind kind,
                                               const lore_jinja_node *first, lore_jinja_node **out);
lore_status lore_jinja_no_memory(lore_jinja_parser *p);
/* When the children are in place: the depth of the tree below. */
LORE_MUST_USE lore_status lore_jinja_close_node(lore_jinja_parser *p, lore_jinja_node *node);
LORE_MUST_USE lore_status lore_jinja_expression(lore_jinja_parser *p, const lore_jinja_node **out);
/* The same without `a if b else c`: what a loop runs over, whose own `if` may follow. */
LORE_MUST_USE lore_status lore_jinja_expression_or(lore_jinja_parser *p,
                                                   const lore_jinja_node **out);
/* An operand with all that is written behind it. */
LORE_MUST_USE lore_status lore_jinja_operand(lore_jinja_parser *p, const lore_jinja_node **out);

/* ---- a run ---- */

typedef struct lore_jinja_scope lore_jinja_scope;
struct lore_jinja_scope {
    lore_jinja_map names;
    lore_jinja_scope *outer;
};

typedef struct lore_jinja_text_builder {
    lore_buf text, foreign;
    bool is_over; /* something was too long to be appended */
} lore_jinja_text_builder;

typedef struct lore_jinja_run {
    const char *name;            /* of the template */
    const lore_jinja_node *node; /* being evaluated: its line is in messages */
    lore_arena arena;
    lore_jinja_scope *scope;
    lore_jinja_text_builder out;
    int64_t steps_left;
    int64_t unix_ms;
    lore_error *err;
} lore_jinja_run;

/* A whole run of a parsed template. steps: LORE_JINJA_STEPS, or fewer where many runs are tried;
 * more come with each message. */
LORE_MUST_USE lore_status lore_jinja_execute(const char *name, const lore_jinja_node *body,
                                             int64_t steps, const lore_template_tokens *tokens,
                                             const lore_template_chat *chat, lore_arena *arena,
                                             lore_template_output *output, lore_error *err);
lore_status lore_jinja_run_fail(lore_jinja_run *run, lore_status status, const char *format, ...)
    LORE_PRINTF(3, 4);
lore_status lore_jinja_run_no_memory(lore_jinja_run *run);
LORE_MUST_USE lore_status lore_jinja_run_spend(lore_jinja_run *run, size_t steps);
LORE_MUST_USE lore_status lore_jinja_run_spend_bytes(lore_jinja_run *run, size_t bytes);
LORE_MUST_USE lore_status lore_jinja_run_eval(lore_jinja_run *run, const lore_jinja_node *node,
                                              lore_jinja_value *out);
LORE_MUST_USE lore_status lore_jinja_run_body(lore_jinja_run *run, const lore_jinja_node *body);
/* Of the innermost scope that has it; a function of the language; or undefined. */
LORE_MUST_USE lore_status lore_jinja_run_find(lore_jinja_run *run, lore_str name,
                                              lore_jinja_value *out);

/* ---- words ---- */

/* arguments[0] is the subject (of a function: none), the rest was given in brackets; those that may
 * be left out and were are undefined, up to LORE_JINJA_ARGUMENTS_MAX. */
typedef lore_status lore_jinja_word_run(lore_jinja_run *run, const lore_jinja_value *arguments,
                                        lore_jinja_value *out);
struct lore_jinja_word {
    const char *name;
    lore_jinja_word_run *run;
    int32_t arguments_min, arguments_max; /* without the subject */
    const char *keyword;                  /* the only argument that may be given by name; it is last
                                             and may only be given so */
    bool takes_test;   /* the last arguments are a test's name and its argument: run is not used */
    bool is_reject;    /* ... and what the test holds for is left out */
    bool by_attribute; /* ... which looks at an attribute, the first argument */
};
/* NULL: there is no such word. */
const lore_jinja_word *lore_jinja_filter(lore_str name);
const lore_jinja_word *lore_jinja_test(lore_str name);
const lore_jinja_word *lore_jinja_method(lore_str name);
const lore_jinja_word *lore_jinja_function(lore_str name);
/* The filter and the method items. */
lore_jinja_word_run lore_jinja_items;
/* namespace(a=1, ...): its arguments are the node's, by name. */
LORE_MUST_USE lore_status lore_jinja_namespace(lore_jinja_run *run, const lore_jinja_node *node,
                                               lore_jinja_value *out);
/* select, reject, selectattr, rejectattr. */
LORE_MUST_USE lore_status lore_jinja_select(lore_jinja_run *run, const lore_jinja_node *node,
                                            const lore_jinja_value *arguments,
                                            lore_jinja_value *out);

/* ---- texts: all in the run's arena ---- */

void lore_jinja_text_builder_init(lore_jinja_text_builder *builder);
void lore_jinja_text_builder_destroy(lore_jinja_text_builder *builder);
void lore_jinja_text_append(lore_jinja_text_builder *builder, lore_jinja_text text);
LORE_MUST_USE lore_status lore_jinja_text_builder_check(lore_jinja_run *run,
                                                        const lore_jinja_text_builder *builder);
LORE_MUST_USE lore_status lore_jinja_text_finish(lore_jinja_run *run,
                                                 lore_jinja_text_builder *builder,
                                                 lore_jinja_value *out); /* destroys the builder */
lore_jinja_text lore_jinja_text_own(lore_str text);                      /* the template's */
lore_jinja_text lore_jinja_text_slice(lore_jinja_text text, size_t start, size_t end);
lore_str lore_jinja_text_str(lore_jinja_text text);
bool lore_jinja_text_is_space(int32_t codepoint); /* as Python's str.isspace */
/* Strip white space, or where `characters` is not NULL, these, at the ends asked for. */
lore_jinja_text lore_jinja_text_strip(lore_jinja_text text, const lore_str *characters,
                                      bool at_start, bool at_end);
LORE_MUST_USE lore_status lore_jinja_text_join(lore_jinja_run *run, lore_jinja_text a,
                                               lore_jinja_text b, lore_jinja_value *out);
LORE_MUST_USE lore_status lore_jinja_text_replace(lore_jinja_run *run, lore_jinja_text text,
                                                  lore_jinja_text old, lore_jinja_text with,
                                                  lore_jinja_value *out);
/* separator.len 0: at white space. */
LORE_MUST_USE lore_status lore_jinja_text_split(lore_jinja_run *run, lore_jinja_text text,
                                                lore_str separator, lore_jinja_value *out);
typedef enum lore_jinja_text_case {
    LORE_JINJA_TEXT_UPPER,
    LORE_JINJA_TEXT_LOWER,
    LORE_JINJA_TEXT_TITLE,
    LORE_JINJA_TEXT_CAPITALIZE
} lore_jinja_text_case;
/* ASCII only; other letters are LORE_ERR_UNSUPPORTED. */
LORE_MUST_USE lore_status lore_jinja_text_recase(lore_jinja_run *run, lore_jinja_text text,
                                                 lore_jinja_text_case to, lore_jinja_value *out);
/* Its characters, as a list of texts. */
LORE_MUST_USE lore_status lore_jinja_text_characters(lore_jinja_run *run, lore_jinja_text text,
                                                     lore_jinja_value *out);

/* ---- values ---- */

lore_jinja_value lore_jinja_value_bool(bool is_true);
lore_jinja_value lore_jinja_value_int(int64_t number);
lore_jinja_value lore_jinja_value_text(lore_jinja_text text);
bool lore_jinja_value_truth(const lore_jinja_value *value);
const char *lore_jinja_value_kind_name(const lore_jinja_value *value);
/* Fails where lists lie too deep, or the run is out of steps. */
LORE_MUST_USE lore_status lore_jinja_value_equal(lore_jinja_run *run, const lore_jinja_value *a,
                                                 const lore_jinja_value *b, bool *is_equal);
const lore_jinja_value *lore_jinja_map_get(const lore_jinja_map *map,
                                           lore_str key); /* NULL: absent */
LORE_MUST_USE lore_status lore_jinja_map_put(lore_jinja_run *run, lore_jinja_map *map, lore_str key,
                                             lore_jinja_value value);
/* What stands for a value in text; lists and maps have no such text here. */
LORE_MUST_USE lore_status lore_jinja_value_print(lore_jinja_run *run, const lore_jinja_value *value,
                                                 lore_jinja_text *out);
/* What a loop runs over: lists as they are, keys of maps, characters of texts. */
LORE_MUST_USE lore_status lore_jinja_value_items(lore_jinja_run *run, const lore_jinja_value *value,
                                                 lore_jinja_value *list);
/* a.name and a['name']; undefined where there is none. */
LORE_MUST_USE lore_status lore_jinja_value_attribute(lore_jinja_run *run,
                                                     const lore_jinja_value *value, lore_str name,
                                                     lore_jinja_value *out);
/* As json.dumps does, ensure_ascii false. indent < 0: on one line. */
LORE_MUST_USE lore_status lore_jinja_value_json(lore_jinja_run *run, const lore_jinja_value *value,
                                                int64_t indent, lore_jinja_value *out);

#endif
