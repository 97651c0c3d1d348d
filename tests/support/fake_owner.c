#include "tests/support/fake_owner.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "daemon/net/connection.h"
#include "proto/status.h"

struct fake_owner {
  struct limits limits;
  struct loop loop;
  struct closer *closer;
  struct users users;
  struct net_thread net;
  struct listener *listener;
  struct held_connection {
    struct connection conn;
    struct fake_owner *owner;
  } * c; /* NULL: there is none */
  unsigned n_errors, n_requests;
  bool with_fds;
  struct owner_calls calls;
};

static struct fake_owner *owner_of(struct connection *c) {
  return container_of(c, struct held_connection, conn)->owner;
}

static void send_fds(struct connection *c, uint64_t id) {
  int fds[CONNECTION_N_FDS];
  for (int i = 0; i < CONNECTION_N_FDS; i++)
    fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  connection_reply_error(c, id, WIRE_E_IO, 0, "with descriptors");
  bool sent = connection_flush_fds(c, fds);
  assert(sent);
}

static void on_message(struct connection *c, const wire_message *msg) {
  struct fake_owner *o = owner_of(c);
  o->calls.message++;
  if (c->state == CONNECTION_HANDSHAKE)
    connection_move(c, CONNECTION_OPEN);
  for (unsigned i = 0; i < o->n_errors; i++)
    connection_reply_error(c, msg->id, WIRE_E_IO, 0, "error %u", i);
  if (o->with_fds)
    send_fds(c, msg->id);
  c->n_requests += o->n_requests;
}

static void on_writable(struct connection *c) { owner_of(c)->calls.writable++; }

static void on_delivered(struct connection *c) {
  owner_of(c)->calls.delivered++;
}

static void on_fds_sent(struct connection *c, bool sent) {
  if (sent)
    owner_of(c)->calls.fds_sent++;
  else
    owner_of(c)->calls.fds_lost++;
}

static void on_turn_ended(struct connection *c) {
  struct fake_owner *o = owner_of(c);
  o->calls.turn_ended++;
  if (c->state == CONNECTION_DRAINING) {
    o->calls.draining_ended++;
    c->n_requests = 0;
  }
}

static void on_closed(struct connection *c) {
  c->n_requests = 0;
  owner_of(c)->calls.closed++;
}

static void on_release(struct connection *c) {
  struct fake_owner *o = owner_of(c);
  o->calls.release++;
  free(o->c);
  o->c = NULL;
}

static const struct connection_owner calls = {
    .message = on_message,
    .writable = on_writable,
    .delivered = on_delivered,
    .fds_sent = on_fds_sent,
    .turn_ended = on_turn_ended,
    .closed = on_closed,
    .release = on_release,
};

static void on_emptied(void *arg) {
  ((struct fake_owner *)arg)->calls.emptied++;
}

static void on_tasks_ran(void *arg) { (void)arg; }

struct fake_owner *fake_owner_new(const char *listen_path) {
  struct fake_owner *o = calloc(1, sizeof *o);
  struct address address;
  char err[256];
  o->limits = limits_default();
  users_init(&o->users);
  o->closer = closer_new();
  o->net = (struct net_thread){.loop = &o->loop,
                               .limits = &o->limits,
                               .closer = o->closer,
                               .users = &o->users,
                               .emptied = on_emptied,
                               .arg = o};
  int r = address_unix(listen_path, &address, err, sizeof err);
  assert(r == 0);
  r = listener_open(&address, &o->listener, err, sizeof err);
  assert(r == 0);
  r = loop_init(&o->loop, on_tasks_ran, o);
  assert(r == 0);
  r = net_thread_init(&o->net, 4 << 20);
  assert(r == 0);
  return o;
}

void fake_owner_free(struct fake_owner *o) {
  connection_drop_all(&o->net);
  closer_free(o->closer);
  net_thread_fini(&o->net);
  loop_fini(&o->loop);
  listener_unref(o->listener);
  users_fini(&o->users);
  free(o);
}

void fake_owner_accept(struct fake_owner *o, int fd) {
  assert(!o->c);
  o->c = calloc(1, sizeof *o->c);
  o->c->owner = o;
  users_take(&o->users, USERS_REMOTE, 1);
  connection_init(&o->c->conn, &o->net, &calls, o->listener, fd, 1,
                  USERS_REMOTE);
  connection_start(&o->c->conn);
}

void fake_owner_turn(struct fake_owner *o) {
  event_base_loop(o->loop.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

void fake_owner_set_reply(struct fake_owner *o, unsigned n_errors,
                          unsigned n_requests) {
  o->n_errors = n_errors;
  o->n_requests = n_requests;
}

void fake_owner_answer_all(struct fake_owner *o) {
  o->c->conn.n_requests = 0;
  connection_settle(&o->c->conn);
}

void fake_owner_set_fds(struct fake_owner *o) { o->with_fds = true; }

void fake_owner_stop(struct fake_owner *o) { connection_stop_all(&o->net); }

void fake_owner_drop(struct fake_owner *o) { connection_drop(&o->c->conn); }

bool fake_owner_is_blocked(const struct fake_owner *o) {
  return connection_is_blocked(&o->c->conn);
}

size_t fake_owner_held(const struct fake_owner *o) {
  return net_thread_held(&o->net);
}

unsigned fake_owner_users(const struct fake_owner *o) {
  return users_count(&o->users);
}

struct owner_calls fake_owner_calls(const struct fake_owner *o) {
  return o->calls;
}
