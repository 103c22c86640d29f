"""Where a banned name may be used, and why: one line each, read in review like code."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALLOWED", "Allowed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """One exception: a file, or a folder when it ends in a slash, and the banned name it may use."""

    path: str
    name: str
    reason: str

    def covers(self, *, path: str, name: str) -> bool:
        """Whether this exception covers that use."""
        inside = path.startswith(self.path) if self.path.endswith("/") else path == self.path
        return inside and name == self.name


_DECODING = "src/holdfast/core/decoding.py"
_ONE_THREAD = "the one place that decodes into types, each learned by one thread"

ALLOWED = (
    Allowed(path="src/holdfast/core/clock.py", name="time.sleep", reason="the one place that sleeps"),
    Allowed(
        path="src/holdfast/core/clock.py", name="datetime.datetime.now", reason="the one place that reads the clock"
    ),
    Allowed(path=_DECODING, name="msgspec.convert", reason=_ONE_THREAD),
    Allowed(path=_DECODING, name="msgspec.json.Decoder", reason=_ONE_THREAD),
    Allowed(path=_DECODING, name="msgspec.msgpack.Decoder", reason=_ONE_THREAD),
    Allowed(path="src/holdfast/core/entropy.py", name="random.", reason="the one place that draws"),
    Allowed(path="src/holdfast/core/entropy.py", name="secrets.", reason="the one place that draws for keys"),
    Allowed(path="src/holdfast/cli/", name="os.environ", reason="a password may come in the environment"),
    Allowed(path="src/holdfast/lab/images/tools.py", name="subprocess.", reason="the one place that runs e2fsprogs"),
    Allowed(path="src/holdfast/lab/process.py", name="subprocess.", reason="starts the lab in a process of its own"),
    Allowed(path="src/holdfast/daemon/", name="os.environ", reason="the composition root reads the settings"),
)
