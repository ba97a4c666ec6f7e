/* The assembler puts the files' bytes into the program as they are (.incbin looks along the include
 * path, which holds the root of the repository): no generated source, nothing to install beside the
 * binary, and the files stay files that an editor understands. CMake lists them as dependencies of
 * this object. */
#include "api/assets.h"

#define EMBED(symbol, path)                                                   \
    __asm__(".pushsection .rodata\n"                                          \
            ".local " #symbol "_begin\n"                                      \
            ".local " #symbol "_end\n" #symbol "_begin:\n"                    \
            ".incbin \"" path "\"\n" #symbol "_end:\n"                        \
            ".byte 0\n"                                                       \
            ".popsection\n");                                                 \
    extern const char symbol##_begin[] __attribute__((visibility("hidden"))); \
    extern const char symbol##_end[] __attribute__((visibility("hidden")))

EMBED(lore_embedded_page, "api/page.html");
EMBED(lore_embedded_openapi, "api/openapi.json");

lore_str lore_asset_page(void)
{
    return (lore_str){lore_embedded_page_begin,
                      (size_t)(lore_embedded_page_end - lore_embedded_page_begin)};
}

lore_str lore_asset_openapi(void)
{
    return (lore_str){lore_embedded_openapi_begin,
                      (size_t)(lore_embedded_openapi_end - lore_embedded_openapi_begin)};
}
