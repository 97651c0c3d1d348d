#!/usr/bin/env python3
"""Whether each function that is called with a lock asserts that it is held.

A function whose name ends in _locked is called with the lock of its module, and
its body calls lock_assert_held() (base/lock.h).  Comments and strings do not
count.

    held.py [DIRECTORY]    the root of the tree; else the present directory
"""
import os
import re
import sys

FOLDERS = ("base", "cache", "client", "daemon", "proto", "source")
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)
# At the start of a line, so no call; `{` in place of `;`, so no declaration.
DEFINITION = re.compile(r"^[a-zA-Z_][\w \t*\n]*?\b(\w+_locked)\([^;{}]*\)\s*"
                        r"\{(.*?)\}$", re.M | re.S)


def sources(root):
    for top in FOLDERS:
        for folder, folders, names in os.walk(os.path.join(root, top),
                                              followlinks=True):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield os.path.join(folder, name)


def check(root):
    """How many such functions there are, and what is wrong with some."""
    n, wrong = 0, []
    for path in sources(root):
        with open(path, encoding="utf-8") as f:
            text = NOT_CODE.sub("", f.read())
        for name, body in DEFINITION.findall(text):
            n += 1
            if "lock_assert_held(" not in body:
                wrong.append("%s: %s() does not assert that its lock is held" %
                             (os.path.relpath(path, root), name))
    return n, wrong


def main():
    n, wrong = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    if n == 0:
        wrong = ["no such function is found"]
    print("%sok - functions that end in _locked assert that their lock is held"
          % ("not " if wrong else ""))
    for line in wrong:
        print("  " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
