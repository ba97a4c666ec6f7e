/* The device of the configuration, for api/app*.c only. */
#ifndef LORE_API_APP_INT_H
#define LORE_API_APP_INT_H

#include "api/app.h"

bool lore_app_is_auto(const lore_config *config);
/* The device and the precision from words to options; auto is the GPU that is to be tried, where
 * lore is built for one. LORE_ERR_INVALID. */
LORE_MUST_USE lore_status lore_app_parse_device(const lore_config *config,
                                                lore_backend_options *options, lore_error *err);
/* Give the engine the adapters of the configuration. is_service: the named ones are read now. */
LORE_MUST_USE lore_status lore_app_open_adapters(lore_app *app, bool is_service, lore_error *err);

#endif
