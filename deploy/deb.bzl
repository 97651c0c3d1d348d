"""debian_packages: the .deb files, in a directory, of programs made with -c opt."""

def _optimized_impl(settings, attr):
    return {"//command_line_option:compilation_mode": "opt"}

_optimized = transition(
    implementation = _optimized_impl,
    inputs = [],
    outputs = ["//command_line_option:compilation_mode"],
)

def _debian_packages_impl(ctx):
    # Their names have the version in them, which Bazel does not know.
    out = ctx.actions.declare_directory(ctx.label.name)
    inputs = ctx.files.programs + ctx.files.srcs
    ctx.actions.run(
        executable = ctx.executable.tool,
        arguments = [out.path] + [f.short_path + "=" + f.path for f in inputs],
        inputs = inputs,
        outputs = [out],
        mnemonic = "DebianPackages",
        progress_message = "Making Debian packages",
        use_default_shell_env = True,
    )
    return [DefaultInfo(
        files = depset([out]),
        runfiles = ctx.runfiles([out]),
    )]

debian_packages = rule(
    implementation = _debian_packages_impl,
    doc = "Runs `tool` with a directory to fill, and NAME=FILE for each file of " +
          "`programs`, which are built with -c opt in any case, and of `srcs`.",
    attrs = {
        "programs": attr.label_list(allow_files = True, cfg = _optimized),
        "srcs": attr.label_list(allow_files = True),
        "tool": attr.label(
            allow_single_file = True,
            cfg = "exec",
            executable = True,
            mandatory = True,
        ),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
