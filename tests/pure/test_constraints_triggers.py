"""Free text until a trigger, a grammar from there on."""

from __future__ import annotations

import random

import pytest
from constraint_walks import BOS, CALL, END, OTHER_END, allowed_ids, new_compiler, new_masks
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.errors import EngineError, InvalidRequestError
from quipu.types import ConstraintSpec

COMPILER = new_compiler()
VOCABULARY = COMPILER.vocabulary
ALL = set(range(((VOCABULARY.size + 31) // 32) * 32))


def ids_of(text: str) -> list[int]:
    return VOCABULARY.tokenize(text.encode())


def bytes_of(text: str) -> list[int]:
    return list(text.encode())


def next_ids(constraint: object) -> set[int]:
    masks = new_masks(VOCABULARY)
    assert constraint.fill_masks([], masks) == 0  # type: ignore[attr-defined]
    return set(allowed_ids(masks[0]))


def test_anything_may_come_before_a_trigger() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("[0-9]+;", triggers=["go:"]))
    assert not constraint.is_active
    for token in [*ids_of("some text, "), BOS, CALL, *bytes_of("g go go")]:
        assert token in next_ids(constraint)
        constraint.accept([token])
        assert not constraint.is_complete
    assert constraint.forced_tokens(5) == []
    constraint.accept(bytes_of(":"))
    assert constraint.is_active
    assert next_ids(constraint) >= set(b"0123456789")
    assert END not in next_ids(constraint)
    with pytest.raises(EngineError):
        constraint.accept(bytes_of("x"))


def test_a_trigger_across_tokens_and_the_text_after_it() -> None:
    for tokens in (bytes_of("aaa"), ids_of("aaa"), [*ids_of("aa"), ord("a")]):
        constraint = COMPILER.compile(ConstraintSpec.regex("[bc]+", triggers=["aa"]))
        constraint.accept(tokens[:-1])
    constraint = COMPILER.compile(ConstraintSpec.regex("a[bc]+", triggers=["aa"]))
    constraint.accept(ids_of("aaa"))  # one token: the trigger, and the first letter of what follows
    assert constraint.is_active
    assert set(b"bc") <= next_ids(constraint)
    assert ord("a") not in next_ids(constraint)


def test_tokens_whose_rest_does_not_fit_are_forbidden() -> None:
    """`aaa` holds the whole trigger `aa` and an `a` that the grammar does not take."""
    constraint = COMPILER.compile(ConstraintSpec.regex("[0-9]+", triggers=["aa"]))
    (three,) = ids_of("aaa")
    assert constraint.is_active, "such a token may come at any time"
    assert three not in next_ids(constraint)
    assert next_ids(constraint) == ALL - {three}
    # After one `a`, so may `aa`.
    constraint.accept([ord("a")])
    assert {three, ids_of("aa")[0]}.isdisjoint(next_ids(constraint))
    constraint.accept([ord("a")])
    assert next_ids(constraint) >= set(b"0123456789")


def test_control_tokens_as_triggers() -> None:
    for trigger in (CALL, "<call>"):
        constraint = COMPILER.compile(ConstraintSpec.regex("[ab]", triggers=[trigger]))
        assert not constraint.is_active
        constraint.accept([*ids_of("the "), CALL])
        assert constraint.is_active
        constraint.accept([ord("a")])
        assert constraint.is_complete
    mixed = COMPILER.compile(ConstraintSpec.regex("[ab]", triggers=["x<call>y"]))
    mixed.accept([ord("x"), CALL, ord("y")])
    assert set(b"ab") <= next_ids(mixed)


def test_a_grammar_may_describe_the_trigger_too() -> None:
    options = {"triggers": ["<a", "<b"], "includes_trigger": True}
    constraint = COMPILER.compile(ConstraintSpec.gbnf('root ::= "<a" [0-9] | "<b" [x-z]', **options))
    constraint.accept(bytes_of("the <b"))
    assert next_ids(constraint) == set(b"xyz")
    by_id = COMPILER.compile(ConstraintSpec.lark('start: <call> "a"', triggers=[CALL], includes_trigger=True))
    by_id.accept([CALL])
    assert next_ids(by_id) == {ord("a")}


def test_an_answer_may_end_without_a_trigger_unless_it_is_required() -> None:
    free = COMPILER.compile(ConstraintSpec.regex("a", triggers=["go"]))
    free.accept([*ids_of("the"), END])
    assert free.is_complete
    required = COMPILER.compile(ConstraintSpec.regex("a", triggers=["go"], is_required=True))
    assert required.is_active
    assert next_ids(required) == ALL - {END, OTHER_END}
    required.accept(bytes_of("go"))
    required.accept([ord("a")])
    assert required.is_complete


def test_the_earliest_trigger_counts() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("c[0-9]", triggers=["bc", "ab"]))
    constraint.accept(bytes_of("ab"))
    assert next_ids(constraint) == {ord("c")}


def test_drafts_that_cross_a_trigger() -> None:
    constraint = COMPILER.compile(ConstraintSpec.regex("[0-9]{2}", triggers=["go:"]))
    drafts = bytes_of("x go:1x")
    masks = new_masks(VOCABULARY, len(drafts) + 1)
    assert constraint.fill_masks(drafts, masks) == 6
    assert set(allowed_ids(masks[5])) >= set(b"0123456789")
    assert ord("x") not in allowed_ids(masks[6])
    assert not constraint.is_active, "the drafts were only looked at"
    assert constraint.validate(drafts) == 6
    constraint.accept(drafts[:6])
    assert constraint.is_active


def test_unknown_token_ids_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="triggers"):
        COMPILER.compile(ConstraintSpec.regex("a", triggers=[10**6]))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(["aa", "ab", "aab", "a", "e the", "日本", '"']))
def test_random_answers_obey_the_grammar_after_the_first_trigger(seed: int, trigger: str) -> None:
    """However the model cuts its text: what follows the first trigger is always a beginning of the grammar's text."""
    constraint = COMPILER.compile(ConstraintSpec.regex("[ab]{0,4}!", triggers=[trigger]))
    source, text = random.Random(seed), b""
    pieces = [token for token in range(VOCABULARY.size) if VOCABULARY.token_bytes(token)]
    likely = [token for token in pieces if set(VOCABULARY.token_bytes(token)) <= set(b"ab !" + trigger.encode())]
    for _ in range(60):
        allowed = next_ids(constraint)
        candidates = [token for token in (likely if source.random() < 0.9 else pieces) if token in allowed]
        if constraint.is_complete or not candidates:
            break
        token = source.choice(candidates)
        constraint.accept([token])
        text += VOCABULARY.token_bytes(token)
    before, found, after = text.partition(trigger.encode())
    if found:
        letters = after.removesuffix(b"!")
        assert set(letters) <= set(b"ab"), (before, after)
        assert len(letters) <= 4
    else:
        assert not constraint.is_complete
