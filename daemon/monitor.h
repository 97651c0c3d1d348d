/* The monitor: answers questions about the daemon over HTTP.
 *
 *     /metrics   its counters, for Prometheus
 *     /livez     200 if every loop turns within MONITOR_ALIVE_MS; else 503, and
 *                the names of those that have not
 *     /readyz    200 if the daemon accepts connections and each image was
 *                opened once; else 503, and the reasons
 *
 * Answers name images and threads, and no files. */
#ifndef DAEMON_MONITOR_H
#define DAEMON_MONITOR_H

#ifdef __cplusplus
extern "C" {
#endif

struct listener;
struct monitor;
struct server;

enum { MONITOR_ALIVE_MS = 5000 };

/* Serves on the listener, which it owns from here, also on failure.  The server
 * was started.  0 or a negative errno. */
int monitor_start(struct server *server, struct listener *listener,
                  struct monitor **out);

/* Before server_shutdown().  NULL is fine. */
void monitor_stop(struct monitor *m);

#ifdef __cplusplus
}
#endif

#endif
