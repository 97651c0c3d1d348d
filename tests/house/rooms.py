#!/usr/bin/env python3
"""Checks where the files of cache/, client/, daemon/ and proto/ stand, and what
they see.

A module is the .c and the .h of one name.  It uses another one if it includes
that one's header, or mentions a function that is defined there.  Checked is:

  circles  No modules of one tree use each other in a circle.
  floors   Each module has a floor, and uses none on a higher one.
  sight    A tree includes headers of the folders that it sees, and no others.
  names    A function that a header declares begins with the name of the file
           that defines it, or, where the rules say so, of folder and file.

The rules are at the end of this file.  What is known to be wrong is in
known_uses and known_names there, with the reason.  These lists only shrink: an
entry that is not wrong any more fails the check as well.

Comments and strings are blanked, and macros are read as they stand.  Headers
that are generated (.pb-c.h) are no modules.

    rooms.py [DIRECTORY]    the root of the tree; else the present directory
"""
import collections
import os
import re
import sys

class Rules:
    """What is allowed.

    floors      of each tree, from the lowest up; FOLDER/ stands for each of the
                folder's modules that is not named by itself
    sees        what a tree, or a folder, includes beside itself; "cachet" is
                the public header
    prefixed    folders whose modules may put the folder's name before theirs
    known_uses  (user, used): why it is wrong
    known_names function: why it is wrong
    """

    def __init__(self, floors, sees, prefixed=(), known_uses=(),
                 known_names=()):
        self.floors = floors
        self.sees = sees
        self.prefixed = prefixed
        self.known_uses = dict(known_uses)
        self.known_names = dict(known_names)
        self.folders = {"cachet"}.union(floors, *sees.values())

    def floor_of(self, module):
        for wanted in (module, os.path.dirname(module) + "/"):
            for i, floor in enumerate(self.floors[tree_of(module)]):
                if wanted in floor:
                    return i
        return None

    def is_higher(self, module, other):
        a, b = self.floor_of(module), self.floor_of(other)
        return a is not None and b is not None and a > b

    def sight_of(self, folder):
        return self.sees.get(folder, self.sees[tree_of(folder)])


IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
NO_FUNCTIONS = {"if", "for", "while", "switch", "return", "sizeof", "defined",
                "static_assert", "_Static_assert", "_Alignas", "alignas",
                "__attribute__", "__typeof__", "typeof"}


# ---- Reading C --------------------------------------------------------------


def blank(text):
    """The same number of lines, with nothing on them."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(text):
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    keep = lambda m: m[0] if m[0][0] in "\"'" else blank(m[0])
    return re.sub(pattern, keep, text, flags=re.S)


def without_strings(text):
    pattern = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: blank(m[0]), text)


def without_directives(text):
    """Nor what is for C++ alone, the braces of extern "C" among it."""
    for_cxx = r"^#ifdef __cplusplus$.*?^#endif"
    text = re.sub(for_cxx, lambda m: blank(m[0]), text, flags=re.S | re.M)
    directive = r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*"
    return re.sub(directive, lambda m: blank(m[0]), text, flags=re.M)


def name_of(statement):
    """The function that a declaration or a definition is of, or None."""
    attribute = r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)"
    statement = re.sub(attribute, " ", statement)
    if "=" in statement.split("(")[0] or re.match(r"\s*typedef\b", statement):
        return None
    for m in re.finditer(r"([A-Za-z_]\w*)\s*\(", statement):
        if m[1].isupper() or m[1].upper() == m[1] or m[1] in NO_FUNCTIONS:
            continue
        is_pointer = statement[m.end():].lstrip().startswith("*")
        return None if is_pointer else m[1]
    return None


class File:
    """One source file: what it includes, declares, defines and mentions."""

    def __init__(self, root, path):
        self.path = path
        self.module = os.path.splitext(path)[0]
        self.includes = []  # (line, path)
        self.declared = []  # (line, function), not static
        self.defined = []  # (line, function, is it static)
        self.mentions = []  # (line, identifier), but not of a member
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = without_comments(f.read())
        include = r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+/[^">]+)[">]'
        for m in re.finditer(include, text, flags=re.M):
            self.includes.append((text.count("\n", 0, m.start()) + 1, m[1]))
        text = without_strings(text)
        self.read_top(without_directives(text))

    def read_top(self, text):
        depth = 0
        line = 1
        statement, statement_line = "", 1
        for token in re.finditer(r"[{};]|\n|[^{};\n]+", text):
            t = token[0]
            if t == "\n":
                line += 1
                statement += " "
            elif t == "{":
                if depth == 0:
                    self.read_definition(statement, statement_line)
                depth += 1
                statement = ""
            elif t == "}":
                depth -= 1
                statement = ""
            elif t == ";":
                if depth == 0:
                    self.read_declaration(statement, statement_line)
                statement = ""
            else:
                if not statement.strip():
                    statement_line = line
                statement += t
                if depth > 0:
                    self.read_mentions(t, line)
        assert depth == 0, "%s: braces do not match" % self.path

    def read_definition(self, statement, line):
        name = name_of(statement)
        if name:
            is_static = bool(re.search(r"\bstatic\b", statement))
            self.defined.append((line, name, is_static))

    def read_declaration(self, statement, line):
        name = name_of(statement)
        if name and not re.search(r"\bstatic\b", statement):
            self.declared.append((line, name))

    def read_mentions(self, text, line):
        for m in IDENTIFIER.finditer(text):
            before = text[:m.start()].rstrip()
            if not before.endswith((".", "->")):
                self.mentions.append((line, m[0]))


# ---- Uses ------------------------------------------------------------------


class Tree:
    """The modules, and which uses which."""

    def __init__(self, root, trees):
        self.files = []
        for tree in trees:
            for folder, folders, names in os.walk(os.path.join(root, tree),
                                                  followlinks=True):
                folders.sort()
                where = os.path.relpath(folder, root)
                self.files += [
                    File(root, where + "/" + name) for name in sorted(names)
                    if name.endswith((".c", ".h")) and is_ours(where)
                ]
        self.modules = sorted({f.module for f in self.files})
        self.owners = {}  # of functions that others may see: the module
        for f in self.files:
            for _, name, is_static in f.defined:
                if not is_static or f.path.endswith(".h"):
                    self.owners[name] = f.module
        self.uses = collections.OrderedDict()  # (user, used): the first reason
        for f in self.files:
            self.find_uses(f, trees)

    def find_uses(self, f, trees):
        for line, path in f.includes:
            if tree_of(path) in trees and not path.endswith(".pb-c.h"):
                self.add_use(f.module, os.path.splitext(path)[0],
                             "%s:%d includes %s" % (f.path, line, path))
        own = {name for _, name, _ in f.defined}
        for line, name in f.mentions:
            if name in self.owners and name not in own:
                self.add_use(f.module, self.owners[name],
                             "%s:%d calls %s()" % (f.path, line, name))

    def add_use(self, user, used, reason):
        if user != used:
            self.uses.setdefault((user, used), reason)


def is_ours(folder):
    """The public headers and the examples are not modules."""
    return not folder.startswith(("client/include", "client/examples"))


def tree_of(module):
    return module.split("/")[0]


def circles(modules, uses):
    """The sets of modules that use each other, by Tarjan."""
    follows = collections.defaultdict(list)
    for user, used in uses:
        follows[user].append(used)
    index, low, stack, found = {}, {}, [], []

    def visit(m):
        index[m] = low[m] = len(index)
        stack.append(m)
        for n in follows[m]:
            if n not in index:
                visit(n)
            if n in stack:
                low[m] = min(low[m], low[n])
        if low[m] == index[m]:
            at = stack.index(m)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for m in modules:
        if m not in index:
            visit(m)
    return found


# ---- The checks -------------------------------------------------------------


def check_circles(tree, rules, name):
    """Yields each circle within one tree, and which uses which in it."""
    uses = {u: r for u, r in tree.uses.items()
            if tree_of(u[0]) == tree_of(u[1]) == name and
            u not in rules.known_uses}
    for circle in circles(tree.modules, uses):
        yield "a circle of " + ", ".join(circle)
        for (user, used), reason in uses.items():
            if user in circle and used in circle:
                yield "    %s -> %s: %s" % (user, used, reason)


def check_floors(tree, rules, name):
    for module in tree.modules:
        if tree_of(module) == name and rules.floor_of(module) is None:
            yield "%s is on no floor" % module
    for floor in rules.floors[name]:
        for entry in floor:
            if not any(m == entry or entry.endswith("/") and
                       m.startswith(entry) for m in tree.modules):
                yield "%s has a floor, and is not there" % entry
    for (user, used), reason in tree.uses.items():
        if tree_of(user) != name or (user, used) in rules.known_uses:
            continue
        if used not in tree.modules:
            yield "%s, which is not there, or not in this test's data" % reason
        elif tree_of(used) == name and rules.is_higher(used, user):
            yield "%s, which is on a higher floor" % reason


def check_sight(tree, rules, name):
    for f in tree.files:
        folder = os.path.dirname(f.path)
        if tree_of(f.path) != name:
            continue
        home = folder if folder in rules.sees else name
        for line, path in f.includes:
            if (path.startswith(home + "/") or
                    tree_of(path) in rules.sight_of(folder) or
                    tree_of(path) not in rules.folders):
                continue
            yield "%s:%d includes %s, which %s/ does not see" % (
                f.path, line, path, home)


def check_names(tree, rules, name):
    declared = {function: "%s:%d" % (f.path, line) for f in tree.files
                if f.path.endswith(".h") for line, function in f.declared}
    for f in tree.files:
        if tree_of(f.path) != name or not f.path.endswith(".c"):
            continue
        for line, function, is_static in f.defined:
            if (not is_static and function in declared and
                    function not in rules.known_names and
                    not fits(rules, f, function)):
                yield "%s:%d: %s(), which %s declares" % (
                    f.path, line, function, declared[function])


def fits(rules, f, function):
    """Whether a function's name says in which file it is."""
    folder, own = os.path.split(f.module)
    names = [own]
    if folder in rules.prefixed:
        names.append(os.path.basename(folder) + "_" + own)
    return any(function == n or function.startswith(n + "_") for n in names)


def check_known(tree, rules):
    """Yields the exceptions that are none any more."""
    for use in rules.known_uses:
        rest = [u for u in tree.uses
                if u not in rules.known_uses or u == use]
        is_circle = any(use[0] in c and use[1] in c
                        for c in circles(tree.modules, rest))
        if use not in tree.uses or not (is_circle or
                                        rules.is_higher(use[1], use[0])):
            yield "%s -> %s is right by now: take it out of known_uses" % use
    for function in rules.known_names:
        if not any(function == name and not is_static and
                   not fits(rules, f, name)
                   for f in tree.files for _, name, is_static in f.defined):
            yield "%s() is right by now: take it out of known_names" % function


def check_all(tree, rules):
    """Yields (what is checked, what is wrong of it)."""
    for name in rules.floors:
        for what, check in (("no circle", check_circles),
                            ("no use of a higher floor", check_floors),
                            ("no include of what it does not see",
                             check_sight),
                            ("no function with another file's name",
                             check_names)):
            yield "%s/ has %s" % (name, what), list(check(tree, rules, name))
    yield ("each known exception is still one",
           list(check_known(tree, rules)))


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    n_failed = 0
    for what, wrong in check_all(Tree(root, list(RULES.floors)), RULES):
        # as tests/run counts them
        print("%sok - %s" % ("not " if wrong else "", what))
        for line in wrong:
            print("  " + line)
        n_failed += bool(wrong)
    return 1 if n_failed else 0


# ---- The house --------------------------------------------------------------


def modules(folder, names):
    return [folder + "/" + name for name in names.split()]


# What ends each of these: a header of its own for the struct, below both.
HAS_SESSION = "it looks into struct session; session.h includes much else"
HAS_REQUEST = "it looks into struct request, and counts in it"

RULES = Rules(
    floors={
        "cache": [
            modules("cache", "barrier fill_buffers invalidation_log page_state "
                             "pin s3fifo sequential source stats"),
            modules("cache", "internal mirror"),
            modules("cache", "rounds waiter view"),
            modules("cache", "budget mirror_table states"),
            modules("cache", "fill_table fetch evict"),
            modules("cache", "adopt check reclaim room fill shared_pins"),
            modules("cache", "image evictor reclaimer"),
            modules("cache", "page_cache"),
        ],
        "client": [
            modules("client", "debug error shared_view warm_width"),
            modules("client", "options sources_library uri"),
            modules("client", "backend image_cache"),
            modules("client", "backend_local callback_source remote/"),
            modules("client", "epoch"),
            modules("client", "slice"),
            modules("client", "handle"),
            modules("client", "readahead"),
            modules("client", "request"),
            modules("client", "event_loop load open query read symbols version "
                              "walk warm"),
            modules("client", "libevent sources tls"),
            modules("client/command", "address progress stdout"),
            modules("client/command", "command"),
            modules("client/command", "daemon data"),
            modules("client/command", "main"),
        ],
        "daemon": [
            modules("daemon", "limits log missing peer rule"),
            modules("daemon", "sandbox"),
            modules("daemon/engine", "busy_poll capped_count fd_store "
                                     "finder_place image_counters ledger "
                                     "pending pool reader_counts uring"),
            modules("daemon/engine", "keeper"),
            modules("daemon/engine", "restore"),
            modules("daemon/engine", "images"),
            modules("daemon/engine", "fill_dispatch finder warm"),
            modules("daemon/engine", "looks"),
            modules("daemon/engine", "image_reader"),
            modules("daemon/net", "address closer net_thread send_batch "
                                  "stray_fds users"),
            modules("daemon/net", "connection listener"),
            modules("daemon/serve", "attachment change_maker drain "
                                    "image_quota read_plan"),
            modules("daemon/serve", "context service_images"),
            modules("daemon/serve", "access"),
            modules("daemon/serve", "metrics subscription"),
            modules("daemon/serve", "metrics_text stats"),
            modules("daemon/serve", "reply"),
            modules("daemon/serve", "notices"),
            modules("daemon/serve", "attach fetch_quota"),
            modules("daemon/serve", "read"),
            modules("daemon/serve", "request"),
            modules("daemon/serve", "change find invalidation service"),
            modules("daemon/serve", "check"),
            modules("daemon/serve", "session"),
            modules("daemon", "worker"),
            modules("daemon", "admit http_server liveness liveness_thread"),
            modules("daemon", "acceptor"),
            modules("daemon", "server"),
            modules("daemon", "monitor"),
            modules("daemon", "config_errors config_value inherited memory_limit "
                              "opening process remotes"),
            modules("daemon", "config_image"),
            modules("daemon", "config config_tree"),
            modules("daemon", "cache_size certificates config_check "
                              "config_file locked_code pressure"),
            modules("daemon", "options"),
            modules("daemon", "image_sources listeners"),
            modules("daemon", "directories"),
            modules("daemon", "reloader"),
            modules("daemon", "main"),
        ],
        "proto": [
            modules("proto", "codec status tls_certificates"),
            modules("proto", "frame"),
            modules("proto", "stream"),
            modules("proto", "socket tls"),
            modules("proto", "tls_module"),
        ],
    },
    sees={
        "cache": {"base"},
        "client": {"base", "cache", "cachet", "proto", "source"},
        "client/command": {"base", "cachet"},
        "daemon": {"base", "cache", "proto", "source"},
        "proto": {"base"},
    },
    prefixed={"client/remote", "client/command"},
    known_uses={
        ("daemon/serve/attach", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/attachment", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/check", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/fetch_quota", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/notices", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/request", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/service", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/subscription", "daemon/serve/session"): HAS_SESSION,
        ("daemon/serve/fetch_quota", "daemon/serve/request"): HAS_REQUEST,
        ("daemon/serve/read", "daemon/serve/request"): HAS_REQUEST,
        ("daemon/serve/metrics", "daemon/serve/service"):
            "it sums up the parts of all services",
    },
    known_names={
        "attachments_init": "of all attachments: the file has one's name",
        "attachments_fini": "of all attachments: the file has one's name",
        "piece_cut": "of struct piece, which read_plan.h has as well",
        "piece_shorten": "of struct piece, which read_plan.h has as well",
    },
)

if __name__ == "__main__":
    sys.exit(main())
