"""Several threads on one engine: each gets its own events, all of them, and nobody waits for ever."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest
from scripted_model import END, NAN_TOKEN, ScriptedBackend, expected_output, scripted_engine

from quipu.engine import EventStream, SharedEngine
from quipu.errors import ContextLengthError, EngineError, InvalidRequestError, UsageError
from quipu.types import Event, FinishReason, Request, SamplingParams

ENDLESS = SamplingParams(seed=1, logit_bias={END: -100.0, NAN_TOKEN: -100.0})


def stream(shared: SharedEngine, *prompts: tuple[int, ...], sampling: SamplingParams = ENDLESS) -> EventStream[Event]:
    requests = [Request(shared.new_id(), prompt, sampling) for prompt in prompts]
    return EventStream(shared, shared.submit(requests), [request.request_id for request in requests], lambda e: e)


def tokens_of(events: EventStream[Event]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run all jobs at once; an error in any of them fails the test."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread waits for ever"
    if errors:
        raise errors[0]


def assert_idle(shared: SharedEngine) -> None:
    shared.engine.settle()
    assert not shared.engine.has_work
    shared.engine.check_integrity()


def test_threads_get_their_own_tokens() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=96, ubatch_size=16))

    def job(number: int) -> None:
        for round_ in range(5):
            prompt = (2 + number, 3 + round_)
            sampling = SamplingParams(seed=number, max_tokens=3 + round_, logit_bias={NAN_TOKEN: -100.0})
            assert tokens_of(stream(shared, prompt, sampling=sampling)) == expected_output(prompt, sampling)[0]

    in_threads([lambda number=number: job(number) for number in range(8)])  # type: ignore[misc]
    assert_idle(shared)


def test_one_inbox_for_several_prompts() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=512))
    prompts = [(3,), (4, 5), (6, 7, 8)]
    events = stream(shared, *prompts)
    tokens: dict[str, list[int]] = {request_id: [] for request_id in events.request_ids}
    for event in events:
        tokens[event.request_id] += event.token_ids
    assert list(tokens.values()) == [expected_output(prompt, ENDLESS)[0] for prompt in prompts]


def test_closing_a_stream_frees_its_pages() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=256))
    with stream(shared, (3, 4)) as events:
        next(events)
        assert shared.engine.num_running == 1
    assert shared.engine.num_running == 0
    assert_idle(shared)
    assert list(events) == []


def test_a_forgotten_stream_is_ended() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=256))
    forgotten = stream(shared, (3, 4))
    next(forgotten)
    del forgotten
    gc.collect()
    assert tokens_of(stream(shared, (5,))) == expected_output((5,), ENDLESS)[0]
    assert_idle(shared)


def test_streams_end_while_others_go_on() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=256))

    def stop_early() -> None:
        for _ in range(20):
            with stream(shared, (3, 4, 5)) as events:
                next(events)

    def go_on() -> None:
        for number in range(3):
            assert tokens_of(stream(shared, (6 + number,))) == expected_output((6 + number,), ENDLESS)[0]

    in_threads([stop_early, go_on, stop_early, go_on])
    assert_idle(shared)


def test_a_failed_step_fails_every_waiter_and_no_later_request() -> None:
    shared = SharedEngine(scripted_engine(ScriptedBackend(fails_at=6), kv_tokens=256))
    begun = threading.Barrier(3)
    outcomes: list[type[BaseException] | None] = []

    def job(number: int) -> None:
        events = stream(shared, (3 + number,))
        begun.wait()
        try:
            tokens_of(events)
            outcomes.append(None)
        except (ValueError, EngineError) as error:
            outcomes.append(type(error))

    in_threads([lambda number=number: job(number) for number in range(3)])  # type: ignore[misc]
    assert sorted(kind.__name__ for kind in outcomes if kind) == ["EngineError", "EngineError", "ValueError"]
    assert tokens_of(stream(shared, (9,))) == expected_output((9,), ENDLESS)[0]
    assert_idle(shared)


def test_interrupt_in_a_step() -> None:
    backend = ScriptedBackend()
    shared = SharedEngine(scripted_engine(backend, kv_tokens=256))
    run = backend.run

    def interrupted(*arguments: object) -> object:
        backend.run = run  # type: ignore[method-assign]
        raise KeyboardInterrupt

    events = stream(shared, (3,))
    next(events)
    backend.run = interrupted  # type: ignore[assignment,method-assign]
    with pytest.raises(KeyboardInterrupt):
        next(events)
    with pytest.raises(EngineError, match="submit them again"):
        next(events)
    assert tokens_of(stream(shared, (3,))) == expected_output((3,), ENDLESS)[0]


def test_error_of_one_request() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=256))
    sampling = SamplingParams(max_tokens=5)
    with pytest.raises(EngineError, match="NaN"):
        list(stream(shared, (4, NAN_TOKEN), sampling=sampling))
    last = list(stream(shared, (4, NAN_TOKEN), (4, NAN_TOKEN), sampling=sampling))[-1]
    assert last.finish_reason is FinishReason.ERROR


def test_if_one_is_refused_none_is_queued() -> None:
    shared = SharedEngine(scripted_engine())
    with pytest.raises(ContextLengthError):
        stream(shared, (3,), (5,) * 64)
    assert not shared.engine.has_work


def test_a_refused_context_shift_queues_none_either() -> None:
    shared = SharedEngine(scripted_engine(ctx_size=24))
    requests = [Request(str(keep), (3,) * 20, ENDLESS, context_shift=True, keep=keep) for keep in (2, 19)]
    with pytest.raises(InvalidRequestError, match="can stay"):
        shared.submit(requests)
    assert not shared.engine.has_work


def test_actions_come_between_steps() -> None:
    """While others stream without a pause, and never in the middle of a step."""
    backend = ScriptedBackend()
    shared = SharedEngine(scripted_engine(backend, kv_tokens=512))
    is_stepping, overlaps, lengths = False, [], []
    step = shared.engine.step

    def watched() -> list[Event]:
        nonlocal is_stepping
        is_stepping = True
        events = step()
        is_stepping = False
        return events

    shared.engine.step = watched  # type: ignore[method-assign]
    sampling = SamplingParams(seed=1, max_tokens=50, logit_bias={END: -100.0, NAN_TOKEN: -100.0})

    def reader(first: int) -> None:
        for _ in range(5):
            assert len(tokens_of(stream(shared, (first, 4, 5), sampling=sampling))) == 50

    def saver() -> None:
        for _ in range(20):
            overlaps.append(shared.between_steps(lambda engine: is_stepping))
            lengths.append(shared.between_steps(lambda engine: len(engine.last_ended[0])))

    in_threads([lambda: reader(3), lambda: reader(9), saver])
    assert overlaps == [False] * 20
    assert set(lengths) <= {0, 52}
    shared.close()
    with pytest.raises(UsageError, match="closed"):
        shared.between_steps(lambda engine: None)


def test_closing_ends_everything() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=256))
    events = stream(shared, (3,))
    next(events)
    shared.close()
    with pytest.raises(EngineError, match="closed"):
        list(events)
    with pytest.raises(UsageError, match="closed"):
        stream(shared, (3,))
    assert_idle(shared)


def test_choices_arrive_in_one_inbox() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=512))
    sampling = SamplingParams(seed=1, temperature=2.0, logit_bias={NAN_TOKEN: -100.0}, max_tokens=9)
    request = Request(shared.new_id(), (3, 4, 5), sampling, num_choices=3)
    events = EventStream(shared, shared.submit([request]), [request.request_id], lambda e: e)
    tokens: dict[int, list[int]] = {}
    for event in events:
        tokens.setdefault(event.choice, []).extend(event.token_ids)
    assert sorted(tokens) == [0, 1, 2]
    assert tokens[0] == expected_output((3, 4, 5), sampling)[0]
    assert_idle(shared)


def test_closing_ends_all_choices() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=512))
    request = Request(shared.new_id(), (3, 4, 5), ENDLESS, num_choices=3)
    with EventStream(shared, shared.submit([request]), [request.request_id], lambda e: e) as events:
        next(events)
    assert_idle(shared)


def test_waiting_for_what_is_prepared_elsewhere() -> None:
    class Gate:
        num_asked = 0

        def done(self) -> bool:
            self.num_asked += 1
            return self.num_asked > 5

    shared = SharedEngine(scripted_engine(kv_tokens=512))
    gate = Gate()
    request = Request(shared.new_id(), (3, 4, 5), ENDLESS)
    inbox = shared.submit([request])
    (sequence,) = shared.engine._live[request.request_id]
    sequence.pending = gate
    events = EventStream(shared, inbox, [request.request_id], lambda e: e)
    assert tokens_of(events) == expected_output((3, 4, 5), ENDLESS)[0]
    assert gate.num_asked > 5


def test_a_deadline_ends_a_stream() -> None:
    shared = SharedEngine(scripted_engine(kv_tokens=512))
    request = Request(shared.new_id(), (3, 4, 5), ENDLESS, deadline_s=1e-9)
    events = list(EventStream(shared, shared.submit([request]), [request.request_id], lambda e: e))
    assert [event.finish_reason for event in events] == [FinishReason.DEADLINE]
    assert "deadline of 1e-09 s" in events[0].error
    assert_idle(shared)
