"""GBNF, llama.cpp's notation for grammars, as a syntax tree.

The notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from quipu.chat.constraints.limits import ConstraintLimits
from quipu.errors import InvalidRequestError

LAST_CHARACTER = 0x10FFFF
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COUNT = re.compile(r"[0-9]+")
_TOKEN = re.compile(r"!?<(?:\[[0-9]+\]|[^<>\s\[\]]+)>")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of ranges of code points; those are sorted, apart and not empty."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the vocabulary, in the notation that Lark grammars share: `<name>`, `<[7]>`, `<[^7]>`."""

    text: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule by name; `position` is where it is mentioned."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; nothing at all where it is empty."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of two or more."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`fewest` to `most` times; None: without end."""

    part: Node
    fewest: int
    most: int | None


Node = Characters | Token | Reference | Sequence | Choice | Repetition
EMPTY = Sequence(())


def sequence(parts: list[Node]) -> Node:
    """One after the other, flat, and without a wrapper around a single part."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Sequence) else (part,))
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(parts: list[Node]) -> Node:
    """One of them, without repeats, and without a wrapper around a single one."""
    different = tuple(dict.fromkeys(parts))
    return different[0] if len(different) == 1 else Choice(different)


def parse_gbnf(text: str, limits: ConstraintLimits, field: str) -> Mapping[str, Node]:
    """The rules of a grammar, by name.

    Raises:
        InvalidRequestError: with line and column: the syntax is wrong, a rule is missing or there twice, or a limit is
            exceeded.
    """
    return _Parser(text, limits, field).run()


class _Parser:
    def __init__(self, text: str, limits: ConstraintLimits, field: str) -> None:
        self._text = text
        self._limits = limits
        self._field = field
        self._position = 0
        self._references: list[Reference] = []

    def run(self) -> Mapping[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(lines=True)
        while self._position < len(self._text):
            start = self._position
            name = self._match(_NAME, "the name of a rule")
            if name in rules:
                self._fail(f"the rule {name!r} is there twice", start)
            self._skip(lines=False)
            self._expect("::=")
            self._skip(lines=True)
            rules[name] = self._choice(0)
            if self._position < len(self._text) and self._text[self._position] not in "\r\n":
                self._fail("expected the end of the rule, '|' or another part")
            self._skip(lines=True)
        if "root" not in rules:
            self._fail("there is no rule 'root', where a grammar begins", 0)
        for reference in self._references:
            if reference.name not in rules:
                self._fail(f"there is no rule {reference.name!r}", reference.position)
        return rules

    def _fail(self, problem: str, position: int | None = None) -> NoReturn:
        position = self._position if position is None else position
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1) + 1
        raise InvalidRequestError(f"{self._field}: line {line}, column {column}: {problem}", field=self._field)

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._position):
            self._fail(f"expected {text!r}")
        self._position += len(text)

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._position)
        if found is None:
            self._fail(f"expected {what}")
        self._position = found.end()
        return found[0]

    def _skip(self, *, lines: bool) -> None:
        """Pass over spaces and comments, and line breaks where they mean nothing."""
        while (character := self._peek()) and (character in " \t#" or (lines and character in "\r\n")):
            if character == "#":
                end = self._text.find("\n", self._position)
                self._position = len(self._text) if end < 0 else end
            else:
                self._position += 1

    def _choice(self, depth: int) -> Node:
        if depth > self._limits.nesting:
            self._fail(f"brackets are nested more than {self._limits.nesting} deep")
        parts = [self._sequence(depth)]
        while self._peek() == "|":
            self._position += 1
            self._skip(lines=True)
            parts.append(self._sequence(depth))
        return choice(parts)

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while True:
            part = self._part(depth)
            if part is None:
                return sequence(parts)
            self._skip(lines=depth > 0)
            parts.append(self._repeated(part, lines=depth > 0))

    def _part(self, depth: int) -> Node | None:
        character = self._peek()
        if character == '"':
            return self._literal()
        if character == "[":
            return self._class()
        if character == ".":
            self._position += 1
            return Characters(((0, LAST_CHARACTER),))
        if character == "(":
            self._position += 1
            self._skip(lines=True)
            inner = self._choice(depth + 1)
            self._expect(")")
            return inner
        if character and character in "<!":
            token = self._match(_TOKEN, "a token such as <name> or <[7]>")
            if not token.startswith("!"):
                return Token(token)
            if not token.startswith("!<["):
                self._fail("a token that must not come is written by its number, as in !<[7]>")
            return Token("<[^" + token[3:])
        if character and _NAME.match(character):
            start = self._position
            reference = Reference(self._match(_NAME, "a name"), start)
            self._references.append(reference)
            return reference
        return None

    def _repeated(self, part: Node, *, lines: bool) -> Node:
        while (character := self._peek()) and character in "*+?{":
            self._position += 1
            if character == "{":
                fewest, most = self._counts()
            else:
                fewest, most = int(character == "+"), 1 if character == "?" else None
            part = Repetition(part, fewest, most)
            self._skip(lines=lines)
        return part

    def _counts(self) -> tuple[int, int | None]:
        start = self._position
        self._skip(lines=True)
        fewest = 0 if self._peek() == "," else self._count()
        most: int | None = fewest
        self._skip(lines=True)
        if self._peek() == ",":
            self._position += 1
            self._skip(lines=True)
            most = None if self._peek() == "}" else self._count()
        self._skip(lines=True)
        self._expect("}")
        if most is not None and most < fewest:
            self._fail(f"a repetition from {fewest} to {most} times is empty", start)
        return fewest, most

    def _count(self) -> int:
        start = self._position
        digits = self._match(_COUNT, "a number")
        if len(digits) > 9 or int(digits) > self._limits.repetitions:
            self._fail(f"a part is repeated at most {self._limits.repetitions} times", start)
        return int(digits)

    def _literal(self) -> Node:
        self._position += 1
        parts: list[Node] = []
        while self._peek() != '"':
            code = self._character("a closing quotation mark")
            parts.append(Characters(((code, code),)))
        self._position += 1
        return Sequence(tuple(parts)) if len(parts) != 1 else parts[0]

    def _class(self) -> Node:
        start = self._position
        self._position += 1
        negated = self._peek() == "^"
        self._position += negated
        ranges = []
        while self._peek() != "]":
            first = last = self._character("a closing ]")
            if self._peek() == "-" and self._text[self._position + 1 : self._position + 2] not in ("]", ""):
                self._position += 1
                last = self._character("a closing ]")
            if last < first:
                self._fail(f"the range from U+{first:04X} to U+{last:04X} is empty")
            ranges.append((first, last))
        self._position += 1
        merged = merge_ranges(ranges)
        result = complement(merged) if negated else merged
        if not result:
            self._fail("the class has no characters in it", start)
        return Characters(result)

    def _character(self, otherwise: str) -> int:
        character = self._peek()
        if not character or character == "\n":
            self._fail(f"expected {otherwise}")
        self._position += 1
        if character != "\\":
            return ord(character)
        kind = self._peek()
        if kind in _ESCAPES and kind:
            self._position += 1
            return ord(_ESCAPES[kind])
        if not kind or kind not in _HEX_DIGITS:
            self._fail(
                'unknown escape; there are \\n \\r \\t \\\\ \\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH', self._position - 1
            )
        count = _HEX_DIGITS[kind]
        digits = self._text[self._position + 1 : self._position + 1 + count]
        if not re.fullmatch(f"[0-9A-Fa-f]{{{count}}}", digits):
            self._fail(f"\\{kind} is followed by {count} hexadecimal digits", self._position - 1)
        code = int(digits, 16)
        if code > LAST_CHARACTER or 0xD800 <= code <= 0xDFFF:
            self._fail(f"U+{code:04X} is not a character", self._position - 1)
        self._position += 1 + count
        return code


def merge_ranges(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, apart, and with the same code points."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """All other code points."""
    rest = []
    begin = 0
    for first, last in ranges:
        if begin < first:
            rest.append((begin, first - 1))
        begin = last + 1
    if begin <= LAST_CHARACTER:
        rest.append((begin, LAST_CHARACTER))
    return tuple(rest)
