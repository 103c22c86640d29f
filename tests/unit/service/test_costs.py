"""The estimate of a repository rests on its real objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast import service
from holdfast.core import Cancellation
from tests.unit.service.fakes import make_workspace


def test_an_estimate_counts_what_is_stored(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    cancel = Cancellation()
    service.create_repository(workspace, name="main", location="s3://bucket/x", cancel=cancel)
    costs = service.estimate_repository_costs(workspace, "main", cancel=cancel)
    stored = list(workspace.open_store(workspace.registry.repository("main").place, False, cancel).list(""))
    assert costs.objects == len(stored) > 0
    assert costs.stored_bytes == sum(info.length_bytes for info in stored)
    assert costs.estimate.prices.name == "aws-s3"
    compared = service.estimate_repository_costs(workspace, "main", prices="wasabi", cancel=cancel)
    assert compared.estimate.month_usd[0] == pytest.approx(6.99)


def test_an_unknown_list_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    service.create_repository(workspace, name="main", location="/srv/x", cancel=Cancellation())
    with pytest.raises(service.PricesUnknown) as refusal:
        service.estimate_repository_costs(workspace, "main", prices="moon", cancel=Cancellation())
    assert "wasabi" in refusal.value.next_step()
