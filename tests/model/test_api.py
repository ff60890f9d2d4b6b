"""LLM on whole models: a tiny one with a vocabulary, and the golden ones, which know token ids only."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import text_model
from numpy.typing import NDArray

from quipu import LLM, Completion, RequestOptions, SamplingParams
from quipu.errors import (
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    ModelNotFoundError,
    QuipuError,
    TokenizerError,
    UsageError,
)
from quipu.types import ChatEvent, FinishReason

DATA = os.environ.get("QUIPU_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="QUIPU_TEST_DATA is not set")
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
SEEDED = SamplingParams(seed=7, max_tokens=24, ignore_eos=True)
MESSAGES = [{"role": "user", "content": "the hat"}]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write_text_model(tmp_path_factory.mktemp("models") / "text.gguf")


@pytest.fixture(scope="module")
def llm(model_path: Path) -> Iterator[LLM]:
    with LLM(model_path, threads=2) as opened:
        yield opened
        opened._open_engine().engine.settle()
        assert not opened._open_engine().engine.has_work
        opened._open_engine().engine.check_integrity()


def golden(name: str) -> Path:
    assert DATA is not None
    return Path(DATA) / "golden" / f"{name}.gguf"


def golden_tokens() -> list[int]:
    assert DATA is not None
    with np.load(Path(DATA) / "golden" / "logits.npz") as arrays:
        return [int(token) for token in arrays["tokens"]]


def relative_error(values: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))


def test_facts(llm: LLM, model_path: Path) -> None:
    assert llm.path == model_path
    assert llm.ctx_size == text_model.CONTEXT
    assert llm.vocab_size == text_model.VOCAB
    assert (llm.threads, llm.threads_batch) == (2, 2)
    assert "text.gguf" in repr(llm)


def test_generate_text(llm: LLM) -> None:
    done = llm.generate("the hat", GREEDY)
    assert len(done.token_ids) == 24
    assert done.finish_reason is FinishReason.LENGTH
    assert done.usage.prompt_tokens == len(llm.tokenize("the hat", add_special=True))
    assert done.usage.completion_tokens == 24
    assert done.timings is not None
    assert done.timings.generation_s > 0
    detokenizer = llm.tokenizer.detokenizer()
    assert done.text == detokenizer.append(done.token_ids) + detokenizer.flush()
    assert llm.generate("the hat", GREEDY).token_ids == done.token_ids
    assert llm.generate(llm.tokenize("the hat", add_special=True), GREEDY).token_ids == done.token_ids
    assert llm.generate(np.array(llm.tokenize("the hat", True)), GREEDY).token_ids == done.token_ids


def test_greedy_follows_the_logits(llm: LLM) -> None:
    prompt = llm.tokenize("an ant", add_special=True)
    done = llm.generate(prompt, GREEDY)
    logits = llm.logits([*prompt, *done.token_ids])
    assert logits.shape == (len(prompt) + 24, llm.vocab_size)
    chosen = logits[len(prompt) - 1 : -1]
    best = chosen.max(axis=1)
    # Runs of several tokens may round differently from runs of one.
    assert (best - chosen[np.arange(24), list(done.token_ids)] < 1e-3).all()


def test_a_non_streamed_reply_is_the_fold_of_the_stream(llm: LLM) -> None:
    whole = llm.generate("the hat", SEEDED)
    events = list(llm.generate("the hat", SEEDED, stream=True))
    assert "".join(event.text for event in events) == whole.text
    assert tuple(token for event in events for token in event.token_ids) == whole.token_ids
    assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].finish_reason is whole.finish_reason
    assert events[-1].seed == whole.seed == 7
    assert [event.usage.completion_tokens for event in events] == list(range(1, 25))


def test_batched_equals_single(llm: LLM) -> None:
    prompts = ["the hat", "a", "in the end he ran and ran", "x y z"]
    single = [llm.generate(prompt, SEEDED) for prompt in prompts]
    batched = llm.generate(prompts, SEEDED)
    assert [done.text for done in batched] == [done.text for done in single]
    assert [done.token_ids for done in batched] == [done.token_ids for done in single]
    each = llm.generate(prompts, [replace(SEEDED, seed=seed) for seed in range(4)])
    assert [done.seed for done in each] == [0, 1, 2, 3]
    ids = llm.generate([llm.tokenize(prompt, True) for prompt in prompts], SEEDED)
    assert [done.token_ids for done in ids] == [done.token_ids for done in single]


def test_streamed_batch(llm: LLM) -> None:
    prompts = ["the hat", "a"]
    texts: dict[str, str] = {}
    stream = llm.generate(prompts, SEEDED, stream=True)
    for event in stream:
        texts[event.request_id] = texts.get(event.request_id, "") + event.text
    assert [texts[request_id] for request_id in stream.request_ids] == [
        llm.generate(prompt, SEEDED).text for prompt in prompts
    ]


@pytest.mark.parametrize("ubatch_size", [1, 5, 512])
def test_chunked_equals_whole(model_path: Path, ubatch_size: int, llm: LLM) -> None:
    prompt = llm.tokenize("in the end he ran and ran and ran" * 4, add_special=True)
    with LLM(model_path, ubatch_size=ubatch_size, threads=1, ctx_size=256) as chunked:
        assert relative_error(chunked.logits(prompt), llm.logits(prompt)) < 1e-5
        assert chunked.generate(prompt, GREEDY).token_ids == llm.generate(prompt, GREEDY).token_ids


@pytest.mark.parametrize("ubatch_size", [1, 3, 512])
def test_logits_of_a_prompt_that_fills_the_context(model_path: Path, ubatch_size: int, llm: LLM) -> None:
    ids = llm.tokenize("the hat sat on the mat") * 2
    with LLM(model_path, threads=1, ctx_size=len(ids), ubatch_size=ubatch_size) as full:
        logits = full.logits(ids)
    assert relative_error(logits, llm.logits(ids)) < 2e-2


def test_stop_string_across_tokens(llm: LLM) -> None:
    text = llm.generate("the hat", replace(SEEDED, max_tokens=60)).text
    stop = text[10:14]
    cut = llm.generate("the hat", replace(SEEDED, max_tokens=60, stop=(stop,)))
    assert cut.finish_reason is FinishReason.STOP
    assert cut.text == text[: text.index(stop)]


def test_end_of_generation(llm: LLM) -> None:
    done = llm.generate("the", SamplingParams(logit_bias={text_model.EOS: 1e6}))
    assert done.token_ids == (text_model.EOS,)
    assert (done.text, done.finish_reason) == ("", FinishReason.STOP)
    patient = llm.generate("the", SamplingParams(logit_bias={text_model.EOS: 1e6}, min_tokens=3))
    assert len(patient.token_ids) == 4


def test_reference_sampler_gives_the_same_text(llm: LLM, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = replace(SEEDED, repeat_penalty=1.2, typical_p=0.9)
    monkeypatch.setenv("QUIPU_SAMPLER", "reference")
    with LLM(model_path, threads=2) as plain:
        assert plain.generate("the hat", sampling).text == llm.generate("the hat", sampling).text
    monkeypatch.setenv("QUIPU_SAMPLER", "dice")
    with pytest.raises(UsageError, match="QUIPU_SAMPLER"):
        LLM(model_path)


def test_reference_backend_gives_the_same_logits(llm: LLM, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_ids = llm.tokenize("the hat and the cat")
    monkeypatch.setenv("QUIPU_BACKEND", "reference")
    with LLM(model_path, threads=2) as plain:
        expected = plain.logits(token_ids)
    assert np.linalg.norm(llm.logits(token_ids) - expected) < 0.03 * np.linalg.norm(expected)
    monkeypatch.setenv("QUIPU_BACKEND", "abacus")
    with pytest.raises(UsageError, match="QUIPU_BACKEND"):
        LLM(model_path)


def test_seeds(model_path: Path) -> None:
    texts = []
    for _ in range(2):
        with LLM(model_path, seed=3) as seeded:
            texts.append([seeded.generate("the", SamplingParams(max_tokens=9)).text for _ in range(2)])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


def test_chat(llm: LLM) -> None:
    done = llm.chat(MESSAGES, SEEDED)
    prompt = "<s><|turn|>user: the hat\n<|turn|>assistant: "
    ids = llm.tokenize(prompt, parse_special=True)
    assert ids.count(text_model.BOS) == 1
    assert done.usage.prompt_tokens == len(ids)
    assert done.text == llm.generate(ids, SEEDED).text
    assert done.reasoning == ""
    events = list(llm.chat(MESSAGES, SEEDED, stream=True))
    assert all(isinstance(event, ChatEvent) for event in events)
    assert "".join(event.text for event in events) == done.text
    batch = llm.chat([MESSAGES, [{"role": "user", "content": "a"}]], SEEDED)
    assert [answer.text for answer in batch] == [done.text, llm.chat([{"role": "user", "content": "a"}], SEEDED).text]


def test_several_choices(llm: LLM) -> None:
    """The first choice is what a single one would be, the others have seeds of their own that give them again."""
    options = RequestOptions(num_choices=3)
    done = llm.generate("the hat", SEEDED, options=options)
    assert len(done.choices) == 3
    assert done.choices[0] is done
    assert done.other_choices == done.choices[1:]
    assert len({choice.token_ids for choice in done.choices}) == 3
    for choice in done.choices:
        assert choice.other_choices == () or choice is done
        assert len(choice.token_ids) == choice.usage.completion_tokens == 24
        assert llm.generate("the hat", replace(SEEDED, seed=choice.seed)).text == choice.text
    alone = llm.generate("the hat", SEEDED)
    assert alone.choices == (alone,)
    batch = llm.generate(["the hat", "a"], SEEDED, options=options)
    assert [choice.text for choice in batch[0].choices] == [choice.text for choice in done.choices]
    assert len(batch[1].choices) == 3
    streamed: dict[int, str] = dict.fromkeys(range(3), "")
    for event in llm.generate("the hat", SEEDED, options=options, stream=True):
        streamed[event.choice] += event.text
    assert list(streamed.values()) == [choice.text for choice in done.choices]


def test_several_choices_of_a_chat(llm: LLM) -> None:
    """Each has a parser of its own: tags in one do not reach into another."""
    (letter,) = llm.tokenize("x")[-1:]
    bias = {text_model.THINK: 900.0, letter: 900.0}  # in either order, then neither
    sampling = SamplingParams(
        max_tokens=6,
        seed=3,
        samplers=("penalties", "temperature"),
        temperature=20.0,
        logit_bias=bias,
        presence_penalty=1000.0,
    )
    done = llm.chat(MESSAGES, sampling, options=RequestOptions(num_choices=6))
    for choice in done.choices:
        again = llm.chat(MESSAGES, replace(sampling, seed=choice.seed))
        assert (again.text, again.reasoning) == (choice.text, choice.reasoning)
    assert len({choice.reasoning for choice in done.choices}) > 1
    streamed = {number: ["", ""] for number in range(6)}
    for event in llm.chat(MESSAGES, sampling, options=RequestOptions(num_choices=6), stream=True):
        streamed[event.choice][0] += event.text
        streamed[event.choice][1] += event.reasoning
    assert list(streamed.values()) == [[choice.text, choice.reasoning] for choice in done.choices]


def test_a_chat_tells_logprobs_and_reuse(llm: LLM) -> None:
    done = llm.chat(MESSAGES, replace(SEEDED, logprobs=2))
    assert [one.token_id for one in done.logprobs] == list(done.token_ids)
    assert done.reuse is not None
    assert done.reuse == llm.generate(llm.tokenize("<s>", parse_special=True), SEEDED).reuse or done.reuse.cached_tokens


def test_options_reach_the_request(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = llm._open_engine().engine
    seen = []
    submit = engine.submit
    monkeypatch.setattr(engine, "submit", lambda request: (seen.append(request), submit(request)))
    options = RequestOptions(num_choices=2, priority=-3, key="ann", deadline_s=60.0, cache_prompt=False)
    llm.generate(["the hat", "a"], GREEDY, options=options, cache_salt="salt")
    llm.chat(MESSAGES, GREEDY, options=options, cache_salt="salt")
    assert len(seen) == 3
    for request in seen:
        assert (request.num_choices, request.priority, request.key) == (2, -3, "ann")
        assert (request.deadline_s, request.cache_prompt, request.cache_salt) == (60.0, False, "salt")


def test_a_deadline_ends_a_call(llm: LLM) -> None:
    done = llm.generate("the hat", replace(GREEDY, max_tokens=5000), options=RequestOptions(deadline_s=1e-9))
    assert done.finish_reason is FinishReason.DEADLINE
    assert "deadline" in done.error


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_choices", 0), ("num_choices", True), ("priority", 11), ("key", 5), ("deadline_s", 0), ("cache_prompt", 1)],
)
def test_bad_options(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field} must be"):
        RequestOptions(**{field: value})


def test_options_of_another_kind(llm: LLM) -> None:
    for call in (lambda: llm.generate("a", options={"priority": 1}), lambda: llm.chat(MESSAGES, options=3)):
        with pytest.raises(InvalidRequestError, match="options must be RequestOptions"):
            call()


def test_reasoning_is_told_from_the_answer(llm: LLM) -> None:
    """The tag is a control token, which text leaves out, but whoever splits the answer has to see it."""
    (letter,) = llm.tokenize("x")[-1:]
    bias = {text_model.THINK: 900.0, letter: 800.0}  # first the one, then the other, then neither
    sampling = SamplingParams(max_tokens=6, temperature=0.0, logit_bias=bias, presence_penalty=1000.0)
    done = llm.chat(MESSAGES, sampling)
    assert done.token_ids[:2] == (text_model.THINK, letter)
    assert done.reasoning.startswith("x")
    assert done.text == ""
    assert "".join(event.reasoning for event in llm.chat(MESSAGES, sampling, stream=True)) == done.reasoning
    assert llm.generate("the hat", sampling).text.startswith("x")


def test_chat_template_by_name(model_path: Path) -> None:
    with LLM(model_path, chat_template="chatml", threads=1) as named:
        done = named.chat(MESSAGES, GREEDY)
        assert done.usage.prompt_tokens > 20
    with pytest.raises(UsageError, match="nonsense"):
        LLM(model_path, chat_template="nonsense")


def test_special_tokens_in_text_are_text(llm: LLM) -> None:
    assert text_model.TURN not in llm.tokenize("<|turn|>")
    assert llm.tokenize("<|turn|>", parse_special=True)[-1] == text_model.TURN
    done = llm.generate("<s><|turn|>", replace(GREEDY, max_tokens=1), parse_special=True)
    assert done.usage.prompt_tokens == 2  # BOS comes once
    assert llm.detokenize([text_model.TURN]) == "<|turn|>"


def test_threads_share_the_model(llm: LLM) -> None:
    prompts = ["the hat", "a", "in the end", "x y z", "he ran", "an ant"]
    expected = [llm.generate(prompt, SEEDED).text for prompt in prompts]
    results: dict[int, str] = {}

    def work(number: int) -> None:
        if number % 2:
            results[number] = llm.generate(prompts[number], SEEDED).text
        else:
            results[number] = "".join(event.text for event in llm.generate(prompts[number], SEEDED, stream=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [results[number] for number in range(len(prompts))] == expected


def test_closing_a_stream_ends_its_request(llm: LLM) -> None:
    engine = llm._open_engine().engine
    stream = llm.generate("the", SamplingParams(ignore_eos=True), stream=True)
    next(stream)
    assert engine.num_running == 1
    stream.close()
    assert not engine.has_work
    assert list(stream) == []
    forgotten = llm.chat(MESSAGES, SamplingParams(ignore_eos=True), stream=True)
    next(forgotten)
    del forgotten
    gc.collect()
    engine.settle()
    assert not engine.has_work


def test_context_is_never_cut_silently(model_path: Path) -> None:
    with LLM(model_path, ctx_size=20) as small:
        assert small.ctx_size == 20
        done = small.generate([1, 270, 271], SamplingParams(ignore_eos=True))
        assert done.finish_reason is FinishReason.LENGTH
        assert done.usage.total_tokens == 20
        with pytest.raises(ContextLengthError, match="20 tokens but the context holds 20"):
            small.generate([5] * 20)
        assert small.logits([5] * 20).shape[0] == 20
        with pytest.raises(ContextLengthError, match="21 tokens but the context holds 20"):
            small.logits([5] * 21)
        assert small.warnings == ()
    with LLM(model_path, ctx_size=1000) as long:
        assert any("1000" in warning and "256" in warning for warning in long.warnings)


def test_nan_is_an_error_of_the_request(tmp_path: Path) -> None:
    with LLM(text_model.write_text_model(tmp_path / "nan.gguf", nan=True)) as broken:
        with pytest.raises(EngineError, match="the model produced NaN"):
            broken.generate("the")
        results = broken.generate(["the", "a"])
        assert [(done.finish_reason, "NaN" in done.error) for done in results] == [(FinishReason.ERROR, True)] * 2


def test_without_a_vocabulary(tmp_path: Path) -> None:
    with LLM(text_model.write_text_model(tmp_path / "ids.gguf", metadata={})) as plain:
        done = plain.generate([3, 4], GREEDY)
        assert (done.text, len(done.token_ids)) == ("", 24)
        for refused in (lambda: plain.generate("text"), lambda: plain.tokenize("text"), lambda: plain.detokenize([1])):
            with pytest.raises(TokenizerError):
                refused()


def test_unusable_vocabulary_still_allows_ids(tmp_path: Path) -> None:
    metadata = {**text_model.vocabulary(), "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "runes"}
    metadata["tokenizer.ggml.merges"] = ["a b"]
    with LLM(text_model.write_text_model(tmp_path / "odd.gguf", metadata=metadata)) as odd:
        assert any("runes" in warning for warning in odd.warnings)
        assert len(odd.generate([3, 4], GREEDY).token_ids) == 24
        with pytest.raises(TokenizerError, match="runes"):
            odd.generate("text")


def test_after_closing(model_path: Path) -> None:
    llm = LLM(model_path)
    stream = llm.generate("the", stream=True)
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    for refused in (lambda: llm.generate("the"), lambda: llm.chat(MESSAGES), lambda: llm.logits([1])):
        with pytest.raises(UsageError, match="closed"):
            refused()


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": "cuda"},
        {"kv_type": "q4_k"},
        {"kv_type": ("f16",)},
        {"threads": 0},
        {"threads": 1_000_000},
        {"threads_batch": 0},
        {"ctx_size": 0},
        {"ubatch_size": 0},
    ],
)
def test_bad_arguments(model_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        LLM(model_path, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", [[], "", [10**6], [-1], [1.5], [10**30], 5, b"bytes", [[1], "x", 3.0]])
def test_bad_prompts(llm: LLM, prompt: object) -> None:
    if prompt == "":
        assert llm.generate("", GREEDY).usage.prompt_tokens == 1  # BOS
        return
    with pytest.raises(InvalidRequestError):
        llm.generate(prompt)  # type: ignore[call-overload]


@pytest.mark.parametrize("messages", [[], "hello", ["hello"], [{"content": "no role"}], {"role": "user"}])
def test_bad_messages(llm: LLM, messages: object) -> None:
    with pytest.raises(QuipuError):
        llm.chat(messages)  # type: ignore[call-overload]


def test_number_of_sampling_parameters(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="2 sampling parameters for 1"):
        llm.generate(["the"], [GREEDY, GREEDY])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        LLM(tmp_path / "none.gguf")


@needs_data
@pytest.mark.parametrize(("name", "limit"), [("llama-F16", 0.001), ("llama-Q4_K_M", 0.0231), ("qwen3-Q4_K_M", 0.022)])
@pytest.mark.parametrize("kv_type", ["f32", ("f32", "f16"), "f16"])
def test_golden_logits(name: str, limit: float, kv_type: str | tuple[str, str]) -> None:
    assert DATA is not None
    tokens = golden_tokens()
    with np.load(Path(DATA) / "golden" / "logits.npz") as arrays, LLM(golden(name), kv_type=kv_type) as llm:
        logits = llm.logits(tokens)
        assert relative_error(logits, arrays[f"exact/{name}"]) < limit


@needs_data
@pytest.mark.parametrize(
    ("kv_type", "limit"),
    [
        ("bf16", 0.003),
        ("q8_0", 0.008),
        (("f16", "q8_0"), 0.007),
        ("q5_1", 0.05),
        ("q5_0", 0.06),
        ("q4_1", 0.1),
        ("q4_0", 0.11),
        ("iq4_nl", 0.11),
    ],
)
def test_golden_logits_with_a_small_cache(kv_type: str | tuple[str, str], limit: float) -> None:
    """The weights are exact, so what is left is the rounding of the cache."""
    assert DATA is not None
    with np.load(Path(DATA) / "golden" / "logits.npz") as arrays, LLM(golden("llama-F16"), kv_type=kv_type) as llm:
        assert relative_error(llm.logits(golden_tokens()), arrays["exact/llama-F16"]) < limit


@needs_data
def test_golden_batch() -> None:
    tokens = golden_tokens()
    prompts = [tokens, tokens[:7], tokens[20:], tokens[:1]]
    sampling = SamplingParams(seed=3, max_tokens=40)
    with LLM(golden("llama-Q4_K_M"), kv_size=512) as llm:
        single: list[Completion] = [llm.generate(prompt, sampling) for prompt in prompts]
        batched = llm.generate(prompts, sampling)
    # Groups of different sizes may round differently, which can tip a choice of 40; half must agree to the end.
    assert sum(a.token_ids == b.token_ids for a, b in zip(single, batched, strict=True)) >= 2
