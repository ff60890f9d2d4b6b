"""GBNF: errors have line and column, and the Lark that comes out has the same language, by a plain matcher."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import pytest
from constraint_walks import accepts, new_compiler, random_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.chat.constraints import ConstraintLimits
from quipu.chat.constraints.gbnf import gbnf_to_lark
from quipu.chat.constraints.gbnf_syntax import (
    Characters,
    Choice,
    Node,
    Reference,
    Repetition,
    Sequence,
    complement,
    merge_ranges,
    parse_gbnf,
)
from quipu.errors import InvalidRequestError
from quipu.types import ConstraintSpec

COMPILER = new_compiler()
LIMITS = ConstraintLimits()

JSON_GRAMMAR = r"""
# JSON, as llama.cpp's users write it
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


class PlainMatcher:
    """The positions at which a rule may end: memoised, and a fixed point where rules are left-recursive."""

    def __init__(self, rules: Mapping[str, Node], text: str) -> None:
        self.rules, self.text = rules, text
        self.ends: dict[tuple[str, int], set[int]] = {}

    def matches(self) -> bool:
        while True:
            before = {key: set(ends) for key, ends in self.ends.items()}
            self.ends.setdefault(("root", 0), set())
            for name, start in list(self.ends):
                self.ends[name, start] |= set(self._ends(self.rules[name], start))
            if self.ends == before:
                return len(self.text) in self.ends["root", 0]

    def _ends(self, node: Node, start: int) -> Iterator[int]:
        if isinstance(node, Characters):
            if start < len(self.text) and any(a <= ord(self.text[start]) <= b for a, b in node.ranges):
                yield start + 1
        elif isinstance(node, Reference):
            yield from list(self.ends.setdefault((node.name, start), set()))
        elif isinstance(node, Choice):
            for part in node.parts:
                yield from self._ends(part, start)
        elif isinstance(node, Sequence):
            places = {start}
            for part in node.parts:
                places = {end for place in places for end in self._ends(part, place)}
            yield from places
        elif isinstance(node, Repetition):
            places, count, seen = {start}, 0, set()
            while places and (node.most is None or count <= node.most):
                if count >= node.fewest:
                    yield from places - seen
                    seen |= places
                places = {end for place in places for end in self._ends(node.part, place)}
                count += 1
                if node.most is None and count > node.fewest and places <= seen:
                    return
        else:
            raise AssertionError(node)


def is_in_language(grammar: str, text: str) -> bool:
    return PlainMatcher(parse_gbnf(grammar, LIMITS, "grammar"), text).matches()


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= [a-z]* "b"', ["b", "ab", "bbb"], ["", "a", "ba"]),
        ('root ::= "a"* "ab"', ["ab", "aab"], ["a", "aa", "b"]),
        ('root ::= ("true" | [a-z])*', ["", "true", "trx", "tru"], ["T"]),
        ('root ::= "(" root ")" | [a-z]* "b"', ["ab", "((xb))"], ["(x)", "(b"]),
        ('root ::= "a" root "b" | ""', ["", "ab", "aabb"], ["a", "abb"]),
        ("root ::= x{2,3}\nx ::= [0-9] ", ["12", "123"], ["1", "1234"]),
        ("root ::= x{2}\nx ::= . ", ["ab", "日\n"], ["a", "abc"]),
        ("root ::= [^a-c\\]]+ ", ["dé", "[", "😀"], ["a", "]", ""]),
        ("root ::= [a-] [\\x41\\u00e9\\U0001F600]", ["-A", "aé", "a😀"], ["bA", "aB"]),
        ('root ::= word (" " word)*\nword ::= letter+ # words\nletter ::= [a-z]', ["ab cd"], ["ab ", " ab"]),
        ('root ::= ws "x"\nws ::= ([ \\t\\n] ws)?', ["x", " \n x"], ["xx"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
        ('root ::= sum\nsum ::= sum "+" sum | [0-9]+', ["1", "1+22+3"], ["1+", "+1"]),
        ('root ::= "a" |\n  "b"', ["a", "b"], ["ab"]),
        ('root ::= (\n "a"\n | "b"\n)+ ', ["abba"], ["c"]),
        ('root ::= "\\"\\\\\\n"', ['"\\\n'], ["n"]),
        ('root ::= a-b | A_b\na-b ::= "x"\nA_b ::= "y"\r\n', ["x", "y"], ["z"]),
        ('root ::= root "aa" | root? "a"', ["a", "aa", "aaaa"], ["", "b"]),
        ('root ::= "a/b" [/] ', ["a/b/"], ["a/b"]),
    ],
)
def test_languages(grammar: str, good: list[str], bad: list[str]) -> None:
    spec = ConstraintSpec.gbnf(grammar)
    for text in good:
        assert is_in_language(grammar, text)
        assert accepts(COMPILER, spec, text), text
    for text in bad:
        assert not is_in_language(grammar, text)
        assert not accepts(COMPILER, spec, text), text


def test_the_grammar_of_json() -> None:
    spec = ConstraintSpec.gbnf(JSON_GRAMMAR)
    for text in ('{"a": [1, -2.5e3, {"b": null}], "c": "\\u00e9"}', "{}", '{\n  "a": true}'):
        assert accepts(COMPILER, spec, text), text
    for text in ('{"a"}', "[]", '{"a": 01}', '{"a": tru}', '{"a": 1,}'):
        assert not accepts(COMPILER, spec, text), text
    assert any(random_answer(COMPILER, spec, seed, num_free=10) for seed in range(5))


def test_regular_parts_of_a_recursive_grammar_stay_whole() -> None:
    """Single characters would make masks some forty times as slow."""
    text = gbnf_to_lark(JSON_GRAMMAR, LIMITS, "grammar")
    expressions = re.findall(r"^L[0-9]+: /(.*)/ & ", text, re.MULTILINE)
    assert any(len(expression) > 100 for expression in expressions), "a string is one lexeme"
    apart = gbnf_to_lark('root ::= "(" root ")" | [a-z]* "b"', LIMITS, "grammar")
    assert "*" in apart.replace("/(?s:.+)/", "")


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ("", "line 1, column 1: there is no rule 'root'"),
        ('start ::= "a"', "there is no rule 'root'"),
        ("root ::= a", "line 1, column 10: there is no rule 'a'"),
        ('root ::= "a"\n\n  b = "c"', "line 3, column 5: expected '::='"),
        ('root ::= "a', "line 1, column 12: expected a closing quotation mark"),
        ('root ::= "a\n"', "line 1, column 12: expected a closing quotation mark"),
        ("root ::= [a", "line 1, column 12: expected a closing ]"),
        ("root ::= [z-a]", "the range from U+007A to U+0061 is empty"),
        ("root ::= []", "line 1, column 10: the class has no characters"),
        ('root ::= ("a"', "line 1, column 14: expected ')'"),
        ('root ::= "a")', "line 1, column 13: expected the end of the rule"),
        ('root ::= "\\q"', "line 1, column 11: unknown escape"),
        ('root ::= "\\x4"', "followed by 2 hexadecimal digits"),
        ('root ::= "\\ud800"', "U+D800 is not a character"),
        ('root ::= "\\U00110000"', "U+110000 is not a character"),
        ('root ::= "a"{3,2}', "line 1, column 14: a repetition from 3 to 2 times"),
        ('root ::= "a"{99999}', "line 1, column 14: a part is repeated at most"),
        ('root ::= "a"{x}', "expected a number"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1: the rule 'root' is there twice"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, "nested more than 64 deep"),
        ('root ::= "a" root', "no text of finite length"),
        ("root ::= <", "expected a token"),
        ("root ::= !<a>", "by its number"),
        ("root ::= <nothing-like-it>", "nothing-like-it"),
        ('root ::= * "a"', "line 1, column 10"),
    ],
)
def test_errors_have_line_and_column(grammar: str, expected: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        COMPILER.compile(ConstraintSpec.gbnf(grammar, field="--grammar"))
    assert expected in str(caught.value)
    assert str(caught.value).startswith("--grammar: ")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='root:= "ab[]()|*+?{}12,\\x-^.#\n<>!', max_size=60))
def test_any_text_is_a_grammar_or_an_error(text: str) -> None:
    message = "grammar: "
    try:
        gbnf_to_lark("root ::= " + text, LIMITS, "grammar")
    except InvalidRequestError as error:
        message = str(error)
    assert message.startswith("grammar: ")


def _rules(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    atoms = st.sampled_from(['"a"', '"b"', '"ab"', "[ab]", "[^b]", '""', *names])
    quantified = st.builds(lambda part, mark: part + mark, atoms, st.sampled_from(["", "", "", "*", "+", "?", "{0,2}"]))
    sequences = st.lists(quantified, min_size=1, max_size=3).map(" ".join)
    return st.lists(sequences, min_size=1, max_size=3).map(" | ".join)


_NAMES = ("root", "x", "y")
TEXTS = ["".join(letters) for length in range(5) for letters in itertools.product("ab", repeat=length)]


@settings(max_examples=150, deadline=None)
@given(_rules(_NAMES), _rules(_NAMES), _rules(_NAMES))
def test_random_grammars_keep_their_language(root: str, x: str, y: str) -> None:
    grammar = f"root ::= {root}\nx ::= {x}\ny ::= {y}"
    spec = ConstraintSpec.gbnf(grammar)
    message = ""
    try:
        COMPILER.compile(spec)
    except InvalidRequestError as error:
        message = str(error)
    if message:
        assert "finite length" in message or "no text at all" in message
        assert not any(is_in_language(grammar, text) for text in TEXTS[1:])
        return
    for text in TEXTS:
        assert accepts(COMPILER, spec, text) == is_in_language(grammar, text), (grammar, text)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=8))
def test_ranges(pairs: list[tuple[int, int]]) -> None:
    ranges = merge_ranges([(first, first + length) for first, length in pairs])
    members = {code for first, length in pairs for code in range(first, first + length + 1)}
    assert {code for first, last in ranges for code in range(first, last + 1)} == members
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges))
    rest = complement(ranges)
    assert all(not (first <= code <= last) for code in members for first, last in rest)
    assert sum(last - first + 1 for first, last in (*ranges, *rest)) == 0x110000
