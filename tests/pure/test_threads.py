"""How many threads are chosen, with a scripted measurement in place of the machine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from quipu.engine.threads import ThreadChoice, choose_threads
from quipu.engine.topology import Core, Topology
from quipu.errors import UsageError


def machine(num_cores: int, num_efficient: int = 0, quota: float | None = None) -> Topology:
    capacities = [1024] * (num_cores - num_efficient) + [500] * num_efficient
    return Topology(tuple(Core((number,), capacity) for number, capacity in enumerate(capacities)), quota)


class Rates:
    """Answers with the bandwidths and meeting times it is given, and keeps what it was asked."""

    def __init__(self, gigabytes_per_s: dict[int, float], meeting_s: dict[int, float] | None = None) -> None:
        self.gigabytes_per_s = gigabytes_per_s
        self.meeting_s = meeting_s or {}
        self.asked: list[tuple[Sequence[int], int, float]] = []

    def __call__(self, counts: Sequence[int], num_bytes: int, seconds_each: float) -> list[tuple[int, float, float]]:
        self.asked.append((counts, num_bytes, seconds_each))
        return [(count, self.gigabytes_per_s[count] * 1e9, self.meeting_s.get(count, 1e-6)) for count in counts]


UNMEASURED = Rates({})


@pytest.mark.parametrize(
    ("topology", "expected"), [(machine(1), 1), (machine(2), 2), (machine(4), 4), (machine(16, quota=1.5), 2)]
)
def test_few_candidates_are_not_measured(topology: Topology, expected: int) -> None:
    choice = choose_threads(topology, UNMEASURED, environment={})
    assert (choice.generation, choice.prompt, choice.rates) == (expected, expected, ())
    assert UNMEASURED.asked == []


def test_generation_takes_what_saturates_the_memory() -> None:
    rates = Rates({2: 20, 4: 38, 8: 41, 16: 42})
    choice = choose_threads(machine(16), rates, environment={})
    assert (choice.generation, choice.prompt, choice.most) == (8, 16, 16)
    ((counts, num_bytes, seconds_each),) = rates.asked
    assert tuple(counts) == (2, 4, 8, 16)
    assert num_bytes >= 64 << 20
    assert seconds_each * len(counts) == pytest.approx(0.05)
    assert choice.reason.startswith("measured: 2 read 20.0 GB/s, 4 read")


def test_slow_meetings_count() -> None:
    """Efficient cores add bandwidth, and hold up every meeting."""
    bandwidth = {2: 20.0, 4: 40.0, 6: 40.0, 3: 30.0, 12: 46.0}
    topology = machine(12, num_efficient=8)
    assert choose_threads(topology, Rates(bandwidth), environment={}).generation == 12
    assert choose_threads(topology, Rates(bandwidth, {12: 60e-6}), environment={}).generation == 4


def test_more_threads_only_where_they_are_worth_it() -> None:
    assert choose_threads(machine(8), Rates({2: 30, 4: 30.5, 8: 31}), environment={}).generation == 2
    assert choose_threads(machine(8), Rates({2: 30, 4: 45, 8: 60}), environment={}).generation == 8


@pytest.mark.parametrize(
    ("threads", "threads_batch", "environment", "expected"),
    [
        (3, None, {}, (3, 3)),
        (3, 7, {}, (3, 7)),
        (3, None, {"QUIPU_THREADS": "5"}, (3, 3)),
        (None, None, {"QUIPU_THREADS": "5"}, (5, 5)),
        (None, 2, {"QUIPU_THREADS": " 5 "}, (5, 2)),
        (None, None, {"QUIPU_THREADS": ""}, (4, 4)),
        (None, 2, {}, (4, 2)),
        (100, None, {}, (100, 100)),
    ],
)
def test_what_the_user_says_counts(
    threads: int | None, threads_batch: int | None, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    choice = choose_threads(
        machine(4), UNMEASURED, threads=threads, threads_batch=threads_batch, environment=environment
    )
    assert (choice.generation, choice.prompt) == expected
    assert choice.most == max(expected)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2000", "9" * 30, "²"])
def test_senseless_numbers_in_the_environment(text: str) -> None:
    with pytest.raises(UsageError, match=r"(?i)threads"):
        choose_threads(machine(4), UNMEASURED, environment={"QUIPU_THREADS": text})


@pytest.mark.parametrize("name", ["threads", "threads_batch"])
@pytest.mark.parametrize("number", [0, -3, 1025])
def test_senseless_arguments(name: str, number: int) -> None:
    with pytest.raises(UsageError, match=name):
        choose_threads(machine(4), UNMEASURED, environment={}, **{name: number})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("topology", "threads", "owns"),
    [
        (machine(4), 4, True),
        (machine(4), 5, False),
        (machine(4, quota=1.5), 1, True),
        (machine(4, quota=1.5), 2, False),
        (machine(4, quota=4.0), 4, True),
    ],
)
def test_threads_spin_only_on_cores_of_their_own(topology: Topology, threads: int, owns: bool) -> None:
    choice: ThreadChoice = choose_threads(topology, UNMEASURED, threads=threads, environment={})
    assert choice.owns_cores is owns
