"""What every test in C++ has in common."""

load("//:copts.bzl", "CACHETD_CXXOPTS")

def cachetd_test(name, size = "small", srcs = [], hdrs = [], deps = [], **kwargs):
    """Defines the GoogleTest program NAME.

    Its source is NAME.cc unless srcs say otherwise; hdrs are the headers beside
    it that it includes.  It is linked with GoogleTest and its main().
    """
    native.cc_test(
        name = name,
        size = size,
        srcs = (srcs or [name + ".cc"]) + hdrs,
        copts = CACHETD_CXXOPTS,
        deps = deps + ["//third_party:gtest_main"],
        **kwargs
    )
