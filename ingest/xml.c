/* XML to events: the fence around expat.
 *
 * The whole part is given to expat at once, so the text of an event lies in the source itself and
 * its offset is a subtraction. Nothing outside is ever read, and a document that declares entities
 * is refused, because only bombs do. */
#include "ingest/package_int.h"

#include <expat.h>
#include <string.h>

enum { STEP_EVENTS = 4096 }; /* between two looks at whether it is still wanted */

typedef struct parse {
    XML_Parser parser;
    lore_str source;
    size_t from;
    const lore_xml_handler *handler;
    const lore_interrupt *interrupt;
    size_t depth, depth_max;
    int32_t events;
    bool is_stopped; /* by the handler, who has enough */
    lore_status failure;
} parse;

static void stop(parse *p, lore_status failure)
{
    p->failure = failure;
    p->is_stopped = true;
    (void)XML_StopParser(p->parser, XML_FALSE); /* fails only where it has ended already */
}

/* False once nothing is to happen any more: expat may still send what it has begun. */
static bool goes_on(parse *p)
{
    const lore_xml_handler *handler = p->handler;
    if (!p->is_stopped && handler->is_full != NULL && handler->is_full(handler->self)) {
        stop(p, LORE_OK);
    }
    if (!p->is_stopped && ++p->events == STEP_EVENTS) {
        p->events = 0;
        if (lore_is_interrupted(p->interrupt)) {
            stop(p, LORE_ERR_CANCELLED);
        }
    }
    return !p->is_stopped;
}

static size_t position(const parse *p)
{
    XML_Index index = XML_GetCurrentByteIndex(p->parser);
    size_t at = p->from + (index < 0 ? 0 : (size_t)index);
    return at < p->source.len ? at : p->source.len;
}

static lore_str local_name(const char *name)
{
    const char *colon = strchr(name, ':');
    return lore_str_from(colon == NULL ? name : colon + 1);
}

static void XMLCALL on_start(void *self, const XML_Char *name, const XML_Char **attributes)
{
    parse *p = self;
    if (!goes_on(p)) {
        return;
    }
    if (++p->depth > p->depth_max) {
        stop(p, LORE_ERR_LIMIT);
        return;
    }
    if (p->handler->start != NULL) {
        p->handler->start(p->handler->self, local_name(name), (const char *const *)attributes,
                          position(p));
    }
}

static void XMLCALL on_end(void *self, const XML_Char *name)
{
    parse *p = self;
    if (goes_on(p)) {
        p->depth--;
        if (p->handler->end != NULL) {
            p->handler->end(p->handler->self, local_name(name), position(p));
        }
    }
}

static void XMLCALL on_text(void *self, const XML_Char *text, int length)
{
    parse *p = self;
    if (!goes_on(p) || p->handler->text == NULL) {
        return;
    }
    uintptr_t at = (uintptr_t)text, begin = (uintptr_t)p->source.ptr;
    bool is_inside = at >= begin && at - begin < p->source.len;
    p->handler->text(p->handler->self, (lore_str){text, (size_t)length},
                     is_inside ? (size_t)(at - begin) : position(p));
}

static void XMLCALL on_entity(void *self, const XML_Char *name, int is_parameter,
                              const XML_Char *value, int length, const XML_Char *base,
                              const XML_Char *system, const XML_Char *public_id,
                              const XML_Char *notation)
{
    (void)name, (void)is_parameter, (void)value, (void)length, (void)base, (void)system,
        (void)public_id, (void)notation;
    stop(self, LORE_ERR_INVALID);
}

static lore_status report(const parse *p, bool is_whole, lore_str name, lore_error *err)
{
    if (p->failure == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "'" LORE_STR_FMT
                         "': XML elements nest deeper than %zu (limits.markup_depth_max)",
                         LORE_STR_ARG(name), p->depth_max);
    }
    if (p->failure == LORE_ERR_INVALID) {
        return lore_fail(err, LORE_ERR_INVALID, "'" LORE_STR_FMT "' declares XML entities",
                         LORE_STR_ARG(name));
    }
    if (p->failure == LORE_ERR_CANCELLED) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled while parsing XML");
    }
    if (is_whole || p->is_stopped) {
        return LORE_OK;
    }
    enum XML_Error code = XML_GetErrorCode(p->parser);
    return lore_fail(err, code == XML_ERROR_NO_MEMORY ? LORE_ERR_NOMEM : LORE_ERR_INVALID,
                     "'" LORE_STR_FMT "' line %lu: %s", LORE_STR_ARG(name),
                     (unsigned long)XML_GetCurrentLineNumber(p->parser), XML_ErrorString(code));
}

lore_status lore_xml_parse(lore_str source, size_t from, size_t to, lore_str name,
                           const lore_xml_handler *handler, const lore_limits *limits,
                           const lore_interrupt *interrupt, lore_error *err)
{
    static const XML_Memory_Handling_Suite memory = {lore_alloc, lore_realloc, lore_free};
    parse p = {.source = source,
               .from = from,
               .handler = handler,
               .interrupt = interrupt,
               .depth_max = (size_t)limits->markup_depth_max};
    LORE_ASSERT(from <= to && to <= source.len);
    p.parser = XML_ParserCreate_MM(NULL, &memory, NULL);
    if (p.parser == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory parsing XML");
    }
    XML_SetUserData(p.parser, &p);
    XML_SetElementHandler(p.parser, on_start, on_end);
    XML_SetCharacterDataHandler(p.parser, on_text);
    XML_SetEntityDeclHandler(p.parser, on_entity);
    bool is_whole = to - from <= INT32_MAX &&
                    XML_Parse(p.parser, source.ptr + from, (int)(to - from), 1) == XML_STATUS_OK;
    lore_status status = report(&p, is_whole, name, err);
    XML_ParserFree(p.parser);
    return status;
}

lore_str lore_xml_attribute(const char *const *attributes, const char *name)
{
    for (; attributes != NULL && attributes[0] != NULL; attributes += 2) {
        if (lore_str_equal(local_name(attributes[0]), lore_str_from(name))) {
            return lore_str_from(attributes[1]);
        }
    }
    return (lore_str){"", 0};
}
