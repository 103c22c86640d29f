"""The command ``holdfast``: nouns, each in a file of its own, and the way into them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from holdfast import __version__
from holdfast.cli import backup, demo, keeper, lab, point, pool, repository, restore, vm
from holdfast.cli import run as run_noun
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
for noun in (pool.app, vm.app, repository.app, backup.app, point.app, restore.app, run_noun.app, lab.app, keeper.app):
    app.command(noun)
app.command(demo.demo)


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
