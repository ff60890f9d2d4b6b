"""GBNF to Lark, with the same language.

llguidance cuts text into lexemes before it parses, and takes the longest: `[a-z]* "b"` as two lexemes would never reach
its "b". So a grammar without true recursion becomes one regular expression, which is decided exactly, and any other
becomes rules over lexemes for which the longest match is provably the right one (see `gbnf_lexemes`), single characters
where there is no other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quipu.chat.constraints.automaton import TooManyStates
from quipu.chat.constraints.gbnf_lexemes import Lexeme, Part, with_lexemes
from quipu.chat.constraints.gbnf_syntax import (
    EMPTY,
    Characters,
    Choice,
    Node,
    Reference,
    Repetition,
    Sequence,
    Token,
    choice,
    parse_gbnf,
    sequence,
)
from quipu.chat.constraints.limits import ConstraintLimits
from quipu.errors import InvalidRequestError

_LONGEST_EXPRESSION = 100_000
_SURROGATES = (0xD800, 0xDFFF)


def gbnf_to_lark(text: str, limits: ConstraintLimits, field: str) -> str:
    """A Lark grammar for the texts that a GBNF grammar produces from `root`.

    Raises:
        InvalidRequestError: with line and column where the grammar is malformed.
    """
    rules = {name: without_loop(name, node) for name, node in parse_gbnf(text, limits, field).items()}
    if "root" not in productive_rules(rules):
        raise InvalidRequestError(f"{field}: the rule 'root' produces no text of finite length", field=field)
    expressions = _Expressions(rules)
    order = _order(rules)
    if order is not None:
        expression = expressions.of_root(order)
        if expression is not None:
            return f"start: /{expression}/" if expression else 'start: ""'
    try:
        return _LarkText(expressions).of(with_lexemes(rules))
    except (TooManyStates, _TooLong):
        return _rules_text(rules)


def without_loop(name: str, node: Node) -> Node:
    """The rule with direct recursion at its end, or at its beginning, as repetition: `a ::= "x" a | "y"` as `"x"* "y"`.

    Any other rule is returned as it is.
    """
    for is_right in (True, False):
        split = _split(name, node, is_right)
        if split is None:
            continue
        loops, exits = [part for part in split[0] if part != EMPTY], split[1]  # a rule that is itself adds nothing
        if not split[0]:
            return node
        if not exits:
            return node  # it never ends, which is found later
        loop = Repetition(choice(loops), 0, None) if loops else EMPTY
        return sequence([loop, choice(exits)] if is_right else [choice(exits), loop])
    return node


def _split(name: str, node: Node, is_right: bool) -> tuple[list[Node], list[Node]] | None:
    """What comes before (or after) `name` where it stands at the end (or beginning), and the ways without it.

    None if it stands elsewhere.
    """
    if isinstance(node, Reference) and node.name == name:
        return [EMPTY], []
    if isinstance(node, Choice):
        loops: list[Node] = []
        exits: list[Node] = []
        for part in node.parts:
            split = _split(name, part, is_right)
            if split is None:
                return None
            loops += split[0]
            exits += split[1]
        return loops, exits
    if isinstance(node, Repetition) and (node.fewest, node.most) == (0, 1):
        split = _split(name, node.part, is_right)
        return None if split is None else (split[0], [*split[1], EMPTY])
    if isinstance(node, Sequence) and node.parts:
        edge, rest = (node.parts[-1], node.parts[:-1]) if is_right else (node.parts[0], node.parts[1:])
        if any(name in mentioned(part) for part in rest):
            return None
        split = _split(name, edge, is_right)
        if split is None:
            return None
        loops, exits = split
        if is_right:
            return [sequence([*rest, part]) for part in loops], [sequence([*rest, part]) for part in exits]
        return [sequence([part, *rest]) for part in loops], [sequence([part, *rest]) for part in exits]
    return None if name in mentioned(node) else ([], [node])


def mentioned(node: Node) -> set[str]:
    """The names of the rules inside a node."""
    return {part.name for part in _nodes(node) if isinstance(part, Reference)}


def _nodes(node: Node) -> Iterator[Node]:
    pending = [node]
    while pending:
        part = pending.pop()
        yield part
        if isinstance(part, Sequence | Choice):
            pending += part.parts
        elif isinstance(part, Repetition):
            pending.append(part.part)


def productive_rules(rules: Mapping[str, Node]) -> set[str]:
    """The rules that produce some text of finite length: the least fixed point."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, node in rules.items():
        for target in mentioned(node):
            users[target].add(name)
    found: set[str] = set()
    pending = list(rules)
    while pending:
        name = pending.pop()
        if name not in found and _is_productive(rules[name], found):
            found.add(name)
            pending.extend(users[name])
    return found


def _is_productive(node: Node, found: set[str]) -> bool:
    if isinstance(node, Reference):
        return node.name in found
    if isinstance(node, Sequence):
        return all(_is_productive(part, found) for part in node.parts)
    if isinstance(node, Choice):
        return any(_is_productive(part, found) for part in node.parts)
    if isinstance(node, Repetition):
        return node.fewest == 0 or _is_productive(node.part, found)
    return True


class _TooLong(Exception):
    """The expression of a rule would be too long, or has no end."""


class _Expressions:
    """Rules as regular expressions, each made once."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        self.rules = rules
        self._made: dict[str, str] = {}

    def of_root(self, order: list[str]) -> str | None:
        """The expression for `root`, given the rules in an order of need; None if it is too long, or has a token."""
        try:
            for name in order:
                self._made[name] = self.of(self.rules[name])
        except _TooLong:
            return None
        return self._made["root"]

    def of(self, node: Node) -> str:
        """The expression of a regular part.

        Raises:
            _TooLong: there is a token in it, or it is too long.
        """
        if isinstance(node, Reference) and node.name not in self._made:
            self._made[node.name] = self.of(self.rules[node.name])
        return self._expression(node)

    def _expression(self, node: Node) -> str:
        if isinstance(node, Characters):
            return character_class(node)
        if isinstance(node, Reference):
            return self._made[node.name]
        if isinstance(node, Sequence):
            text = "".join(self.of(part) for part in node.parts)
        elif isinstance(node, Choice):
            text = "(?:" + "|".join(self.of(part) for part in node.parts) + ")"
        elif isinstance(node, Repetition):
            text = f"(?:{self.of(node.part)}){_counts(node)}"
        else:
            raise _TooLong  # a token is no text
        if len(text) > _LONGEST_EXPRESSION:
            raise _TooLong
        return text


def _order(rules: Mapping[str, Node]) -> list[str] | None:
    """The rules that `root` needs, each after those it mentions; None if there is a cycle."""
    order: list[str] = []
    state: dict[str, bool] = {}  # name -> whether it is done
    pending = [("root", False)]
    while pending:
        name, is_left = pending.pop()
        if is_left:
            state[name] = True
            order.append(name)
        elif name not in state:
            state[name] = False
            pending.append((name, True))
            targets = mentioned(rules[name])
            if any(state.get(target) is False for target in targets):
                return None
            pending += [(target, False) for target in sorted(targets)]
        elif not state[name]:
            return None
    return order


class _LarkText:
    """Rules over lexemes as Lark."""

    def __init__(self, expressions: _Expressions) -> None:
        self._expressions = expressions
        self._lexemes: dict[str, str] = {}  # expression -> name
        self._names: dict[str, str] = {}

    def of(self, rules: Mapping[str, Part]) -> str:
        self._names = {name: f"r{index}" for index, name in enumerate(rules)}
        lines = [f"start: {self._names['root']}"]
        lines += [f"{self._names[name]}: {self._part(part)}" for name, part in rules.items()]
        # A lexeme is never empty: where its expression may be, the lexeme is optional.
        lines += [f"{name}: /{expression}/ & /(?s:.+)/" for expression, name in self._lexemes.items()]
        return "\n".join(lines) + "\n"

    def _part(self, part: Part) -> str:
        if isinstance(part, Token):
            return part.text
        if isinstance(part, Reference):
            return self._names[part.name]
        if isinstance(part, Lexeme):
            return self._lexeme(part)
        inner = [self._part(item) for item in part.parts]
        if isinstance(part.origin, Repetition):
            return f"({inner[0]}){_counts(part.origin)}"
        return "(" + (" | " if isinstance(part.origin, Choice) else " ").join(inner) + ")" if inner else '""'

    def _lexeme(self, lexeme: Lexeme) -> str:
        expression = self._expressions.of(lexeme.node)
        if not expression:
            return '""'
        name = self._lexemes.setdefault(expression, f"L{len(self._lexemes)}")
        return f"{name}?" if may_be_empty(lexeme.node, self._expressions.rules) else name


def may_be_empty(node: Node, rules: Mapping[str, Node]) -> bool:
    """Whether a regular part matches the empty text."""
    if isinstance(node, Reference):
        return may_be_empty(rules[node.name], rules)
    if isinstance(node, Sequence):
        return all(may_be_empty(part, rules) for part in node.parts)
    if isinstance(node, Choice):
        return any(may_be_empty(part, rules) for part in node.parts)
    return isinstance(node, Repetition) and (node.fewest == 0 or may_be_empty(node.part, rules))


def _rules_text(rules: Mapping[str, Node]) -> str:
    names = {name: f"r{index}" for index, name in enumerate(rules)}
    lines = [f"start: {names['root']}"]
    lines += [f"{names[name]}: {_rule(node, names)}" for name, node in rules.items()]
    return "\n".join(lines) + "\n"


def _rule(node: Node, names: Mapping[str, str]) -> str:
    if isinstance(node, Characters):
        return f"/{character_class(node)}/"
    if isinstance(node, Token):
        return node.text
    if isinstance(node, Reference):
        return names[node.name]
    if isinstance(node, Sequence):
        return "(" + " ".join(_rule(part, names) for part in node.parts) + ")" if node.parts else '""'
    if isinstance(node, Choice):
        return "(" + " | ".join(_rule(part, names) for part in node.parts) + ")"
    return f"({_rule(node.part, names)}){_counts(node)}"


def _counts(node: Repetition) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    text = short.get((node.fewest, node.most))
    return text or f"{{{node.fewest},{'' if node.most is None else node.most}}}"


def character_class(node: Characters) -> str:
    """A regular expression for one of the characters; the halves of surrogate pairs are none."""
    parts = []
    for first, last in node.ranges:
        for low, high in ((first, min(last, _SURROGATES[0] - 1)), (max(first, _SURROGATES[1] + 1), last)):
            if low == high:
                parts.append(f"\\u{{{low:X}}}")
            elif low < high:
                parts.append(f"\\u{{{low:X}}}-\\u{{{high:X}}}")
    return "[" + "".join(parts) + "]"
