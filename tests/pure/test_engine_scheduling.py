"""The order in which requests are served, and how evenly: in simulated time, so no figure depends on the machine."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import pytest
from scripted_model import END, NAN_TOKEN, VOCAB, ScriptedBackend, expected_output, scripted_engine
from scripted_time import Clock, greedy_output, linear_seconds, timed_engine

from quipu.engine import Engine
from quipu.engine.arrivals import choice_seed
from quipu.engine.fairness import OUTPUT_WEIGHT, PROMPT_WEIGHT, TokenCounters
from quipu.errors import InvalidRequestError, UsageError
from quipu.types import Event, FinishReason, Request, SamplingParams


def greedy(max_tokens: int | None) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens)


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(2, VOCAB) for _ in range(length))


def run_to_end(engine: Engine, most_steps: int = 5000) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = defaultdict(list)
    for _ in range(most_steps):
        if not engine.has_work:
            break
        for event in engine.step():
            events[event.request_id].append(event)
        engine.check_integrity()
    assert not engine.has_work, "requests starve"
    return events


def first_tokens(engine: Engine, most_steps: int = 5000) -> list[str]:
    """Run to the end; the requests in the order of their first tokens."""
    order: dict[str, None] = {}
    for _ in range(most_steps):
        if not engine.has_work:
            return list(order)
        for event in engine.step():
            if event.token_ids:
                order.setdefault(event.request_id)
    raise AssertionError("requests starve")


# --- time of a step --------------------------------------------------------------------------------------------------


def stream_beside_long_prompt(
    base_s: float, per_token_s: float, per_product_s: float, **options: object
) -> tuple[float, list[float], int]:
    """Decode a stream; then an 8,000-token prompt arrives.

    Returns:
        The time between tokens before that, the times while the prompt was computed, and the number of steps it took.
    """
    clock = Clock()
    engine, backend = timed_engine(
        clock,
        linear_seconds(base_s, per_token_s, per_product_s),
        ctx_size=9000,
        kv_tokens=18000,
        page_size=64,
        **options,
    )
    engine.submit(Request("warm", prompt_of(700), greedy(3)))
    run_to_end(engine)
    engine.submit(Request("stream", prompt_of(20), greedy(None)))
    for _ in range(30):
        engine.step()
    alone_s = backend.steps[-1][1]
    engine.submit(Request("long", prompt_of(8000, 1), greedy(2)))
    first = len(backend.steps)
    while not any(event.request_id == "long" for event in engine.step()):
        assert len(backend.steps) < first + 8000 / 4 + 1, "the prompt does not get on"
    return alone_s, [seconds for _, seconds in backend.steps[first:]], len(backend.steps) - first


@pytest.mark.parametrize(
    ("base_s", "per_token_s", "per_product_s"), [(0.04, 0.003, 1e-7), (0.2, 0.05, 1e-6), (0.01, 0.0002, 1e-9)]
)
def test_a_stream_goes_on_beside_a_long_prompt(base_s: float, per_token_s: float, per_product_s: float) -> None:
    alone_s, times_s, num_steps = stream_beside_long_prompt(base_s, per_token_s, per_product_s)
    late = [seconds for seconds in times_s if seconds > 2.5 * alone_s]
    assert len(late) <= 2, "only while the costs of a prompt are being learned"
    prompt_s = sum(times_s) - num_steps * alone_s
    assert prompt_s > 0.4 * sum(times_s), "the prompt gets its share, too"


@pytest.mark.parametrize("target_s", [0.06, 0.15, 0.5])
def test_a_target_in_seconds_is_kept(target_s: float) -> None:
    alone_s, times_s, _ = stream_beside_long_prompt(0.04, 0.002, 1e-7, itl_target_s=target_s)
    assert alone_s < target_s
    assert sum(seconds > 1.02 * target_s for seconds in times_s) <= 1
    full = sorted(times_s)[len(times_s) // 2]
    assert full > 0.9 * target_s, "chunks are as large as the target allows"


def test_a_target_that_cannot_be_kept_still_lets_prompts_get_on() -> None:
    _, times_s, num_steps = stream_beside_long_prompt(0.04, 0.002, 0.0, itl_target_s=0.001)
    assert num_steps == 2000
    assert max(times_s) == pytest.approx(0.04 + 5 * 0.002)


def test_the_chunk_follows_a_machine_that_becomes_slower() -> None:
    clock = Clock()
    scale = 1.0
    engine, backend = timed_engine(
        clock,
        lambda num_tokens, _: scale * (0.04 + 0.002 * num_tokens),
        ctx_size=9000,
        kv_tokens=18000,
        page_size=64,
        itl_target_s=0.3,
    )
    engine.submit(Request("stream", prompt_of(20), greedy(None)))
    engine.submit(Request("long", prompt_of(8000, 1), greedy(2)))
    for _ in range(20):
        engine.step()
    assert backend.steps[-1][1] == pytest.approx(0.3, rel=0.05)
    scale = 3.0
    for _ in range(60):
        engine.step()
    assert backend.steps[-1][1] == pytest.approx(0.3, rel=0.1)


def test_where_nobody_reads_along_prompts_are_not_cut() -> None:
    clock = Clock()
    engine, backend = timed_engine(clock, ctx_size=2000, kv_tokens=8000, page_size=64)
    engine.submit(Request("a", prompt_of(20), greedy(50), streamed=False))
    engine.step()
    engine.step()
    engine.submit(Request("b", prompt_of(1200), greedy(2), streamed=False))
    for _ in range(3):
        engine.step()
    assert [count for count, _ in backend.steps[2:]] == [512, 512, 179]


# --- priorities, keys, aging -----------------------------------------------------------------------------------------


def test_higher_priorities_are_served_first() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=32, kv_tokens=32, page_size=4)
    for name, priority in (("low", -3), ("none", 0), ("high", 5), ("highest", 10), ("late high", 5)):
        engine.submit(Request(name, prompt_of(20), greedy(5), priority=priority))
    assert first_tokens(engine) == ["highest", "high", "late high", "none", "low"]


def test_a_low_priority_climbs_until_it_is_served() -> None:
    clock = Clock()
    engine, _ = timed_engine(clock, linear_seconds(0.1, 0.0, 0.0), ctx_size=32, kv_tokens=32, page_size=4, aging_s=1.0)
    engine.submit(Request("low", prompt_of(20), greedy(5), priority=-10))
    served_s = None
    for number in range(1000):
        while engine.num_waiting < 3:  # more of the highest than can ever be served
            engine.submit(Request(f"high {number} {engine.num_waiting}", prompt_of(20), greedy(5), priority=10))
        if any(event.request_id == "low" for event in engine.step()):
            served_s = clock.now_s
            break
    assert served_s is not None
    # Twenty bands of a second each, those that had arrived before it came to lead, and the one that was running.
    assert 19.0 < served_s < 26.0


def test_keys_get_equal_shares_whatever_they_ask_for() -> None:
    """One key sends ten times as many requests, three times as long; measured while both have work waiting."""
    clock = Clock()
    engine, _ = timed_engine(clock, ctx_size=64, kv_tokens=128, page_size=4, ubatch_size=32)
    rng = random.Random(1)
    cost: Counter[str] = Counter()
    keys = {}
    for number in range(220):
        key = "light" if number % 11 == 0 else "heavy"
        length, max_tokens = (6, 10) if key == "light" else (18, 30)
        name = str(number)
        keys[name] = key
        engine.submit(Request(name, prompt_of(length, rng.randrange(99)), greedy(max_tokens), key=key))
    largest_gap = 0.0
    while any(sequence.request.key == "light" for sequence in engine._scheduler.waiting):
        for event in engine.step():
            if event.usage.completion_tokens == 1 and event.token_ids:
                cost[keys[event.request_id]] += PROMPT_WEIGHT * event.usage.prompt_tokens
            cost[keys[event.request_id]] += OUTPUT_WEIGHT * len(event.token_ids)
        largest_gap = max(largest_gap, abs(cost["light"] - cost["heavy"]))
    # The bound of the method: twice what the requests that run at a time may cost.
    assert largest_gap <= 2 * 4 * (18 * PROMPT_WEIGHT + 30 * OUTPUT_WEIGHT)
    assert cost["light"] == pytest.approx(cost["heavy"], rel=0.2)


def test_a_key_without_requests_saves_nothing_up() -> None:
    counters = TokenCounters()
    counters.enter("busy")
    counters.charge("busy", 1000.0)
    counters.enter("late")
    assert counters["late"] == 1000.0
    counters.charge("late", 500.0)
    counters.leave("late")
    counters.enter("late")
    assert counters["late"] == 1500.0, "going away for a moment does not pay the debt"
    counters.charge("busy", 9000.0)
    counters.leave("late")
    counters.enter("late")
    assert counters["late"] == 10_000.0


def test_counters_of_many_keys_are_bounded() -> None:
    counters = TokenCounters()
    counters.enter("busy")
    for number in range(20_000):
        counters.enter(str(number))
        counters.charge(str(number), 5.0)
        counters.leave(str(number))
    assert len(counters) <= 4200
    counters.leave("busy")
    assert len(counters) == 0


def test_within_a_key_requests_are_served_in_turn() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=32, kv_tokens=32, page_size=4)
    for number in range(6):
        engine.submit(Request(str(number), prompt_of(20), greedy(5), key="k"))
    assert first_tokens(engine) == [str(number) for number in range(6)]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_the_lowest_priority_gives_way_and_of_equals_the_latest() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=64, kv_tokens=64, page_size=4)
    engine._scheduler.mean_output_tokens = 1.0
    for name, priority in (("old", 0), ("low", -1), ("new", 0)):
        engine.submit(Request(name, prompt_of(8), greedy(40), priority=priority))
    preempted = []
    running: set[str] = set()
    while engine.has_work:
        engine.step()
        now = {sequence.request_id for sequence in engine._scheduler.running}
        waiting = {sequence.request_id for sequence in engine._scheduler.waiting}
        preempted += sorted(running & waiting)
        running = now
    assert preempted[:2] == ["low", "new"]
    assert "old" not in preempted


def test_nobody_starts_in_a_step_that_preempted() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=64, kv_tokens=64, page_size=4)
    engine._scheduler.mean_output_tokens = 1.0
    for number in range(12):
        engine.submit(Request(str(number), prompt_of(7), greedy(30)))
    seen = 0
    while engine.has_work:
        before, running = engine.num_preemptions, set(engine._scheduler.running)
        engine.step()
        if engine.num_preemptions > before:
            seen += 1
            assert set(engine._scheduler.running) <= running
    assert seen > 0


def test_admission_leaves_room_to_grow() -> None:
    """Once it is known how long answers are, hardly anything has to start over."""
    engine, _ = timed_engine(Clock(), ctx_size=128, kv_tokens=512, page_size=4)
    rng = random.Random(1)
    for number in range(120):
        engine.submit(Request(str(number), prompt_of(rng.randrange(4, 30)), greedy(rng.randrange(30, 60))))
    run_to_end(engine, 20_000)
    assert engine.stats().mean_output_tokens == pytest.approx(45.0, abs=8.0)
    assert engine.num_preemptions <= 10


def test_what_is_known_to_be_short_needs_no_room_to_grow() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=64, kv_tokens=64, page_size=4)
    for number in range(8):
        engine.submit(Request(str(number), prompt_of(6), greedy(2)))
    engine.step()
    assert engine.num_running == 8


# --- waiting for something else --------------------------------------------------------------------------------------


class Gate:
    is_open = False

    def done(self) -> bool:
        return self.is_open


def test_a_request_that_cannot_start_is_passed_over() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=64, kv_tokens=64, page_size=4)
    gate = Gate()
    engine.submit(Request("gated", prompt_of(6), greedy(2), priority=10))
    (sequence,) = engine._live["gated"]
    sequence.pending = gate
    engine.submit(Request("free", prompt_of(6), greedy(2)))
    order = []
    for _ in range(10):
        order += [event.request_id for event in engine.step()]
    assert order == ["free", "free"]
    assert engine.has_work
    gate.is_open = True
    assert list(run_to_end(engine)) == ["gated"]


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_deadline_passes_in_the_queue() -> None:
    clock = Clock()
    engine, _ = timed_engine(clock, linear_seconds(0.1, 0.0, 0.0), ctx_size=64, kv_tokens=64, page_size=4)
    engine.submit(Request("first", prompt_of(20), greedy(30)))
    engine.submit(Request("hasty", prompt_of(20), greedy(30), deadline_s=0.55))
    events = run_to_end(engine)
    last = events["hasty"][-1]
    assert (last.finish_reason, last.token_ids, last.usage.completion_tokens) == (FinishReason.DEADLINE, (), 0)
    assert "0.55 s" in last.error
    assert last.timings is not None
    assert last.timings.queue_s + last.timings.prompt_s + last.timings.generation_s <= 0.7
    assert events["first"][-1].finish_reason is FinishReason.LENGTH


def test_what_would_be_too_late_is_not_begun() -> None:
    clock = Clock()
    engine, backend = timed_engine(clock, linear_seconds(0.01, 0.01, 0.0), ctx_size=1024, kv_tokens=4096)
    engine.submit(Request("warm", prompt_of(300), greedy(3)))
    run_to_end(engine)
    num_steps = len(backend.steps)
    engine.submit(Request("hopeless", prompt_of(600), greedy(3), deadline_s=3.0))
    engine.submit(Request("possible", prompt_of(600), greedy(1), deadline_s=9.0))
    events = run_to_end(engine)
    assert events["hopeless"][-1].finish_reason is FinishReason.DEADLINE
    assert "would have been missed" in events["hopeless"][-1].error
    assert events["possible"][-1].finish_reason is FinishReason.LENGTH
    assert sum(count for count, _ in backend.steps[num_steps:]) == 600


@pytest.mark.parametrize(("deadline_s", "generated"), [(0.25, False), (0.95, True)])
def test_deadline_passes_while_it_runs(deadline_s: float, generated: bool) -> None:
    clock = Clock()
    engine, _ = timed_engine(clock, linear_seconds(0.1, 0.0, 0.0), ctx_size=128, kv_tokens=256, ubatch_size=16)
    engine.submit(Request("a", prompt_of(60), greedy(None), deadline_s=deadline_s))
    last = run_to_end(engine)["a"][-1]
    assert last.finish_reason is FinishReason.DEADLINE
    assert (last.usage.completion_tokens > 0) == generated
    assert f"{deadline_s:g} s has passed" in last.error
    assert clock.now_s <= deadline_s + 0.1 + 1e-9, "stopped before the next step"


# --- choices ---------------------------------------------------------------------------------------------------------


def test_choices_share_the_pages_of_their_prompt() -> None:
    engine, backend = timed_engine(Clock(), ctx_size=128, kv_tokens=512, page_size=16)
    engine.submit(Request("a", prompt_of(70), greedy(20), num_choices=5, streamed=False))
    events = engine.step()
    assert (engine.num_running, engine.num_waiting) == (1, 4)
    events += engine.step()
    assert engine.num_running == 5
    # Four full pages are shared; each has the rest of the prompt and its first tokens on a page of its own.
    stats = engine.stats()
    assert stats.num_pages - stats.num_free_pages == 4 + 5
    events += run_to_end(engine)["a"]
    assert sum(count for count, _ in backend.steps) == 70 + 4 * 6 + 5 * 19
    for choice in range(5):
        tokens = [token for event in events if event.choice == choice for token in event.token_ids]
        assert tokens == greedy_output(prompt_of(70), 20)


def test_choices_are_what_their_seeds_give_alone() -> None:
    engine = scripted_engine(ctx_size=64, kv_tokens=200, ubatch_size=9)
    sampling = SamplingParams(temperature=1.5, seed=11, max_tokens=12, logit_bias={NAN_TOKEN: -1e6})
    engine.submit(Request("a", prompt_of(14), sampling, num_choices=4))
    events = run_to_end(engine)["a"]
    outputs = set()
    for choice in range(4):
        mine = [event for event in events if event.choice == choice]
        seed = choice_seed(11, choice)
        assert mine[-1].seed == seed
        alone = SamplingParams(temperature=1.5, seed=seed, max_tokens=12, logit_bias={NAN_TOKEN: -1e6})
        tokens = tuple(token for event in mine for token in event.token_ids)
        assert (list(tokens), mine[-1].finish_reason) == expected_output(prompt_of(14), alone)
        outputs.add(tokens)
    assert choice_seed(11, 0) == 11
    assert len(outputs) == 4


def test_the_pages_of_a_prompt_outlive_the_choice_that_computed_them() -> None:
    """One token each: the first choice has ended before another has begun."""
    engine, backend = timed_engine(Clock(), ctx_size=128, kv_tokens=512, page_size=16)
    engine.submit(Request("a", prompt_of(70), greedy(1), num_choices=6))
    events = run_to_end(engine)["a"]
    assert [event.token_ids for event in events] == [tuple(greedy_output(prompt_of(70), 1))] * 6
    assert sum(count for count, _ in backend.steps) == 70 + 5 * 6


def test_aborting_ends_all_choices() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=128, kv_tokens=512, page_size=16, ubatch_size=16)
    for steps in (0, 2, 8):
        engine.submit(Request("a", prompt_of(70), greedy(20), num_choices=4))
        for _ in range(steps):
            engine.step()
        engine.abort("a")
        events = engine.step()
        assert sorted((event.choice, event.finish_reason) for event in events) == [
            (choice, FinishReason.ABORT) for choice in range(4)
        ]
        assert not engine.has_work
        engine.check_integrity()


def test_more_choices_than_the_cache_holds() -> None:
    engine, _ = timed_engine(Clock(), ctx_size=64, kv_tokens=64, page_size=4)
    engine.submit(Request("a", prompt_of(30), greedy(30), num_choices=20))
    events = run_to_end(engine)["a"]
    for choice in range(20):
        tokens = [token for event in events if event.choice == choice for token in event.token_ids]
        assert tokens == greedy_output(prompt_of(30), 30)


# --- refusals and figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("priority", [11, -11, 1.0, "high", None, True, 10**30]),
        ("num_choices", [0, -1, 129, 10**9, 1.5, "2", None, True]),
        ("deadline_s", [0, -1.0, math.nan, math.inf, "1", True]),
        ("key", [None, 7, b"k", "k" * 257]),
    ],
)
def test_bad_values_are_refused_by_name(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidRequestError) as caught:
            Request("a", (3,), SamplingParams(), **{field: value})  # type: ignore[arg-type]
        assert caught.value.field == field
        assert str(caught.value).startswith(field)


@pytest.mark.parametrize("options", [{"itl_target_s": 0.0}, {"itl_target_s": math.inf}, {"aging_s": -1.0}])
def test_bad_times_are_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=name):
        timed_engine(Clock(), **options)


def test_stats() -> None:
    engine, _ = timed_engine(Clock(), linear_seconds(0.1, 0.01, 0.0), ctx_size=64, kv_tokens=128, page_size=4)
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_steps, stats.num_pages) == (0, 0, 0, 32)
    engine.submit(Request("a", prompt_of(10), greedy(5), num_choices=2))
    assert engine.stats().num_waiting == 2
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_step_tokens, stats.num_tokens) == (1, 1, 10, 10)
    assert stats.num_free_pages == 29
    run_to_end(engine)
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_free_pages) == (0, 0, 32)
    assert stats.num_tokens == 10 + 2 + 2 * 4
    assert stats.step_times.base_s == pytest.approx(0.1, rel=0.01)
    assert stats.step_times.per_token_s == pytest.approx(0.01, rel=0.01)
    assert engine.step_time.predict(5, 10.0) == pytest.approx(0.15, rel=0.01)


def test_a_deterministic_step_is_cut_into_runs() -> None:
    """Same tokens, same rows of logits, but never more in a run than have the same bits."""
    for width in (1, 3, 8):
        backend = ScriptedBackend(max_uniform_tokens=width)
        engine = scripted_engine(backend, deterministic=True, kv_tokens=256, ubatch_size=20)
        sampling = SamplingParams(seed=1, max_tokens=6, logit_bias={NAN_TOKEN: -100.0, END: -100.0})
        prompts = {str(number): prompt_of(3 + 7 * number, number) for number in range(5)}
        for name, prompt in prompts.items():
            engine.submit(Request(name, prompt, sampling, prompt_logits=name == "2"))
        events = run_to_end(engine)
        assert max(backend.run_sizes) == backend.max_tokens == width
        for name, prompt in prompts.items():
            tokens = [token for event in events[name] for token in event.token_ids]
            assert tokens == expected_output(prompt, sampling)[0]
        assert sum(len(event.logits) for event in events["2"] if event.logits is not None) == 17
