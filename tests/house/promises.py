#!/usr/bin/env python3
"""Checks the tests that the documents name.

A document names tests as `FOLDER/TARGET`, which is //tests/FOLDER:TARGET or the
script tests/FOLDER/TARGET, and, behind a colon, cases or suites of GoogleTest
and, in quotes, lines of a script:

    `cache/evict_test`: TheBudgetHoldsWhateverIsRead, TwoImagesShareOneBudget;
    `integration/config_test`: "a drop-in wins over the file"

In SPECIFICATION.md each line of a table that begins with `| S-` is a promise: its
number, what it says, and the tests that hold it.

    promises.py ROOT DOCUMENT...
        Whether all of them are in the sources.  Prints `ok - NAME` and
        `not ok - NAME`, as tests/run counts them.

    promises.py --results FILE SECTION DOCUMENT...
        Whether each of them has passed, or been skipped with a reason, by a file
        of results (tests/results.sh).  Prints results.  Those in tests/ceph are
        of the section "ceph" alone, and all others of any other section.
"""
import collections
import functools
import os
import re
import sys

FOLDERS = ("base cache ceph client daemon deploy docs fuzz house integration "
           "model proto source")
NAME = r'"[^"]+"|[A-Z]\w*(?:\.\w+)?'
REFERENCE = re.compile(
    r"`((?:%s)/(?:\w+_test|\w+_replay|\w+\.sh))`(?::\s+((?:%s)(?:,\s+(?:%s))*))?" %
    (FOLDERS.replace(" ", "|"), NAME, NAME))
SUFFIXES = (".cc", ".c", ".sh", ".py")

Promise = collections.namedtuple("Promise", "name text references")
Reference = collections.namedtuple("Reference", "target name")


# ---- The documents -----------------------------------------------------------


def references(text):
    """Each target and name; a target without names is one, of no name."""
    found = []
    for m in REFERENCE.finditer(text):
        names = re.findall(NAME, m[2]) if m[2] else [None]
        found += [Reference(m[1], n and " ".join(n.strip('"').split()))
                  for n in names]
    return found


def read_promises(path):
    """Those of a document; one that numbers none makes a single one."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    document = os.path.basename(path)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()
            if line.startswith("| S-")]
    if not rows:
        return [Promise(document, text, references(text))]
    return [Promise(row[0], " | ".join(row[1:]), references(row[-1]))
            for row in rows]


def number_of(promise):
    return [int(n) for n in re.findall(r"\d+", promise.name)]


def check_numbers(promises):
    """Numbers rise one by one within a group; and each promise has a test."""
    last = [0, 0]
    for p in promises:
        if not p.references:
            yield "%s names no test" % p.name
        if not p.name.startswith("S-"):
            continue
        number = number_of(p)
        if number not in ([last[0], last[1] + 1], [last[0] + 1, 1]):
            yield "%s does not follow S-%d.%d" % (p.name, last[0], last[1])
        last = number


# ---- The sources -------------------------------------------------------------


def label_of(target):
    return ("tests/" if target.endswith(".sh") else "//tests/") + (
        target if target.endswith(".sh") else target.replace("/", ":"))


@functools.lru_cache(maxsize=None)
def sources_of(root, target):
    """The cases in the file that is named like a target, None if there is none;
    and the text of the scripts beside."""
    folder, name = os.path.split(target)
    stem = re.sub(r"(_test|_replay|\.sh)$", "", name)
    paths = []
    for where, _, files in os.walk(os.path.join(root, "tests", folder)):
        paths += [os.path.join(where, f) for f in sorted(files)
                  if f.endswith(SUFFIXES)]
    named = [p for p in paths if os.path.basename(p).split(".")[0] in
             (stem, stem + "_test")]
    scripts = [p for p in paths if p.endswith((".sh", ".py"))]
    return list(cases_in(read_all(named))) if named else None, read_all(scripts)


def cases_in(text):
    for suite, case in re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)",
                                  text, flags=re.M):
        yield from (suite, case, suite + "." + case)


def read_all(paths):
    text = ""
    for path in paths:
        with open(path, encoding="utf-8") as f:
            text += f.read()
    return text


def is_in_sources(root, reference):
    cases, scripts = sources_of(root, reference.target)
    if cases is None or not reference.name:
        return cases is not None
    return reference.name in cases or '"%s"' % reference.name in scripts


def check_sources(root, promises):
    for p in promises:
        for r in p.references:
            if not is_in_sources(root, r):
                yield "%s: %s %s is not there" % (p.name, r.target, r.name or "")


# ---- The results -------------------------------------------------------------


def is_of(case, name):
    """Whether a result's case, perhaps of a parameter, goes by a name."""
    if case == name:
        return True
    suite, _, test = re.sub(r"/[^.]*$", "", case).partition(".")
    suite = suite.rpartition("/")[2] or suite
    test = test.partition("/")[0]
    return name in (suite, test, suite + "." + test)


def outcome(results, reference):
    """What became of a test: None if it is good, or what is wrong."""
    mine = [r for r in results if r[2].split(" ")[0] == label_of(reference.target)]
    if reference.name:
        mine = [r for r in mine
                if is_of(r[2].partition(" ")[2], reference.name)]
    if not mine:
        return "did not run"
    if any(kind == "fail" for kind, _, _, _ in mine):
        return "has failed"
    if any(kind == "skip" and not reason for kind, _, _, reason in mine):
        return "was skipped without a reason"
    return None


def is_of_section(reference, section):
    return reference.target.startswith("ceph/") == (section == "ceph")


def check_results(path, section, documents):
    with open(path, encoding="utf-8", errors="replace") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    results = [r for r in rows if len(r) == 4 and r[1] == section]
    for document in documents:
        wrong = [(p, r, outcome(results, r)) for p in read_promises(document)
                 for r in p.references if is_of_section(r, section)]
        wrong = [(p, r, why) for p, r, why in wrong if why]
        name = os.path.basename(document)
        for p, r, why in wrong:
            print("fail\t%s\t%s %s\t%s %s %s" % (
                section, name, p.name, r.target, r.name or "", why))
        if not wrong:
            print("pass\t%s\t%s: the tests that it names\t" % (section, name))


def report(what, wrong):
    print("%sok - %s" % ("not " if wrong else "", what))
    for line in wrong:
        print("  " + line)
    return bool(wrong)


def main():
    if sys.argv[1] == "--results":
        check_results(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    n_failed = 0
    for document in sys.argv[2:]:
        promises = read_promises(document)
        name = os.path.basename(document)
        n_failed += report("the tests that %s names are there" % name,
                           list(check_sources(sys.argv[1], promises)))
        n_failed += report("the promises of %s are numbered, and have tests" %
                           name, list(check_numbers(promises)))
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
