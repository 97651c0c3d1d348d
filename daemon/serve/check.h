/* Asserts what must be so between two turns of a service's connections: R1 to
 * R3 of request.h, F1 and F3 of fetch_quota.h, N4 of notices.h, V1 of
 * service.h, M1 of service_images.h, P3 and P4 of read_plan.h, N1 to N3 of
 * net_thread.h. */
#ifndef DAEMON_SERVE_CHECK_H
#define DAEMON_SERVE_CHECK_H

struct service;

/* Goes through all sessions, requests and images of the service. */
void check_service(struct service *service);

/* The same now and then, in programs that check much (CACHETD_DEBUG_CHECKS);
 * nothing in others. */
void check_service_quietly(struct service *service);

#endif
