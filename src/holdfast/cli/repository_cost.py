"""``holdfast repository cost``: what the place of a repository will charge."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast import service
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus
from holdfast.storage import CostLine

__all__ = ["cost"]

_NO_COMMON = Common()


def cost(name: str, *, prices: str | None = None, common: Common = _NO_COMMON) -> int:
    """Estimate what an object store charges for a month, and for a restore of everything.

    From what is stored now, the requests that this machine has counted, and a list of public prices. It is a range, for
    planning; the provider's bill is what counts. Lists: aws-s3, aws-s3-ia, azure-hot, backblaze-b2, wasabi, none.

    Example: holdfast repository cost offsite --prices wasabi

    Parameters
    ----------
    name
        The repository.
    prices
        The list of prices; default: what suits the location. Take another one to compare.
    """

    def body(session: Session) -> ExitStatus:
        costs = service.estimate_repository_costs(session.workspace, name, prices=prices, cancel=session.cancel)
        estimate, out = costs.estimate, session.out
        out.say(f"{name}: {estimate.prices.title}", style="bold")
        if estimate.prices.storage_usd_per_gb_month:
            _tell(session, costs)
        else:
            out.say("No list of prices suits this place. Compare with one by --prices: aws-s3, wasabi, …")
        totals = {"month_usd": estimate.month_usd, "restore_usd": estimate.restore_usd}
        out.result({"costs": costs, **totals})
        return ExitStatus.OK

    return run_command(common, body)


def _tell(session: Session, costs: service.RepositoryCosts) -> None:
    estimate, out = costs.estimate, session.out
    _table(session, "A MONTH", estimate.month, estimate.month_usd)
    out.gap()
    _table(session, "A RESTORE OF ALL", estimate.restore, estimate.restore_usd)
    out.gap()
    for note in estimate.notes:
        out.say(note)
    out.say(f"List prices of {estimate.prices.as_of}, without tax: {estimate.prices.source}")


def _table(session: Session, title: str, lines: Sequence[CostLine], total: tuple[float, float]) -> None:
    rows = [(each.what, _usd(each.usd_low), _usd(each.usd_high), each.why) for each in lines]
    rows.append(("together", _usd(total[0]), _usd(total[1]), ""))
    session.out.table((title, ">USD FROM", ">TO", "BECAUSE"), rows, empty="nothing")


def _usd(amount: float) -> str:
    return f"{amount:,.2f}" if amount == 0 or amount >= 0.005 else "<0.01"
