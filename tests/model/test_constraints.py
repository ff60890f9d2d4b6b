"""Constrained answers of the embedded model: all of them valid, whatever is asked and however it is sampled."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import quipu
from quipu import LLM, ConstraintSpec, SamplingParams
from quipu.cli.app import main
from quipu.errors import InvalidRequestError
from quipu.types import FinishReason

TINY = Path(quipu.__file__).parent / "data" / "tiny-chat-Q8_0.gguf"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/link"}]},
    },
    "required": ["name", "age", "colours", "next"],
    "additionalProperties": False,
    "$defs": {
        "link": {
            "type": "object",
            "properties": {"to": {"type": "string", "pattern": "^[a-z]{1,8}$"}},
            "required": ["to"],
            "additionalProperties": False,
        }
    },
}
QUESTIONS = (
    "Who are you?",
    "Tell me about Ann, who is seven.",
    "你好",
    "What is 2 + 2?",
    'Say {"name": 3}',
    "",
    "Write a list of colours\n\n",
    "🙂",
)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(TINY, ctx_size=512, threads=1) as opened:
        yield opened
        engine = opened._open_engine().engine
        engine.settle()
        assert not engine.has_work
        engine.check_integrity()


def chats(questions: tuple[str, ...]) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": question}] for question in questions]


def test_every_answer_fits_the_schema(llm: LLM) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    constraint = ConstraintSpec.json_schema(SCHEMA)
    num_whole = 0
    for seed, temperature in itertools.product(range(2), (0.0, 0.8, 3.0)):
        sampling = SamplingParams(max_tokens=120, seed=seed, temperature=temperature)
        for answer in llm.chat(chats(QUESTIONS), sampling, constraint=constraint):
            assert answer.error == ""
            if answer.finish_reason is FinishReason.LENGTH:
                continue
            num_whole += 1
            assert answer.finish_reason is FinishReason.STOP
            validator.validate(json.loads(answer.text))
    assert num_whole >= 40, "of 48"


def test_constrained_and_free_requests_share_a_batch(llm: LLM) -> None:
    sampling = SamplingParams(max_tokens=12, temperature=0.0)
    alone = llm.chat(chats(QUESTIONS[:3]), sampling)
    constraints = [None, ConstraintSpec.regex("[0-9]{3}"), None]
    mixed = llm.chat(chats(QUESTIONS[:3]), sampling, constraint=constraints)
    assert [mixed[0].text, mixed[2].text] == [alone[0].text, alone[2].text]
    assert re.fullmatch("[0-9]{3}", mixed[1].text)


def test_seeded_answers_are_the_same_again(llm: LLM) -> None:
    constraint = ConstraintSpec.gbnf('root ::= line+\nline ::= [a-z ]{1,20} "\\n"')
    sampling = SamplingParams(max_tokens=40, seed=11)
    first = llm.generate("The cat", sampling, constraint=constraint)
    again = llm.generate(["The cat"] * 3, sampling, constraint=constraint)
    assert {completion.text for completion in again} == {first.text}


def test_every_kind(llm: LLM) -> None:
    for constraint, pattern in (
        (ConstraintSpec.choice(["red", "blue"]), "red|blue"),
        (ConstraintSpec.regex("[a-z]{2,5}!"), "[a-z]{2,5}!"),
        (ConstraintSpec.lark('start: "<" /[a-z]{1,6}/ ">"'), "<[a-z]{1,6}>"),
        (ConstraintSpec.gbnf('root ::= "(" root ")" | [0-9]{1,3}'), r"\(*[0-9]{1,3}\)*"),
    ):
        for seed in range(3):
            answer = llm.generate("The colour is ", SamplingParams(max_tokens=40, seed=seed), constraint=constraint)
            assert answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
            if answer.finish_reason is FinishReason.STOP:
                assert re.fullmatch(pattern, answer.text), answer.text


def test_a_constraint_holds_after_the_reasoning(llm: LLM) -> None:
    sampling = SamplingParams(max_tokens=200, seed=3, temperature=0.0)
    constraint = ConstraintSpec.choice(["yes", "no"])
    answer = llm.chat(chats(("What is 2 + 2?",))[0], sampling, constraint=constraint, enable_thinking=True)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.text.strip() in ("yes", "no")
    assert answer.reasoning
    assert answer.reasoning.strip() not in ("yes", "no")


def test_the_end_of_a_prompt_may_become_part_of_a_longer_token(llm: LLM) -> None:
    sampling = SamplingParams(max_tokens=8, temperature=0.0)
    answer = llm.generate("The cat is ", sampling, constraint=ConstraintSpec.choice(["black", "not here"]))
    assert answer.text in ("black", "not here")
    assert answer.usage.prompt_tokens < len(llm.tokenize("The cat is "))


def test_what_cannot_be_enforced_is_refused(llm: LLM) -> None:
    bad = ConstraintSpec.json_schema({"properties": {"a": {"not": {}}}})
    for call in (lambda: llm.generate("x", constraint=bad), lambda: llm.chat(chats(("x",))[0], constraint=bad)):
        with pytest.raises(InvalidRequestError, match=r"at #/properties/a") as caught:
            call()
        assert caught.value.field == "constraint"
    good, refused = llm.chat(
        chats(("x", "x")), SamplingParams(max_tokens=4), constraint=[ConstraintSpec.choice(["y"]), bad]
    )
    assert (good.text, good.error) == ("y", "")
    assert refused.finish_reason is FinishReason.ERROR
    assert "#/properties/a" in refused.error
    with pytest.raises(InvalidRequestError, match="constraint"):
        llm.chat(chats(("x", "x")), constraint=[ConstraintSpec.choice(["y"])])
    with pytest.raises(InvalidRequestError, match="constraint"):
        llm.generate("x", constraint={"type": "object"})  # type: ignore[call-overload]


def test_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = ["run", str(TINY), "-p", "Name a colour", "-n", "20", "-s", "1", "-c", "256"]
    assert main([*words, "--json-schema", '{"enum": ["red", "blue"]}']) == 0
    assert json.loads(capsys.readouterr().out) in ("red", "blue")
    assert main([*words, "--json-schema", '{"not": {}}']) == 2
    assert '--json-schema: at #: the keyword "not"' in capsys.readouterr().err
    assert main([*words, "--grammar", "root ::= a"]) == 2
    assert "line 1, column 10" in capsys.readouterr().err
