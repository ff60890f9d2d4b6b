"""Masks, drafts, taking back, ends, forced tokens, split characters: one sequence under a grammar."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from constraint_walks import (
    BOS,
    CALL,
    END,
    OTHER_END,
    ByteTokenizer,
    accepts,
    allowed_ids,
    new_compiler,
    new_masks,
    random_answer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.chat.constraints import ConstraintCompiler, ConstraintLimits, heal_prompt
from quipu.errors import EngineError, InvalidRequestError
from quipu.types import ConstraintKind, ConstraintSpec

COMPILER = new_compiler()
VOCABULARY = COMPILER.vocabulary
JSON = ConstraintSpec.json_schema(
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]},
    whitespace="compact",
)


def ids_of(text: str) -> list[int]:
    return VOCABULARY.tokenize(text.encode())


def next_ids(constraint: object) -> set[int]:
    masks = new_masks(VOCABULARY)
    assert constraint.fill_masks([], masks) == 0  # type: ignore[attr-defined]
    return set(allowed_ids(masks[0]))


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (ConstraintSpec.regex("[a-c]+/x?"), ["a/", "abc/x"], ["", "/", "ab", "d/"]),
        (ConstraintSpec.regex("^yes|no$"), ["yes", "no"], ["yesno", "n"]),
        (ConstraintSpec.regex("(?i)yes"), ["YES", "yEs"], ["y"]),
        (ConstraintSpec.regex("a\nb"), ["a\nb"], ["ab"]),
        (ConstraintSpec.regex(".{2}"), ["日本", "😀é"], ["日", "a\n"]),
        (
            ConstraintSpec.choice(["a", "ab", 'c"/', "日本", "d\ne", "[x]*"]),
            ["a", "ab", 'c"/', "日本", "d\ne", "[x]*"],
            ["b", "x"],
        ),
        (ConstraintSpec.lark('start: "(" start ")" | "x"'), ["x", "((x))"], ["(x", "()"]),
        (
            ConstraintSpec.lark('start: "v=" v\nv: %json {"type": "integer", "minimum": 5}'),
            ["v=5", "v=77"],
            ["v=4", "v="],
        ),
        (ConstraintSpec.lark("start: <call> /[a-z]+/"), [], ["ab"]),
        (ConstraintSpec.gbnf('root ::= ("ab" | "a") "b"?'), ["ab", "abb", "a"], ["b", ""]),
        (ConstraintSpec.regex("b+", prefix="aa"), ["aab", "aabb"], ["b", "aa"]),
    ],
    ids=lambda value: value.kind.value if isinstance(value, ConstraintSpec) else None,
)
def test_every_kind(spec: ConstraintSpec, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert accepts(COMPILER, spec, text), text
    for text in bad:
        assert not accepts(COMPILER, spec, text), text
    if good:
        for seed in range(10):
            answer = random_answer(COMPILER, spec, seed)
            assert answer is None or accepts(COMPILER, spec, answer)


def test_masks_cover_the_vocabulary_and_nothing_else() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("(?s:.)*"))
    allowed = next_ids(constraint)
    assert {END, OTHER_END} <= allowed
    assert not {BOS, CALL} & allowed, "control tokens have no text"
    assert max(allowed) < ByteTokenizer().vocab_size, "padding is never allowed"
    assert {ord("a"), *ids_of("日本")} <= allowed
    assert 0x80 not in allowed, "a character does not begin with its second byte"


def test_characters_may_be_split_between_tokens() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("[éè]+"))
    first, second = "é".encode()
    assert next_ids(constraint) == {first, *ids_of("é")}
    constraint.accept([first])
    joined = next(token for token, data in enumerate(VOCABULARY.tokens) if data == bytes((second,)) + b"x")
    assert next_ids(constraint) == {second, "è".encode()[1]}
    assert joined not in next_ids(constraint)
    constraint.accept([second])
    assert END in next_ids(constraint)


def test_drafts_get_a_row_each_and_are_taken_back() -> None:
    constraint = COMPILER.compile(JSON)
    good = ids_of('{"name":"a"}')
    expected = []
    walked = COMPILER.compile(JSON)
    for token in good:
        expected.append(next_ids(walked))
        walked.accept([token])
    expected.append(next_ids(walked))
    masks = new_masks(VOCABULARY, len(good) + 1)
    for _ in range(3):
        assert constraint.fill_masks(good, masks) == len(good)
        assert [set(allowed_ids(mask)) for mask in masks] == expected
    assert not constraint.is_complete
    assert next_ids(constraint) == expected[0], "nothing was kept"
    constraint.accept(good[:2])  # fewer than were drafted
    assert next_ids(constraint) == expected[2]


def test_rows_after_a_refused_draft_are_left_alone() -> None:
    constraint = COMPILER.compile(JSON)
    good = ids_of('{"name":"')
    drafts = [*good, ord("a"), ord("\n"), ord("b")]
    masks = new_masks(VOCABULARY, len(drafts) + 1)
    assert constraint.fill_masks(drafts, masks) == len(good) + 1
    assert (masks[len(good) + 2 :] == 0x55555555).all()
    assert ord("\n") not in allowed_ids(masks[len(good) + 1])


def test_an_end_token_among_the_drafts() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("a+"))
    a = ord("a")
    masks = new_masks(VOCABULARY, 4)
    assert constraint.fill_masks([a, END, a], masks) == 2
    assert set(allowed_ids(masks[2])) == {END, OTHER_END}
    assert constraint.fill_masks([END], masks) == 0, "nothing is written yet"
    constraint.accept([a])
    assert not constraint.is_complete
    constraint.accept([END])
    assert constraint.is_complete
    assert next_ids(constraint) == {END, OTHER_END}
    assert constraint.validate([a]) == 0
    assert constraint.forced_tokens(4) == []
    constraint.accept([END])  # a second one changes nothing


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 300), max_size=6), st.integers(0, 6))
def test_drafts_at_random_never_change_the_state(seed: int, noise: list[int], num_accepted: int) -> None:
    text = random_answer(COMPILER, JSON, seed) or b"{"
    ids = VOCABULARY.tokenize(text)
    one, other = COMPILER.compile(JSON), COMPILER.compile(JSON)
    position = 0
    while position < len(ids):
        drafts = [*ids[position : position + num_accepted], *noise]
        masks = new_masks(VOCABULARY, len(drafts) + 1)
        num_allowed = one.fill_masks(drafts, masks)
        assert num_allowed >= len(ids[position : position + num_accepted])
        assert next_ids(other) == set(allowed_ids(masks[0]))
        taken = ids[position : position + max(1, num_accepted)]
        one.accept(taken)
        for token in taken:
            other.accept([token])
        position += len(taken)
    assert one.is_complete == other.is_complete


def test_completion() -> None:
    constraint = COMPILER.compile(ConstraintSpec.choice(["ab", "a"]))
    constraint.accept([ord("a")])
    assert not constraint.is_complete
    assert END in next_ids(constraint)
    constraint.accept([ord("b")])
    assert constraint.is_complete
    assert next_ids(constraint) == {END, OTHER_END}


def test_a_token_that_does_not_fit_is_an_error_and_stays_one() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("a+"))
    with pytest.raises(EngineError, match="cannot be followed"):
        constraint.accept([ord("b")])
    with pytest.raises(EngineError, match="cannot be followed"):
        constraint.fill_masks([], new_masks(VOCABULARY))


def test_forced_tokens_are_allowed_tokens() -> None:
    schema = {"type": "object", "properties": {"a long name": {"const": "value"}}, "required": ["a long name"]}
    spec = ConstraintSpec.json_schema({**schema, "additionalProperties": False}, whitespace="compact")
    constraint = COMPILER.compile(spec)
    text, drafted = b"", 0
    while not constraint.is_complete:
        forced = constraint.forced_tokens(5)
        drafted += len(forced)
        assert len(forced) <= 5
        masks = new_masks(VOCABULARY, len(forced) + 1)
        assert constraint.fill_masks(forced, masks) == len(forced)
        chosen = forced or [min(next_ids(constraint))]
        constraint.accept(chosen)
        text += b"".join(map(VOCABULARY.token_bytes, chosen))
    assert text == b'{"a long name":"value"}'
    assert drafted > 5
    assert constraint.forced_tokens(0) == []


def test_special_tokens_in_a_grammar() -> None:
    constraint = COMPILER.compile(ConstraintSpec.lark('start: <call> "a"'))
    assert next_ids(constraint) == {CALL}
    constraint.accept([CALL, ord("a")])
    assert constraint.is_complete
    by_number = COMPILER.compile(ConstraintSpec.gbnf(f'root ::= "(" "a" ")" | <[{CALL}]> root'))
    assert CALL in next_ids(by_number)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ConstraintSpec.regex(""), "empty"),
        (ConstraintSpec.regex("(?=a)"), "look-ahead"),
        (ConstraintSpec.regex("(a)\\1"), "back references"),
        (ConstraintSpec.regex("["), "unclosed"),
        (ConstraintSpec.regex("(" * 100 + "a" + ")" * 100), "nested"),
        (ConstraintSpec.regex("a{100000}"), "repetition"),
        (ConstraintSpec.regex("a\ud800"), "Unicode"),
        (ConstraintSpec(ConstraintKind.CHOICE, "[]"), "one or more"),
        (ConstraintSpec(ConstraintKind.CHOICE, '["a", 3]'), "strings"),
        (ConstraintSpec.choice([""]), "empty"),
        (ConstraintSpec.choice([str(number) for number in range(6000)]), "choices"),
        (ConstraintSpec.lark(""), "empty"),
        (ConstraintSpec.lark("start: missing"), "missing"),
        (ConstraintSpec.lark('a: "x"'), "start"),
        (ConstraintSpec.lark("start: a\na: a"), "no text at all"),
        (ConstraintSpec.lark('start: "a"\nt[max_tokens=3]: "b"'), "line 2: the attribute max_tokens="),
        (ConstraintSpec.lark('start: "a" %json {"not": {}}'), "line 1: %json"),
        (ConstraintSpec.lark('start: "a" %json {"type": '), "line 1: %json"),
        (ConstraintSpec.lark("start: <nope>"), "nope"),
        (ConstraintSpec.lark('start: "%json {" "# no comment" /%json \\{/ %json {"foo": 1}'), '"foo" is unknown'),
        (ConstraintSpec.regex("x" * 300_000), "bytes"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(spec: ConstraintSpec, expected: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        COMPILER.compile(spec)
    assert expected in str(caught.value)
    assert caught.value.field == "constraint"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "values", [{"kind": "yaml"}, {"kind": "regex", "whitespace": "some"}, {"kind": "regex", "triggers": ("",)}]
)
def test_a_specification_is_checked(values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        ConstraintSpec(**values)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        ConstraintSpec.choice("yes")
    with pytest.raises(InvalidRequestError):
        ConstraintSpec.regex("a", triggers=["t"] * 65)


def test_a_vocabulary_without_an_end_is_refused() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.end_of_generation_ids = frozenset()
    with pytest.raises(InvalidRequestError, match="ends the answer"):
        ConstraintCompiler(tokenizer, tokenizer.vocab_size).compile(ConstraintSpec.regex("a"))


def test_a_grammar_that_grows_too_complex_is_an_error_of_its_sequence() -> None:
    compiler = new_compiler(limits=ConstraintLimits(lexer_states=60))
    spec = ConstraintSpec.regex("(a|b)*a(a|b){60}x")
    with pytest.raises((EngineError, InvalidRequestError)):
        random_answer(compiler, spec, seed=1, num_free=300)


def test_many_threads_compile_and_walk() -> None:
    compiler = new_compiler()
    answers: dict[int, bytes | None] = {}

    def work(number: int) -> None:
        answers[number] = random_answer(compiler, ConstraintSpec.json_schema({"enum": [number % 3]}), number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: str(number % 3).encode() for number in range(12)}


def test_text_that_no_token_spells_is_cut_into_bytes() -> None:
    assert b"".join(map(VOCABULARY.token_bytes, VOCABULARY.tokenize(b"\xff\xfeab"))) == b"\xff\xfeab"
    assert VOCABULARY.tokenize(b"") == []


# --- token healing ----------------------------------------------------------------------------------------------------


def test_a_prompt_that_ends_inside_of_a_token_is_healed() -> None:
    prompt = [BOS, *ids_of("q?"), ord(" ")]
    spec = ConstraintSpec.choice(["the", "no"])
    healed, constraint = heal_prompt(prompt, spec, COMPILER)
    assert list(healed) == prompt[:-1]
    assert constraint.prefix == " "
    assert set(ids_of(" the")) & next_ids(COMPILER.compile(constraint))


def test_a_prompt_is_left_alone_where_nothing_goes_on_from_it() -> None:
    for prompt, spec in (
        ([BOS, *ids_of("q? ")], ConstraintSpec.choice(["zzz"])),
        ([BOS, *ids_of("q?"), CALL], ConstraintSpec.choice(["the"])),
        ([ord(" ")], ConstraintSpec.choice(["the"])),
        ([BOS, ord(" ")], ConstraintSpec.choice(["the"], triggers=["x"])),
    ):
        assert heal_prompt(prompt, spec, COMPILER) == (tuple(prompt), spec)


def test_shapes_of_masks_are_checked() -> None:
    constraint = COMPILER.compile(JSON)
    with pytest.raises(AssertionError):
        constraint.fill_masks([1, 2], new_masks(VOCABULARY, 2))
    with pytest.raises(AssertionError):
        constraint.fill_masks([], np.zeros((1, 9), dtype=np.int64))
