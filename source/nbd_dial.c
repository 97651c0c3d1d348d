#include "source/nbd_dial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libnbd.h>

#include "base/container_of.h"
#include "base/deadline.h"
#include "source/offload.h"

struct nbd_dial {
  struct nbd_target *target;
  int64_t deadline;
  void (*done)(void *arg, const struct nbd_dialed *end);
  void *arg;
  struct nbd_dialed end; /* the thread's, until it has ended */
  struct offload work;
  int socket; /* guarded by its lock: the connection's, once there is one; a
                 descriptor of ours.  -1: there is none */
};

/* ---- What failures mean -------------------------------------------------- */

/* If libnbd gives no errno, only its text says what happened. */
static const struct {
  const char *text;
  int status;
} meanings[] = {
    {"getaddrinfo:", -EHOSTUNREACH},
    {"server disconnected unexpectedly", -ECONNRESET},
    {"non-properly terminated", -ECONNRESET},
    {"Error in the pull function", -ECONNRESET},
    {"Error in the push function", -ECONNRESET},
    {"gnutls_handshake:", -EACCES},
    {"PSK file", -EACCES},
    {"URI", -EINVAL},
};

static int meaning_of(const char *text, int error) {
  for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
    if (strstr(text, meanings[i].text))
      return meanings[i].status;
  switch (error) {
  case 0:
  case EINVAL:
    return -EPROTO;
  case ENOTSUP: /* one of the two wants TLS, and the other has none */
  case EPERM:
    return -EACCES;
  case ENOENT: /* the path of a socket */
    return -ECONNREFUSED;
  case ESHUTDOWN:
    return -ECONNRESET;
  default:
    return -error;
  }
}

/* Copies the text of libnbd, without the name of its function.  If libnbd could
 * not parse the URI, its text contains that and the user, and is not used. */
static void put_words(struct source_fault *fault, const char *text) {
  const char *colon = strchr(text, ':');
  if (strncmp(text, "nbd_", 4) == 0 && colon)
    text = colon + 1 + (colon[1] == ' ');
  if (strstr(text, "PSK file"))
    text = "tls-psk-file has no key of the user in the URI";
  if (strstr(text, "URI"))
    text = "libnbd cannot make anything of the URI";
  snprintf(fault->text, sizeof fault->text, "%s", text);
}

int nbd_dial_failure(struct source_fault *fault) {
  int error = nbd_get_errno();
  const char *text = nbd_get_error();
  if (!text)
    text = "the server closed the connection";
  put_words(fault, text);
  return meaning_of(text, error);
}

/* ---- Shaking hands ------------------------------------------------------- */

/* The server's answer to the name of the export. */
struct answer {
  bool asked, came;
  int error;
};

static int on_answer(void *arg, int *error) {
  struct answer *a = arg;
  a->came = true;
  a->error = *error;
  return 1;
}

static int meaning_of_answer(int error, struct source_fault *fault) {
  switch (error) {
  case ENOENT:
    return remote_fault(fault, -ENOENT,
                        "the server has no export of that name");
  case ENOTSUP:
  case EPERM:
  case EACCES:
    return remote_fault(
        fault, -EACCES,
        "the server does not let us have the export; it may want TLS");
  case ESHUTDOWN:
    return remote_fault(fault, -ECONNRESET, "the server is shutting down");
  default:
    return remote_fault(fault, -EPROTO, "the server refuses the export");
  }
}

/* Waits until libnbd can continue, and lets it. */
static int go_on(struct nbd_handle *h, int64_t deadline,
                 struct source_fault *fault) {
  unsigned direction = nbd_aio_get_direction(h);
  struct pollfd p = {.fd = nbd_aio_get_fd(h)};
  if (direction & LIBNBD_AIO_DIRECTION_READ)
    p.events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    p.events |= POLLOUT;
  if (nbd_aio_is_closed(h)) /* by libnbd: it asked for TLS in vain */
    return remote_fault(fault, -EACCES, "the server has no TLS");
  if (p.fd < 0 || !p.events)
    return remote_fault(fault, -ECONNRESET, "the server closed the connection");
  int n = poll(&p, 1, deadline_left_ms(deadline));
  if (n == 0 || deadline_has_passed(deadline))
    return remote_fault(fault, -ETIMEDOUT, "the server did not answer in time");
  if (n < 0)
    return 0; /* a signal */
  /* At the end or an error of the socket only a read tells which. */
  bool reads = direction & LIBNBD_AIO_DIRECTION_READ && p.revents & ~POLLOUT;
  if ((reads ? nbd_aio_notify_read(h) : nbd_aio_notify_write(h)) < 0)
    return nbd_dial_failure(fault);
  return 0;
}

int nbd_dial_shake_hands(struct nbd_handle *h, int64_t deadline,
                         struct source_fault *fault) {
  struct answer answer = {false, false, 0};
  int r = 0;
  while (r == 0 && !nbd_aio_is_ready(h)) {
    if (answer.came && answer.error && nbd_aio_is_negotiating(h))
      return meaning_of_answer(answer.error, fault);
    if (!nbd_aio_is_negotiating(h)) {
      r = go_on(h, deadline, fault);
      continue;
    }
    if (answer.asked)
      return remote_fault(fault, -EPROTO, "the server does not come to an end");
    answer.asked = true;
    nbd_completion_callback cb = {.callback = on_answer, .user_data = &answer};
    if (nbd_aio_opt_go(h, cb) < 0)
      r = nbd_dial_failure(fault);
  }
  return r;
}

/* ---- The thread ---------------------------------------------------------- */

struct nbd_handle *nbd_dial_handle(const struct nbd_target *t, int *status,
                                   struct source_fault *fault) {
  struct nbd_handle *h = nbd_create();
  if (!h) {
    *status = remote_fault(fault, -ENOMEM, "no memory");
    return NULL;
  }
  *status = nbd_target_apply(t, h);
  /* libnbd need not clear the buffer of a read: it is used only if all of its
   * bytes came. */
  if (*status == 0 &&
      (nbd_set_opt_mode(h, true) < 0 || nbd_set_full_info(h, true) < 0 ||
       nbd_set_pread_initialize(h, false) < 0 ||
       nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0))
    *status = -EINVAL;
  if (*status == 0)
    return h;
  remote_fault(fault, *status, "libnbd does not take the settings");
  nbd_close(h);
  return NULL;
}

/* Notes the socket, so that nbd_dial_give_up() can shut it down: libnbd does
 * not return while a server never stops sending.  False: nbd_dial_give_up() was
 * called already. */
static bool note_socket(struct nbd_dial *d, struct nbd_handle *h) {
  pthread_mutex_lock(&d->work.lock);
  bool is_wanted = !d->work.is_given_up;
  if (is_wanted)
    d->socket = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 3);
  pthread_mutex_unlock(&d->work.lock);
  return is_wanted;
}

/* A connection whose descriptor is here as well would stay when libnbd closes
 * its own. */
static void forget_socket(struct nbd_dial *d) {
  pthread_mutex_lock(&d->work.lock);
  if (d->socket >= 0)
    close(d->socket);
  d->socket = -1;
  pthread_mutex_unlock(&d->work.lock);
}

static bool is_connected(struct nbd_handle *h) {
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  int fd = nbd_aio_get_fd(h);
  return fd >= 0 && getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

static int connect_to(struct nbd_dial *d, struct nbd_handle *h,
                      struct source_fault *fault) {
  int r =
      nbd_aio_connect_uri(h, d->target->uri) < 0 ? nbd_dial_failure(fault) : 0;
  while (r == 0 && !is_connected(h))
    r = go_on(h, d->deadline, fault);
  if (r == 0 && !note_socket(d, h))
    r = -ECANCELED;
  return r;
}

static int dial(struct nbd_dial *d, struct nbd_handle *h,
                struct source_fault *fault) {
  int r = nbd_target_check_files(d->target, fault);
  if (r == 0)
    r = connect_to(d, h, fault);
  if (r == 0)
    r = nbd_dial_shake_hands(h, d->deadline, fault);
  /* A server that ends TLS before the first request does not want our key or
   * certificate; not everybody says so. */
  if (r == -ECONNRESET && strstr(fault->text, "gnutls_"))
    r = -EACCES;
  if (r == 0)
    r = nbd_target_check_files(d->target, fault);
  if (r == 0 && d->target->uses_tls && nbd_get_tls_negotiated(h) != 1)
    r = remote_fault(fault, -EACCES, "the connection has no TLS");
  forget_socket(d);
  return r;
}

static struct nbd_dial *dial_of(struct offload *o) {
  return container_of(o, struct nbd_dial, work);
}

static void dial_free(struct offload *o) {
  struct nbd_dial *d = dial_of(o);
  nbd_close(d->end.h);
  nbd_target_free(d->target);
  free(d);
}

static void dial_run(struct offload *o) {
  struct nbd_dial *d = dial_of(o);
  struct nbd_dialed *end = &d->end;
  end->h = nbd_dial_handle(d->target, &end->status, &end->fault);
  if (end->h)
    end->status = dial(d, end->h, &end->fault);
  if (end->status < 0) {
    nbd_close(end->h);
    end->h = NULL;
  }
}

static void dial_cut(struct offload *o) {
  int fd = dial_of(o)->socket;
  if (fd >= 0)
    shutdown(fd, SHUT_RDWR);
}

static void dial_ended(struct offload *o) {
  struct nbd_dial *d = dial_of(o);
  struct nbd_dialed end = d->end;
  d->end.h = NULL;
  d->done(d->arg, &end);
}

/* ---- Dials --------------------------------------------------------------- */

int nbd_dial_start(struct reactor *reactor, const struct nbd_target *target,
                   int64_t deadline,
                   void (*done)(void *arg, const struct nbd_dialed *end),
                   void *arg, struct nbd_dial **out) {
  struct nbd_dial *d = calloc(1, sizeof *d);
  if (!d)
    return -ENOMEM;
  d->work = (struct offload){.name = "nbd-dial",
                             .run = dial_run,
                             .cut = dial_cut,
                             .ended = dial_ended,
                             .free_it = dial_free};
  d->deadline = deadline;
  d->done = done;
  d->arg = arg;
  d->socket = -1;
  d->target = nbd_target_copy(target);
  int r = d->target ? offload_begin(&d->work, reactor) : -ENOMEM;
  if (r < 0)
    dial_free(&d->work);
  else
    *out = d;
  return r;
}

void nbd_dial_give_up(struct nbd_dial *d) { offload_give_up(&d->work); }
