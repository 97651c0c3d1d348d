#!/usr/bin/env python3
"""Whether docs/locking.md lists each mutex, and no other.

    locks.py ROOT DOCUMENT
"""
import os
import re
import sys

FOLDERS = ("base", "cache", "client", "daemon", "proto", "source")


def declared(root):
    """(file, name) of each mutex that is a field or a variable."""
    for top in FOLDERS:
        for folder, folders, names in os.walk(os.path.join(root, top),
                                              followlinks=True):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not name.endswith((".c", ".h")):
                    continue
                with open(path, encoding="utf-8") as f:
                    for lock in re.findall(r"\bpthread_mutex_t\s+(\w+)",
                                           f.read()):
                        yield os.path.relpath(path, root), lock


def listed(document):
    with open(document, encoding="utf-8") as f:
        return re.findall(r"^\| `(\w+)`[^|]*\| `([^`]+)` \|", f.read(),
                          flags=re.M)


def main():
    there = set(declared(sys.argv[1]))
    said = {(path, lock) for lock, path in listed(sys.argv[2])}
    wrong = ["%s: %s is not in the list" % lock for lock in sorted(there - said)]
    wrong += ["%s: there is no %s" % lock for lock in sorted(said - there)]
    wrong += [] if there else ["no lock is found"]
    print("%sok - docs/locking.md lists the locks that there are" %
          ("not " if wrong else ""))
    for line in wrong:
        print("  " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
