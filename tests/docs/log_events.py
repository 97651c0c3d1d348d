#!/usr/bin/env python3
"""Whether docs/operating.md says of each event that the daemon logs as a warning
or an error, with its level, what it means; and of no others.

    log_events.py ROOT DOCUMENT

Prints `ok - NAME` and `not ok - NAME`, as tests/run counts them.
"""
import os
import re
import sys

CALL = re.compile(r"\blog_(?:peer_)?event\(\s*LEVEL_(\w+),\s*(\"[^\"]+\"|\w+)|"
                  r"\blog_(?:write|peer)\(\s*LEVEL_(\w+),\s*(\"[^\"]+\"|\w+)")
# Where the event is the caller's to name: what callers name it.
PASSED_ON = {("daemon/image_sources.c", "event"): ("start-failed",
                                                   "reload-failed")}


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def sources(root):
    """(path, text) of each file of the daemon."""
    for folder, folders, names in os.walk(os.path.join(root, "daemon"),
                                          followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, root), read(path)


def events_of(path, word, text):
    """The events that the second argument of a call may be."""
    if word.startswith('"'):
        return (word.strip('"'),)
    m = re.search(r"#define %s \"([^\"]+)\"" % word, text)
    return (m[1],) if m else PASSED_ON.get((path, word), ())


def logged(root):
    """(event, level, place) of each that is a warning or worse, and places of
    which the event is not known."""
    found, unknown = set(), []
    for path, text in sources(root):
        if path.startswith("daemon/log."):
            continue
        for m in CALL.finditer(text):
            level, word = m[1] or m[3], m[2] or m[4]
            if level not in ("WARN", "ERROR"):
                continue
            events = events_of(path, word, text)
            found |= {(event, level.lower()) for event in events}
            if not events:
                unknown.append("%s: which event is %s?" % (path, word))
    return found, unknown


def documented(path):
    return [tuple(m) for m in re.findall(r"^\| `([\w-]+)` \| (\w+) \| \S",
                                         read(path), flags=re.M)]


def report(what, wrong):
    print("%sok - %s" % ("not " if wrong else "", what))
    for line in wrong:
        print("  " + line)
    return bool(wrong)


def main():
    found, unknown = logged(sys.argv[1])
    said = documented(sys.argv[2])
    show = lambda events: ["%s, level %s" % e for e in sorted(events)]
    n_failed = report("it is known which events are logged",
                      unknown or ([] if found else ["none is"]))
    n_failed += report("each warning and error is explained",
                       show(found - set(said)))
    n_failed += report("what is explained is logged", show(set(said) - found))
    n_failed += report("events are in order, each once",
                       ["%s, before %s" % (a[0], b[0])
                        for a, b in zip(said, said[1:]) if a >= b])
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
