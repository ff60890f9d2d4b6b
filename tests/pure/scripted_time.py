"""A clock that tests move, and a model that takes as long as they say and is quick to run ten thousand times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scripted_model import END, PRIME, VOCAB, Letters, ScriptedModel, ScriptedSpec, ScriptedStorage, check_batch

from quipu.backends.program import Batch, KVSpec, KVStorage, Program
from quipu.engine import CacheOptions, Engine, ReferenceSampler


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


StepSeconds = Callable[[int, float], float]
"""Seconds of a step by its tokens and the sum of what each of them attends to."""


def linear_seconds(base_s: float, per_token_s: float, per_product_s: float) -> StepSeconds:
    return lambda num_tokens, products: base_s + per_token_s * num_tokens + per_product_s * products


@dataclass
class TimedBackend:
    """Moves a clock. The next token is a function of all tokens so far, by a checksum that is kept in the pages.

    Attributes:
        seconds: how long a step takes.
        steps: (tokens, seconds) of each run.
    """

    clock: Clock
    seconds: StepSeconds
    steps: list[tuple[int, float]] = field(default_factory=list)
    name: str = "timed"
    max_uniform_tokens: int = 1 << 30
    max_tokens: int = 0

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> ScriptedStorage:
        return ScriptedStorage(spec, num_pages)

    def compile(self, program: Program, *, max_tokens: int) -> TimedBackend:
        self.max_tokens = max_tokens
        return self

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        assert isinstance(kv, ScriptedStorage)
        check_batch(batch, self.max_tokens)
        products = float(np.sum(batch.positions + 1.0))
        seconds = self.seconds(len(batch.token_ids), products)
        self.clock.now_s += seconds
        self.steps.append((len(batch.token_ids), seconds))
        size = kv.spec.page_size
        sums = np.empty(len(batch.token_ids), dtype=np.int64)
        starts = batch.query_starts.tolist()
        for begin, end, table in zip(starts, starts[1:], batch.page_tables, strict=False):
            position = int(batch.positions[begin])
            value = 7 if position == 0 else int(kv.tokens[table[(position - 1) // size], (position - 1) % size])
            assert value >= 0, "read what was never written"
            for row, token in enumerate(batch.token_ids[begin:end].tolist(), begin):
                sums[row] = value = next_sum(value, token)
            places = batch.positions[begin:end]
            kv.tokens[table[places // size], places % size] = sums[begin:end]
        return logits_of_sums(sums[batch.output_rows])


def next_sum(value: int, token: int) -> int:
    return (value * 31 + token + 1) % PRIME


def logits_of_sums(sums: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 [rows, VOCAB] that favour one token, never the end."""
    logits = np.zeros((len(sums), VOCAB), dtype=np.float32)
    logits[np.arange(len(sums)), 2 + sums % (VOCAB - 2)] = 5.0
    logits[:, END] = -5.0
    return logits


def greedy_output(prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    """What a greedy request gets from `TimedBackend`."""
    value = 7
    for token in prompt:
        value = next_sum(value, token)
    tokens = []
    for _ in range(num_tokens):
        tokens.append(2 + value % (VOCAB - 2))
        value = next_sum(value, tokens[-1])
    return tokens


def timed_engine(clock: Clock, seconds: StepSeconds | None = None, **options: object) -> tuple[Engine, TimedBackend]:
    """An engine whose steps take simulated time. It reuses nothing, so that prompts may be alike."""
    backend = TimedBackend(clock, seconds or linear_seconds(0.02, 0.004, 1e-6))
    ctx_size = options.pop("ctx_size", 256)
    assert isinstance(ctx_size, int)
    model = ScriptedModel(ScriptedSpec(context_length=ctx_size))
    defaults: dict[str, object] = {"ctx_size": ctx_size, "page_size": 16, "kv_tokens": 4 * ctx_size, "clock": clock}
    defaults["cache"] = CacheOptions(enabled=False)
    engine = Engine(model, backend, Letters(), ReferenceSampler(), **{**defaults, **options})  # type: ignore[arg-type]
    return engine, backend
