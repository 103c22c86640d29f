"""What each scenario is, in a sentence, for whoever chooses one."""

from __future__ import annotations

__all__ = ["SCENARIO_SUMMARIES"]

SCENARIO_SUMMARIES = {
    "bare": "Two halted VMs whose three disks of 64 MiB hold noise; starts in no time.",
    "demo": "A web server and a database server with real file systems, to show and to learn.",
    "empty": "A pool without VMs.",
    "fleet": "Two pools' worth of servers: 1,000 VMs with sparse disks.",
    "office": "Twenty VMs as an office has them: Linux and Windows-like disks with many file systems.",
    "recorded": "The very pool of the recordings that the lab is judged by: plain images, no VMs.",
    "small": "Three VMs with real file systems.",
    "tiny": "The demo in small: two VMs of 64 MiB.",
}
