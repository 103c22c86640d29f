"""The command ``holdfast``: nouns, each in a file of its own, and the way into them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from holdfast import __version__
from holdfast.cli.nouns import NOUNS
from holdfast.cli.output import Output
from holdfast.core import ExitStatus, HoldfastError

__all__ = ["WrongUsage", "app", "main", "run"]

app = App(
    name="holdfast",
    help=(
        "Back up and restore the VMs of XCP-ng and XenServer pools.\n\n"
        "Exit statuses: 0 done, 1 failed, 2 wrong usage, 3 unreachable, 4 refused (password, key, permission), "
        "5 not found, 6 damaged data found, 7 no space, 8 some VMs failed, 9 busy or name taken, 130 interrupted.\n\n"
        "Try it without a pool: holdfast demo"
    ),
    version=__version__,
    result_action="return_value",
)
# A noun is loaded when it is asked for: the lab alone takes as long as everything that a backup needs.
for noun, sentence in NOUNS.items():
    app.command(f"holdfast.cli.{noun}:app", name=noun, help=sentence)
app.command(
    "holdfast.cli.demo:demo",
    name="demo",
    help="Show the main job on a simulated pool: back up, change, back up again, lose a VM, restore it, prove it.",
)


class WrongUsage(HoldfastError):
    """The command line was not understood."""

    code = "cli.wrong-usage"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "See the same command with --help."


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit status. Every end with ``--json`` is one document."""
    as_json = "--json" in words
    try:
        status = app(words, exit_on_error=False, print_error=not as_json)
    except CycloptsError as error:
        return Output(as_json=True).fail(WrongUsage(str(error))) if as_json else int(ExitStatus.USAGE)
    return status if isinstance(status, int) else int(ExitStatus.OK)


def main() -> None:
    """Run the command line and end the process with its exit status."""
    if not __debug__:
        sys.exit("Holdfast checks itself while it works; do not run it with python -O.")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
