#!/usr/bin/env python3
"""Whether the walk of a miss in docs/architecture.md passes at most 20 files,
each once, and files that there are.

    walk.py ROOT DOCUMENT
"""
import os
import re
import sys

MOST = 20


def stops(document):
    """(number, file) of each."""
    with open(document, encoding="utf-8") as f:
        section = re.search(r"^## A miss, end to end$(.*?)^## ", f.read(),
                            flags=re.M | re.S)
    return re.findall(r"^(\d+)\. \*\*`([^`]+)`\*\*", section[1], flags=re.M)


def main():
    root, document = sys.argv[1:]
    found = stops(document)
    files = [path for _, path in found]
    wrong = ["%s: there is no such file" % path for path in files
             if not os.path.exists(os.path.join(root, path))]
    wrong += ["%s: passed twice" % path for path in sorted(set(files))
              if files.count(path) > 1]
    if [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        wrong.append("the stops are not numbered from 1 on")
    if not 0 < len(found) <= MOST:
        wrong.append("there are %d stops" % len(found))
    print("%sok - a miss passes at most %d files in docs/architecture.md" %
          ("not " if wrong else "", MOST))
    for line in wrong:
        print("  " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
