/* Which proxy the environment means. libcurl would find it, too, but not say so, and an address
 * that is connected to means one thing of a proxy and another of the host itself. */
#include "ingest/web_int.h"

#include <stdio.h>
#include <string.h>

enum { NAME_CAP = 16 };

static lore_str ask(const char *(*variable)(const char *name), const char *name)
{
    char capitals[NAME_CAP];
    lore_str value = lore_str_trim(lore_str_from(variable(name)));
    size_t i = 0;
    if (value.len > 0 || strcmp(name, "http_proxy") == 0) {
        return value; /* a CGI server sets HTTP_PROXY to a header of its client */
    }
    for (; name[i] != '\0' && i + 1 < sizeof capitals; i++) {
        capitals[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 'a' + 'A' : name[i]);
    }
    capitals[i] = '\0';
    return lore_str_trim(lore_str_from(variable(capitals)));
}

/* Is the host the domain, or below it? */
static bool is_of_domain(lore_str host, lore_str domain)
{
    if (domain.len > 1 && domain.ptr[0] == '*') {
        domain = lore_str_slice(domain, 1, domain.len);
    }
    if (domain.len > 0 && domain.ptr[0] == '.') {
        domain = lore_str_slice(domain, 1, domain.len);
    }
    if (domain.len == 0 || domain.len > host.len) {
        return false;
    }
    size_t start = host.len - domain.len;
    return lore_str_equal_nocase(lore_str_slice(host, start, host.len), domain) &&
           (start == 0 || host.ptr[start - 1] == '.');
}

static bool is_exempt(lore_str host, lore_str list)
{
    for (size_t at = 0; at < list.len;) {
        size_t end = at;
        while (end < list.len && strchr(", \t", list.ptr[end]) == NULL) {
            end++;
        }
        lore_str item = lore_str_slice(list, at, end);
        if (lore_str_equal(item, LORE_STR("*")) || is_of_domain(host, item)) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

lore_str lore_proxy_of(lore_str scheme, lore_str host, const char *(*variable)(const char *name))
{
    char name[NAME_CAP];
    const lore_str none = {"", 0};
    lore_str bare = host;
    if (host.len > 2 && host.ptr[0] == '[') {
        bare = lore_str_slice(host, 1, host.len - 1);
    }
    if (is_exempt(bare, ask(variable, "no_proxy"))) {
        return none;
    }
    snprintf(name, sizeof name, LORE_STR_FMT "_proxy", LORE_STR_ARG(scheme));
    lore_str proxy = ask(variable, name);
    return proxy.len > 0 ? proxy : ask(variable, "all_proxy");
}
