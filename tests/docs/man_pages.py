#!/usr/bin/env python3
"""Checks the man pages: what mandoc says of them, and that those of section 3
say what the public headers and the symbol map say.

    man_pages.py MAP HEADER... -- PAGE...

Prints `ok - NAME` and `not ok - NAME`, as tests/run counts them.
"""
import os
import re
import subprocess
import sys

# Not about the pages: that they belong to a system with a name, that the pages
# beside them are not installed here, how wide their source is, and that those of
# sections 5 and 8 have no date.
IGNORED = ("operating system explicitly specified", "referenced manual not found",
           "outdated mandoc.db lacks", "input text line longer than 80 bytes",
           "missing date, using \"\"")
SECTIONS = ["NAME", "LIBRARY", "SYNOPSIS", "DESCRIPTION", "RETURN VALUES",
            "SEE ALSO", "HISTORY"]
# Pages of Debian's that ours refer to.
FOREIGN = {"assert(3)", "dlopen(3)", "event(3)", "fork(2)", "free(3)",
           "getaddrinfo(3)", "malloc(3)", "poll(2)"}


# ---- The headers -------------------------------------------------------------


def squeeze(text):
    """A declaration's part, with one blank wherever one may be."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s*([*(),])\s*", r"\1", text)


def split_arguments(text):
    """At the commas that are in no brackets."""
    arguments, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += c
    return [squeeze(a) for a in arguments]


def without_attributes(code):
    for name in ("CACHET_NONNULL", "__attribute__"):
        code = re.sub(name + r"\s*\((?:[^()]|\([^()]*\))*\)", " ", code)
    return re.sub(r"\bCACHET_(API|CHECKED)\b", " ", code)


def read_header(path):
    """Yields (function, (its type, its arguments)) of each declaration."""
    with open(path, encoding="utf-8") as f:
        code = re.sub(r"/\*.*?\*/", " ", f.read(), flags=re.S)
    getter = r"^CACHET_SLICE_GETTER_\((\w+), (\w+),.*$"
    code = re.sub(getter, r"bool cachet_slice_\1(const struct cachet_slice *slice,"
                  r" uint64_t addr, \2 *out);", code, flags=re.M)
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", code, flags=re.M)
    code = code.replace("CACHET_GETTER_ ", "enum cachet_status ")
    code = code.replace("CACHET_INLINE ", "")
    code = without_attributes(code)
    function = r"\s*([\w\s*]+?)\b(cachet_\w+)\s*\((.*)\)\s*"
    for statement in re.split(r"[;{}]", code):
        m = re.fullmatch(function, statement, flags=re.S)
        if m:
            yield m[2], (squeeze(m[1]), split_arguments(m[3]))


def read_map(path):
    """The version that each function appeared in."""
    versions, version = {}, None
    with open(path, encoding="utf-8") as f:
        for line in f:
            m = re.match(r"CACHET_([\d.]+) \{", line)
            version = m[1] if m else version
            m = re.match(r"    (cachet_\w+);", line)
            if m:
                versions[m[1]] = version
    return versions


# ---- The pages ---------------------------------------------------------------


class Page:
    """A page in mdoc: its sections, as lines."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)
        self.sections = {}
        self.lines = []
        section = None
        with open(path, encoding="utf-8") as f:
            for line in f.read().splitlines():
                self.lines.append(line)
                if line.startswith(".Sh "):
                    section = self.sections.setdefault(line[4:], [])
                elif section is not None:
                    section.append(line)

    def of(self, section):
        return self.sections.get(section, [])

    def names(self):
        return [line.split()[1] for line in self.of("NAME")
                if line.startswith(".Nm ")]

    def synopsis(self):
        """Yields (function, (its type, its arguments))."""
        kind, function, arguments = None, None, []
        for line in self.of("SYNOPSIS"):
            words = [a or b for a, b in
                     re.findall(r'"([^"]*)"|(\S+)', line)]
            if line.startswith(".Ft "):
                kind = squeeze(words[1])
            elif line.startswith(".Fn "):
                yield words[1], (kind, [squeeze(w) for w in words[2:]])
            elif line.startswith(".Fo "):
                function, arguments = words[1], []
            elif line.startswith(".Fa ") and function:
                arguments += [squeeze(w) for w in words[1:]]
            elif line == ".Fc":
                yield function, (kind, arguments)
                function = None

    def references(self):
        for line in self.lines:
            m = re.match(r"\.Xr (\S+) (\d)", line)
            if m:
                yield "%s(%s)" % m.groups()


# ---- The checks --------------------------------------------------------------


def lint(path):
    said = subprocess.run(["mandoc", "-T", "lint", path], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True)
    return [line for line in said.stdout.splitlines()
            if not any(text in line for text in IGNORED)]


def check_names(pages, declared):
    """Each function is in the NAME of one page, whose file one of them names."""
    seen = {}
    for page in pages:
        for name in page.names():
            if name not in declared:
                yield "%s: %s is in no header" % (page.name, name)
            elif name in seen:
                yield "%s is in %s and %s" % (name, seen[name], page.name)
            seen[name] = page.name
        if page.name not in [n + ".3" for n in page.names()]:
            yield "%s is not named after what it is of" % page.name
    for name in sorted(set(declared) - set(seen)):
        yield "%s has no page" % name


def check_synopses(pages, declared):
    for page in pages:
        shown = dict(page.synopsis())
        for name in page.names():
            if shown.get(name) != declared.get(name):
                yield "%s: %s is %s, and %s in the header" % (
                    page.name, name, shown.get(name), declared.get(name))


def check_overview(page, declared):
    """The overview shows all but the integers, of which it names the family."""
    shown = dict(page.synopsis())
    for name in sorted(declared):
        if re.match(r"cachet_(get|slice)_[ui]\d", name):
            continue
        if shown.get(name) != declared[name]:
            yield "%s: %s is %s, and %s in the header" % (
                page.name, name, shown.get(name), declared[name])


def check_sections(pages):
    for page in pages:
        for section in SECTIONS:
            if not page.of(section):
                yield "%s has no %s" % (page.name, section)
        if ".Ss Threads and pages" not in page.of("DESCRIPTION"):
            yield "%s does not say which threads, and how many pages" % page.name


def check_history(pages, versions):
    for page in pages:
        text = " ".join(page.of("HISTORY"))
        for name in page.names():
            if versions.get(name, "1.0") not in text:
                yield "%s: HISTORY does not say %s of %s" % (
                    page.name, versions[name], name)


def check_references(pages, ours):
    for page in pages:
        for reference in page.references():
            if reference not in ours and reference not in FOREIGN:
                yield "%s refers to %s" % (page.name, reference)


def report(what, wrong):
    print("%sok - %s" % ("not " if wrong else "", what))
    for line in wrong:
        print("  " + line)
    return bool(wrong)


def main():
    split = sys.argv.index("--")
    map_path, headers = sys.argv[1], sys.argv[2:split]
    paths = sys.argv[split + 1:]
    versions = read_map(map_path)
    declared = {}
    for path in headers:
        declared.update(read_header(path))
    pages = [Page(path) for path in paths
             if os.path.basename(path).startswith("cachet_")]
    ours = {"%s(%s)" % (n, p[-1]) for p in paths
            for n in [os.path.basename(p)[:-2]] + Page(p).names()}
    wrong = [report("mandoc has nothing to say of " + os.path.basename(path),
                    lint(path)) for path in sorted(paths)]
    missing = ["%s is in the map, and in no header" % name
               for name in sorted(set(versions) - set(declared))]
    wrong += [
        report("each function of the headers has a page",
               missing + list(check_names(pages, declared))),
        report("the pages show functions as the headers declare them",
               list(check_synopses(pages, declared))),
        report("the overview shows all calls",
               [line for path in paths if path.endswith("/libcachet-client.3")
                for line in check_overview(Page(path), declared)]),
        report("each page has all sections", list(check_sections(pages))),
        report("each page says since when a function is there",
               list(check_history(pages, versions))),
        report("each page that is referred to is there",
               list(check_references([Page(p) for p in paths], ours))),
    ]
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
