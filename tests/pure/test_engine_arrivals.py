"""Whatever arrives, leaves or runs out: no page and no token is lost or doubled, and nobody waits for ever."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import VOCAB
from scripted_time import Clock, greedy_output, linear_seconds, timed_engine

from quipu.engine import CacheOptions, Engine
from quipu.types import Event, FinishReason, Request, SamplingParams

CTX_SIZE = 64
cached_engine = partial(timed_engine, cache=CacheOptions())


@dataclass
class Gate:
    """Something that a request waits for."""

    is_open: bool = False

    def done(self) -> bool:
        return self.is_open


@dataclass
class Traffic:
    """Random requests on one engine, and what came of them."""

    engine: Engine
    clock: Clock
    rng: random.Random
    requests: dict[str, Request] = field(default_factory=dict)
    events: dict[tuple[str, int], list[Event]] = field(default_factory=lambda: defaultdict(list))
    aborted: set[str] = field(default_factory=set)
    gates: list[Gate] = field(default_factory=list)

    def submit(self) -> None:
        rng = self.rng
        length = rng.choice([1, 2, 3, rng.randrange(1, CTX_SIZE), rng.randrange(1, CTX_SIZE)])
        request = Request(
            str(len(self.requests)),
            tuple(rng.randrange(2, VOCAB) for _ in range(length)),
            SamplingParams(temperature=0.0, max_tokens=rng.choice([0, 1, 2, 9, 30, None]), seed=1),
            prompt_logits=rng.random() < 0.2,
            priority=rng.choice([0, 0, 0, -10, 3, 10]),
            key=rng.choice(["", "a", "b", "c"]),
            deadline_s=rng.choice([None, None, None, 0.01, 0.5, 3.0, 1e6]),
            num_choices=rng.choice([1, 1, 1, 2, 5]),
            streamed=rng.random() < 0.7,
        )
        self.requests[request.request_id] = request
        self.engine.submit(request)
        if rng.random() < 0.15:
            gate = Gate()
            self.gates.append(gate)
            for sequence in self.engine._live[request.request_id]:
                sequence.pending = gate

    def abort(self) -> None:
        name = self.rng.choice(list(self.requests))
        self.aborted.add(name)
        self.engine.abort(name)

    def step(self) -> None:
        for event in self.engine.step():
            self.events[event.request_id, event.choice].append(event)
        self.engine.check_integrity()

    def run_to_end(self) -> None:
        most_steps = sum(
            request.num_choices * 3 * (len(request.prompt_token_ids) + CTX_SIZE) for request in self.requests.values()
        )
        for _ in range(most_steps):
            if not self.engine.has_work:
                break
            for gate in self.gates:
                gate.is_open = gate.is_open or self.rng.random() < 0.1
            self.step()
        assert not self.engine.has_work, "requests starve"
        assert self.engine.num_running == self.engine.num_waiting == 0
        stats = self.engine.stats()
        assert stats.num_free_pages == stats.num_pages

    def check_outcomes(self) -> None:
        expected_keys = {(name, i) for name, request in self.requests.items() for i in range(request.num_choices)}
        assert set(self.events) == expected_keys
        for (name, choice), events in self.events.items():
            self.check_outcome(self.requests[name], choice, events)

    def check_outcome(self, request: Request, choice: int, events: list[Event]) -> None:
        reasons = [event.finish_reason for event in events]
        assert all(reason is None for reason in reasons[:-1])
        length = len(request.prompt_token_ids)
        room = CTX_SIZE - length
        limit = room if request.sampling.max_tokens is None else min(request.sampling.max_tokens, room)
        expected = greedy_output(request.prompt_token_ids, limit)
        tokens = [token for event in events for token in event.token_ids]
        num_rows = sum(len(event.logits) for event in events if event.logits is not None)
        assert events[-1].usage.prompt_tokens == length
        assert events[-1].usage.completion_tokens == len(tokens)
        if reasons[-1] is FinishReason.LENGTH:
            assert tokens == expected
            assert num_rows == (length if request.prompt_logits and choice == 0 else 0)
            return
        assert tokens == expected[: len(tokens)]
        if reasons[-1] is FinishReason.DEADLINE:
            assert request.deadline_s is not None
            assert f"{request.deadline_s:g} s" in events[-1].error
        else:
            assert reasons[-1] is FinishReason.ABORT
            assert request.request_id in self.aborted


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(0, 40),
    st.sampled_from([None, 0.01, 0.1]),
    st.booleans(),
)
def test_arrivals_aborts_preemptions_deadlines_and_choices(
    seed: int, max_tokens: int, page_size: int, extra_tokens: int, itl_target_s: float | None, shuffle: bool
) -> None:
    rng = random.Random(seed)
    clock = Clock()
    engine, backend = cached_engine(
        clock,
        ctx_size=CTX_SIZE,
        kv_tokens=CTX_SIZE + extra_tokens,
        ubatch_size=max_tokens,
        page_size=page_size,
        itl_target_s=itl_target_s,
        aging_s=rng.choice([0.5, 30.0]),
        shuffle_pages=rng if shuffle else None,
    )
    engine._scheduler.mean_output_tokens = rng.choice([1.0, 64.0])
    traffic = Traffic(engine, clock, rng)
    for _ in range(rng.randrange(5, 30)):
        traffic.submit()
        if rng.random() < 0.15:
            traffic.abort()
        for _ in range(rng.choice([0, 0, 1, 3])):
            traffic.step()
    traffic.run_to_end()
    traffic.check_outcomes()
    assert max(count for count, _ in backend.steps) <= max_tokens


def test_random_traffic_does_preempt_share_and_shed() -> None:
    """The traffic above would test little if these never happened."""
    preempted = shed = 0
    for seed in range(30):
        rng = random.Random(seed)
        clock = Clock()
        engine, _ = cached_engine(clock, ctx_size=CTX_SIZE, kv_tokens=CTX_SIZE + 8, page_size=4, ubatch_size=16)
        engine._scheduler.mean_output_tokens = 1.0
        traffic = Traffic(engine, clock, rng)
        for _ in range(10):
            traffic.submit()
        traffic.run_to_end()
        traffic.check_outcomes()
        preempted += engine.num_preemptions
        shed += sum(events[-1].finish_reason is FinishReason.DEADLINE for events in traffic.events.values())
    assert preempted > 20
    assert shed > 20


def soak(engine: Engine, first: int, count: int, rng: random.Random) -> int:
    """Run short requests, a few dozen at a time; returns the tokens they gave."""
    num_tokens = 0
    for number in range(first, first + count):
        prompt = tuple(rng.randrange(2, VOCAB) for _ in range(rng.randrange(1, 9)))
        sampling = SamplingParams(temperature=0.0, max_tokens=rng.randrange(1, 6))
        deadline_s = rng.choice([None, 1e9])
        engine.submit(Request(str(number), prompt, sampling, key=str(number % 997), deadline_s=deadline_s))
        if rng.random() < 0.02:
            engine.abort(str(number))
        while engine.stats().num_running + engine.num_waiting > 48:
            num_tokens += sum(len(event.token_ids) for event in engine.step())
    while engine.has_work:
        num_tokens += sum(len(event.token_ids) for event in engine.step())
    engine.check_integrity()
    assert engine.num_running == engine.num_waiting == 0
    return num_tokens


@pytest.mark.timeout(1200)
def test_ten_thousand_short_requests_leave_nothing_behind() -> None:
    clock = Clock()
    engine, backend = cached_engine(clock, linear_seconds(1e-3, 1e-4, 0.0), kv_tokens=1024)
    rng = random.Random(1)
    soak(engine, 0, 1000, rng)  # what is kept on purpose has been made by now
    backend.steps.clear()
    gc.collect()
    num_objects = len(gc.get_objects())
    num_tokens = soak(engine, 1000, 10_000, rng)
    backend.steps.clear()
    gc.collect()
    assert num_tokens > 25_000
    assert len(gc.get_objects()) < num_objects + 300, "objects of requests stay behind"
    traced_bytes()
    try:
        soak(engine, 11_000, 1000, rng)  # the prefix cache holds nothing now that was made before
        grown_bytes = -traced_bytes()
        soak(engine, 12_000, 1000, rng)
        backend.steps.clear()
        grown_bytes += traced_bytes()
    finally:
        tracemalloc.stop()
    assert grown_bytes < 50_000, "memory grows with the number of requests"
    stats = engine.stats()
    assert stats.num_free_pages == stats.num_pages
    assert len(engine._deadlines) == len(engine._scheduler._counters) == 0


def traced_bytes() -> int:
    """Memory that is in use since the first call."""
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


def step_while_there_is_work(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


def test_a_failed_step_loses_no_page() -> None:
    clock = Clock()
    engine, backend = cached_engine(clock, kv_tokens=256, ctx_size=64, page_size=4)
    rng = random.Random(3)
    traffic = Traffic(engine, clock, rng)
    run = backend.run
    for _ in range(20):
        for _ in range(5):
            traffic.submit()
        for gate in traffic.gates:
            gate.is_open = True
        for _ in range(rng.randrange(4)):
            traffic.step()
        engine.submit(Request("last", (3, 4), SamplingParams(max_tokens=5)))

        def broken(*_: object) -> object:
            raise ValueError("the scripted failure")

        backend.run = broken  # type: ignore[assignment,method-assign]
        with pytest.raises(ValueError, match="scripted failure"):
            step_while_there_is_work(engine)
        backend.run = run  # type: ignore[method-assign]
        engine.reset()
        engine.check_integrity()
        assert engine.stats().num_free_pages == engine.stats().num_pages
