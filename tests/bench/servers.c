#include "tests/bench/servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_ARGS = 24, ARG_LEN = 160, N_VERIFIED = 256 };

/* A command line, composed piece by piece. */
struct command {
  char text[N_ARGS][ARG_LEN];
  const char *args[N_ARGS + 1];
  size_t n;
};

__attribute__((format(printf, 2, 3))) static void
command_add(struct command *c, const char *format, ...) {
  va_list args;
  if (c->n == N_ARGS)
    rig_fail("too many arguments");
  va_start(args, format);
  vsnprintf(c->text[c->n], ARG_LEN, format, args);
  va_end(args);
  c->args[c->n] = c->text[c->n];
  c->args[++c->n] = NULL;
}

static void command_add_words(struct command *c, const char *words) {
  char copy[512], *rest = copy, *word;
  snprintf(copy, sizeof copy, "%s", words);
  while ((word = strsep(&rest, " ")))
    command_add(c, "%s", word);
}

/* ---- One system ---------------------------------------------------------- */

/* Adds the arguments that follow the program's name. */
typedef void (*compose)(struct command *c, const struct rig *rig,
                        const char *socket, uint16_t port);

/* A port of 0: no TCP. */
static void compose_daemon(struct command *c, const char *image,
                           uint64_t cache_size, const char *socket,
                           uint16_t port) {
  command_add_words(c, "--config /dev/null --workers 1 --log-level error "
                       "--image");
  command_add(c, "image=%s", image);
  command_add(c, "--cache-size");
  command_add(c, "%" PRIu64, cache_size);
  command_add(c, "--listen");
  command_add(c, "unix:%s", socket);
  if (port) {
    command_add(c, "--listen");
    command_add(c, "tcp:127.0.0.1:%u", port);
  }
}

static void compose_cachetd(struct command *c, const struct rig *rig,
                            const char *socket, uint16_t port) {
  compose_daemon(c, rig->file, rig->size + RIG_SPARE_CACHE, socket, port);
}

static void compose_bare(struct command *c, const struct rig *rig,
                         const char *socket, uint16_t port) {
  command_add(c, "%s", rig->file);
  command_add(c, "%s", socket);
  command_add(c, "%u", port);
}

/* Its memory: the pages, and half as much for what it knows of them. */
static void compose_memcached(struct command *c, const struct rig *rig,
                              const char *socket, uint16_t port) {
  (void)port;
  command_add_words(c, "-t 1 -c 16384 -M -u");
  command_add(c, "%s", getuid() ? "nobody" : "root");
  command_add(c, "-m");
  command_add(c, "%" PRIu64, rig->size / 2 * 3 >> 20);
  command_add(c, "-s");
  command_add(c, "%s", socket);
}

static void compose_redis(struct command *c, const struct rig *rig,
                          const char *socket, uint16_t port) {
  (void)port;
  command_add_words(c, "--port 0 --appendonly no --maxclients 16384 --dir");
  command_add(c, "%s", rig->dir);
  command_add(c, "--save");
  command_add(c, "%s", "");
  command_add(c, "--unixsocket");
  command_add(c, "%s", socket);
}

/* Where an NBD server listens: one of its options before the socket's path, or
 * another before the address, and the port. */
static void command_add_place(struct command *c, const char *unix_option,
                              const char *socket, const char *tcp_option,
                              uint16_t port) {
  command_add(c, "%s", socket ? unix_option : tcp_option);
  command_add(c, "%s", socket ? socket : "127.0.0.1");
  if (!socket) {
    command_add(c, "-p");
    command_add(c, "%u", port);
  }
}

static void compose_nbdkit(struct command *c, const struct rig *rig,
                           const char *socket, uint16_t port) {
  command_add_words(c, "-f -r");
  command_add_place(c, "-U", socket, "-i", port);
  command_add(c, "file");
  command_add(c, "%s", rig->file);
}

static void compose_qemu_nbd(struct command *c, const struct rig *rig,
                             const char *socket, uint16_t port) {
  command_add_words(c, "-r -f raw --persistent --shared=0");
  command_add_place(c, "-k", socket, "-b", port);
  command_add(c, "%s", rig->file);
}

void servers_write_nginx(const struct rig *rig, const char *log,
                         const char *socket, uint16_t port,
                         char path[RIG_PATH_LEN]) {
  const char *const temps[] = {"client_body", "proxy", "fastcgi", "uwsgi",
                               "scgi"};
  rig_path(rig, "nginx.conf", path);
  FILE *conf = fopen(path, "we");
  if (!conf)
    rig_fail("%s: %s", path, strerror(errno));
  fprintf(conf,
          "daemon off; master_process off; pid %s/nginx.pid;\n"
          "events { worker_connections 1024; }\n"
          "http { sendfile on; tcp_nodelay on;\n"
          "  keepalive_requests 1000000000; root %s;\n",
          rig->dir, rig->dir);
  if (log)
    fprintf(conf,
            "  log_format bytes '$body_bytes_sent'; access_log %s bytes;\n",
            log);
  else
    fprintf(conf, "  access_log off;\n");
  for (size_t i = 0; i < sizeof temps / sizeof *temps; i++)
    fprintf(conf, "  %s_temp_path %s;\n", temps[i], rig->dir);
  fprintf(conf, "  server { listen 127.0.0.1:%u;", port);
  if (socket)
    fprintf(conf, " listen unix:%s;", socket);
  fprintf(conf, " } }\n");
  fclose(conf);
}

static void compose_nginx(struct command *c, const struct rig *rig,
                          const char *socket, uint16_t port) {
  char path[RIG_PATH_LEN];
  servers_write_nginx(rig, NULL, socket, port, path);
  command_add_words(c, "-e stderr -c");
  command_add(c, "%s", path);
}

/* How a system is started.  One process serves both kinds of sockets, or, with
 * `apart`, one each. */
static const struct recipe {
  const char *name, *program;
  const struct protocol *protocol;
  compose compose;
  void (*store)(int fd, const uint8_t *pages, uint64_t n_pages);
  bool has_tcp, apart;
} recipes[N_SYSTEMS] = {
    [CACHETD] = {"cachetd", "daemon/cachetd", &protocol_cachet, compose_cachetd,
                 NULL, true, false},
    [BARE] = {"bare", "tests/bench/bare", &protocol_bare, compose_bare, NULL,
              true, false},
    [MEMCACHED] = {"memcached", NULL, &protocol_memcached, compose_memcached,
                   protocol_store_memcached, false, false},
    [REDIS] = {"redis", "redis-server", &protocol_redis, compose_redis,
               protocol_store_redis, false, false},
    [NBDKIT] = {"nbdkit", NULL, &protocol_nbd, compose_nbdkit, NULL, true,
                true},
    [QEMU_NBD] = {"qemu-nbd", NULL, &protocol_nbd, compose_qemu_nbd, NULL, true,
                  true},
    [NGINX] = {"nginx", NULL, &protocol_http, compose_nginx, NULL, true, false},
};

bool servers_find(const char *name, char path[RIG_PATH_LEN]) {
  static const char *const places[] = {"/usr/bin", "/usr/sbin",
                                       "/usr/local/bin"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(path, RIG_PATH_LEN, "%s/%s", places[i], name);
    if (access(path, X_OK) == 0)
      return true;
  }
  return false;
}

uint16_t servers_free_port(void) {
  struct sockaddr_in addr = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof addr;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) < 0 ||
      getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
    rig_fail("a free port: %s", strerror(errno));
  close(fd);
  return ntohs(addr.sin_port);
}

bool servers_wait(const struct load_target *t, char *err, size_t err_len) {
  for (int tries = 0; tries < 10000; tries++) {
    struct protocol_conn c;
    if (load_try_connect(t, &c, err, err_len)) {
      close(c.fd);
      return true;
    }
    siginfo_t ended = {0};
    if (waitid(P_PID, (id_t)t->pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        ended.si_pid) {
      snprintf(err, err_len, "%s: it ended at once", t->name);
      return false;
    }
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return false;
}

static pid_t start(struct rig *rig, const struct recipe *recipe,
                   const char *path, struct rig_server *server, bool by_unix,
                   uint16_t port) {
  struct command command = {0};
  command_add(&command, "%s", recipe->name);
  recipe->compose(&command, rig, by_unix ? server->socket : NULL, port);
  rig_server_start(server, path, command.args, false);
  return server->pid;
}

/* Where the system's program is.  False: nowhere. */
static bool find_program(const struct recipe *recipe, char path[RIG_PATH_LEN]) {
  const char *program = recipe->program ? recipe->program : recipe->name;
  if (!strchr(program, '/'))
    return servers_find(program, path);
  snprintf(path, RIG_PATH_LEN, "%s", program);
  return true;
}

static void start_system(struct servers *s, enum system system) {
  const struct recipe *recipe = &recipes[system];
  char path[RIG_PATH_LEN], *why = s->missing[system];
  size_t why_len = sizeof s->missing[system];
  struct load_target *by_unix = &s->by_unix[system];
  struct load_target *by_tcp = &s->by_tcp[system];
  *by_unix = *by_tcp =
      (struct load_target){.name = recipe->name, .protocol = recipe->protocol};
  if (!find_program(recipe, path)) {
    snprintf(why, why_len, "%s is not installed", recipe->name);
    return;
  }
  struct rig_server *server = rig_server_new(s->rig, recipe->name);
  by_unix->socket = server->socket;
  by_tcp->port = recipe->has_tcp ? servers_free_port() : 0;
  by_unix->pid = start(s->rig, recipe, path, server, true, by_tcp->port);
  if (recipe->has_tcp)
    by_tcp->pid = by_unix->pid;
  if (recipe->apart)
    by_tcp->pid = start(s->rig, recipe, path, rig_server_new(s->rig, "tcp"),
                        false, by_tcp->port);
  if (!servers_wait(by_unix, why, why_len) ||
      (by_tcp->pid && !servers_wait(by_tcp, why, why_len)))
    by_unix->pid = by_tcp->pid = 0;
  else
    why[0] = '\0';
}

static void fill(const struct servers *s, enum system system,
                 const struct load_target *t, uint64_t n_pages) {
  if (!recipes[system].store || !t->pid)
    return;
  struct protocol_conn c = load_connect(t);
  recipes[system].store(c.fd, s->map, n_pages);
  close(c.fd);
}

static void wait_or_fail(const struct load_target *t) {
  char err[120];
  if (!servers_wait(t, err, sizeof err))
    rig_fail("%s", err);
}

static struct load_target target_of(const struct rig_server *server,
                                    enum system system) {
  return (struct load_target){.name = recipes[system].name,
                              .protocol = recipes[system].protocol,
                              .socket = server->socket,
                              .pid = server->pid};
}

struct rig_server *servers_start_another(const struct servers *s,
                                         enum system system, uint64_t n_pages,
                                         struct load_target *out) {
  char path[RIG_PATH_LEN];
  const struct recipe *recipe = &recipes[system];
  if (!s->by_unix[system].pid || !find_program(recipe, path))
    return NULL;
  struct rig_server *server = rig_server_new(s->rig, "another");
  start(s->rig, recipe, path, server, true,
        recipe->has_tcp ? servers_free_port() : 0);
  *out = target_of(server, system);
  wait_or_fail(out);
  fill(s, system, out, n_pages);
  return server;
}

struct rig_server *servers_start_daemon(struct rig *rig, const char *image,
                                        uint64_t cache_size,
                                        struct load_target *out) {
  struct command command = {0};
  struct rig_server *server = rig_server_new(rig, "fresh");
  command_add(&command, "cachetd");
  compose_daemon(&command, image, cache_size, server->socket, 0);
  rig_server_start(server, recipes[CACHETD].program, command.args, false);
  *out = target_of(server, CACHETD);
  wait_or_fail(out);
  return server;
}

struct rig_server *servers_start_bare_cache(struct rig *rig,
                                            uint64_t cache_size,
                                            struct load_target *out) {
  struct command command = {0};
  struct rig_server *server = rig_server_new(rig, "bare");
  command_add(&command, "bare");
  compose_bare(&command, rig, server->socket, servers_free_port());
  command_add(&command, "%" PRIu64, cache_size);
  rig_server_start(server, recipes[BARE].program, command.args, false);
  *out = target_of(server, BARE);
  wait_or_fail(out);
  return server;
}

struct rig_server *servers_start_nbdkit(struct rig *rig,
                                        const char *const args[],
                                        struct load_target *out) {
  struct command command = {0};
  char path[RIG_PATH_LEN];
  if (!servers_find("nbdkit", path))
    return NULL;
  struct rig_server *server = rig_server_new(rig, "nbd");
  command_add_words(&command, "nbdkit -f -r -U");
  command_add(&command, "%s", server->socket);
  for (; *args; args++)
    command_add(&command, "%s", *args);
  rig_server_start(server, path, command.args, false);
  *out = target_of(server, NBDKIT);
  wait_or_fail(out);
  return server;
}

static void verify(const struct servers *s, const struct load_target *t) {
  if (t->pid)
    load_verify(t, s->map, s->rig->size, RIG_PAGE, N_VERIFIED);
}

/* Every page of the file into the daemon's cache. */
static void warm(const struct servers *s) {
  cachet *c = rig_open(s->by_unix[CACHETD].socket, 0);
  rig_warm(s->rig, c);
  rig_expect_resident(s->rig, c);
  cachet_close(c);
}

void servers_start(struct servers *s, struct rig *rig) {
  *s = (struct servers){.rig = rig, .map = rig_map(rig)};
  for (enum system system = 0; system < N_SYSTEMS; system++) {
    start_system(s, system);
    fill(s, system, &s->by_unix[system], rig->size / RIG_PAGE);
    verify(s, &s->by_unix[system]);
    verify(s, &s->by_tcp[system]);
  }
  if (!s->by_unix[CACHETD].pid || !s->by_unix[BARE].pid)
    rig_fail("%s%s", s->missing[CACHETD], s->missing[BARE]);
  warm(s);
}
