/* The routes that live in files of their own; routes.c lists them. All are lore_route_run. */
#ifndef LORE_API_ROUTES_INT_H
#define LORE_API_ROUTES_INT_H

#include "api/routes.h"

lore_status lore_route_post_query(lore_service *service, lore_http_request *request,
                                  lore_http_reply *reply, lore_error *err);
lore_status lore_route_post_retrieve(lore_service *service, lore_http_request *request,
                                     lore_http_reply *reply, lore_error *err);
lore_status lore_route_put_document(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err);
lore_status lore_route_post_documents(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err);
lore_status lore_route_get_documents(lore_service *service, lore_http_request *request,
                                     lore_http_reply *reply, lore_error *err);
lore_status lore_route_get_document(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err);
lore_status lore_route_get_chunks(lore_service *service, lore_http_request *request,
                                  lore_http_reply *reply, lore_error *err);
lore_status lore_route_delete_document(lore_service *service, lore_http_request *request,
                                       lore_http_reply *reply, lore_error *err);
lore_status lore_route_put_collection(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err);
lore_status lore_route_delete_collection(lore_service *service, lore_http_request *request,
                                         lore_http_reply *reply, lore_error *err);
lore_status lore_route_get_collections(lore_service *service, lore_http_request *request,
                                       lore_http_reply *reply, lore_error *err);
lore_status lore_route_get_adapters(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err);
lore_status lore_route_load_adapter(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err);
lore_status lore_route_unload_adapter(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err);

#endif
