/* Files that are part of the program: the page and the description of the interface. */
#ifndef LORE_API_ASSETS_H
#define LORE_API_ASSETS_H

#include "base/str.h"

lore_str lore_asset_page(void);    /* api/page.html */
lore_str lore_asset_openapi(void); /* api/openapi.json */

#endif
