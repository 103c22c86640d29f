"""The recorded conversations with a real host, byte for byte."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest

from holdfast.lab.nbd import NbdMode
from tests.support.golden import golden_path
from tests.unit.lab.nbd.support import CONTENT, SESSION, UUID, Client, serving

Move = list[str | int]


def recorded(name: str) -> list[tuple[list[Move], list[list[str]]]]:
    """Return what was said and what came back, of every NBD step in a recording."""
    lines = [json.loads(line) for line in golden_path(f"replay/{name}.jsonl").read_text().splitlines()[1:]]
    return [(line["step"]["talk"], line["got"]["nbd"]) for line in lines if line["step"]["kind"] == "nbd"]


def hold(address: tuple[str, int], talk: list[Move]) -> list[list[str]]:
    """Hold the recorded conversation; return what came back as the recording has it."""
    client = Client(address)
    heard: list[list[str]] = []
    with contextlib.suppress(EOFError):
        for move in talk:
            hold_move(client, move, heard)
    client.socket.close()
    return heard


def hold_move(client: Client, move: Move, heard: list[list[str]]) -> None:
    match move:
        case ["greet"]:
            note(heard, "greet", client, 18)
        case ["flags", int(flags)]:
            client.send(struct.pack(">I", flags))
        case ["hex", str(text)]:
            client.send(bytes.fromhex(text))
        case ["opt", int(number), *data]:
            client.option(number, bytes.fromhex(str(data[0])) if data else b"")
        case ["name", str(name)]:
            client.option(1, filled(name))
        case ["go", int(number), str(name)]:
            client.option(number, struct.pack(">I", len(filled(name))) + filled(name) + b"\0\0")
        case ["reply"]:
            note(heard, "reply", client, 20)
        case ["export", *_]:
            note(heard, "export", client, 134)
        case ["cmd", int(kind), int(handle), int(offset), int(length)]:
            client.command(kind, offset, length, handle=handle, data=b"w" * length if kind == 1 else b"")
        case ["answer", *lengths]:
            reply = note(heard, "answer", client, 16)
            if reply[4:8] == bytes(4) and lengths:
                note(heard, "data", client, int(lengths[0]))
        case ["eof", *_]:
            client.socket.settimeout(1.0)
            note(heard, "eof", client, 1)
        case _:
            raise AssertionError(f"the recording has a move that is not known here: {move}")


def note(heard: list[list[str]], what: str, client: Client, length_bytes: int) -> bytes:
    try:
        data = client.take(length_bytes)
        end = "ok" if len(data) == length_bytes else "close"
    except TimeoutError:
        data, end = b"", "timeout"
    text = data.hex()
    if what == "data" and data:
        assert data in CONTENT
        text = str(length_bytes)
    heard.append([what, text, end])
    if end == "close":
        raise EOFError
    return data


def filled(name: str) -> bytes:
    return name.replace("${u}", UUID).replace("${session}", SESSION).encode()


def without_hashes(heard: list[list[str]]) -> list[list[str]]:
    """The recorded disk held other bytes: only how many came back is compared, the bytes are checked as they come."""
    return [[what, text.split(":")[0], end] for what, text, end in heard]


@pytest.mark.slow(reason="the recording waits for silence, and so must we")
def test_every_recorded_conversation_goes_as_with_a_real_host() -> None:
    conversations = recorded("nbd-plain-a")
    assert len(conversations) > 15
    with serving(NbdMode.PLAIN) as server, serving(NbdMode.CLOSED) as closed:
        for talk, expected in conversations:
            address = closed.address if expected[0][1] == "" else server.address
            assert hold(address, talk) == without_hashes(expected), talk
