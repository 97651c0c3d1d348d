"""Compiler flags shared by every package.

Debian 12 has gcc 12 and clang 14, Debian 13 gcc 14 and clang 19; each must know
every flag here (--config=fuzz uses clang).
"""

_WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wformat=2",
    "-Wpointer-arith",
    "-Wvla",
    "-Wwrite-strings",
    "-Wimplicit-fallthrough",
]

# What costs too much for a release: base/lock.h asks whether locks are held.
_DEBUG_CHECKS = select({
    "//:optimised": [],
    "//conditions:default": ["-DCACHETD_DEBUG_CHECKS"],
})

# -UNDEBUG: an assert states a bug and stays in release builds, where `-c opt`
# would drop it.  Bazel puts a rule's copts after its own flags, so it wins.
CACHETD_COPTS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-UNDEBUG",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wold-style-definition",
] + _WARNINGS + _DEBUG_CHECKS

# C++ is for tests only.
CACHETD_CXXOPTS = [
    "-std=gnu++17",
    "-UNDEBUG",
] + _WARNINGS
