"""link_only: what some libraries hold, without their headers."""

def _link_only_impl(ctx):
    merged = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    )
    return [CcInfo(linking_context = merged.linking_context)]

link_only = rule(
    implementation = _link_only_impl,
    doc = "Links `deps` into what depends on this, which does not see their " +
          "headers.",
    attrs = {"deps": attr.label_list(providers = [CcInfo])},
)
