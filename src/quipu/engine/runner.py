"""Running the model: from the shares of a step to the arguments of one run of the recorded program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Backend, Batch, KVSpec, Op, Program, Recorder, Value
from quipu.engine.scheduler import Work
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec


class ModelSpec(Protocol):
    """What the engine asks about a model."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context_length(self) -> int: ...


class RunnableModel(Protocol):
    """What the engine needs of a model; see quipu.models."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def embedding(self) -> EmbeddingSpec: ...

    def record(self, recorder: Recorder) -> Program: ...

    def record_embedding(self, recorder: Recorder, *, scores: bool) -> Program: ...

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec: ...


class Runner:
    """Replays a model's program, which is recorded before and compiled here, once.

    Args:
        program: the recorded forward pass.
        backend: compiles it and holds the KV cache.
        kv_spec, num_pages: the KV cache.
        max_tokens: most tokens in a step.

    Attributes:
        run: runs the program on the arguments of a step; the result is valid until the next run.
    """

    def __init__(self, program: Program, backend: Backend, kv_spec: KVSpec, num_pages: int, max_tokens: int) -> None:
        self._backend = backend
        self._max_tokens = max_tokens
        self._kv = backend.create_kv_storage(kv_spec, num_pages)
        self.run = self.compile(program)

    def compile(self, program: Program) -> Callable[[Batch], NDArray[np.float32]]:
        """A function that runs another program over the same KV cache; its result is valid until its next run."""
        executable = self._backend.compile(program, max_tokens=self._max_tokens)
        return lambda batch: executable.run(batch, self._kv)

    def forward(self, step: Sequence[Work]) -> NDArray[np.float32]:
        """Compute a step and return float32 [sum of num_outputs, vocab], valid until the next step."""
        return self.run(make_batch(step))


def make_batch(step: Sequence[Work]) -> Batch:
    """The arguments of a run: sequences one after another, in the order of the step."""
    num_tokens = np.array([work.num_tokens for work in step], dtype=np.int32)
    num_computed = np.array([work.sequence.num_computed for work in step], dtype=np.int32)
    num_outputs = np.array([work.num_outputs for work in step], dtype=np.int32)
    query_starts = np.zeros(len(step) + 1, dtype=np.int32)
    np.cumsum(num_tokens, out=query_starts[1:])
    page_tables = np.zeros((len(step), max(len(work.sequence.table) for work in step)), dtype=np.int32)
    for row, work in zip(page_tables, step, strict=True):
        row[: len(work.sequence.table)] = work.sequence.table.pages
    return Batch(
        token_ids=np.concatenate([_tokens_of(work) for work in step]),
        positions=_ranges(num_computed, num_tokens),
        query_starts=query_starts,
        kv_lengths=num_computed + num_tokens,
        page_tables=page_tables,
        output_rows=_ranges(query_starts[1:] - num_outputs, num_outputs),
    )


def _tokens_of(work: Work) -> NDArray[np.int32]:
    begin = work.sequence.num_computed
    return work.sequence.tokens(begin, begin + work.num_tokens)


def _ranges(starts: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """starts[i] ... starts[i] + counts[i] - 1 for every i, one after another."""
    ends = np.cumsum(counts, dtype=np.int32)
    ranges: NDArray[np.int32] = np.arange(ends[-1], dtype=np.int32) + np.repeat(starts - (ends - counts), counts)
    return ranges


def weight_bytes(program: Program) -> int:
    """Bytes of all weights that a program reads."""
    weights = {id(weight): weight for op in program.ops for weight in op.weights if weight is not None}
    return sum(weight.num_bytes for weight in weights.values())


def workspace_bytes(program: Program, max_tokens: int, max_outputs: int) -> int:
    """Most bytes that values of a run take at a time, each kept until its last reader, and what experts pass on."""
    last_use = {value.index: number for number, op in enumerate(program.ops) for value in op.inputs}
    last_use[program.result.index] = len(program.ops)
    live: dict[int, Value] = {}
    most = routed = 0
    for number, op in enumerate(program.ops):
        routed = max(routed, _routed_bytes(op, max_tokens))
        live |= {value.index: value for value in op.outputs}
        rows = {"tokens": max_tokens, "outputs": max_outputs}
        most = max(most, sum(4 * value.width * rows[value.rows] for value in live.values()))
        live = {index: value for index, value in live.items() if last_use.get(index, 0) > number}
    return most + routed


def _routed_bytes(op: Op, max_tokens: int) -> int:
    """Room for the copies that a mixture of experts makes of each token: one of its input and one of the inner values
    per expert that it uses."""
    if op.name != "moe":
        return 0
    router, gate, _, _, shared_gate, *_ = op.weights
    assert router is not None
    assert gate is not None
    width, inner = router.shape[1], gate.shape[0] // router.shape[0]
    shared_inner = 0 if shared_gate is None else shared_gate.shape[0] + width
    num_used: int = op.attributes["num_used"]
    return 4 * max_tokens * (num_used * (width + inner) + shared_inner)
