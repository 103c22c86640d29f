"""All fuzz targets by name, and where inputs that once broke something are kept."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.formats import FORMAT_TARGETS
from tests.fuzz.repository import REPOSITORY_TARGETS
from tests.fuzz.target import Target

__all__ = ["CORPUS", "GROUPS", "TARGETS"]

CORPUS = Path(__file__).with_name("corpus")

TARGETS = {**FORMAT_TARGETS, **REPOSITORY_TARGETS}


def _group(names: list[str]) -> Target:
    """Return one target for several decoders; the first byte says which is meant."""

    def decode(data: bytes) -> None:
        if data:
            TARGETS[names[data[0] % len(names)]].decode(data[1:])

    def samples() -> tuple[bytes, ...]:
        return tuple(
            bytes([number]) + sample for number, name in enumerate(names) for sample in TARGETS[name].samples()
        )

    return Target(decode, samples)


GROUPS = {
    "all-formats": _group(sorted(FORMAT_TARGETS)),
    "all-objects": _group(sorted(name for name in REPOSITORY_TARGETS if name.endswith("-object"))),
    "all-behind-seals": _group(sorted(name for name in REPOSITORY_TARGETS if name.endswith("-its-seal"))),
    "all-parsers": _group(sorted(name for name in REPOSITORY_TARGETS if not name.endswith(("-object", "-its-seal")))),
}
"""Many decoders in one process, for short runs: starting a fuzzer takes as long as some seconds of its work."""
