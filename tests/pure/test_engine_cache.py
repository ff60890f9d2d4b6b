"""The engine with its prefix cache, on the scripted model: reuse changes no output, and is explained."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import END, NAN_TOKEN, ScriptedBackend, expected_output, logits_of, scripted_engine

from quipu.engine import CacheOptions, Engine, ReferenceSampler
from quipu.engine.sampler import Draw, request_chain
from quipu.engine.saved_state import read_state, write_state
from quipu.errors import InvalidRequestError, UsageError
from quipu.types import Event, FinishReason, Request, Reuse, ReuseLimit, SamplingParams

SAMPLING = SamplingParams(seed=3, max_tokens=6, logit_bias={END: -100.0, NAN_TOKEN: -100.0})
PROMPT = tuple(2 + i % 40 for i in range(30))


def run_to_end(engine: Engine, most_s: float = 120.0) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = defaultdict(list)
    end_s = time.monotonic() + most_s
    while engine.has_work:
        assert time.monotonic() < end_s, "the engine does not come to an end"
        step = engine.step()
        for event in step:
            events[event.request_id].append(event)
        engine.check_integrity()
        if not step:
            time.sleep(1e-4)  # a page may be on its way from the disk
    return events


def run_one(
    engine: Engine, prompt: Sequence[int], sampling: SamplingParams = SAMPLING, **options: object
) -> list[Event]:
    engine.submit(Request("one", tuple(prompt), sampling, **options))  # type: ignore[arg-type]
    return run_to_end(engine)["one"]


def reuse_of(events: Sequence[Event]) -> Reuse:
    (reuse,) = {event.reuse for event in events}
    assert reuse is not None
    assert {event.usage.cached_tokens for event in events} == {reuse.cached_tokens}
    return reuse


def tokens_of(events: Sequence[Event]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def test_a_second_prompt_is_computed_but_for_its_last_token() -> None:
    backend = ScriptedBackend()
    engine = scripted_engine(backend)
    first = run_one(engine, PROMPT)
    assert reuse_of(first).limit is ReuseLimit.NO_COMMON_PREFIX
    num_runs = len(backend.run_sizes)
    second = run_one(engine, PROMPT)
    assert backend.run_sizes[num_runs] == 1
    assert reuse_of(second).cached_tokens == len(PROMPT) - 1
    assert tokens_of(first) == tokens_of(second) == expected_output(PROMPT, SAMPLING)[0]
    # The next turn: what was generated is there as well, but for the last token, which nobody computed.
    turn = run_one(engine, [*PROMPT, *tokens_of(first), 7, 8, 9])
    assert reuse_of(turn).cached_tokens == len(PROMPT) + SAMPLING.max_tokens - 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "request_options", "limit"),
    [
        ({"cache": CacheOptions(enabled=False)}, {}, ReuseLimit.OFF),
        ({"cache": CacheOptions(max_bytes=0)}, {}, ReuseLimit.EVICTED),
        ({}, {"cache_prompt": False}, ReuseLimit.OFF),
        ({}, {"prompt_logits": True}, ReuseLimit.PROMPT_LOGITS),
        ({}, {"cache_salt": "other"}, ReuseLimit.NO_COMMON_PREFIX),
    ],
)
def test_what_is_not_reused(options: dict[str, object], request_options: dict[str, object], limit: ReuseLimit) -> None:
    engine = scripted_engine(**options)
    run_one(engine, PROMPT)
    events = run_one(engine, PROMPT, **request_options)
    assert (reuse_of(events).cached_tokens, reuse_of(events).limit) == (0, limit)
    assert reuse_of(events).reason.startswith("0 ")
    assert tokens_of(events) == expected_output(PROMPT, SAMPLING)[0]


def test_a_request_that_reuses_nothing_leaves_nothing() -> None:
    engine = scripted_engine()
    run_one(engine, PROMPT, cache_prompt=False)
    assert reuse_of(run_one(engine, PROMPT)).cached_tokens == 0


def test_requests_at_a_time_share_their_pages() -> None:
    """Five requests with one prompt take little more room than one, once the first has computed it."""
    engine = scripted_engine(ctx_size=64, kv_tokens=96, page_size=4)
    engine.submit(Request("0", PROMPT, SAMPLING, streamed=False))
    engine.step()
    for number in range(1, 5):
        engine.submit(Request(str(number), PROMPT, SAMPLING))
    early = engine.step()
    assert engine.num_running == 5
    late = run_to_end(engine)
    assert engine.num_preemptions == 0
    for name in map(str, range(1, 5)):
        events = [*(event for event in early if event.request_id == name), *late[name]]
        assert tokens_of(events) == expected_output(PROMPT, SAMPLING)[0]
        assert reuse_of(events).cached_tokens >= 28


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 24),
    st.integers(16, 40),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(0, 400)),
)
def test_many_requests_with_shared_beginnings(
    seed: int, max_tokens: int, ctx_size: int, page_size: int, max_bytes: int | None
) -> None:
    rng = random.Random(seed)
    engine = scripted_engine(
        ctx_size=ctx_size,
        kv_tokens=ctx_size + rng.randrange(40),
        ubatch_size=max_tokens,
        page_size=page_size,
        shuffle_pages=rng,
        cache=CacheOptions(max_bytes=max_bytes),
    )
    stems = [[rng.randrange(2, 40) for _ in range(rng.randrange(ctx_size - 4))] for _ in range(3)]
    requests: dict[str, Request] = {}
    events: dict[str, list[Event]] = defaultdict(list)
    aborted = set()
    for number in range(rng.randrange(2, 14)):
        stem = rng.choice(stems)
        prompt = stem[: rng.randrange(len(stem) + 1)] + [rng.randrange(2, 40) for _ in range(rng.randrange(1, 4))]
        sampling = SamplingParams(seed=number, max_tokens=rng.choice([0, 1, 5, 20]), logit_bias={NAN_TOKEN: -100.0})
        request = Request(
            str(number),
            tuple(prompt),
            sampling,
            prompt_logits=rng.random() < 0.2,
            cache_prompt=rng.random() < 0.9,
            cache_salt=rng.choice(["", "", "a"]),
        )
        requests[request.request_id] = request
        engine.submit(request)
        if rng.random() < 0.1:
            name = rng.choice(list(requests))
            engine.abort(name)
            aborted.add(name)
        if rng.random() < 0.05:
            engine.clear_cache()
        for _ in range(rng.choice([0, 1, 8])):
            for event in engine.step():
                events[event.request_id].append(event)
            engine.check_integrity()
    for name, more in run_to_end(engine).items():
        events[name] += more
    for name, request in requests.items():
        tokens, reason = expected_output(request.prompt_token_ids, request.sampling, ctx_size)
        got = tokens_of(events[name])
        if events[name][-1].finish_reason is FinishReason.ABORT:
            assert name in aborted
            assert got == tokens[: len(got)]
            continue
        assert (got, events[name][-1].finish_reason) == (tokens, reason)
        assert 0 <= reuse_of(events[name][-1:]).cached_tokens < len(request.prompt_token_ids)
        if request.prompt_logits:
            rows = np.concatenate([event.logits for event in events[name] if event.logits is not None])
            ids = np.array(request.prompt_token_ids, dtype=np.int32)
            assert np.array_equal(rows, np.stack([logits_of(ids[: i + 1]) for i in range(len(ids))]))


def test_a_failed_step_forgets_the_cache() -> None:
    engine = scripted_engine(ScriptedBackend(fails_at=8))
    run_one(engine, PROMPT)
    engine.submit(Request("two", (*PROMPT, 5), SAMPLING))
    with pytest.raises(ValueError, match="scripted failure"):
        run_to_end(engine)
    engine.reset()
    engine.check_integrity()
    assert reuse_of(run_one(engine, PROMPT)).cached_tokens == 0


def test_memory_is_flat_over_many_requests() -> None:
    engine = scripted_engine(ctx_size=32, kv_tokens=200)
    cache = engine._cache.cache
    assert cache is not None
    rng = random.Random(1)
    for _ in range(400):
        run_one(engine, [rng.randrange(2, 40) for _ in range(rng.randrange(1, 20))], SamplingParams(max_tokens=2))
    assert len(cache) <= 50
    assert len(cache._evicted) <= 4 * 50
    assert len(cache._roots) == 1


# --- context shift ----------------------------------------------------------------------------------------------------


def shifted_output(prompt: Sequence[int], sampling: SamplingParams, ctx_size: int, keep: int) -> list[int]:
    """What a request with a context shift has to give, from a plain loop."""
    assert sampling.max_tokens is not None
    sampler = ReferenceSampler()
    chain = request_chain(sampler, sampling, num_prompt=len(prompt), end_ids={END}, generation_end_ids={END})
    state, no_drafts = sampler.state(chain), np.zeros(0, np.int32)
    known, generated = list(prompt), []
    num_kept = len(prompt) if keep < 0 else min(keep, len(prompt))
    while len(generated) < sampling.max_tokens:
        tokens = np.array(known, dtype=np.int32)
        draw = Draw(chain, state, tokens[-64:], sampling.seed or 0, len(prompt) + len(generated), no_drafts)
        ((token,), _) = sampler.sample_batch(logits_of(tokens)[None], [draw])[0]
        known.append(token)
        generated.append(token)
        if len(known) == ctx_size:
            del known[num_kept : num_kept + (ctx_size - num_kept) // 2]
    return generated


@pytest.mark.parametrize("keep", [0, 1, 4, 7, -1])
@pytest.mark.parametrize("cache_prompt", [True, False])
def test_context_shift(keep: int, cache_prompt: bool) -> None:
    engine = scripted_engine(ctx_size=24, kv_tokens=40, page_size=4, ubatch_size=6)
    sampling = SamplingParams(seed=1, max_tokens=90, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    prompt = (5, 6, 7, 8, 9, 10, 11, 12)
    options = {"context_shift": True, "keep": keep, "cache_prompt": cache_prompt}
    events = run_one(engine, prompt, sampling, **options)
    assert tokens_of(events) == shifted_output(prompt, sampling, 24, keep)
    warnings = [warning for event in events for warning in event.warnings]
    assert len(warnings) >= 5
    num_kept = len(prompt) if keep < 0 else keep
    assert all(f"after the first {num_kept} were dropped" in warning for warning in warnings)
    assert events[-1].finish_reason is FinishReason.LENGTH
    assert events[-1].usage.completion_tokens == 90
    assert run_one(engine, prompt, sampling, **options)[-1].usage.completion_tokens == 90


def test_without_it_a_full_context_is_the_end() -> None:
    engine = scripted_engine(ctx_size=24)
    events = run_one(engine, (5, 6, 7), SamplingParams(seed=1, max_tokens=90, logit_bias={END: -1e3, NAN_TOKEN: -1e3}))
    assert events[-1].usage.total_tokens == 24
    assert not any(event.warnings for event in events)


def test_shifting_requests_beside_others() -> None:
    engine = scripted_engine(ctx_size=24, kv_tokens=44, page_size=4, shuffle_pages=random.Random(4))
    sampling = SamplingParams(seed=1, max_tokens=70, ignore_eos=True, logit_bias={NAN_TOKEN: -100.0})
    for number in range(100):  # after so many short answers none is expected to be long
        engine.submit(Request(f"short {number}", (5,), SamplingParams(max_tokens=1, logit_bias={NAN_TOKEN: -100.0})))
    run_to_end(engine)
    prompts = {str(number): (5 + number, 6, 7, 8, 9) for number in range(4)}
    for name, prompt in prompts.items():
        engine.submit(Request(name, prompt, sampling, context_shift=True, keep=2))
    events = run_to_end(engine)
    assert engine.num_preemptions > 0
    for name, prompt in prompts.items():
        assert tokens_of(events[name]) == shifted_output(prompt, sampling, 24, 2)


@pytest.mark.parametrize(("keep", "length"), [(19, 20), (-1, 20)])
def test_a_shift_needs_room(keep: int, length: int) -> None:
    engine = scripted_engine(ctx_size=24)
    with pytest.raises(InvalidRequestError, match="at most 18 can stay") as caught:
        engine.submit(Request("a", tuple(range(2, 2 + length)), SAMPLING, context_shift=True, keep=keep))
    assert caught.value.field == "keep"
    engine.submit(Request("a", tuple(range(2, 2 + length)), SAMPLING, keep=keep))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"keep": -2}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"cache_salt": 7}, "cache_salt"),
        ({"cache_salt": "x" * 2000}, "cache_salt"),
        ({"context_shift": "yes"}, "context_shift"),
        ({"cache_prompt": None}, "cache_prompt"),
    ],
)
def test_bad_values_are_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Request("a", (1,), SAMPLING, **options)  # type: ignore[arg-type]
    assert caught.value.field == field


# --- states and the disk ----------------------------------------------------------------------------------------------


def restored(engine: Engine, path: Path) -> int:
    state = read_state(
        path,
        engine.state_fingerprint,
        page_bytes=engine.page_bytes,
        page_size=engine.page_size,
        max_tokens=engine.kv_size,
        vocab_size=engine.vocab_size,
    )
    return engine.import_state(state)


def test_a_saved_state_is_as_good_as_new(tmp_path: Path) -> None:
    engine = scripted_engine()
    tokens = [*PROMPT, *tokens_of(run_one(engine, PROMPT))]
    state = engine.export_state(tokens)
    assert state.token_ids.tolist() == tokens[:-1]
    write_state(tmp_path / "state", state, engine.state_fingerprint)
    other = scripted_engine(shuffle_pages=random.Random(9))
    assert restored(other, tmp_path / "state") == len(tokens) - 1
    other.check_integrity()
    events = run_one(other, [*tokens, 5])
    assert reuse_of(events).cached_tokens == len(tokens) - 1
    assert tokens_of(events) == expected_output([*tokens, 5], SAMPLING)[0]
    assert restored(other, tmp_path / "state") == len(tokens) - 1  # once more changes nothing
    other.check_integrity()


def test_the_state_of_a_running_request(tmp_path: Path) -> None:
    engine = scripted_engine()
    engine.submit(Request("a", PROMPT, SAMPLING))
    for _ in range(3):
        engine.step()
    state = engine.export_request("a")
    assert len(state.token_ids) == len(PROMPT) + 2
    write_state(tmp_path / "state", state, engine.state_fingerprint)
    other = scripted_engine()
    assert restored(other, tmp_path / "state") == len(PROMPT) + 2
    with pytest.raises(UsageError, match="nothing computed"):
        engine.export_request("b")


def test_restoring_into_little_room(tmp_path: Path) -> None:
    engine = scripted_engine(ctx_size=64, kv_tokens=64)
    run_one(engine, PROMPT)
    write_state(tmp_path / "state", engine.export_state(PROMPT), engine.state_fingerprint)
    small = scripted_engine(ctx_size=32, kv_tokens=40)
    small.submit(Request("a", tuple(range(22, 42)), SAMPLING))
    small.step()
    assert restored(small, tmp_path / "state") < len(PROMPT)
    small.check_integrity()
    assert tokens_of(run_to_end(small)["a"])


def test_nothing_to_save_is_said() -> None:
    with pytest.raises(UsageError, match="nothing of these tokens"):
        scripted_engine().export_state(PROMPT)
    engine = scripted_engine(cache=CacheOptions(enabled=False))
    run_one(engine, PROMPT)
    with pytest.raises(UsageError, match="nothing of these tokens"):
        engine.export_state(PROMPT)


def disk_engine(folder: Path, **options: object) -> Engine:
    cache = CacheOptions(folder=folder, folder_bytes=1 << 20)
    return scripted_engine(**{"cache": cache, "fingerprint": lambda: b"model", **options})


def flush(engine: Engine) -> None:
    store = engine._cache.store
    assert store is not None
    store.flush()
    assert not store.take_warnings()


def test_the_disk_outlives_the_process(tmp_path: Path) -> None:
    first = disk_engine(tmp_path)
    run_one(first, PROMPT)
    first.close()
    backend = ScriptedBackend()
    second = disk_engine(tmp_path, backend=backend)
    events = run_one(second, PROMPT)
    assert reuse_of(events).cached_tokens == 28  # whole pages of 4; parts stay in memory
    assert backend.run_sizes[0] == 2
    assert tokens_of(events) == expected_output(PROMPT, SAMPLING)[0]
    second.close()
    other = disk_engine(tmp_path, fingerprint=lambda: b"another model")
    assert reuse_of(run_one(other, PROMPT)).cached_tokens == 0
    other.close()


def test_evicted_pages_come_back_from_the_disk(tmp_path: Path) -> None:
    engine = disk_engine(tmp_path, ctx_size=40, kv_tokens=40)
    run_one(engine, PROMPT)
    run_one(engine, tuple(reversed(PROMPT)))
    flush(engine)
    events = run_one(engine, PROMPT)
    assert reuse_of(events).cached_tokens >= 28
    assert tokens_of(events) == expected_output(PROMPT, SAMPLING)[0]
    engine.close()


def test_tenants_do_not_share_the_disk(tmp_path: Path) -> None:
    first = disk_engine(tmp_path)
    run_one(first, PROMPT, cache_salt="a")
    first.close()
    second = disk_engine(tmp_path)
    assert reuse_of(run_one(second, PROMPT, cache_salt="b")).cached_tokens == 0
    assert reuse_of(run_one(second, PROMPT, cache_salt="a")).cached_tokens == 28
    second.close()


def test_a_damaged_file_is_a_warning_and_no_more(tmp_path: Path) -> None:
    first = disk_engine(tmp_path)
    run_one(first, PROMPT)
    first.close()
    rng = random.Random(2)
    for file in sorted(tmp_path.glob("*/*.page"))[::3]:
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 16
        file.write_bytes(content)
    second = disk_engine(tmp_path)
    events = run_one(second, PROMPT)
    assert any("was deleted" in warning for event in events for warning in event.warnings)
    assert tokens_of(events) == expected_output(PROMPT, SAMPLING)[0]
    second.close()


def test_others_run_while_pages_are_loaded(tmp_path: Path) -> None:
    first = disk_engine(tmp_path)
    run_one(first, PROMPT)
    first.close()
    engine = disk_engine(tmp_path)
    store = engine._cache.store
    assert store is not None
    gate = store._reader.submit(wait_for := Gate())
    engine.submit(Request("slow", PROMPT, SAMPLING))
    engine.submit(Request("fast", (9, 8, 7), SAMPLING))
    events: list[Event] = []
    while not any(event.finish_reason for event in events):
        events += engine.step()
    assert {event.request_id for event in events} == {"fast"}
    assert engine.step() == []  # waits a moment for the disk, and no longer
    engine.abort("slow")
    assert engine.step()[0].finish_reason is FinishReason.ABORT
    wait_for.is_open = True
    gate.result()
    engine.check_integrity()
    assert reuse_of(run_one(engine, PROMPT)).cached_tokens == 28
    engine.close()


class Gate:
    """Blocks the thread that reads until it is opened."""

    is_open = False

    def __call__(self) -> None:
        while not self.is_open:
            time.sleep(0.001)
