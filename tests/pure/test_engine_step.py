"""The engine on a scripted model: whatever arrives when, every request gets what it would get alone."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import (
    END,
    NAN_TOKEN,
    VOCAB,
    Letters,
    ScriptedBackend,
    ScriptedModel,
    expected_output,
    logits_of,
    scripted_engine,
)

from quipu.engine import Engine, ReferenceSampler
from quipu.errors import ContextLengthError, InvalidRequestError, UsageError
from quipu.gguf import GGMLType
from quipu.types import Completion, Event, FinishReason, Request, SamplingParams


def run_to_end(engine: Engine, most_steps: int = 2000) -> dict[str, list[Event]]:
    """Step until nothing is left; the events of each request."""
    events: dict[str, list[Event]] = defaultdict(list)
    for _ in range(most_steps):
        if not engine.has_work:
            break
        for event in engine.step():
            events[event.request_id].append(event)
        engine.check_integrity()
    assert not engine.has_work, "requests starve"
    return events


def tokens_of(events: list[Event]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events)


def sampling_for(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        seed=rng.randrange(1000),
        max_tokens=rng.choice([0, 1, 3, 20, 30, None]),
        temperature=rng.choice([0.0, 1.0, 2.0]),
        repeat_penalty=rng.choice([1.0, 1.5]),
        repeat_last_n=rng.choice([2, 64]),
        stop_token_ids=tuple(rng.sample(range(2, VOCAB), 1)),
    )


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 24), st.integers(16, 40), st.integers(1, 8), st.one_of(st.none(), st.just(3))
)
def test_arrivals_aborts_and_preemptions(
    seed: int, max_tokens: int, ctx_size: int, page_size: int, shuffle: int | None
) -> None:
    rng = random.Random(seed)
    backend = ScriptedBackend()
    engine = scripted_engine(
        backend,
        ctx_size=ctx_size,
        kv_tokens=ctx_size + rng.randrange(20),
        ubatch_size=max_tokens,
        page_size=page_size,
        shuffle_pages=None if shuffle is None else rng,
    )
    requests: dict[str, Request] = {}
    events: dict[str, list[Event]] = defaultdict(list)
    aborted = set()
    for number in range(rng.randrange(3, 12)):
        num_tokens = rng.choice([1, 2, 3, rng.randrange(1, ctx_size)])
        prompt = tuple(rng.randrange(2, VOCAB) for _ in range(num_tokens))
        request = Request(str(number), prompt, sampling_for(rng))
        requests[request.request_id] = request
        engine.submit(request)
        if rng.random() < 0.2:
            name = rng.choice(list(requests))
            engine.abort(name)
            aborted.add(name)
        for _ in range(rng.choice([0, 0, 1, 5])):
            for event in engine.step():
                events[event.request_id].append(event)
            engine.check_integrity()
    for name, more in run_to_end(engine).items():
        events[name] += more
    assert engine.num_running == engine.num_waiting == 0
    assert max(backend.run_sizes, default=0) <= max_tokens
    for name, request in requests.items():
        check_outcome(request, events[name], ctx_size, may_be_aborted=name in aborted)


def check_outcome(request: Request, events: list[Event], ctx_size: int, *, may_be_aborted: bool) -> None:
    tokens, reason = expected_output(request.prompt_token_ids, request.sampling, ctx_size)
    assert [event.finish_reason is not None for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    got = tokens_of(events)
    if may_be_aborted and last.finish_reason is FinishReason.ABORT:
        assert got == tokens[: len(got)]
        return
    assert (got, last.finish_reason) == (tokens, reason)
    assert last.usage.prompt_tokens == len(request.prompt_token_ids)
    assert last.usage.completion_tokens == len(tokens)
    assert last.seed == request.sampling.seed
    assert last.timings is not None
    assert min(last.timings.queue_s, last.timings.prompt_s, last.timings.generation_s) >= 0


def test_preemption_happens_and_changes_nothing() -> None:
    engine = scripted_engine(ctx_size=40, kv_tokens=44, page_size=4, shuffle_pages=random.Random(1))
    sampling = SamplingParams(seed=3, ignore_eos=True, logit_bias={END: -100.0, NAN_TOKEN: -100.0}, max_tokens=25)
    for number in range(100):  # after so many short answers none is expected to be long
        engine.submit(Request(f"short {number}", (5,), SamplingParams(max_tokens=1, logit_bias={NAN_TOKEN: -100.0})))
    run_to_end(engine)
    assert engine.num_preemptions == 0
    for number in range(4):
        engine.submit(Request(str(number), (5 + number, 6, 7), sampling))
    events = run_to_end(engine)
    assert engine.num_preemptions > 0
    for number in range(4):
        assert tokens_of(events[str(number)]) == expected_output((5 + number, 6, 7), sampling)[0]


def test_many_requests_run_in_one_step() -> None:
    backend = ScriptedBackend()
    engine = scripted_engine(backend, kv_tokens=1024)
    sampling = SamplingParams(max_tokens=4, seed=1, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    for number in range(16):
        engine.submit(Request(str(number), (2 + number,), sampling))
    run_to_end(engine)
    assert backend.run_sizes == [16] * 4


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    backend = ScriptedBackend()
    engine = scripted_engine(backend, ubatch_size=8, kv_tokens=256, itl_target_s=1e6)
    sampling = SamplingParams(seed=1, max_tokens=20, logit_bias={END: -100.0, NAN_TOKEN: -100.0})
    engine.submit(Request("short", (3,), sampling, streamed=False))  # nobody reads along, so time does not matter
    engine.step()
    engine.submit(Request("long", tuple(range(2, 42)), sampling))
    for _ in range(4):
        assert [event.request_id for event in engine.step()] == ["short"]
    assert backend.run_sizes == [1, 8, 8, 8, 8]


def test_program_is_recorded_once() -> None:
    model, backend = ScriptedModel(), ScriptedBackend()
    engine = Engine(model, backend, None, ReferenceSampler(), ctx_size=32, page_size=4)
    for number in range(5):
        engine.submit(Request(str(number), (3, 4), SamplingParams(max_tokens=3)))
        run_to_end(engine)
    assert model.num_recordings == 1


def test_nan_ends_its_own_request_only() -> None:
    engine = scripted_engine(kv_tokens=256)
    sampling = SamplingParams(seed=1, max_tokens=5, logit_bias={NAN_TOKEN: -100.0})
    for name, prompt in (("a", (4, 5)), ("bad", (4, NAN_TOKEN)), ("b", (6, 7))):
        engine.submit(Request(name, prompt, sampling))
    events = run_to_end(engine)
    assert events["bad"][-1].finish_reason is FinishReason.ERROR
    assert "the model produced NaN" in events["bad"][-1].error
    for name, prompt in (("a", (4, 5)), ("b", (6, 7))):
        assert (tokens_of(events[name]), events[name][-1].finish_reason) == expected_output(prompt, sampling)


def test_without_text_all_works() -> None:
    engine = Engine(ScriptedModel(), ScriptedBackend(), None, ReferenceSampler(), ctx_size=32, page_size=4)
    sampling = SamplingParams(seed=4, max_tokens=6, stop=("x",), stop_token_ids=(END,))
    engine.submit(Request("a", (3, 4), sampling))
    events = run_to_end(engine)["a"]
    assert tokens_of(events) == expected_output((3, 4), sampling)[0]
    assert text_of(events) == ""


def test_stop_string_ends_the_text_before_it() -> None:
    free = SamplingParams(seed=9, max_tokens=30, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    text = run_text(free)
    assert len(text) > 12
    stop = text[5:8]
    assert run_text(SamplingParams(**{**as_dict(free), "stop": (stop,)})) == text[: text.index(stop)]
    assert run_text(SamplingParams(**{**as_dict(free), "stop": ("never",)})) == text


def test_shown_tokens_have_their_own_text() -> None:
    sampling = SamplingParams(seed=9, max_tokens=20, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    tokens = tokens_of(run_one(sampling))
    engine = scripted_engine()
    engine.submit(Request("a", (3, 4), sampling, shown_tokens={tokens[2]: "<think>"}))
    letters = "".join("<think>" if token == tokens[2] else Letters().append([token]) for token in tokens if token < 40)
    assert text_of(run_to_end(engine)["a"]) == letters


def test_min_tokens_forbids_an_early_end() -> None:
    eager = SamplingParams(seed=9, max_tokens=30, logit_bias={END: 1e6, NAN_TOKEN: -1e6})
    assert tokens_of(run_one(eager)) == [END]
    patient = SamplingParams(**{**as_dict(eager), "min_tokens": 4})
    assert tokens_of(run_one(patient)).index(END) == 4
    assert run_one(patient)[-1].finish_reason is FinishReason.STOP
    text = run_text(SamplingParams(**{**as_dict(patient), "ignore_eos": True, "logit_bias": {NAN_TOKEN: -1e6}}))
    late = SamplingParams(**{**as_dict(patient), "logit_bias": {NAN_TOKEN: -1e6, END: -1e6}, "stop": (text[1],)})
    assert len(run_text(late)) >= 4


def test_ignoring_the_end() -> None:
    eager = {"seed": 9, "max_tokens": 5, "logit_bias": {END: 1e6, NAN_TOKEN: -1e6}}
    assert tokens_of(run_one(SamplingParams(**eager))) == [END]  # type: ignore[arg-type]
    events = run_one(SamplingParams(**eager, ignore_eos=True))  # type: ignore[arg-type]
    assert END not in tokens_of(events)
    assert len(tokens_of(events)) == 5
    assert events[-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(mirostat=1, mirostat_tau=2.0),
        SamplingParams(mirostat=2, temperature=2.0),
        SamplingParams(adaptive_target=0.3, top_k=10),
        SamplingParams(dry_multiplier=2.0, dry_allowed_length=0, dry_sequence_breakers=("EF", "G")),
        SamplingParams(min_tokens=9, ignore_eos=False, samplers="kt"),
        SamplingParams(samplers="ki"),
    ],
    ids=["mirostat", "mirostat 2", "adaptive-p", "DRY", "min_tokens", "infill"],
)
def test_every_kind_of_chain_in_the_engine(sampling: SamplingParams) -> None:
    """Batched with others, in small pieces, after preemptions: what a plain loop over the sampler gives."""
    engine = scripted_engine(ctx_size=40, kv_tokens=44, page_size=4, ubatch_size=3, shuffle_pages=random.Random(1))
    requests = {}
    for number in range(4):
        one = SamplingParams(**{**as_dict(sampling), "seed": number, "max_tokens": 25})
        requests[str(number)] = Request(str(number), (5 + number, 6, 7), one)
        engine.submit(requests[str(number)])
    events = run_to_end(engine)
    for name, request in requests.items():
        tokens, reason = expected_output(request.prompt_token_ids, request.sampling, ctx_size=40)
        assert (tokens_of(events[name]), events[name][-1].finish_reason) == (tokens, reason)


@pytest.mark.parametrize("ubatch_size", [512, 3])
def test_logprobs_are_delivered(ubatch_size: int) -> None:
    engine = scripted_engine(ubatch_size=ubatch_size)
    sampling = SamplingParams(
        seed=4, max_tokens=6, logprobs=2, prompt_logprobs=1, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0}
    )
    prompt = tuple(range(2, 12))
    engine.submit(Request("a", prompt, sampling))
    completion = Completion.of(run_to_end(engine)["a"])
    assert [item.token_id for item in completion.logprobs] == list(completion.token_ids)
    assert [item.token_id for item in completion.prompt_logprobs] == list(prompt[1:])
    text = prompt + completion.token_ids
    for place, item in enumerate((*completion.prompt_logprobs, *completion.logprobs), 1):
        logits = logits_of(np.array(text[:place], dtype=np.int32)).astype(np.float64)
        exact = logits - np.log(np.exp(logits).sum())
        assert item.logprob == pytest.approx(exact[text[place]], abs=1e-5)
        assert item.top[0] == (int(exact.argmax()), pytest.approx(exact.max(), abs=1e-5))
        assert len(item.top) == (1 if place < len(prompt) else 2)
    engine.submit(Request("b", prompt, SamplingParams(max_tokens=0, prompt_logprobs=0)))
    events = run_to_end(engine)["b"]
    assert [item.top for event in events for item in event.prompt_logprobs] == [()] * 9
    assert events[-1].logits is None


def as_dict(sampling: SamplingParams) -> dict[str, object]:
    return {name: getattr(sampling, name) for name in SamplingParams.__slots__}


def run_one(sampling: SamplingParams) -> list[Event]:
    engine = scripted_engine()
    engine.submit(Request("a", (3, 4), sampling))
    return run_to_end(engine)["a"]


def run_text(sampling: SamplingParams) -> str:
    return text_of(run_one(sampling))


def test_seed_is_drawn_and_reported() -> None:
    first = run_one(SamplingParams(max_tokens=20, temperature=2.0))
    seed = first[-1].seed
    assert seed is not None
    assert tokens_of(run_one(SamplingParams(max_tokens=20, temperature=2.0, seed=seed))) == tokens_of(first)
    assert run_one(SamplingParams(max_tokens=20, temperature=2.0))[-1].seed != seed


@pytest.mark.parametrize(("ubatch_size", "kv_tokens"), [(512, 64), (3, 64), (1, 256)])
def test_prompt_logits(ubatch_size: int, kv_tokens: int) -> None:
    engine = scripted_engine(ubatch_size=ubatch_size, kv_tokens=kv_tokens, shuffle_pages=random.Random(2))
    prompts = {str(number): tuple(2 + (number + i) % 40 for i in range(20)) for number in range(3)}
    for name, prompt in prompts.items():
        engine.submit(Request(name, prompt, SamplingParams(max_tokens=int(name), seed=1), prompt_logits=True))
    events = run_to_end(engine)
    for name, prompt in prompts.items():
        rows = np.concatenate([event.logits for event in events[name] if event.logits is not None])
        tokens = np.array(prompt, dtype=np.int32)
        assert np.array_equal(rows, np.stack([logits_of(tokens[: i + 1]) for i in range(len(prompt))]))
        assert len(tokens_of(events[name])) <= int(name)


def test_prompt_logits_come_once_despite_preemption() -> None:
    engine = scripted_engine(ctx_size=40, kv_tokens=44, ubatch_size=2)
    long = SamplingParams(max_tokens=30, seed=1, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    engine.submit(Request("first", (3,), long))
    engine.step()
    engine.submit(Request("second", tuple(range(2, 37)), SamplingParams(max_tokens=0), prompt_logits=True))
    events = run_to_end(engine)
    assert sum(len(event.logits) for event in events["second"] if event.logits is not None) == 35


def test_abort_is_honoured_at_the_next_step() -> None:
    engine = scripted_engine(ubatch_size=4)
    engine.submit(Request("a", tuple(range(2, 42)), SamplingParams()))
    engine.step()
    engine.abort("a")
    engine.abort("nobody")
    assert [(event.request_id, event.finish_reason) for event in engine.step()] == [("a", FinishReason.ABORT)]
    assert not engine.has_work
    engine.check_integrity()


def test_context_is_the_end() -> None:
    engine = scripted_engine(ctx_size=10)
    sampling = SamplingParams(seed=1, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    engine.submit(Request("a", (3, 4, 5), sampling))
    events = run_to_end(engine)["a"]
    assert events[-1].finish_reason is FinishReason.LENGTH
    assert events[-1].usage.total_tokens == 10
    with pytest.raises(ContextLengthError, match="10 tokens but the context holds 10"):
        engine.submit(Request("b", tuple(range(2, 12)), sampling))
    engine.submit(Request("c", tuple(range(2, 12)), SamplingParams(max_tokens=0)))
    assert run_to_end(engine)["c"][-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("prompt", "sampling", "field"),
    [
        ((), SamplingParams(), "prompt"),
        ((3, VOCAB), SamplingParams(), "prompt"),
        ((3, -1), SamplingParams(), "prompt"),
        (("a",), SamplingParams(), "prompt"),
        ((1.5,), SamplingParams(), "prompt"),
        ((3,), SamplingParams(logit_bias={VOCAB: 1.0}), "logit_bias"),
        ((3,), SamplingParams(stop_token_ids=(VOCAB,)), "stop_token_ids"),
    ],
)
def test_bad_requests_are_refused(prompt: tuple[int, ...], sampling: SamplingParams, field: str) -> None:
    engine = scripted_engine()
    with pytest.raises(InvalidRequestError) as caught:
        engine.submit(Request("a", prompt, sampling))
    assert caught.value.field == field
    assert not engine.has_work


def test_ids_are_unique_while_they_live() -> None:
    engine = scripted_engine()
    engine.submit(Request("a", (3,), SamplingParams(max_tokens=1)))
    with pytest.raises(InvalidRequestError, match="in use"):
        engine.submit(Request("a", (3,), SamplingParams(max_tokens=1)))
    run_to_end(engine)
    engine.submit(Request("a", (3,), SamplingParams(max_tokens=1)))


def test_failed_step_leaves_a_usable_engine() -> None:
    engine = scripted_engine(ScriptedBackend(fails_at=2))
    engine.submit(Request("a", (3, 4), SamplingParams(max_tokens=9, ignore_eos=True)))
    engine.step()
    with pytest.raises(ValueError, match="scripted failure"):
        engine.step()
    engine.reset()
    engine.check_integrity()
    sampling = SamplingParams(seed=2, max_tokens=4)
    engine.submit(Request("a", (3, 4), sampling))
    assert tokens_of(run_to_end(engine)["a"]) == expected_output((3, 4), sampling)[0]


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"ubatch_size": 0}, {"ctx_size": 0}, {"ctx_size": 32, "kv_tokens": 16}, {"kv_tokens": -1}],
)
def test_bad_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        scripted_engine(**options)


def test_types_of_the_cache_reach_the_model() -> None:
    engine = scripted_engine(kv_types=(GGMLType.F32, GGMLType.F16), kv_tokens=64)
    assert engine.plan.kv_bytes == 64 * (2 * 4 + 2 * 2)
