"""A document's tags and texts one after the other, and the pool's own words where it is broken.

Sound documents go through the system's parser. Whatever that one refuses is read again character by character by the
rules of the pool's parser, which is laxer in places (it stops at the end of the root element, and does not mind a
document type) and names the line and column where it gave up. Entities of a document type are never expanded.

Invariant: a hostile document (nesting, entities, size) costs no more than its own length.
"""

from __future__ import annotations

import xml.parsers.expat
from collections.abc import Iterator
from typing import Protocol

__all__ = ["MalformedCall", "Signal", "Signals", "read_signals"]

Signal = tuple[str, str]
"""``("open", tag)``, ``("close", "")``, ``("data", text)``; at the beginning ``("dtd", "")``."""

_END: Signal = ("end", "")


class MalformedCall(Exception):
    """The body is no call; the text is the exception that the pool prints on its error page."""


class Signals(Protocol):
    """A document, read forward with one signal of foresight: what is broken shows one signal early."""

    def peek(self) -> Signal:
        """Return the next signal and leave it there."""

    def take(self) -> Signal:
        """Return the next signal and go on."""


def read_signals(body: bytes) -> Signals:
    """Return the signals of a document. ``MalformedCall`` comes while they are read."""
    try:
        return _Sound(body)
    except xml.parsers.expat.ExpatError:
        return _Careful(body)


class _Sound:
    """A document that the system's parser accepts."""

    def __init__(self, body: bytes) -> None:
        self._signals: list[Signal] = [("dtd", "")]
        self._at = 0
        parser = xml.parsers.expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._open
        parser.EndElementHandler = lambda tag: self._signals.append(("close", ""))
        parser.CharacterDataHandler = lambda text: self._signals.append(("data", text))
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.Parse(body, True)

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        if any(":" in name for name in (tag, *attributes)):
            raise xml.parsers.expat.ExpatError("names with a prefix are read with care")
        self._signals.append(("open", tag))

    @staticmethod
    def _refuse_doctype(*_: object) -> None:
        raise xml.parsers.expat.ExpatError("a document type is read with care")

    def peek(self) -> Signal:
        return self._signals[self._at] if self._at < len(self._signals) else _END

    def take(self) -> Signal:
        signal = self.peek()
        self._at += 1
        return signal


class _Careful:
    """A document that is broken somewhere, or odd."""

    def __init__(self, body: bytes) -> None:
        self._generator = _Lexer(body).signals()
        self._next: Signal | None = None

    def peek(self) -> Signal:
        if self._next is None:
            self._next = next(self._generator, _END)
        return self._next

    def take(self) -> Signal:
        signal = self.peek()
        self._next = next(self._generator, _END)
        return signal


_EOI = ""
_WHITE = " \t\r\n"
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "apos": "'", "quot": '"'}


class _Lexer:
    """Reads characters; ``c`` is the one that is looked at, empty at the end of the input."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._encoding = "utf-8"
        self.line, self.col = 1, 0
        self.c = "\0"
        self._was_return = False
        self._limit: Signal = ("text", "")
        self._scopes: list[str] = []
        self._prefixes: list[frozenset[str]] = [frozenset({"", "xml", "xmlns"})]
        """What may stand before a colon, for each open element."""

    # -- characters

    def fail(self, text: str) -> MalformedCall:
        """Return the failure at this place."""
        return MalformedCall(f'Xmlm.Error({self.line}:{self.col}, "{text}")')

    def _fail_expected(self, *expected: str, found: str) -> MalformedCall:
        wanted = "".join(f'"{each}", ' for each in expected)
        return self.fail(f'expected one of these character sequence: {wanted}found "{found}"')

    def _fail_illegal(self, found: str) -> MalformedCall:
        return self.fail(f'character sequence illegal here ("{found}")')

    def next(self) -> None:
        """Go on by one character; the end of the input is a failure."""
        if self.line > 0 and self.c == "\n":
            self.line, self.col = self.line + 1, 1
        else:
            self.col += 1
        self.c = self._character()
        if self._was_return and self.c == "\n":
            self.c = self._character()
        self._was_return = self.c == "\r"
        if self._was_return:
            self.c = "\n"

    def _next_or_end(self) -> None:
        if self._at >= len(self._body):
            self.col += 1
            self.c = _EOI
        else:
            self.next()

    def _character(self) -> str:
        if self._at >= len(self._body):
            raise self.fail("unexpected end of input")
        first = self._body[self._at]
        length = 1
        if self._encoding == "utf-8":
            length = 1 if first < 0x80 else 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4
        part = self._body[self._at : self._at + length]
        try:
            character = part.decode(self._encoding)
        except UnicodeDecodeError as cause:
            is_cut = len(part) < length and first >= 0xC2
            raise self.fail("unexpected end of input" if is_cut else "malformed character stream") from cause
        if not _is_char(character):
            raise self.fail("malformed character stream")
        self._at += length
        return character

    def _skip_white(self) -> None:
        while self.c in _WHITE and self.c:
            self.next()

    def _accept(self, character: str) -> None:
        if self.c != character:
            raise self._fail_expected(character, found=self.c)
        self.next()

    # -- names, references, attributes

    def _ncname(self) -> str:
        if not (self.c.isalpha() or self.c == "_"):
            raise self._fail_illegal(self.c)
        name = ""
        while self.c and (self.c.isalnum() or self.c in "_-.\u00b7"):
            name += self.c
            self.next()
        return name

    def _qname(self) -> str:
        name = self._ncname()
        if self.c != ":":
            return name
        self.next()
        return f"{name}:{self._ncname()}"

    def _reference(self) -> str:
        self.next()
        if self.c == "#":
            return self._character_reference()
        name = self._ncname()
        self._accept(";")
        if name not in _ENTITIES:
            raise self.fail(f"unknown entity reference ({name})")
        return _ENTITIES[name]

    def _character_reference(self) -> str:
        self.next()
        digits = ""
        while self.c != ";":
            digits += self.c
            self.next()
        self.next()
        try:
            number = int(digits[1:], 16) if digits.startswith("x") else int(digits)
            character = chr(number)
        except (ValueError, OverflowError):
            character = "\0"
        if not _is_char(character):
            raise self.fail(f"illegal character reference (#{digits})")
        return character

    def _attributes(self) -> list[str]:
        names: list[str] = []
        while self.c in _WHITE and self.c:
            self._skip_white()
            if self.c in "/>":
                break
            names.append(self._qname())
            self._skip_white()
            self._accept("=")
            self._attribute_value()
        return names

    def _check_prefixes(self, names: list[str]) -> frozenset[str]:
        """Return the prefixes known inside an element, given its own name and its attributes'."""
        declared = (name.removeprefix("xmlns:") for name in names if name.startswith("xmlns:"))
        known = self._prefixes[-1].union(declared)
        for name in names:
            prefix = name.rpartition(":")[0]
            if prefix not in known:
                raise self.fail(f"unknown namespace prefix ({prefix})")
        return known

    def _attribute_value(self) -> str:
        self._skip_white()
        delimiter = self.c
        if delimiter not in ('"', "'"):
            raise self._fail_expected('"', "'", found=self.c)
        self.next()
        text = ""
        while self.c != delimiter:
            if self.c == "<":
                raise self._fail_illegal("<")
            if self.c == "&":
                text += self._reference()
            else:
                text += self.c
                self.next()
        self.next()
        return text.strip()

    # -- markup

    def _read_limit(self) -> None:
        """Find out what comes next."""
        if self.c == _EOI:
            self._limit = ("eoi", "")
        elif self.c != "<":
            self._limit = ("text", "")
        else:
            self.next()
            self._limit = self._markup()

    def _markup(self) -> Signal:
        if self.c == "?":
            self.next()
            return "pi", self._qname()
        if self.c == "/":
            self.next()
            name = self._qname()
            self._skip_white()
            return "etag", name
        if self.c == "!":
            self.next()
            return self._declaration()
        return "stag", self._qname()

    def _declaration(self) -> Signal:
        if self.c == "-":
            self.next()
            self._accept("-")
            return "comment", ""
        if self.c == "D":
            return "dtd", ""
        if self.c != "[":
            raise self._fail_illegal(f"<!{self.c}")
        self.next()
        word = ""
        for _ in range(6):
            word += self.c
            self.next()
        if word != "CDATA[":
            raise self._fail_expected("CDATA[", found=word)
        return "cdata", ""

    def _skip_comment(self) -> None:
        while True:
            while self.c != "-":
                self.next()
            self.next()
            if self.c == "-":
                break
        self.next()
        if self.c != ">":
            raise self._fail_expected(">", found=self.c)
        self._next_or_end()

    def _skip_instruction(self) -> None:
        while True:
            while self.c != "?":
                self.next()
            self.next()
            if self.c == ">":
                break
        self._next_or_end()

    def _skip_between(self) -> None:
        """Skip what may stand before the root element."""
        while True:
            kind, name = self._limit
            if kind == "pi" and name.lower() == "xml":
                raise self._fail_illegal(name)
            if kind == "pi":
                self._skip_instruction()
            elif kind == "comment":
                self._skip_comment()
            elif kind == "text" and self.c in _WHITE:
                while self.c and self.c in _WHITE:
                    self._next_or_end()
            else:
                return
            self._read_limit()

    def _xml_declaration(self) -> None:
        if self._limit != ("pi", "xml"):
            return
        self._skip_white()
        name = self._ncname()
        if name != "version":
            raise self._fail_expected("version", found=name)
        self._declared("1.0", "1.1")
        self._skip_white()
        if self.c != "?":
            self._declared_encoding(self._ncname())
        self._skip_white()
        self._accept("?")
        self._accept(">")
        self._read_limit()

    def _declared(self, *allowed: str) -> str:
        self._skip_white()
        self._accept("=")
        text = self._attribute_value()
        if allowed and text not in allowed:
            raise self._fail_expected(*allowed, found=text)
        return text

    def _declared_encoding(self, name: str) -> None:
        if name == "standalone":
            self._declared("yes", "no")
            return
        if name != "encoding":
            raise self._fail_expected("encoding", "standalone", "?>", found=name)
        encoding = self._declared().lower()
        known = {"utf-8": "utf-8", "iso-8859-1": "latin-1", "us-ascii": "ascii", "ascii": "ascii"}
        if encoding not in known:
            raise self.fail(f"unknown encoding ({encoding})")
        self._encoding = known[encoding]
        self._skip_white()
        if self.c != "?":
            self._declared_encoding("standalone" if self._ncname() == "standalone" else "")

    def _skip_doctype(self) -> None:
        nesting = 1
        while nesting:
            character = self.c
            if character in ('"', "'"):
                self.next()
                while self.c != character:
                    self.next()
            nesting += {"<": 1, ">": -1}.get(character, 0)
            self.next()
        self._read_limit()
        self._skip_between()

    # -- the document

    def signals(self) -> Iterator[Signal]:
        """Yield the document up to the end of its root element."""
        if self._body.startswith(b"\xef\xbb\xbf"):
            self._at = 3
        self.next()
        self._read_limit()
        self._xml_declaration()
        self._skip_between()
        if self._limit[0] == "dtd":
            self._skip_doctype()
        yield "dtd", ""
        if self._limit[0] != "stag":
            raise self.fail("expected root element")
        yield from self._elements()

    def _elements(self) -> Iterator[Signal]:
        yield from self._start()
        while self._scopes:
            kind, _ = self._limit
            match kind:
                case "stag":
                    yield from self._start()
                case "etag":
                    yield self._end()
                case "text" | "cdata":
                    text = self._data()
                    if text:
                        yield "data", text
                case "pi":
                    self._skip_instruction()
                    self._read_limit()
                case "comment":
                    self._skip_comment()
                    self._read_limit()
                case "dtd":
                    raise self._fail_illegal("<!D")
                case _:
                    raise self.fail("unexpected end of input")

    def _start(self) -> Iterator[Signal]:
        name = self._limit[1]
        attributes = self._attributes()
        self._prefixes.append(self._check_prefixes([*attributes, name]))
        self._scopes.append(name)
        yield "open", name.rpartition(":")[2]
        self._skip_white()
        if self.c == ">":
            self.next()
            self._read_limit()
        elif self.c == "/":
            self.next()
            self._limit = ("etag", name)
        else:
            raise self._fail_expected("/", ">", found=self.c)

    def _end(self) -> Signal:
        name = self._limit[1]
        if self.c != ">":
            raise self._fail_expected(">", found=self.c)
        if name != self._scopes[-1]:
            raise self._fail_expected(self._scopes[-1], found=name)
        self._scopes.pop()
        self._prefixes.pop()
        if self._scopes:
            self.next()
            self._read_limit()
        return "close", ""

    def _data(self) -> str:
        parts: list[str] = []
        while True:
            match self._limit[0]:
                case "text":
                    self._characters(parts)
                case "cdata":
                    self._literal(parts)
                case "pi":
                    self._skip_instruction()
                case "comment":
                    self._skip_comment()
                case "dtd":
                    raise self._fail_illegal("<!D")
                case "eoi":
                    raise self.fail("unexpected end of input")
                case _:
                    return "".join(parts)
            self._read_limit()

    def _characters(self, parts: list[str]) -> None:
        brackets = 0
        while self.c != "<":
            if self.c == "&":
                parts.append(self._reference())
                brackets = 0
                continue
            if self.c == ">" and brackets >= 2:
                raise self._fail_illegal("]]>")
            brackets = brackets + 1 if self.c == "]" else 0
            parts.append(self.c)
            self.next()

    def _literal(self, parts: list[str]) -> None:
        text = ""
        while not text.endswith("]]>"):
            text += self.c
            self.next()
        parts.append(text[:-3])


def _is_char(character: str) -> bool:
    return (character >= " " and character not in "\ufffe\uffff") or character in "\t\n\r"
