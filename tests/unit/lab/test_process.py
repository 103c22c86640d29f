"""A lab's process is started once, found again, and never taken for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core import ExitStatus
from holdfast.lab import LabOptions, spawn_lab, start_lab
from holdfast.lab.running import LabFolderNotWritable


@pytest.mark.parametrize("start", [spawn_lab, start_lab])
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_folder_that_cannot_be_is_refused_in_words(tmp_path: Path, start: type, below: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(LabFolderNotWritable) as caught:
        start(LabOptions(state_dir=blocked / below))
    assert str(blocked) in str(caught.value)
    assert caught.value.exit_status is ExitStatus.REFUSED
    assert blocked.read_text() == "in the way"


def test_a_folder_in_which_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(LabFolderNotWritable):
        start_lab(LabOptions(state_dir=Path("/proc/self")))
