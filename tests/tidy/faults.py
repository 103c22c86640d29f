"""The page of the lab's faults, made from the faults themselves, so that it lists those there are and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.lab import FaultKind, FaultManner

__all__ = ["FAULTS_PAGE", "faults_page"]

FAULTS_PAGE = "docs/lab-faults.md"

_MANNERS = {
    FaultManner.WAITS: "so many times",
    FaultManner.LASTS: "until cleared",
    FaultManner.AT_ONCE: "at once",
}


def faults_page(areas: Mapping[str, Sequence[FaultKind]]) -> str:
    """Return the text of ``docs/lab-faults.md``."""
    lines = [
        "# Faults of the lab pool",
        "",
        "Generated from the lab by `./dev docs`; do not edit. [The lab pool](lab.md#faults-on-demand) tells how to use",
        "them.",
        "",
        "A parameter that is empty matches everything; `method` is a call such as `VM.snapshot`, `path` that of a",
        "transfer such as `/export_raw_vdi`, and `disk`, `sr` and `host` are names, uuids or references. A fault",
        "happens *so many times* (once, unless told otherwise) when its place is reached, or lasts *until cleared*, or",
        "is an accident that happens *at once*.",
    ]
    for area, kinds in areas.items():
        lines += ["", f"## {area}", "", "| fault | parameters | what happens | when |", "| --- | --- | --- | --- |"]
        lines += [_row(kind) for kind in kinds]
    return "\n".join(lines) + "\n"


def _row(kind: FaultKind) -> str:
    knobs = ", ".join(f"`{name}={value}`" for name, value in kind.parameters.items())
    choices = "".join(
        f" `{name}` is one of {', '.join(f'`{each}`' for each in words if each)}."
        for name, words in kind.choices.items()
    )
    cells = (f"`{kind.name}`", knobs, kind.summary + choices, _MANNERS[kind.manner])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
