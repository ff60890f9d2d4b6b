"""Regular parts of a grammar as automata, to find out where cutting text at the longest match would go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quipu.chat.constraints.gbnf_syntax import (
    LAST_CHARACTER,
    Characters,
    Choice,
    Node,
    Reference,
    Repetition,
    Sequence,
)

_MOST_STATES = 2000


class TooManyStates(Exception):
    """A part is too large to look at."""


class Alphabet:
    """Code points in groups that no part tells apart. A set of groups is an integer with a bit for each."""

    def __init__(self, nodes: Iterable[Characters]) -> None:
        borders = {0, LAST_CHARACTER + 1}
        for node in nodes:
            for first, last in node.ranges:
                borders |= {first, last + 1}
        self._index = {border: number for number, border in enumerate(sorted(borders))}

    def groups(self, node: Characters) -> int:
        """The groups of some characters."""
        bits = 0
        for first, last in node.ranges:
            bits |= (1 << self._index[last + 1]) - (1 << self._index[first])
        return bits


@dataclass(slots=True)
class Automaton:
    """Deterministic; state 0 is the beginning. All states lead to an accepting one.

    Attributes:
        steps: for each state, the groups of characters and where they lead.
        accepting: the states in which the text so far is a whole one.
    """

    steps: list[list[tuple[int, int]]] = field(default_factory=list)
    accepting: set[int] = field(default_factory=set)

    def outgoing(self, state: int) -> int:
        """The groups of characters that may come next."""
        bits = 0
        for groups, _ in self.steps[state]:
            bits |= groups
        return bits


class _Positions:
    """A nondeterministic automaton, by Thompson's construction (CACM 11(6), 1968)."""

    def __init__(self, rules: Mapping[str, Node], alphabet: Alphabet) -> None:
        self._rules = rules
        self._alphabet = alphabet
        self.free: list[list[int]] = []  # for each state, those reached by no character
        self.steps: list[list[tuple[int, int]]] = []

    def new_state(self) -> int:
        if len(self.steps) >= _MOST_STATES:
            raise TooManyStates
        self.free.append([])
        self.steps.append([])
        return len(self.steps) - 1

    def add(self, node: Node, begin: int) -> int:
        """Add a part that begins at a state; returns the state at which it ends."""
        if isinstance(node, Characters):
            end = self.new_state()
            self.steps[begin].append((self._alphabet.groups(node), end))
            return end
        if isinstance(node, Reference):
            return self.add(self._rules[node.name], begin)
        if isinstance(node, Sequence):
            for part in node.parts:
                begin = self.add(part, begin)
            return begin
        if isinstance(node, Choice):
            end = self.new_state()
            for part in node.parts:
                start = self.new_state()
                self.free[begin].append(start)
                self.free[self.add(part, start)].append(end)
            return end
        assert isinstance(node, Repetition), "a token is no text"
        for _ in range(node.fewest):
            begin = self.add(node.part, begin)
        if node.most is None:
            loop, end = self.new_state(), self.new_state()
            self.free[begin].append(loop)
            self.free[self.add(node.part, loop)].append(loop)
            self.free[loop].append(end)
            return end
        end = self.new_state()
        for _ in range(node.most - node.fewest):
            self.free[begin].append(end)
            begin = self.add(node.part, begin)
        self.free[begin].append(end)
        return end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        reached = set(states)
        pending = list(reached)
        while pending:
            for state in self.free[pending.pop()]:
                if state not in reached:
                    reached.add(state)
                    pending.append(state)
        return frozenset(reached)


def automaton_of(node: Node, rules: Mapping[str, Node], alphabet: Alphabet) -> Automaton:
    """The automaton of a regular part, by the subset construction.

    Raises:
        TooManyStates: it is too large.
    """
    positions = _Positions(rules, alphabet)
    begin = positions.new_state()
    end = positions.add(node, begin)
    first = positions.closure([begin])
    numbers = {first: 0}
    result = Automaton([[]], {0} if end in first else set())
    pending = [first]
    while pending:
        subset = pending.pop()
        for groups, targets in _split([step for state in subset for step in positions.steps[state]]):
            target = positions.closure(targets)
            if target not in numbers:
                if len(numbers) >= _MOST_STATES:
                    raise TooManyStates
                numbers[target] = len(numbers)
                result.steps.append([])
                if end in target:
                    result.accepting.add(numbers[target])
                pending.append(target)
            result.steps[numbers[subset]].append((groups, numbers[target]))
    return result


def _split(steps: list[tuple[int, int]]) -> list[tuple[int, frozenset[int]]]:
    """Overlapping steps as disjoint ones, each to a set of states."""
    disjoint: list[tuple[int, frozenset[int]]] = []
    for groups, state in steps:
        rest = groups
        split = []
        for others, states in disjoint:
            common = others & rest
            if common:
                split.append((common, states | {state}))
                rest &= ~common
                others &= ~common
            if others:
                split.append((others, states))
        if rest:
            split.append((rest, frozenset({state})))
        disjoint = split
    return disjoint


def continuations(one: Automaton, other: Automaton) -> int:
    """The characters that may follow a whole text of `one` where it is also the beginning of a text of `other`.

    The empty text does not count: it is never matched as a lexeme.

    Raises:
        TooManyStates: there is too much to look at.
    """
    bits = 0
    seen: set[tuple[int, int]] = set()
    pending = [(0, 0)]
    while pending:
        mine, others = pending.pop()
        if mine in one.accepting and (mine, others) in seen:
            bits |= other.outgoing(others)
        for groups, target in one.steps[mine]:
            for other_groups, other_target in other.steps[others]:
                pair = (target, other_target)
                if groups & other_groups and pair not in seen:
                    if len(seen) >= 4 * _MOST_STATES:
                        raise TooManyStates
                    seen.add(pair)
                    pending.append(pair)
    return bits
