"""Running the model: from the shares of a step to the arguments of one run of the recorded program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Backend, Batch, KVSpec, Op, Program, Recorder, Value
from quipu.engine.scheduler import Work
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec

Run = Callable[[Batch], NDArray[np.float32]]


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
        deterministic: run no more tokens at a time than the backend gives the same bits whatever lies beside them. A
            larger step takes several runs.
        whole_prompts: every share is a whole prompt that must not be cut, as encoders need it. In deterministic mode
            each then has a run of its own.

    Attributes:
        kv: the memory of the KV cache.
        run: runs the program on the arguments of a run; the result is valid until the next one.
    """

    def __init__(
        self,
        program: Program,
        backend: Backend,
        kv_spec: KVSpec,
        num_pages: int,
        max_tokens: int,
        *,
        deterministic: bool = False,
        whole_prompts: bool = False,
    ) -> None:
        self.kv = backend.create_kv_storage(kv_spec, num_pages)
        self._backend = backend
        self._one_prompt_each = deterministic and whole_prompts
        is_cut = deterministic and not whole_prompts
        self._max_run_tokens = min(max_tokens, backend.max_uniform_tokens) if is_cut else max_tokens
        self.run = self.compile(program)
        self._count = np.arange(self._max_run_tokens + 1, dtype=np.int32)

    def compile(self, program: Program) -> Run:
        """What runs another program over the same KV cache, for the parts that `runs` gives."""
        executable = self._backend.compile(program, max_tokens=self._max_run_tokens)
        return lambda batch: executable.run(batch, self.kv)

    def runs(self, step: Sequence[Work]) -> Iterable[Sequence[Work]]:
        """The step in parts that are one run each: a single one, unless the engine is deterministic."""
        if self._one_prompt_each:
            return [[work] for work in step]
        num_tokens = sum([work.num_tokens for work in step])
        return [step] if num_tokens <= self._max_run_tokens else parts(step, self._max_run_tokens)

    def forward(self, step: Sequence[Work]) -> NDArray[np.float32]:
        """Compute a step and return float32 [sum of num_outputs, vocab], valid until the next step."""
        if not step:
            return np.zeros((0, 0), dtype=np.float32)
        num_tokens = sum([work.num_tokens for work in step])
        if num_tokens <= self._max_run_tokens:
            return self.run(self.batch(step))
        return np.concatenate([self.run(self.batch(part)).copy() for part in parts(step, self._max_run_tokens)])

    def batch(self, step: Sequence[Work]) -> Batch:
        """The arguments of a run: sequences one after another, in the order of the step."""
        size = len(step)
        num_tokens = [work.num_tokens for work in step]
        num_outputs = [work.num_outputs for work in step]
        begins = np.array([work.begin for work in step], dtype=np.int32)
        if max(num_tokens) == 1 == min(num_outputs) == max(num_outputs):  # all decode: the common step
            token_ids = np.array([work.sequence.token(work.begin) for work in step], dtype=np.int32)
            positions, kv_lengths = begins, begins + 1
            query_starts, output_rows = self._count[: size + 1], self._count[:size]
        else:
            token_ids = np.concatenate(
                [work.sequence.tokens(work.begin, work.begin + work.num_tokens) for work in step]
            )
            query_starts = np.array([0, *itertools.accumulate(num_tokens)], dtype=np.int32)
            kv_lengths = begins + np.array(num_tokens, dtype=np.int32)
            positions = _ranges(begins, np.array(num_tokens, dtype=np.int32))
            rows = np.array(num_outputs, dtype=np.int32)
            output_rows = _ranges(query_starts[1:] - rows, rows)
        return Batch(token_ids, positions, query_starts, kv_lengths, _page_tables(step), output_rows)


def parts(step: Sequence[Work], max_tokens: int) -> Iterator[list[Work]]:
    """The step in pieces of at most `max_tokens`, with the same tokens and rows in the same order."""
    part: list[Work] = []
    room = max_tokens
    for work in step:
        end = work.begin + work.num_tokens
        first_output = end - work.num_outputs
        begin = work.begin
        while begin < end:
            piece_end = min(end, begin + room)
            num_outputs = max(0, piece_end - max(begin, first_output))
            completes = work.completes and piece_end == end
            num_tokens = piece_end - begin
            part.append(work._replace(begin=begin, num_tokens=num_tokens, completes=completes, num_outputs=num_outputs))
            room -= piece_end - begin
            begin = piece_end
            if room == 0:
                yield part
                part, room = [], max_tokens
    if part:
        yield part


def _page_tables(step: Sequence[Work]) -> NDArray[np.int32]:
    """int32 [sequences, pages of the longest table]; shorter ones are padded with 0."""
    tables = [work.sequence.table.pages for work in step]
    rows = np.zeros((len(tables), max(map(len, tables))), dtype=np.int32)
    for row, pages in zip(rows, tables, strict=True):
        row[: len(pages)] = pages
    return rows


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
