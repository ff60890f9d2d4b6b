"""Constraints in the engine: compiled while others run, masked in every step, and never a neighbour's problem."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_model import END, VOCAB, ScriptedBackend, expected_output, scripted_engine

from quipu.engine import Engine
from quipu.engine.constraining import TokenConstraint
from quipu.errors import EngineError, InvalidRequestError, TokenizerError
from quipu.types import ConstraintSpec, Event, FinishReason, Request, SamplingParams

SAMPLING = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=12, seed=5)
SPEC = ConstraintSpec.regex("scripted")


class ScriptedConstraint:
    """Allows the tokens of a list of sets, one after the other, and then the end."""

    def __init__(self, steps: Sequence[set[int]], *, active_from: int = 0, fails_at: int = -1) -> None:
        self.steps = list(steps)
        self.accepted: list[int] = []
        self.active_from = active_from
        self.fails_at = fails_at

    @property
    def is_active(self) -> bool:
        return len(self.accepted) >= self.active_from

    @property
    def is_complete(self) -> bool:
        return len(self.accepted) >= len(self.steps)

    def fill_masks(self, drafts: Sequence[int], masks: NDArray[np.int32]) -> int:
        assert masks.shape == (len(drafts) + 1, (VOCAB + 31) // 32)
        if len(self.accepted) == self.fails_at:
            raise EngineError("the scripted constraint failed")
        bits = np.zeros(masks.shape[1] * 32, dtype=np.uint8)
        bits[list(self.steps[len(self.accepted)])] = 1
        masks[0] = np.packbits(bits, bitorder="little").view(np.int32)
        return 0

    def accept(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            if self.is_active and token not in self.steps[len(self.accepted)]:
                raise EngineError(f"token {token} does not fit")
            self.accepted.append(token)

    def forced_tokens(self, limit: int) -> list[int]:
        return [3][:limit] if self.is_active else []


def request(
    name: str, prompt: Sequence[int] = (4, 9), spec: ConstraintSpec | None = SPEC, **sampling: object
) -> Request:
    return Request(name, tuple(prompt), replace(SAMPLING, **sampling), constraint=spec)  # type: ignore[arg-type]


def run(engine: Engine, most_s: float = 60.0) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = {}
    end_s = time.monotonic() + most_s
    while engine.has_work:
        assert time.monotonic() < end_s, "the engine does not come to an end"
        step = engine.step()
        for event in step:
            events.setdefault(event.request_id, []).append(event)
        if not step:
            time.sleep(1e-4)  # constraints are compiled in threads
    engine.check_integrity()
    return events


def tokens_of(events: Sequence[Event]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def engine_with(compile_constraint: Callable[[ConstraintSpec], TokenConstraint], **options: object) -> Engine:
    return scripted_engine(compile_constraint=compile_constraint, **options)


def test_only_allowed_tokens_are_chosen() -> None:
    steps = [{3, 4}, {7}, {8, 9, 10}, {VOCAB - 1}, {2, 5}]
    for seed in range(20):
        engine = engine_with(lambda spec: ScriptedConstraint(steps))
        engine.submit(request("a", seed=seed))
        events = run(engine)["a"]
        tokens = tokens_of(events)
        assert all(token in allowed for token, allowed in zip(tokens, steps, strict=True))
        assert events[-1].finish_reason is FinishReason.STOP, "complete without an end token"
        engine.close()


def test_the_choice_among_allowed_tokens_follows_the_model() -> None:
    """Allowing everything changes nothing."""
    everything = [set(range(VOCAB))] * 12
    engine = engine_with(lambda spec: ScriptedConstraint(everything))
    engine.submit(request("a", min_tokens=3))
    events = run(engine)["a"]
    expected, _ = expected_output((4, 9), SAMPLING)
    num_compared = min(len(expected), 12)
    if END not in expected[:3]:
        assert tokens_of(events)[:num_compared] == expected[:num_compared]


def test_neighbours_are_untouched() -> None:
    plain = {f"p{number}": expected_output((number, 8), SAMPLING)[0] for number in range(4)}
    engine = engine_with(lambda spec: ScriptedConstraint([{3}] * 6))
    for number in range(4):
        engine.submit(request(f"p{number}", (number, 8), None))
        engine.submit(request(f"c{number}", (number, 8)))
    events = run(engine)
    assert {name: tokens_of(events[name]) for name in plain} == plain
    assert all(tokens_of(events[f"c{number}"]) == [3] * 6 for number in range(4))


def test_a_lazy_constraint_leaves_the_free_part_alone() -> None:
    steps = [set(range(VOCAB))] * 3 + [{3}, {4}]
    engine = engine_with(lambda spec: ScriptedConstraint(steps, active_from=3))
    engine.submit(request("a", ignore_eos=True))
    tokens = tokens_of(run(engine)["a"])
    expected, _ = expected_output((4, 9), replace(SAMPLING, max_tokens=3))
    assert tokens[: len(expected)] == expected
    assert tokens[3:] == [3, 4]


def test_others_run_while_a_constraint_is_compiled() -> None:
    release = threading.Event()

    def slow(spec: ConstraintSpec) -> TokenConstraint:
        assert release.wait(30)
        return ScriptedConstraint([{3}])

    engine = engine_with(slow)
    engine.submit(request("slow"))
    engine.submit(request("quick", (5, 5), None))
    done: list[Event] = []
    while not any(event.finish_reason for event in done):
        done += engine.step()
    assert {event.request_id for event in done} == {"quick"}
    assert engine.has_work
    assert engine.num_waiting == 1
    assert engine.num_running == 0
    engine.check_integrity()
    begin = time.perf_counter()
    assert engine.step() == []
    assert time.perf_counter() - begin < 5, "a step waits for a moment only"
    release.set()
    assert tokens_of(run(engine)["slow"]) == [3]
    engine.close()


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (InvalidRequestError("schema: at #/a: no", field="schema"), "schema"),
        (InvalidRequestError("no"), "constraint"),
        (TokenizerError("the vocabulary is broken"), ""),
    ],
)
def test_what_cannot_be_compiled_ends_its_own_request(error: Exception, field: str) -> None:
    def refuse(spec: ConstraintSpec) -> TokenConstraint:
        raise error

    engine = engine_with(refuse)
    engine.submit(request("bad"))
    engine.submit(request("good", (6, 6), None))
    events = run(engine)
    (bad,) = events["bad"]
    assert (bad.finish_reason, bad.error, bad.error_field) == (FinishReason.ERROR, str(error), field)
    assert bad.token_ids == ()
    assert tokens_of(events["good"]) == expected_output((6, 6), SAMPLING)[0]


def test_a_constraint_that_fails_ends_its_own_request() -> None:
    engine = engine_with(lambda spec: ScriptedConstraint([{3}] * 9, fails_at=4))
    engine.submit(request("bad"))
    engine.submit(request("good", (6, 6), None))
    events = run(engine)
    assert tokens_of(events["bad"]) == [3] * 4
    last = events["bad"][-1]
    assert (last.finish_reason, last.error) == (FinishReason.ERROR, "the scripted constraint failed")
    assert last.error_field == "", "the request was not at fault"
    assert tokens_of(events["good"]) == expected_output((6, 6), SAMPLING)[0]


def test_a_request_may_be_aborted_while_it_waits_and_while_it_runs() -> None:
    release = threading.Event()

    def slow(spec: ConstraintSpec) -> TokenConstraint:
        assert release.wait(30)
        return ScriptedConstraint([{3}] * 12)

    engine = engine_with(slow)
    engine.submit(request("waits"))
    engine.step()
    engine.abort("waits")
    events = run(engine)
    assert [event.finish_reason for event in events["waits"]] == [FinishReason.ABORT]
    release.set()
    engine.submit(request("runs"))
    while not engine.num_running:
        engine.step()
    engine.abort("runs")
    assert run(engine)["runs"][-1].finish_reason is FinishReason.ABORT


def test_reset_while_compiling() -> None:
    release = threading.Event()

    def slow(spec: ConstraintSpec) -> TokenConstraint:
        assert release.wait(30)
        return ScriptedConstraint([{3}])

    engine = engine_with(slow)
    engine.submit(request("a"))
    engine.step()
    engine.reset()
    release.set()
    engine.check_integrity()
    assert not engine.has_work
    engine.submit(request("a"))
    assert tokens_of(run(engine)["a"]) == [3]
    engine.close()


def test_constraints_survive_preemption() -> None:
    steps = [{3, 4, 5}] * 20
    engine = engine_with(lambda spec: ScriptedConstraint(steps), ctx_size=32, kv_tokens=48)
    engine._scheduler.mean_output_tokens = 1.0  # too little is reserved for growth
    for number in range(4):
        engine.submit(request(f"r{number}", (number + 2,) * 8, max_tokens=20))
    events = run(engine)
    assert engine.num_preemptions > 0
    for number in range(4):
        assert len(tokens_of(events[f"r{number}"])) == 20
        assert set(tokens_of(events[f"r{number}"])) <= {3, 4, 5}


def test_length_and_completion_together_are_completion() -> None:
    engine = engine_with(lambda spec: ScriptedConstraint([{3}] * 3))
    engine.submit(request("a", max_tokens=3))
    assert run(engine)["a"][-1].finish_reason is FinishReason.STOP
    engine.submit(request("b", max_tokens=2))
    assert run(engine)["b"][-1].finish_reason is FinishReason.LENGTH


def test_a_prefix_is_no_part_of_the_text() -> None:
    spec = ConstraintSpec.regex("scripted", prefix="DD")
    engine = engine_with(lambda spec: ScriptedConstraint([{3}] * 5))  # token 3 is the letter D
    engine.submit(request("a", spec=spec))
    events = run(engine)["a"]
    assert "".join(event.text for event in events) == "DDD"
    assert tokens_of(events) == [3] * 5


def test_an_engine_without_a_compiler_refuses_constraints() -> None:
    engine = scripted_engine(ScriptedBackend())
    with pytest.raises(InvalidRequestError) as caught:
        engine.submit(request("a", spec=ConstraintSpec.regex("a", field="grammar")))
    assert caught.value.field == "grammar"
    assert not engine.has_work


def test_a_bias_cannot_bring_a_forbidden_token_back() -> None:
    engine = engine_with(lambda spec: ScriptedConstraint([{3, 4}] * 4))
    engine.submit(request("a", logit_bias={9: 1e6, 3: -5.0}))
    assert set(tokens_of(run(engine)["a"])) <= {3, 4}
