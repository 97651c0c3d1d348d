"""protobuf_c_library: C code from a .proto file, by protoc-c."""

def protobuf_c_library(name, src, visibility = None):
    """Makes a cc_library of what protoc-c generates from one .proto file.

    In package proto, `src = "cachet.proto"` gives "proto/cachet.pb-c.h".  The
    generated code is compiled without the project's warnings.

    Args:
      name: the cc_library's name.
      src: the .proto file, in this package.
      visibility: the cc_library's visibility.
    """
    stem = src[:-len(".proto")]
    generated_c = stem + ".pb-c.c"
    generated_h = stem + ".pb-c.h"
    native.genrule(
        name = name + "_generate",
        srcs = [src],
        outs = [
            generated_c,
            generated_h,
        ],
        # Paths are relative to the root, so that includes are too.
        cmd = "protoc-c --proto_path=. --c_out=$(GENDIR) $(SRCS)",
        message = "Generating C from",
        visibility = ["//visibility:private"],
    )
    native.cc_library(
        name = name,
        srcs = [generated_c],
        hdrs = [generated_h],
        copts = [
            "-std=gnu11",
            "-w",
        ],
        visibility = visibility,
        deps = ["//third_party:protobuf_c"],
    )
