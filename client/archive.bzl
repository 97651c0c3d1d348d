"""merged_archive: one static archive out of a library and what it stands on."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

def _objects(deps):
    objects = []
    for dep in deps:
        for linker_input in dep[CcInfo].linking_context.linker_inputs.to_list():
            for library in linker_input.libraries:
                found = library.pic_objects or library.objects
                objects += [o for o in found if o not in objects]
    return objects

def _merged_archive_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    objects = _objects(ctx.attr.deps)
    merged = ctx.actions.declare_file(ctx.label.name + ".o")
    ctx.actions.run_shell(
        inputs = depset(objects, transitive = [toolchain.all_files]),
        outputs = [merged],
        # All but the public names becomes local, so that none clashes with a
        # program's.  (cachet__* is what protoc-c generates.)
        command = '"$1" -r -o "$3" "${@:4}" && ' +
                  '"$2" -w --keep-global-symbol="cachet_[a-z]*" "$3"',
        arguments = [
            toolchain.ld_executable,
            toolchain.objcopy_executable,
            merged.path,
        ] + [o.path for o in objects],
        mnemonic = "MergeObjects",
    )
    ctx.actions.run_shell(
        inputs = depset([merged], transitive = [toolchain.all_files]),
        outputs = [ctx.outputs.out],
        command = 'rm -f "$2" && "$1" rcsD "$2" "$3"',
        arguments = [
            toolchain.ar_executable,
            ctx.outputs.out.path,
            merged.path,
        ],
        mnemonic = "MergedArchive",
    )
    return [DefaultInfo(files = depset([ctx.outputs.out]))]

merged_archive = rule(
    implementation = _merged_archive_impl,
    doc = "A static archive with the objects of `deps` and of all that they " +
          "depend on in this tree, as one object with only public names.",
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "out": attr.output(mandatory = True),
        "_cc_toolchain": attr.label(
            default = Label("@bazel_tools//tools/cpp:current_cc_toolchain"),
        ),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)
