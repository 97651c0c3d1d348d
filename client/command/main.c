/* cachet: what a daemon serves, from a shell. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/size.h"
#include "base/std_fds.h"
#include "client/command/command.h"
#include "client/command/stdout.h"
#include "client/open.h"
#include "base/format.h"

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: cachet ls\n"
    "       cachet info IMAGE\n"
    "       cachet cat IMAGE [--offset N] [--length N]\n"
    "       cachet get IMAGE TYPE ADDR\n"
    "       cachet warm IMAGE [--offset N] [--length N]\n"
    "       cachet invalidate IMAGE [--offset N] [--length N]\n"
    "       cachet stats [--json]\n"
    "\n"
    "  --socket PATH  the daemon's Unix socket, or unix:PATH;\n"
    "                 else $CACHET_SOCKET,\n"
    "                 $XDG_RUNTIME_DIR/cachetd.sock, "
    "/run/cachetd/cachetd.sock\n"
    "  --uri URI      the daemon: cachet://HOST[:PORT]/ or\n"
    "                 cachet+unix:///?socket=PATH\n"
    "  --help         this text\n"
    "  --version      which version this is\n"
    "\n"
    "IMAGE is a name on the daemon; with a / in it a path, with a : a URI.\n"
    "TYPE is u8, i8, or u16le ... i64be, i64ne.  Numbers take 0x, and K, M, G\n"
    "and T, powers of 1024.\n";

/* ---- Messages and progress ----------------------------------------------- */

int command_fail(const char *message) {
  fprintf(stderr, "cachet: %s\n", message);
  return 1;
}

static int usage_fail(const char *what, const char *which) {
  fprintf(stderr, "cachet: %s%s%s (see cachet --help)\n", what,
          which ? ": " : "", which ? which : "");
  return EXIT_USAGE;
}

struct progress progress_begin(const char *act, uint64_t total) {
  return (struct progress){
      .act = isatty(STDERR_FILENO) ? act : NULL,
      .total = total,
      .shown_ms = deadline_now(),
  };
}

void progress_show(struct progress *p, uint64_t done) {
  enum { INTERVAL_MS = 200 };
  int64_t now = deadline_now();
  if (!p->act || now - p->shown_ms < INTERVAL_MS)
    return;
  p->shown_ms = now;
  fprintf(stderr, "\r%s: %3.0f %%", p->act,
          100.0 * (double)done / (double)p->total);
}

void progress_end(struct progress *p) {
  if (p->act)
    fputs("\r\033[K", stderr);
}

/* ---- Addresses ----------------------------------------------------------- */

enum cachet_status command_address(const struct command *cmd, const char *image,
                                   struct uri *out, struct cachet_error *err) {
  if (image && strpbrk(image, "/:"))
    return uri_parse(image, out, err);
  if (!cmd->uri)
    return uri_make_unix(cmd->socket, image ? image : "", out, err);
  enum cachet_status status = uri_parse(cmd->uri, out, err);
  if (status != CACHET_OK)
    return status;
  if (out->kind == URI_FILE)
    status = error_set(err, CACHET_E_INVAL, 0, "--uri %.150s: not a daemon's",
                       cmd->uri);
  else if (image)
    status = uri_set_image(out, image, err);
  if (status != CACHET_OK)
    uri_fini(out);
  return status;
}

/* A name is one of a daemon's image; but there may be a file of that name. */
static void fail_open(const char *image, const struct cachet_error *err) {
  struct stat st;
  command_fail(err->message);
  if (!strpbrk(image, "/:") && stat(image, &st) == 0 &&
      (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
    fprintf(stderr,
            "cachet: %s is a name on the daemon; for a file write ./%s\n",
            image, image);
}

/* Says so if a file is no image but has one in it. */
static void warn_of_format(cachet *c, const char *image) {
  char head[FORMAT_PEEK_LEN];
  size_t len =
      cachet_size(c) < sizeof head ? (size_t)cachet_size(c) : sizeof head;
  const char *format =
      cachet_read(c, 0, head, len) == CACHET_OK ? format_of(head, len) : NULL;
  if (format)
    fprintf(stderr,
            "cachet: warning: %s is a %s file: these are its own bytes, not "
            "those of the disk in it\n",
            image, format);
}

cachet *command_open(const struct command *cmd) {
  const char *image = cmd->args[0];
  struct cachet_error err;
  struct uri u;
  cachet *c = NULL;
  enum cachet_status status = command_address(cmd, image, &u, &err);
  if (status == CACHET_OK) {
    status = open_uri(&u, &cmd->options, &c, &err);
    if (status == CACHET_OK && u.kind == URI_FILE)
      warn_of_format(c, image);
    uri_fini(&u);
  }
  if (status != CACHET_OK)
    fail_open(image, &err);
  return c;
}

/* ---- Arguments ----------------------------------------------------------- */

enum {
  OPT_SOCKET = 256,
  OPT_URI,
  OPT_OFFSET,
  OPT_LENGTH,
  OPT_JSON,
  OPT_HELP,
  OPT_VERSION
};

struct verb {
  const char *name;
  int n_args;
  bool has_range, has_json;
  uint32_t flags; /* of the handle */
  int (*run)(const struct command *cmd);
};

static const struct verb verbs[] = {
    {.name = "ls", .run = command_ls},
    {.name = "info", .n_args = 1, .run = command_info},
    {.name = "cat",
     .n_args = 1,
     .has_range = true,
     .flags = CACHET_ONE_EPOCH,
     .run = command_cat},
    {.name = "get", .n_args = 3, .run = command_get},
    {.name = "warm", .n_args = 1, .has_range = true, .run = command_warm},
    {.name = "invalidate",
     .n_args = 1,
     .has_range = true,
     .run = command_invalidate},
    {.name = "stats", .has_json = true, .run = command_stats},
};

static const struct verb *verb_find(const char *name) {
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    if (!strcmp(verbs[i].name, name))
      return &verbs[i];
  return NULL;
}

/* 0, or the exit status after a message. */
static int parse_number(const char *text, uint64_t *out) {
  int r = size_parse(text, out);
  if (r == 0)
    return 0;
  const char *why = text[0] == '-' ? "not a number from 0 on" : "not a number";
  return usage_fail(r == -ERANGE ? "not a number of 64 bits" : why, text);
}

/* What was given, before the verb is known. */
struct given {
  struct command cmd;
  bool has_range, help, version;
};

/* 0, or the exit status after a message. */
static int parse_options(int argc, char **argv, struct given *g) {
  static const struct option options[] = {
      {"socket", required_argument, NULL, OPT_SOCKET},
      {"uri", required_argument, NULL, OPT_URI},
      {"offset", required_argument, NULL, OPT_OFFSET},
      {"length", required_argument, NULL, OPT_LENGTH},
      {"json", no_argument, NULL, OPT_JSON},
      {"help", no_argument, NULL, OPT_HELP},
      {"version", no_argument, NULL, OPT_VERSION},
      {NULL, 0, NULL, 0},
  };
  int opt;
  while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (opt) {
    case OPT_SOCKET:
      g->cmd.socket = optarg;
      break;
    case OPT_URI:
      g->cmd.uri = optarg;
      break;
    case OPT_OFFSET:
    case OPT_LENGTH:
      g->has_range = true;
      if (parse_number(optarg,
                       opt == OPT_OFFSET ? &g->cmd.offset : &g->cmd.length))
        return EXIT_USAGE;
      break;
    case OPT_JSON:
      g->cmd.json = true;
      break;
    case OPT_HELP:
      g->help = true;
      break;
    case OPT_VERSION:
      g->version = true;
      break;
    default:
      return EXIT_USAGE; /* getopt_long() has said why */
    }
  }
  return 0;
}

/* Whether arguments and options belong to the verb. */
static int check(const struct verb *verb, int n_args, struct given *g) {
  struct command *cmd = &g->cmd;
  if (n_args != verb->n_args)
    return usage_fail(n_args < verb->n_args ? "too few arguments"
                                            : "too many arguments",
                      verb->name);
  if (g->has_range && !verb->has_range)
    return usage_fail("--offset and --length mean nothing here", verb->name);
  if (cmd->json && !verb->has_json)
    return usage_fail("--json means nothing here", verb->name);
  if (cmd->socket && cmd->uri)
    return usage_fail("--socket or --uri, not both", NULL);
  if (n_args && strpbrk(cmd->args[0], "/:") && (cmd->socket || cmd->uri))
    return usage_fail("a path or a URI is not on a daemon", cmd->args[0]);
  if (verb->run == command_get) {
    if (!command_get_knows(cmd->args[1]))
      return usage_fail("unknown type", cmd->args[1]);
    return parse_number(cmd->args[2], &cmd->offset);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct given g = {.cmd = {.length = CACHET_TO_END}};
  struct cachet_error err;
  if (std_fds_open() < 0)
    return command_fail("/dev/null cannot be opened");
  signal(SIGPIPE, SIG_IGN); /* a reader that went away is a message, */
  signal(SIGXFSZ, SIG_IGN); /* and so is a file that may not grow */
  int exit_status = parse_options(argc, argv, &g);
  if (exit_status)
    return exit_status;
  if (g.help || g.version) {
    stdout_print("%s", g.help ? usage : "cachet " CACHET_VERSION_STRING "\n");
    return stdout_end();
  }
  if (optind == argc)
    return fputs(usage, stderr), EXIT_USAGE;
  const struct verb *verb = verb_find(argv[optind]);
  if (!verb)
    return usage_fail("unknown command", argv[optind]);
  g.cmd.args = argv + optind + 1;
  exit_status = check(verb, argc - optind - 1, &g);
  if (exit_status)
    return exit_status;
  if (options_read(NULL, &g.cmd.options, &err) != CACHET_OK)
    return command_fail(err.message);
  g.cmd.options.flags = verb->flags;
  return verb->run(&g.cmd);
}
