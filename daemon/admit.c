#include "daemon/admit.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/net/stray_fds.h"
#include "daemon/serve/session.h"
#include "proto/frame.h"
#include "proto/status.h"

/* An Error that says why, if the socket takes it at once. */
static void send_reason(int fd, const char *reason) {
  Cachet__Wire__Error error = CACHET__WIRE__ERROR__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  uint8_t frame[256];
  error.status = WIRE_E_BUSY;
  error.message = (char *)reason;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ERROR;
  msg.error = &error;
  size_t len = frame_packed_len(&msg);
  assert(len <= sizeof frame);
  frame_pack(&msg, 0, frame);
  ssize_t n = send(fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)n;
}

bool admit_may_refuse(struct server_context *context) {
  return !closer_is_full(context->closer);
}

static void refuse(struct server_context *context, const struct listener *l,
                   int fd, const char *reason) {
  uint8_t bytes[4096];
  if (!listener_is_tls(l)) /* else it could not be read */
    send_reason(fd, reason);
  if (listener_is_local(l) && stray_fds_may_come(fd) &&
      !stray_fds_drain(fd, bytes, sizeof bytes))
    closer_add_socket(context->closer, fd);
  else
    close(fd);
  log_peer_event(LEVEL_WARN, "conn-refused",
                 LOG_TEXT("listener", listener_text(l)),
                 LOG_TEXT("reason", reason));
}

/* Answers go out as they are made, and a peer whose machine is gone is found
 * out one day.  Neither matters enough to fail for. */
static void set_tcp_options(int fd) {
  int on = 1, unsent_len = LIMITS_UNSENT_LEN;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_len,
             sizeof unsent_len);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static void start(struct server_context *context, struct connection *c) {
  log_peer_event(LEVEL_DEBUG, "conn-accepted", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("listener", listener_text(c->listener)));
  if (!listener_is_local(c->listener))
    set_tcp_options(c->fd);
  atomic_fetch_add_explicit(&context->n_accepted, 1, memory_order_relaxed);
  connection_start(c);
}

void admit_socket(struct server_context *context, struct listener *l, int fd) {
  const struct limits *limits = &context->limits;
  uint64_t user = listener_is_local(l) ? users_of_socket(fd) : USERS_REMOTE;
  if (users_count(&context->users) >= limits->max_connections) {
    refuse(context, l, fd, "the daemon has as many connections as it takes");
    return;
  }
  if (!users_take(&context->users, user, limits->max_user_connections)) {
    refuse(context, l, fd,
           "the daemon has as many connections of this user as it takes");
    return;
  }
  uint64_t n = atomic_load_explicit(&context->n_accepted, memory_order_relaxed);
  struct session *s = /* of each worker in turn */
      session_new(context->services[n % context->n_services], l, fd, n + 1,
                  user);
  if (s) {
    start(context, &s->conn);
  } else {
    users_give(&context->users, user);
    refuse(context, l, fd, "the daemon has no memory for a connection");
  }
}
