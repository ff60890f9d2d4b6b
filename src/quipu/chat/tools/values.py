"""Values as models write them, passed on as JSON while they are being written.

White space stays as it is, so that a call which a client sends back renders to the tokens that the model wrote. What
models get wrong and what can mean only one thing is put right: line ends within a string, a comma before a bracket,
Python's quotes and constants, an escape that JSON does not know, half a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quipu.chat.tools.reader import NotACallError, Reader, Wait

Emit = Callable[[str], object]

_CONSTANTS = MappingProxyType(
    {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-._$")
_MAX_WORD_CHARS = 400
_MAX_DEPTH = 100  # far below what Python's json can read
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_REPLACEMENT = "\\ufffd"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How values are written.

    Attributes:
        quotes: each begins and ends a text in which a backslash escapes.
        raw_quotes: each begins and ends a text without escapes.
        has_bare_keys: the keys of objects may stand without quotes.
        constants: words and the JSON they mean.
    """

    quotes: tuple[str, ...] = ('"', "'")
    raw_quotes: tuple[str, ...] = ()
    has_bare_keys: bool = False
    constants: Mapping[str, str] = field(default_factory=lambda: _CONSTANTS)


JSON = Dialect()


def escaped(text: str) -> str:
    """A text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def read_value(reader: Reader, emit: Emit, dialect: Dialect = JSON, *, in_object: bool = False) -> Wait[None]:
    """Read a value, passing it on as JSON. There must be no white space before it.

    Args:
        reader: stands before it.
        emit: takes the JSON, piece by piece.
        dialect: how it is written.
        in_object: the bracket that opens an object has been read already.

    Raises:
        NotACallError: it is no value, nested too deeply, or the text ends within it.
    """
    closers: list[str] = []
    has_element = False
    if in_object:
        emit("{")
        closers.append("}")
    else:
        has_element = not (yield from _begin_value(reader, emit, dialect, closers))
    while closers:
        space, comma = (yield from reader.space()), ""
        if has_element and (yield from reader.match((",",))):
            comma = ","
            space_after = yield from reader.space()
        else:
            space_after = ""
        if (yield from reader.match((closers[-1],))):
            emit(space + space_after + closers.pop())
            has_element = True
            continue
        if has_element and not comma:
            raise NotACallError
        emit(space + comma + space_after)
        if closers[-1] == "}":
            yield from _read_key(reader, emit, dialect)
        has_element = not (yield from _begin_value(reader, emit, dialect, closers))


def read_text(reader: Reader, quotes: tuple[str, ...] = ('"', "'"), max_chars: int = 1000) -> Wait[str]:
    """Read a short text in quotes. Raises NotACallError where there is none."""
    quote = yield from reader.expect(*quotes)
    pieces: list[str] = []
    num_chars = 0

    def add(piece: str) -> None:
        nonlocal num_chars
        num_chars += len(piece)
        if num_chars > max_chars:
            raise NotACallError
        pieces.append(piece)

    yield from _read_string(reader, add, quote)
    return str(json.loads("".join(pieces)))


def transcode(text: str, dialect: Dialect = JSON) -> str | None:
    """A whole value as JSON; None where it is no value."""
    reader = Reader()
    reader.feed(text.strip())
    reader.end()
    pieces: list[str] = []
    try:
        for _ in read_value(reader, pieces.append, dialect):
            raise AssertionError("the text has ended, so there is nothing to wait for")
    except NotACallError:
        return None
    return "".join(pieces) if reader.is_empty() else None


def _begin_value(reader: Reader, emit: Emit, dialect: Dialect, closers: list[str]) -> Wait[bool]:
    """Read a scalar, or the bracket that opens an object or list. Returns whether it was a bracket."""
    char = yield from reader.peek()
    if char in ("{", "["):
        if len(closers) == _MAX_DEPTH:
            raise NotACallError
        emit(reader.skip(1))
        closers.append("}" if char == "{" else "]")
        return True
    if quote := (yield from reader.match((*dialect.quotes, *dialect.raw_quotes))):
        if quote in dialect.quotes:
            yield from _read_string(reader, emit, quote)
        else:
            yield from _read_raw_string(reader, emit, quote)
        return False
    word = yield from _read_word(reader)
    if word in dialect.constants:
        emit(dialect.constants[word])
    elif _NUMBER.fullmatch(word):
        emit(word)
    else:
        raise NotACallError
    return False


def _read_key(reader: Reader, emit: Emit, dialect: Dialect) -> Wait[None]:
    """Read the key of an object and the colon after it, with white space."""
    if quote := (yield from reader.match((*dialect.quotes, *dialect.raw_quotes))):
        if quote in dialect.quotes:
            yield from _read_string(reader, emit, quote)
        else:
            yield from _read_raw_string(reader, emit, quote)
    elif dialect.has_bare_keys:
        key, _ = yield from reader.word((":",))
        emit(f'"{escaped(key)}":')
        emit((yield from reader.space()))
        return
    else:
        raise NotACallError
    emit((yield from reader.space()))
    emit((yield from reader.expect(":")))
    emit((yield from reader.space()))


def _read_word(reader: Reader) -> Wait[str]:
    """Read a number or a constant."""
    chars: list[str] = []
    while (char := (yield from reader.peek())) in _WORD_CHARS and char:
        if len(chars) == _MAX_WORD_CHARS:
            raise NotACallError
        chars.append(reader.skip(1))
    return "".join(chars)


def _read_raw_string(reader: Reader, emit: Emit, quote: str) -> Wait[None]:
    emit('"')
    if not (yield from reader.until((quote,), lambda text: emit(escaped(text)))):
        raise NotACallError
    emit('"')


def _read_string(reader: Reader, emit: Emit, quote: str) -> Wait[None]:
    """Read a text after its opening quote, and pass it on as a JSON string."""
    emit('"')
    while True:
        marker = yield from reader.until((quote, "\\"), lambda text: emit(escaped(text)))
        if marker == quote:
            emit('"')
            return
        if not marker:
            raise NotACallError
        char = yield from reader.next_char()
        if char == "u":
            yield from _read_code_unit(reader, emit)
        elif char in '"\\/bfnrt':
            emit("\\" + char)
        elif char in ("'", "\n"):
            emit(escaped(char))
        else:  # \d and the like: the backslash was meant
            emit("\\\\" + escaped(char))


def _read_code_unit(reader: Reader, emit: Emit) -> Wait[None]:
    r"""Read what follows `\u`, and the second half of a pair."""
    digits = yield from _read_hex(reader)
    while 0xD800 <= int(digits, 16) < 0xDC00:
        if not (yield from reader.match(("\\u",))):
            emit(_REPLACEMENT)
            return
        second = yield from _read_hex(reader)
        if 0xDC00 <= int(second, 16) < 0xE000:
            emit(f"\\u{digits}\\u{second}")
            return
        emit(_REPLACEMENT)
        digits = second
    emit(_REPLACEMENT if 0xDC00 <= int(digits, 16) < 0xE000 else f"\\u{digits}")


def _read_hex(reader: Reader) -> Wait[str]:
    digits = yield from reader.wait_for(4)
    if len(digits) < 4 or not _HEX_DIGITS.issuperset(digits):
        raise NotACallError
    return reader.skip(4)
