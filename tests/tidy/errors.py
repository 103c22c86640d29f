"""Rules on errors, and the page that lists them: one class per cause, a stable code, what it means, what to do.

The page is written from the classes, so it cannot tell anything else than the program does.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import holdfast
from holdfast.core import ExitStatus, HoldfastError, Retry, iter_error_classes
from tests.tidy.source import Offence, modules

__all__ = ["ERRORS_PAGE", "error_classes", "errors_page", "steps_of", "unclear_errors"]

ERRORS_PAGE = "docs/errors.md"

_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TOUCHES_DATA = (ExitStatus.DAMAGED, ExitStatus.NO_SPACE, ExitStatus.PARTIAL)

EXIT_MEANINGS = {
    ExitStatus.OK: "Everything that was asked for is done.",
    ExitStatus.FAILED: "It failed for a reason that has no status of its own; the error's code says which.",
    ExitStatus.USAGE: "The command line or a setting is wrong; nothing was started.",
    ExitStatus.UNREACHABLE: "A pool, a host or a store did not answer.",
    ExitStatus.REFUSED: "A password, key, certificate or permission was refused.",
    ExitStatus.NOT_FOUND: "The named pool, VM, repository, restore point or run does not exist.",
    ExitStatus.DAMAGED: "Stored data is damaged. The message names what is hit; the rest stays usable.",
    ExitStatus.NO_SPACE: "There is no space left where data must go.",
    ExitStatus.PARTIAL: "Some VMs are done and others are not; the run's record says which.",
    ExitStatus.BUSY: "Something else holds what is needed; it can be tried again.",
    ExitStatus.INTERRUPTED: "It was stopped by request (Ctrl-C or cancel) and left a resumable run.",
}
_RETRY_MEANINGS = {
    Retry.NEVER: "trying again changes nothing until the cause is removed",
    Retry.NOW: "can be tried again at once",
    Retry.LATER: "can be tried again later",
}


def error_classes() -> list[type[HoldfastError]]:
    """Return every error class of the product that can be raised, by code, after importing all of its modules.

    Private ones do not reach anybody; a class that is only inherited from is no cause of its own.
    """
    for module in pkgutil.walk_packages(holdfast.__path__, prefix="holdfast.", onerror=_raise):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    raised = _called_names()
    found = {each for each in iter_error_classes() if each.__module__.startswith("holdfast.")}
    public = [each for each in found if not each.__name__.startswith("_")]
    causes = [each for each in public if each.__name__ in raised or not each.__subclasses__()]
    return sorted(causes, key=lambda each: (each.code, each.__name__))


def _raise(name: str) -> None:
    raise ImportError(f"{name} cannot be imported")


def _called_names() -> set[str]:
    """Return the names that are called, or raised without a call, anywhere in the product."""
    names: set[str] = set()
    for module in modules():
        for node in module.nodes if module.is_product else ():
            target = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
            if isinstance(target, ast.Name | ast.Attribute):
                names.add(target.id if isinstance(target, ast.Name) else target.attr)
    return names


def unclear_errors(classes: Iterable[type[HoldfastError]]) -> Iterator[Offence]:
    """Yield what keeps an error class from telling its reader what happened, what it means and what to do."""
    classes = list(classes)
    shared = {code for code, count in Counter(each.code for each in classes).items() if count > 1}
    for each in classes:
        for what in _complaints(each, shared):
            line = inspect.getsourcelines(each)[1]
            yield Offence(path=f"src/{each.__module__.replace('.', '/')}.py", line=line, what=f"{each.__name__} {what}")


def _complaints(cls: type[HoldfastError], shared_codes: set[str]) -> Iterator[str]:
    if "code" not in vars(cls):
        yield "has no code of its own"
    elif not _CODE.fullmatch(cls.code):
        yield f"has the code {cls.code!r}; a code reads area.what-happened"
    if cls.code in shared_codes and "code" in vars(cls):
        yield f"shares the code {cls.code!r} with another class"
    if not (vars(cls).get("__doc__") or "").strip():
        yield "has no docstring: one sentence on what happened"
    if not any("next_step" in vars(each) or "advice" in vars(each) for each in _ancestry(cls)):
        yield "gives no advice: set advice, or override next_step"
    if cls.exit_status in _TOUCHES_DATA and not any("effect" in vars(each) for each in _ancestry(cls)):
        yield f"ends with {cls.exit_status.name} and does not say what that means for the data: set effect"
    for name in ("effect", "advice"):
        text = getattr(cls, name)
        if not isinstance(text, str) or (text and not text.rstrip().endswith((".", "?", "'", "`"))):
            yield f"has {name} that is no whole sentence"


def _ancestry(cls: type[HoldfastError]) -> list[type]:
    """Return the class and its ancestors below the root."""
    return [each for each in cls.__mro__ if issubclass(each, HoldfastError) and each is not HoldfastError]


def steps_of(cls: type[HoldfastError]) -> list[str]:
    """Return the sentences that ``next_step`` can give, facts as ``{names}``; the advice when it is not overridden."""
    if cls.next_step is HoldfastError.next_step:
        return [cls.advice]
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.next_step)))
    steps: list[str] = []
    returns = [each for each in ast.walk(tree) if isinstance(each, ast.Return)]
    for each in sorted(returns, key=lambda each: each.lineno):
        if each.value is not None:
            steps.extend(_sentences(each.value, advice=cls.advice))
    return steps


def _sentences(value: ast.expr, *, advice: str) -> Iterator[str]:
    """Yield what an expression can read as, for the shapes that advice is written in."""
    match value:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr():
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{_fact_name(part)}}}"
                for part in value.values
            )
        case ast.IfExp(body=body, orelse=orelse):
            yield from _sentences(body, advice=advice)
            yield from _sentences(orelse, advice=advice)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for first in _sentences(left, advice=advice):
                yield from (first + second for second in _sentences(right, advice=advice))
        case ast.Attribute(attr="advice"):
            yield advice
        case ast.Attribute(attr=name) if name.endswith("next_step"):
            yield "What the cause asks for; its own advice is shown."
        case _:
            yield f"{{{_fact_name(value)}}}"


def _fact_name(part: ast.expr) -> str:
    inner = part.value if isinstance(part, ast.FormattedValue) else part
    return ast.unparse(inner).removeprefix("self.").strip("_").replace("_", " ")


def errors_page(classes: Sequence[type[HoldfastError]]) -> str:
    """Return the text of ``docs/errors.md``."""
    lines = [
        "# Errors and exit statuses",
        "",
        "Generated from the error classes by `./dev docs`; do not edit.",
        "",
        "Every message has three parts: what happened, what it means for your data, what to do. With `--json` an error",
        "is an object with `code`, `message`, `effect`, `next_step`, `retry` and the error's own facts. Codes and exit",
        "statuses are stable: scripts may rely on them.",
        "",
        "## Exit statuses",
        "",
        "| status | name | meaning |",
        "| --- | --- | --- |",
        *(f"| {int(each)} | `{each.name}` | {EXIT_MEANINGS[each]} |" for each in ExitStatus),
    ]
    by_area: defaultdict[str, list[type[HoldfastError]]] = defaultdict(list)
    for cls in classes:
        by_area[cls.code.split(".")[0]].append(cls)
    for area in sorted(by_area):
        lines += ["", f"## {area}"]
        for cls in by_area[area]:
            lines += ["", *_entry(cls)]
    return "\n".join(lines) + "\n"


def _entry(cls: type[HoldfastError]) -> list[str]:
    said = " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())
    steps = [" ".join(each.split()) for each in steps_of(cls)]
    lines = [f"### `{cls.code}`", "", said.replace("``", "`"), "", f"- Your data: {cls.effect}"]
    if len(steps) == 1:
        lines.append(f"- What to do: {steps[0]}")
    else:
        lines += ["- What to do, depending on the facts:", *(f"    - {each}" for each in steps)]
    status = cls.exit_status
    lines.append(f"- Exit status {int(status)} (`{status.name}`); {_RETRY_MEANINGS[cls.retry]}.")
    return lines
