"""Which parts of a recursive grammar may be matched as a whole, without changing its language.

llguidance cuts text into lexemes, each as long as possible. A regular part may be one lexeme if the longest match is
always the right one: no character that may follow it could also make it, or another lexeme that begins alike, longer.
Parts for which that does not hold are taken apart, down to single characters, for which it always does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quipu.chat.constraints.automaton import Alphabet, Automaton, TooManyStates, automaton_of, continuations
from quipu.chat.constraints.gbnf_syntax import (
    Characters,
    Choice,
    Node,
    Reference,
    Repetition,
    Sequence,
    Token,
)

_MOST_LEXEMES = 150
_MOST_ROUNDS = 200
_MOST_NODES = 20_000


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A regular part that is matched as a whole."""

    node: Node


@dataclass(frozen=True, slots=True)
class Group:
    """A part that is not regular, or is taken apart. `kind` is that of `origin`: a sequence, a choice, a repetition."""

    origin: Sequence | Choice | Repetition
    parts: tuple[Part, ...]


Part = Lexeme | Group | Reference | Token


def regular_rules(rules: Mapping[str, Node]) -> set[str]:
    """The rules that lead to no recursion and to no tokens."""
    regular: set[str] = set()
    while True:
        found = {name for name, node in rules.items() if name not in regular and _is_regular(node, regular)}
        if not found:
            return regular
        regular |= found


def with_lexemes(rules: Mapping[str, Node]) -> dict[str, Part]:
    """The rules that `root` needs, with as much as possible in lexemes.

    Raises:
        TooManyStates: the grammar is too large to look at.
    """
    regular = regular_rules(rules)
    parts: dict[str, Part] = {}
    pending = ["root"]
    while pending:
        name = pending.pop()
        if name not in parts:
            parts[name] = _with_whole_lexemes(rules[name], regular)
            pending += [part.name for part in _parts(parts[name]) if isinstance(part, Reference)]
    automata = _Automata(rules)
    for _ in range(_MOST_ROUNDS):
        wrong = _wrong_lexemes(parts, automata)
        if not wrong:
            return parts
        parts = {name: _taken_apart(part, wrong, rules) for name, part in parts.items()}
        if sum(1 for part in parts.values() for _ in _parts(part)) > _MOST_NODES:
            raise TooManyStates
    raise TooManyStates


def _is_regular(node: Node, regular: set[str]) -> bool:
    if isinstance(node, Sequence | Choice):
        return all(_is_regular(part, regular) for part in node.parts)
    if isinstance(node, Repetition):
        return _is_regular(node.part, regular)
    return node.name in regular if isinstance(node, Reference) else isinstance(node, Characters)


def _with_whole_lexemes(node: Node, regular: set[str]) -> Part:
    """The largest regular parts as lexemes: neighbours in a sequence, and alternatives, together."""
    if _is_regular(node, regular):
        return Lexeme(node)
    if isinstance(node, Reference | Token):
        return node
    if isinstance(node, Repetition):
        return Group(node, (_with_whole_lexemes(node.part, regular),))
    assert isinstance(node, Sequence | Choice)
    parts: list[Part] = []
    joined: list[Node] = []
    for part in node.parts:
        if _is_regular(part, regular):
            joined.append(part)
            continue
        if joined and isinstance(node, Sequence):
            parts.append(_joined(node, joined))
            joined = []
        parts.append(_with_whole_lexemes(part, regular))
    if joined:
        parts.append(_joined(node, joined))
    return Group(node, tuple(parts))


def _joined(node: Sequence | Choice, parts: list[Node]) -> Lexeme:
    return Lexeme(parts[0] if len(parts) == 1 else type(node)(tuple(parts)))


def _taken_apart(part: Part, wrong: set[Lexeme], rules: Mapping[str, Node]) -> Part:
    if isinstance(part, Group):
        return Group(part.origin, tuple(_taken_apart(inner, wrong, rules) for inner in part.parts))
    if not isinstance(part, Lexeme) or part not in wrong:
        return part
    node = part.node
    if isinstance(node, Reference):
        return Lexeme(rules[node.name])
    assert isinstance(node, Sequence | Choice | Repetition), "single characters are never wrong"
    inner = (node.part,) if isinstance(node, Repetition) else node.parts
    return Group(node, tuple(Lexeme(item) for item in inner))


def _parts(part: Part) -> Iterator[Part]:
    pending = [part]
    while pending:
        item = pending.pop()
        yield item
        if isinstance(item, Group):
            pending += item.parts


class _Automata:
    """The automata of lexemes, each made once."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        self._rules = rules
        self._alphabet = Alphabet(_characters(rules))
        self._made: dict[Node, Automaton] = {}
        self._continuations: dict[tuple[Node, Node], int] = {}

    def of(self, lexeme: Lexeme) -> Automaton:
        if lexeme.node not in self._made:
            self._made[lexeme.node] = automaton_of(lexeme.node, self._rules, self._alphabet)
        return self._made[lexeme.node]

    def continuations(self, one: Lexeme, other: Lexeme) -> int:
        key = (one.node, other.node)
        if key not in self._continuations:
            self._continuations[key] = continuations(self.of(one), self.of(other))
        return self._continuations[key]


def _characters(rules: Mapping[str, Node]) -> Iterator[Characters]:
    pending = list(rules.values())
    while pending:
        node = pending.pop()
        if isinstance(node, Characters):
            yield node
        elif isinstance(node, Sequence | Choice):
            pending += node.parts
        elif isinstance(node, Repetition):
            pending.append(node.part)


def _wrong_lexemes(rules: Mapping[str, Part], automata: _Automata) -> set[Lexeme]:
    """Those for which the longest match may be the wrong one, and that can be taken apart."""
    lexemes = list(dict.fromkeys(part for rule in rules.values() for part in _parts(rule) if isinstance(part, Lexeme)))
    if len(lexemes) > _MOST_LEXEMES:
        raise TooManyStates
    following = _Following(rules, automata).run()
    wrong = set()
    for one in lexemes:
        for other in lexemes:
            if automata.continuations(one, other) & following[one]:
                wrong.add(other)  # the longer one; a single character never is
    return wrong


class _Following:
    """The characters that may follow each lexeme: FIRST and FOLLOW sets, as a fixed point."""

    def __init__(self, rules: Mapping[str, Part], automata: _Automata) -> None:
        self._rules = rules
        self._automata = automata
        self._first = dict.fromkeys(rules, 0)
        self._is_nullable = dict.fromkeys(rules, False)
        self._after_rule = dict.fromkeys(rules, 0)
        self._after: dict[Lexeme, int] = {}

    def run(self) -> dict[Lexeme, int]:
        while True:
            before = (dict(self._first), dict(self._is_nullable))
            for name, part in self._rules.items():
                self._first[name], self._is_nullable[name] = self._beginning(part)
            if before == (self._first, self._is_nullable):
                break
        while True:
            state = (dict(self._after_rule), dict(self._after))
            for name, part in self._rules.items():
                self._spread(part, self._after_rule[name])
            if state == (self._after_rule, self._after):
                return self._after

    def _beginning(self, part: Part) -> tuple[int, bool]:
        """The characters that may begin a part, and whether it may be empty."""
        if isinstance(part, Lexeme):
            automaton = self._automata.of(part)
            return automaton.outgoing(0), 0 in automaton.accepting
        if isinstance(part, Reference):
            return self._first[part.name], self._is_nullable[part.name]
        if isinstance(part, Token):
            return 0, False
        beginnings = [self._beginning(inner) for inner in part.parts]
        if isinstance(part.origin, Choice):
            bits = 0
            for one, _ in beginnings:
                bits |= one
            return bits, any(nullable for _, nullable in beginnings)
        if isinstance(part.origin, Repetition):
            bits, nullable = beginnings[0]
            return bits, nullable or part.origin.fewest == 0
        bits = 0
        for one, nullable in beginnings:
            bits |= one
            if not nullable:
                return bits, False
        return bits, True

    def _spread(self, part: Part, after: int) -> None:
        """Tell what is inside a part what may follow the part."""
        if isinstance(part, Lexeme):
            self._after[part] = self._after.get(part, 0) | after
        elif isinstance(part, Reference):
            self._after_rule[part.name] |= after
        elif isinstance(part, Group):
            if isinstance(part.origin, Sequence):
                for inner in reversed(part.parts):
                    self._spread(inner, after)
                    bits, nullable = self._beginning(inner)
                    after = bits | (after if nullable else 0)
                return
            if isinstance(part.origin, Repetition) and part.origin.most != 1:
                after |= self._beginning(part)[0]
            for inner in part.parts:
                self._spread(inner, after)
