"""A fuzz target: a libFuzzer binary, and a test that replays its corpus."""

load("//:copts.bzl", "CACHETD_CXXOPTS")

def fuzz_target(name, srcs, deps):
    """Defines the program NAME and the test NAME_replay.

    The sources define LLVMFuzzerTestOneInput(); the corpus is corpus/NAME/.
    """
    native.cc_library(
        name = name + "_lib",
        testonly = True,
        srcs = srcs,
        copts = CACHETD_CXXOPTS,
        alwayslink = True,
        deps = deps,
    )

    # gcc has no libFuzzer.  Without it the program replays what it is given.
    native.cc_binary(
        name = name,
        testonly = True,
        linkopts = select({
            "//:fuzz": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = [":" + name + "_lib"] + select({
            "//:fuzz": [],
            "//conditions:default": [":replay"],
        }),
    )

    native.cc_test(
        name = name + "_replay",
        size = "small",
        args = ["tests/fuzz/corpus/" + name],
        data = native.glob(["corpus/" + name + "/**"]),
        deps = [
            ":" + name + "_lib",
            ":replay",
        ],
    )
