"""The page of calls that the lab refuses with ``NOT_IMPLEMENTED``, made from the lab itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["LEFT_OUT_PAGE", "left_out_page"]

LEFT_OUT_PAGE = "docs/lab-left-out.md"


def left_out_page(calls: Mapping[str, Sequence[str]]) -> str:
    """Return the text of ``docs/lab-left-out.md``."""
    lines = [
        "# Calls that the lab pool leaves out",
        "",
        "Generated from the lab by `./dev docs`; do not edit. [The lab pool](lab.md#deviations-from-a-real-pool) tells",
        "why.",
        "",
        "Every class, field and call of the API is known: parameters are checked, rights too, and the fields of every",
        f"class can be read. These {sum(map(len, calls.values()))} calls then end with `NOT_IMPLEMENTED`. Calls that a",
        "real pool refuses to everybody, because they were removed or are its hosts' own, are not listed.",
        "",
        "| class | calls |",
        "| --- | --- |",
    ]
    lines += [f"| `{cls}` | {', '.join(f'`{name}`' for name in names)} |" for cls, names in calls.items()]
    return "\n".join(lines) + "\n"
