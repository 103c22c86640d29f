"""Xen Orchestra's own programs as judges: installed at test time, spoken with line by line."""

from tests.judges.xo.install import JudgesAbsent
from tests.judges.xo.labs import PATIENT, SLOW, patient_lab
from tests.judges.xo.orchestra import Machine, Orchestra, Step, orchestra_at, other_pool
from tests.judges.xo.peer import Peer, PeerFailed, peer_or_skip

__all__ = [
    "PATIENT",
    "SLOW",
    "JudgesAbsent",
    "Machine",
    "Orchestra",
    "Peer",
    "PeerFailed",
    "Step",
    "orchestra_at",
    "other_pool",
    "patient_lab",
    "peer_or_skip",
]
