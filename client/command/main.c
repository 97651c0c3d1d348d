/* cachet: what a daemon serves, from a shell. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shown_uri.h"
#include "base/size.h"
#include "base/std_fds.h"
#include "client/command/command.h"
#include "client/command/daemon.h"
#include "client/command/data.h"
#include "client/command/stdout.h"

enum { EXIT_USAGE = 2 };

enum { MAX_TIMEOUT_S = 1000000 };

static const char usage[] =
    "usage: cachet ls\n"
    "       cachet info IMAGE\n"
    "       cachet cat IMAGE [--offset N] [--length N]\n"
    "       cachet get IMAGE TYPE ADDR\n"
    "       cachet warm IMAGE [--offset N] [--length N]\n"
    "       cachet invalidate IMAGE [--offset N] [--length N]\n"
    "       cachet stats [--json]\n"
    "       cachet add NAME SOURCE[,OPTION...]\n"
    "       cachet remove NAME\n"
    "       cachet drain [--timeout N]\n"
    "\n"
    "  --socket PATH  the daemon's Unix socket, or unix:PATH; default:\n"
    "                 $CACHET_SOCKET, $XDG_RUNTIME_DIR/cachetd.sock, or\n"
    "                 /run/cachetd/cachetd.sock\n"
    "  --uri URI      the daemon: cachet[s]://HOST[:PORT]/ or\n"
    "                 cachet+unix:///?socket=PATH\n"
    "  --help         print this text\n"
    "  --version      print the version\n"
    "\n"
    "IMAGE is the name of an image of the daemon; with a / in it, a path of a\n"
    "file; with a : in it, a URI.  TYPE is u8, i8, or u16le ... i64be, i64ne.\n"
    "SOURCE is an absolute path on the daemon's host, or a URI.  Numbers are\n"
    "decimal, or hexadecimal after 0x, and take K, M, G and T, powers of "
    "1024.\n";

/* `which` is an argument, in whichever place: it may be a URI. */
static int usage_fail(const char *what, const char *which) {
  char *shown = which ? shown_uri_of(which) : NULL;
  fprintf(stderr, "cachet: %s%s%s (see cachet --help)\n", what,
          shown ? ": " : "", shown ? shown : "");
  free(shown);
  return EXIT_USAGE;
}

/* ---- Arguments ----------------------------------------------------------- */

enum {
  OPT_SOCKET = 256,
  OPT_URI,
  OPT_OFFSET,
  OPT_LENGTH,
  OPT_JSON,
  OPT_TIMEOUT,
  OPT_HELP,
  OPT_VERSION
};

struct verb {
  const char *name;
  int n_args;
  bool has_range, has_json, has_timeout;
  uint32_t flags; /* of the handle */
  int (*run)(const struct command *cmd);
};

static const struct verb verbs[] = {
    {.name = "ls", .run = daemon_ls},
    {.name = "info", .n_args = 1, .run = daemon_info},
    {.name = "cat",
     .n_args = 1,
     .has_range = true,
     .flags = CACHET_ONE_EPOCH,
     .run = data_cat},
    {.name = "get", .n_args = 3, .run = data_get},
    {.name = "warm", .n_args = 1, .has_range = true, .run = daemon_warm},
    {.name = "invalidate",
     .n_args = 1,
     .has_range = true,
     .run = daemon_invalidate},
    {.name = "stats", .has_json = true, .run = daemon_stats},
    {.name = "add", .n_args = 2, .run = daemon_add},
    {.name = "remove", .n_args = 1, .run = daemon_remove},
    {.name = "drain", .has_timeout = true, .run = daemon_drain},
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

/* Seconds.  As above. */
static int parse_timeout(const char *text, int *out_ms) {
  uint64_t s;
  int exit_status = parse_number(text, &s);
  if (exit_status)
    return exit_status;
  if (s > MAX_TIMEOUT_S)
    return usage_fail("too many seconds", text);
  *out_ms = (int)s * 1000;
  return 0;
}

/* What was given, before the verb is known. */
struct given {
  struct command cmd;
  bool has_range, help, version;
};

/* getopt_long() would print all of an argument, with a URI in it. */
static int refuse_option(int opt, char **argv) {
  const char *what = opt == ':'      ? "an option needs an argument"
                     : optopt >= 256 ? "an option takes no argument"
                                     : "unrecognized option";
  char name[32];
  const char *word = argv[optind - 1];
  if (optopt > 0 && optopt < 256)
    snprintf(name, sizeof name, "-%c", optopt);
  else
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
  return usage_fail(what, name);
}

/* 0, or the exit status after a message. */
static int parse_options(int argc, char **argv, struct given *g) {
  static const struct option options[] = {
      {"socket", required_argument, NULL, OPT_SOCKET},
      {"uri", required_argument, NULL, OPT_URI},
      {"offset", required_argument, NULL, OPT_OFFSET},
      {"length", required_argument, NULL, OPT_LENGTH},
      {"json", no_argument, NULL, OPT_JSON},
      {"timeout", required_argument, NULL, OPT_TIMEOUT},
      {"help", no_argument, NULL, OPT_HELP},
      {"version", no_argument, NULL, OPT_VERSION},
      {NULL, 0, NULL, 0},
  };
  int opt;
  while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
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
    case OPT_TIMEOUT:
      if (parse_timeout(optarg, &g->cmd.timeout_ms))
        return EXIT_USAGE;
      break;
    case OPT_HELP:
      g->help = true;
      break;
    case OPT_VERSION:
      g->version = true;
      break;
    default:
      return refuse_option(opt, argv);
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
  if (cmd->timeout_ms >= 0 && !verb->has_timeout)
    return usage_fail("--timeout means nothing here", verb->name);
  if (cmd->socket && cmd->uri)
    return usage_fail("--socket or --uri, not both", NULL);
  if ((verb->run == daemon_add || verb->run == daemon_remove) &&
      !command_is_name(cmd->args[0]))
    return usage_fail("a path or a URI is no name", cmd->args[0]);
  if (n_args && !command_is_name(cmd->args[0]) && (cmd->socket || cmd->uri))
    return usage_fail("a path or a URI is not on a daemon", cmd->args[0]);
  if (verb->run == data_get) {
    if (!data_knows(cmd->args[1]))
      return usage_fail("unknown type", cmd->args[1]);
    return parse_number(cmd->args[2], &cmd->offset);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct given g = {.cmd = {.length = CACHET_TO_END, .timeout_ms = -1}};
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
  g.cmd.options = (struct cachet_options){
      .struct_size = sizeof g.cmd.options,
      .flags = verb->flags,
  };
  return verb->run(&g.cmd);
}
