/* The monitor: what others look at a daemon by, over HTTP.
 *
 *     /metrics   what it counts, for Prometheus
 *     /livez     200 when every loop has turned since, within MONITOR_ALIVE_MS;
 *                else 503, and the names of those that have not
 *     /readyz    200 when it accepts connections and each image was there once;
 *                else 503, and the reasons
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

/* Serves on the listener, which is its own from here, also on failure.  The
 * server was started.  0 or a negative errno. */
int monitor_start(struct server *server, struct listener *listener,
                  struct monitor **out);

/* Before server_shutdown().  NULL is fine. */
void monitor_stop(struct monitor *m);

#ifdef __cplusplus
}
#endif

#endif
