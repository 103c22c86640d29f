"""Xen Orchestra's own programs as judges: installed at test time, spoken with line by line."""

from tests.judges.xo.install import JudgesAbsent, install_judges, judges_folder
from tests.judges.xo.peer import Peer, PeerFailed, peer_or_skip

__all__ = ["JudgesAbsent", "Peer", "PeerFailed", "install_judges", "judges_folder", "peer_or_skip"]
