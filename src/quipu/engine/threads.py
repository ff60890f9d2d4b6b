"""How many threads compute: given by the user, or found out by looking at the machine and measuring it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quipu.engine.machine import is_number
from quipu.engine.topology import Topology, last_cache_bytes
from quipu.errors import UsageError

MOST_THREADS = 1024

# The whole measurement takes about 50 ms.
_SWEEP_S = 0.05
# What is read must not be in a cache, nor take long to be touched for the first time.
_LEAST_BYTES = 64 << 20
_MOST_BYTES = 512 << 20
# Generation reads so much between two meetings of its threads: 4 GB and 200 meetings per token of a model of 7 billion
# weights in 4 bits, 0.4 GB and 150 of one of half a billion. The smaller the figure, the more a meeting weighs.
_BYTES_PER_MEETING = 8e6
# Fewer threads are as good when they are slower by less than this: measuring 10 ms is no more exact, and they leave
# cores to others.
_WORTH_A_THREAD = 0.04

Measure = Callable[[Sequence[int], int, float], Sequence[tuple[int, float, float]]]


@dataclass(frozen=True, slots=True)
class ThreadRate:
    """What a number of threads was measured to do.

    Attributes:
        num_threads: how many.
        read_bytes_per_s: bytes read from memory, all together.
        meeting_s: seconds until all know that all have arrived.
    """

    num_threads: int
    read_bytes_per_s: float
    meeting_s: float

    @property
    def generation_bytes_per_s(self) -> float:
        """Bytes of weights read per second by generation, which stops for a meeting now and then."""
        return _BYTES_PER_MEETING / (_BYTES_PER_MEETING / self.read_bytes_per_s + self.meeting_s)


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """Numbers of threads, and why.

    Attributes:
        generation: for steps of few tokens, which memory bounds.
        prompt: for steps of many tokens, which arithmetic bounds.
        reason: one sentence for people.
        rates: what was measured; empty where nothing had to be.
        owns_cores: whether each thread has a core to itself and may spin while it waits.
    """

    generation: int
    prompt: int
    reason: str
    rates: tuple[ThreadRate, ...] = ()
    owns_cores: bool = True

    @property
    def most(self) -> int:
        return max(self.generation, self.prompt)


def choose_threads(
    topology: Topology,
    measure: Measure,
    *,
    threads: int | None = None,
    threads_batch: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ThreadChoice:
    """Decide how many threads compute.

    Args:
        topology: the machine.
        measure: numbers of threads, bytes and seconds each -> (number, bytes per second, seconds per meeting) each, as
            `quipu.backends.cpu.measure_threads`; called only where more than two numbers are in question.
        threads: the user's number; None: the variable QUIPU_THREADS, or as many as measured best.
        threads_batch: the user's number for prompts; None: as `threads` where the user gave that, or all cores.
        environment: where QUIPU_THREADS is looked up.

    Raises:
        UsageError: a number is out of range.
    """
    given = "by the caller"
    if threads is None and environment.get("QUIPU_THREADS"):
        threads, given = _read_number(environment["QUIPU_THREADS"]), "by QUIPU_THREADS"
    for name, number in (("threads", threads), ("threads_batch", threads_batch)):
        if number is not None and not 1 <= number <= MOST_THREADS:
            raise UsageError(f"{name} must be between 1 and {MOST_THREADS}, not {number}")
    rates: tuple[ThreadRate, ...] = ()
    if threads is not None:
        generation, reason = threads, f"set {given}"
        prompt = threads if threads_batch is None else threads_batch
    else:
        prompt = topology.most_threads if threads_batch is None else threads_batch
        candidates = topology.thread_candidates()
        if len(candidates) <= 2:
            generation = candidates[-1]
            reason = "one for each core" if generation == len(topology.cores) else "as many as the time allowed feeds"
        else:
            rates = _measure(topology, candidates, measure)
            generation = _best(rates).num_threads
            reason = "measured: " + ", ".join(
                f"{rate.num_threads} read {rate.generation_bytes_per_s / 1e9:.1f} GB/s" for rate in rates
            )
    return ThreadChoice(generation, prompt, reason, rates, topology.owns_cores(max(generation, prompt)))


def _measure(topology: Topology, candidates: Sequence[int], measure: Measure) -> tuple[ThreadRate, ...]:
    cache_bytes = last_cache_bytes([core.processors[0] for core in topology.cores]) or 0
    num_bytes = min(max(_LEAST_BYTES, 2 * cache_bytes), _MOST_BYTES)
    return tuple(ThreadRate(*rate) for rate in measure(candidates, num_bytes, _SWEEP_S / len(candidates)))


def _best(rates: Sequence[ThreadRate]) -> ThreadRate:
    fastest = max(rate.generation_bytes_per_s for rate in rates)
    enough = [rate for rate in rates if rate.generation_bytes_per_s >= (1 - _WORTH_A_THREAD) * fastest]
    return min(enough, key=lambda rate: rate.num_threads)


def _read_number(text: str) -> int:
    if not is_number(text.strip()):
        raise UsageError(f"QUIPU_THREADS must be a whole number of threads, not {text!r}")
    return int(text)
