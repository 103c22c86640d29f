"""The NBD wire: what is packed is unpacked, and a peer that breaks the rules is named, not believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import limits
from holdfast.formats import nbd
from holdfast.formats.nbd import (
    ClientFlag,
    Command,
    Errno,
    HandshakeFlag,
    NbdProtocolError,
    Option,
    OptionHeader,
    OptionReply,
    Reply,
    Request,
    SimpleReply,
    TransmissionFlag,
)

READ_ONLY = TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY
NAMES = st.text(alphabet="/?=-aZ09 äßжя中😀", max_size=60)
UNSIGNED_64 = st.integers(0, 2**64 - 1)


@given(st.sampled_from(list(HandshakeFlag)))
def test_a_greeting_arrives_as_it_was_sent(flag: HandshakeFlag) -> None:
    assert nbd.unpack_greeting(nbd.pack_greeting(flag | HandshakeFlag.FIXED_NEWSTYLE)) == flag | 1


@given(st.sampled_from([ClientFlag(0), *ClientFlag, ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES]))
def test_client_flags_arrive_as_they_were_sent(flags: ClientFlag) -> None:
    assert nbd.unpack_client_flags(nbd.pack_client_flags(flags)) == flags


@given(st.sampled_from(Option), st.binary(max_size=50))
def test_an_option_arrives_as_it_was_sent(option: Option, data: bytes) -> None:
    packed = nbd.pack_option(option, data=data)
    assert nbd.unpack_option(packed[: nbd.OPTION_BYTES]) == OptionHeader(option, len(data))
    assert packed[nbd.OPTION_BYTES :] == data


@given(st.integers(0, 2**32 - 1), st.sampled_from(Reply), st.binary(max_size=50))
def test_an_answer_to_an_option_arrives_as_it_was_sent(option: int, reply: Reply, data: bytes) -> None:
    packed = nbd.pack_option_reply(option, reply, data=data)
    unpacked = nbd.unpack_option_reply(packed[: nbd.OPTION_REPLY_BYTES])
    assert unpacked == OptionReply(option, reply, len(data))
    assert unpacked.is_error == reply.name.startswith("ERR_")
    assert unpacked.reply_name == reply.name
    assert packed[nbd.OPTION_REPLY_BYTES :] == data


def test_a_reply_without_a_name_is_shown_by_its_number() -> None:
    assert OptionReply(1, 0x8000_1234, 0).reply_name == "reply 0x80001234"


@given(st.integers(0, 2**63 - 1), st.sampled_from([ClientFlag(0), ClientFlag.NO_ZEROES]))
def test_an_export_arrives_with_the_padding_agreed_on(size_bytes: int, client_flags: ClientFlag) -> None:
    packed = nbd.pack_export(size_bytes, READ_ONLY, client_flags=client_flags)
    assert len(packed) == nbd.export_length_bytes(client_flags) == (10 if client_flags else 134)
    assert nbd.unpack_export(packed, client_flags=client_flags) == (size_bytes, READ_ONLY)


@given(NAMES, st.lists(st.integers(0, 2**16 - 1), max_size=4))
def test_go_arrives_with_its_name_and_wishes(name: str, kinds: list[int]) -> None:
    assert nbd.unpack_go(nbd.pack_go(name, kinds=kinds)) == (name, tuple(kinds))


@given(st.integers(0, 2**63 - 1))
def test_information_on_an_export_arrives_as_it_was_sent(size_bytes: int) -> None:
    assert nbd.unpack_info_export(nbd.pack_info_export(size_bytes, READ_ONLY)) == (size_bytes, READ_ONLY)


def test_information_of_another_kind_is_left_aside() -> None:
    assert nbd.unpack_info_export(b"\0\3" + bytes(12)) is None


@given(NAMES)
def test_a_name_arrives_in_any_script(name: str) -> None:
    assert nbd.unpack_server(nbd.pack_server(name)) == name
    assert nbd.unpack_export_name(name.encode()) == name


@given(st.sampled_from(Command), UNSIGNED_64, UNSIGNED_64, st.integers(0, limits.NBD_REQUEST_BYTES_MAX))
def test_a_request_arrives_as_it_was_sent(command: Command, handle: int, offset_bytes: int, length_bytes: int) -> None:
    packed = nbd.pack_request(command, handle=handle, offset_bytes=offset_bytes, length_bytes=length_bytes)
    assert nbd.unpack_request(packed) == Request(command, 0, handle, offset_bytes, length_bytes)


@given(st.sampled_from(Errno), UNSIGNED_64)
def test_a_reply_arrives_as_it_was_sent(error: Errno, handle: int) -> None:
    assert nbd.unpack_simple_reply(nbd.pack_simple_reply(error, handle=handle)) == SimpleReply(error, handle)


def test_what_a_peer_invents_stays_a_number() -> None:
    assert nbd.unpack_option(b"IHAVEOPT" + bytes([0, 0, 0, 99]) + bytes(4)).option == 99
    assert nbd.unpack_request(bytes.fromhex("25609513") + bytes([0, 0, 0, 77]) + bytes(20)).command == 77
    assert nbd.unpack_simple_reply(bytes.fromhex("67446698") + bytes([0, 0, 0, 200]) + bytes(8)).error == 200


WHOLE: list[tuple[Callable[[bytes], object], bytes]] = [
    (nbd.unpack_greeting, nbd.pack_greeting(HandshakeFlag.FIXED_NEWSTYLE)),
    (nbd.unpack_client_flags, nbd.pack_client_flags(ClientFlag.FIXED_NEWSTYLE)),
    (nbd.unpack_option, nbd.pack_option(Option.ABORT)),
    (nbd.unpack_option_reply, nbd.pack_option_reply(Option.ABORT, Reply.ACK)),
    (nbd.unpack_go, nbd.pack_go("disk", kinds=[1])),
    (nbd.unpack_info_export, nbd.pack_info_export(512, READ_ONLY)),
    (nbd.unpack_server, nbd.pack_server("disk")),
    (nbd.unpack_request, nbd.pack_request(Command.READ, handle=1)),
    (nbd.unpack_simple_reply, nbd.pack_simple_reply(Errno.OK, handle=1)),
]


@pytest.mark.parametrize(("unpack", "message"), WHOLE, ids=lambda each: getattr(each, "__name__", ""))
def test_a_message_cut_anywhere_is_refused(unpack: Callable[[bytes], object], message: bytes) -> None:
    for length in range(len(message)):
        with pytest.raises(NbdProtocolError):
            unpack(message[:length])


@pytest.mark.parametrize(
    ("unpack", "message", "match"),
    [
        (nbd.unpack_greeting, b"HTTP/1.1 400 Bad R", "NBDMAGIC"),
        (nbd.unpack_greeting, b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0", "old style"),
        (nbd.unpack_client_flags, bytes([0, 0, 0, 4]), "unknown client flags"),
        (nbd.unpack_option, b"IHAVEOPX" + bytes(8), "IHAVEOPT"),
        (nbd.unpack_option, b"IHAVEOPT" + bytes([0, 0, 0, 1, 0xFF, 0, 0, 0]), "announces"),
        (nbd.unpack_option_reply, bytes(20), "option reply begins"),
        (nbd.unpack_option_reply, bytes.fromhex("0003e889045565a9 00000001 00000001 ffffffff"), "announces"),
        (nbd.unpack_request, bytes(28), "request begins"),
        (nbd.unpack_request, bytes.fromhex("25609513 00000000") + bytes(16) + b"\xff\0\0\0", "at once"),
        (nbd.unpack_simple_reply, bytes(16), "reply begins"),
        (nbd.unpack_go, b"\0\0\0\1a\0\2\0\0", "kinds of information"),
        (nbd.unpack_server, b"\0\0\0\5abc", "a name of 5 bytes"),
        (nbd.unpack_export_name, b"a" * 4097, "4097 bytes"),
        (nbd.unpack_export_name, b"\xff", "UTF-8"),
        (nbd.unpack_info_export, nbd.pack_info_export(512, TransmissionFlag(0)), "without valid flags"),
        (nbd.unpack_info_export, nbd.pack_info_export(2**63, READ_ONLY), "9223372036854775808 bytes"),
    ],
)
def test_a_broken_rule_is_named(unpack: Callable[[bytes], object], message: bytes, match: str) -> None:
    with pytest.raises(NbdProtocolError, match=match):
        unpack(message)


def test_a_long_trim_is_no_abuse_of_memory() -> None:
    request = nbd.unpack_request(bytes.fromhex("25609513 00000004") + bytes(16) + b"\xff\0\0\0")
    assert request.command == Command.TRIM
