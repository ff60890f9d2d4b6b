"""Speculation on the embedded models with the native backend: the same tokens, in fewer steps."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path

import pytest

from quipu import LLM, SamplingParams
from quipu.bench.synthetic import write_synthetic_model
from quipu.cli.app import main
from quipu.errors import UnsupportedModelError, UsageError
from quipu.types import ConstraintSpec

MODEL = Path(str(files("quipu") / "data" / "tiny-chat-Q8_0.gguf"))
DRAFT = Path(str(files("quipu") / "data" / "tiny-draft-Q8_0.gguf"))
TEXT = "The knots on the cord were read by touch, from left to right, and each one stood for a number. "
QUESTIONS = [
    "Tell me about the sea.",
    "What is a cord?",
    "Count to five.",
    "你好",
    "Name three colours.",
    "Who are you?",
]

pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="the embedded model has not been made")


def an_llm(**options: object) -> LLM:
    return LLM(MODEL, threads=1, ctx_size=512, **options)  # type: ignore[arg-type]


def samplings() -> list[SamplingParams]:
    greedy = [SamplingParams(temperature=0.0, max_tokens=48, ignore_eos=True)]
    seeded = [SamplingParams(temperature=0.9, seed=seed, max_tokens=32, logprobs=1) for seed in range(3)]
    return [*greedy, *seeded, SamplingParams(temperature=0.8, seed=5, mirostat=2, max_tokens=24)]


@pytest.fixture(scope="module")
def expected() -> list[tuple[object, ...]]:
    with an_llm() as llm:
        return answers(llm)


def answers(llm: LLM) -> list[tuple[object, ...]]:
    results = []
    for question in QUESTIONS:
        for sampling in samplings():
            done = llm.chat([{"role": "user", "content": question}], sampling)
            results.append((done.text, done.token_ids, done.finish_reason, done.logprobs))
    for sampling in samplings():
        done = llm.generate(TEXT * 3, sampling)
        results.append((done.text, done.token_ids, done.finish_reason, done.logprobs))
    return results


@pytest.mark.parametrize("options", [{"speculate": "ngram"}, {"draft_model": DRAFT}], ids=["ngram", "draft"])
def test_greedy_and_seeded_answers_are_the_same(options: dict[str, object], expected: list[tuple[object, ...]]) -> None:
    with an_llm(**options) as llm:
        # What is fast or slow here does not matter: every draft is tried.
        engine = llm._open_engine().engine
        engine._speculating._costs.predict = lambda num_tokens, context: 1.0 + num_tokens / 100  # type: ignore[method-assign]
        assert answers(llm) == expected
        stats = engine.stats()
    assert 0 < stats.num_accepted_tokens < stats.num_drafted_tokens


def test_a_draft_model_that_is_the_model_is_always_right() -> None:
    with an_llm(draft_model=MODEL) as llm:
        engine = llm._open_engine().engine
        engine._speculating._costs.predict = lambda num_tokens, context: 1.0 + num_tokens / 100  # type: ignore[method-assign]
        done = llm.generate(TEXT, SamplingParams(temperature=0.9, seed=4, max_tokens=60, ignore_eos=True))
    assert done.usage.drafted_tokens > 20
    assert done.usage.accepted_tokens == done.usage.drafted_tokens


def test_forced_tokens_of_a_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a_rather_long_name": {"type": "boolean"}, "another_long_name": {"type": "boolean"}},
        "required": ["a_rather_long_name", "another_long_name"],
        "additionalProperties": False,
    }
    constraint = ConstraintSpec.json_schema(schema)
    results = []
    for options in ({}, {"speculate": "ngram"}, {"draft_model": DRAFT}):
        with an_llm(**options) as llm:
            engine = llm._open_engine().engine
            engine._speculating._costs.predict = lambda num_tokens, context: 1.0 + num_tokens / 100  # type: ignore[method-assign]
            done = llm.generate("JSON: ", SamplingParams(temperature=0.7, seed=1, max_tokens=80), constraint=constraint)
            results.append((done.text, done.token_ids))
            assert done.usage.accepted_tokens > 0  # forced ones are drafts without being asked for
            assert set(json.loads(done.text)) == set(schema["properties"])
    assert results[1:] == results[:1] * 2


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_synthetic_model(other, "llama-tiny", "Q4_0")
    with pytest.raises(UnsupportedModelError, match=r"other\.gguf cannot draft"):
        an_llm(draft_model=other)
    with pytest.raises(UsageError, match="needs a draft model"):
        an_llm(speculate="draft")
    with pytest.raises(UsageError, match="speculation must be one of off, ngram, draft"):
        an_llm(speculate="eagle")
    with pytest.raises(UsageError, match="draft_max"):
        an_llm(speculate="ngram", draft_max=-1)


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    texts = []
    for options in ([], ["--spec-type", "ngram-simple", "--draft-max", "7"], ["-md", str(DRAFT), "--draft-min", "1"]):
        arguments = ["run", "-m", str(MODEL), "-no-cnv", "-p", TEXT * 3, "-n", "40", "--temp", "0", "--json", "-t", "1"]
        assert main([*arguments, *options]) == 0
        texts.append(json.loads(capsys.readouterr().out)["text"])
    assert texts[0]
    assert texts[1:] == texts[:1] * 2
    assert main(["run", "-m", str(MODEL), "-p", "x", "--spec-type", "draft"]) == 2
    assert "name its file with -md" in capsys.readouterr().err
