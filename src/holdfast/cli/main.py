"""The command ``holdfast``: nouns, each in a file of its own, and the way into them."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from holdfast import __version__
from holdfast.cli import backup, demo, lab, point, pool, repository, restore, run, vm
from holdfast.core import ExitStatus

__all__ = ["app", "main"]

app = App(
    name="holdfast",
    help=(
        "Back up, replicate and restore the VMs of XCP-ng and XenServer pools.\n\n"
        "Exit statuses: 0 done, 1 failed, 2 wrong usage, 3 unreachable, 4 refused (password, key, permission), "
        "5 not found, 6 damaged data found, 7 no space, 8 some VMs failed, 9 busy or name taken, 130 interrupted.\n\n"
        "Try it without a pool: holdfast demo"
    ),
    version=__version__,
    result_action="return_value",
)
for noun in (pool.app, vm.app, repository.app, backup.app, point.app, restore.app, run.app, lab.app):
    app.command(noun)
app.command(demo.demo)


def main() -> None:
    """Run the command line and end the process with its exit status."""
    if not __debug__:
        sys.exit("Holdfast checks itself while it works; do not run it with python -O.")
    try:
        status = app(exit_on_error=False)
    except CycloptsError:
        sys.exit(int(ExitStatus.USAGE))
    sys.exit(status if isinstance(status, int) else int(ExitStatus.OK))


if __name__ == "__main__":
    main()
