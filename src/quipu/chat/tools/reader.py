"""Text that comes in pieces, read by generators that pause where it ends.

A format of tool calls is then written as if the whole text were there: every method that may have to wait is called
with `yield from`. What a method returns depends on the text alone, never on how it was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Wait: TypeAlias = Generator[None, None, T]
"""Gives a T in the end; each `yield` on the way waits for more text."""

SPACE = " \t\r\n"
"""What JSON calls white space."""


class NotACallError(Exception):
    """The text is not a tool call after all. Never leaves this package."""


class Reader:
    """The text of an answer as far as it is known, and the place up to which it has been read."""

    def __init__(self) -> None:
        self._text = ""
        self._place = 0
        self._has_ended = False
        self._record: list[str] | None = None

    def feed(self, text: str) -> None:
        """More text has come."""
        self._text = self._text[self._place :] + text
        self._place = 0

    def end(self) -> None:
        """No more text will come."""
        self._has_ended = True

    def is_empty(self) -> bool:
        """Whether all that has come has been read."""
        return self._place == len(self._text)

    def start_record(self, text: str = "") -> None:
        """Keep what is read from now on, after `text`; what was kept is forgotten."""
        self._record = [text]

    def end_record(self) -> str:
        """What was read since `start_record`. Nothing is kept any more."""
        record, self._record = self._record, None
        return "".join(record or ())

    def skip(self, num_chars: int) -> str:
        """Read characters that `peek` or `wait_for` has shown to be there."""
        text = self._text[self._place : self._place + num_chars]
        self._place += num_chars
        if self._record is not None:
            self._record.append(text)
        return text

    def wait_for(self, num_chars: int) -> Wait[str]:
        """The next characters, not read yet; fewer at the end of the text."""
        while len(self._text) - self._place < num_chars and not self._has_ended:
            yield
        return self._text[self._place : self._place + num_chars]

    def peek(self) -> Wait[str]:
        """The next character, not read yet; "" at the end of the text."""
        return (yield from self.wait_for(1))

    def next_char(self) -> Wait[str]:
        """Read a character. Raises NotACallError at the end of the text."""
        char = yield from self.wait_for(1)
        if not char:
            raise NotACallError
        return self.skip(1)

    def space(self) -> Wait[str]:
        """Read white space; "" where there is none."""
        found = []
        while True:
            rest = self._text[self._place :]
            length = len(rest) - len(rest.lstrip(SPACE))
            if length:
                found.append(self.skip(length))
            if length < len(rest) or self._has_ended:
                return "".join(found)
            yield

    def match(self, literals: Sequence[str]) -> Wait[str]:
        """Read the longest of the literals that comes next; "" where none does."""
        while True:
            rest = self._text[self._place :]
            may_grow = any(len(literal) > len(rest) and literal.startswith(rest) for literal in literals)
            if self._has_ended or not may_grow:
                found = max((literal for literal in literals if rest.startswith(literal)), key=len, default="")
                return self.skip(len(found))
            yield

    def expect(self, *literals: str) -> Wait[str]:
        """Read one of the literals. Raises NotACallError where none comes."""
        found = yield from self.match(literals)
        if not found:
            raise NotACallError
        return found

    def until(self, markers: Sequence[str], emit: Callable[[str], object]) -> Wait[str]:
        """Read up to and with the first of the markers, which is returned; what is before it goes to `emit`.

        At the end of the text all has been passed on, and "" is returned.
        """
        while True:
            rest = self._text[self._place :]
            place, marker = _first(rest, markers)
            if marker:
                if place:
                    emit(self.skip(place))
                return self.skip(len(marker))
            length = len(rest) if self._has_ended else len(rest) - _num_held(rest, markers)
            if length:
                emit(self.skip(length))
            if self._has_ended:
                return ""
            yield

    def word(self, ends: Sequence[str], max_chars: int = 256) -> Wait[tuple[str, str]]:
        """Read a short text and what ends it: returns both. Raises NotACallError where it is too long or has no end."""
        longest = max(map(len, ends))
        while True:
            rest = self._text[self._place : self._place + max_chars + longest]
            place, end = _first(rest, ends)
            # a longer end may begin at the same place, and a piece of it is not enough to tell
            is_certain = len(rest) >= place + longest or self._has_ended
            if end and place <= max_chars and is_certain:
                end = max((other for other in ends if rest.startswith(other, place)), key=len)
                word = self.skip(place)
                self.skip(len(end))
                return word, end
            if (end and is_certain) or self._has_ended or (not end and len(rest) >= max_chars + longest):
                raise NotACallError
            yield


def _first(text: str, markers: Sequence[str]) -> tuple[int, str]:
    """Where the first of the markers is in `text`, and which: of two at one place the longer. (-1, "") if none."""
    found = [(place, -len(marker), marker) for marker in markers if (place := text.find(marker)) >= 0]
    if not found:
        return -1, ""
    place, _, marker = min(found)
    return place, marker


def _num_held(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a marker."""
    longest = max((len(marker) for marker in markers), default=0)
    for num_chars in range(min(longest - 1, len(text)), 0, -1):
        tail = text[-num_chars:]
        if any(marker.startswith(tail) for marker in markers):
            return num_chars
    return 0
