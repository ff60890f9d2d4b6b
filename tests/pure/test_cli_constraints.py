"""The options that say what an answer must look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import ScriptedLLM

from quipu.cli.command import parse
from quipu.cli.conversation import ChatConversation, TextConversation
from quipu.cli.run_options import RunOptions
from quipu.errors import UsageError
from quipu.types import ConstraintKind, ConstraintSpec, SamplingParams


def constraint_of(*words: str) -> ConstraintSpec | None:
    return RunOptions(**parse("run", ["m.gguf", *words]).arguments).constraint()


@pytest.mark.parametrize(
    ("words", "kind", "source"),
    [
        (("-j", "{}"), ConstraintKind.JSON_SCHEMA, "{}"),
        (("--json-schema", '{"type": "null"}'), ConstraintKind.JSON_SCHEMA, '{"type": "null"}'),
        (("--grammar", 'root ::= "a"'), ConstraintKind.GBNF, 'root ::= "a"'),
        (("--grammar", '%llguidance {}\nstart: "a"'), ConstraintKind.LARK, '%llguidance {}\nstart: "a"'),
        (("--regex", "[a-z]+"), ConstraintKind.REGEX, "[a-z]+"),
    ],
)
def test_options(words: tuple[str, ...], kind: ConstraintKind, source: str) -> None:
    constraint = constraint_of(*words)
    assert constraint is not None
    assert (constraint.kind, constraint.source) == (kind, source)
    assert constraint.field.startswith("--")


def test_files(tmp_path: Path) -> None:
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    schema.write_text('{"type": "null"}', encoding="utf-8")
    grammar.write_text('root ::= "é"', encoding="utf-8")
    for flag in ("-jf", "--json-schema-file"):
        constraint = constraint_of(flag, str(schema))
        assert constraint == ConstraintSpec.json_schema('{"type": "null"}', field="--json-schema-file")
    assert constraint_of("--grammar-file", str(grammar)) == ConstraintSpec.gbnf('root ::= "é"', field="--grammar-file")
    with pytest.raises(UsageError):
        constraint_of("--grammar-file", str(tmp_path / "missing"))


def test_one_at_a_time() -> None:
    assert constraint_of() is None
    with pytest.raises(UsageError, match="--json-schema and --regex contradict"):
        constraint_of("-j", "{}", "--regex", "a")


def test_every_answer_of_a_conversation_is_constrained() -> None:
    spec = ConstraintSpec.regex("a")
    for kind in (ChatConversation, TextConversation):
        llm = ScriptedLLM(["one", "two"])
        conversation = kind(llm, constraint=spec)  # type: ignore[arg-type]
        for question in ("first", "second"):
            list(conversation.ask(question, SamplingParams(), {}))
        assert llm.constraints == [spec, spec]
