"""Conversations with a real pool's NBD server are unpacked, and packed again byte by byte."""

from __future__ import annotations

import json

from holdfast.formats import nbd
from holdfast.formats.nbd import ClientFlag, Errno, HandshakeFlag, Option, Reply, TransmissionFlag
from tests.support.golden import golden_path


def recorded(kind: str) -> list[bytes]:
    """Return every message of one kind in the recording; those that were cut by a disconnect are left out."""
    found = []
    for line in golden_path("replay/nbd-plain-a.jsonl").read_text().splitlines():
        talk = json.loads(line).get("got", {}).get("nbd", [])
        found += [bytes.fromhex(data) for name, data, end in talk if name == kind and end == "ok"]
    assert found
    return found


def test_the_greeting() -> None:
    for message in recorded("greet"):
        assert nbd.unpack_greeting(message) == HandshakeFlag.FIXED_NEWSTYLE
        assert nbd.pack_greeting(HandshakeFlag.FIXED_NEWSTYLE) == message


def test_the_answer_to_an_export_name() -> None:
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY
    for message in recorded("export"):
        assert nbd.unpack_export(message, client_flags=ClientFlag(0)) == (4 << 20, flags)
        assert nbd.pack_export(4 << 20, flags, client_flags=ClientFlag(0)) == message


def test_the_replies_to_options() -> None:
    answers = {}
    for message in recorded("reply"):
        unpacked = nbd.unpack_option_reply(message)
        assert nbd.pack_option_reply(unpacked.option, Reply(unpacked.reply)) == message
        answers[unpacked.option] = unpacked.reply
    assert answers[Option.GO] == answers[Option.INFO] == answers[Option.STRUCTURED_REPLY] == Reply.ERR_UNSUP
    assert answers[Option.LIST] == answers[Option.STARTTLS] == Reply.ERR_POLICY
    assert answers[Option.ABORT] == Reply.ACK


def test_the_replies_to_requests() -> None:
    errors = set()
    for message in recorded("answer"):
        unpacked = nbd.unpack_simple_reply(message)
        assert nbd.pack_simple_reply(Errno(unpacked.error), handle=unpacked.handle) == message
        errors.add(unpacked.error)
    assert errors >= {Errno.OK, Errno.EINVAL}
