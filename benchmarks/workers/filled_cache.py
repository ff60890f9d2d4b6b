"""quipu's program on a cache that holds random keys and values, so that a long context need not be computed."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from quipu.api import KV_TYPES
from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Batch, KVSpec, Program, Recorder, Weight
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import load_model

_PAGE_SIZE = 64
_STEP_TOKENS = 512
_NUM_ROWS = 16  # distinct keys and values


class FilledCache:
    """One sequence of a model. Its steps are those of the engine, without scheduling and sampling around them."""

    def __init__(self, *, model: str, threads: int, ctx_size: int, kv_type: str) -> None:
        backend = CPUBackend(threads)
        with GGUFReader(model) as reader:
            loaded = load_model(reader)
        spec = loaded.kv_spec(KV_TYPES[kv_type], KV_TYPES[kv_type], _PAGE_SIZE)
        num_pages = -(-ctx_size // _PAGE_SIZE)
        self._vocab_size = loaded.spec.vocab_size
        self._pages = np.random.default_rng(1).permutation(num_pages).astype(np.int32)
        self._executable = backend.compile(loaded.record(Recorder()), max_tokens=_STEP_TOKENS)
        self._kv = backend.create_kv_storage(spec, num_pages)
        self._writer = backend.compile(_record_writer(spec), max_tokens=_STEP_TOKENS)
        self._filled = 0

    def decode(self, context: int, num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token after `context` others."""
        if context != self._filled:
            for begin in range(0, context, _STEP_TOKENS):
                end = min(context, begin + _STEP_TOKENS)
                self._writer.run(self._batch(begin, end, _NUM_ROWS), self._kv)
            self._filled = context
        seconds = []
        for position in range(context, context + num_tokens):
            begin_s = time.perf_counter()
            logits = self._executable.run(self._batch(position, position + 1, self._vocab_size), self._kv)
            logits[0].argmax()
            seconds.append(time.perf_counter() - begin_s)
        return seconds

    def _batch(self, begin: int, end: int, num_ids: int) -> Batch:
        positions: NDArray[np.int32] = np.arange(begin, end, dtype=np.int32)
        return Batch(
            token_ids=positions * 7 % num_ids,
            positions=positions,
            query_starts=np.array([0, end - begin], np.int32),
            kv_lengths=np.array([end], np.int32),
            page_tables=self._pages[None, : -(-end // _PAGE_SIZE)],
            output_rows=np.array([end - begin - 1], np.int32),
        )


def _record_writer(spec: KVSpec) -> Program:
    """A program whose attention sees one token only: it writes keys and values at hardly any cost."""
    rng = np.random.default_rng(2)
    recorder = Recorder()
    values = []
    for name, length in (("q", spec.key_length), ("k", spec.key_length), ("v", spec.value_length)):
        rows = rng.standard_normal((_NUM_ROWS, spec.num_kv_heads * length)).astype(np.float32)
        values.append(recorder.embed(Weight(name, GGMLType.F32, rows.shape, rows.view(np.uint8))))
    result = values[0]
    for layer in range(spec.num_layers):
        result = recorder.attention(
            *values, layer=layer, num_heads=spec.num_kv_heads, num_kv_heads=spec.num_kv_heads, scale=1.0, window=1
        )
    return recorder.finish(recorder.select_outputs(result))
