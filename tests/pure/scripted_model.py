"""A model that computes nothing, for tests of the engine: its logits are a function of the whole sequence.

The tokens are read back from the KV pages, so any mistake with pages, positions or lengths changes the output.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Batch, KVSpec, KVStorage, Program, Recorder, Value
from quipu.engine import Engine, ReferenceSampler
from quipu.engine.sampler import Draw, request_chain
from quipu.engine.token_texts import TokenTexts
from quipu.gguf import GGMLType
from quipu.models import EmbeddingSpec
from quipu.types import FinishReason, Pooling, SamplingParams

VOCAB = 48
END = 0  # ends a generation
NAN_TOKEN = 1  # a sequence that ends with it gets logits that are NaN
PRIME = 2_147_483_647


def logits_of(tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32 [VOCAB] after a sequence of tokens."""
    value = 7
    for token in tokens.tolist():
        value = (value * 31 + token + 1) % PRIME
    logits = np.random.default_rng(value).standard_normal(VOCAB).astype(np.float32) * 3
    if tokens[-1] == NAN_TOKEN:
        logits[5] = np.nan
    return logits


@dataclass(frozen=True)
class ScriptedSpec:
    vocab_size: int = VOCAB
    context_length: int = 64


@dataclass
class ScriptedModel:
    """Counts how often it is recorded."""

    spec: ScriptedSpec = ScriptedSpec()
    embedding: EmbeddingSpec = field(default_factory=lambda: EmbeddingSpec(Pooling.LAST, VOCAB))
    num_recordings: int = 0

    def record(self, recorder: Recorder) -> Program:
        self.num_recordings += 1
        return Program((), 1, Value(0, "outputs", VOCAB))

    def record_embedding(self, recorder: Recorder, *, scores: bool) -> Program:
        """Gives the same as `record`: what the other tests call logits are vectors here."""
        return self.record(recorder)

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec:
        return KVSpec(1, 1, 2, 2, k_type, v_type, page_size)


class ScriptedStorage:
    """The token at each place of each page; -1 where nothing was written."""

    def __init__(self, spec: KVSpec, num_pages: int) -> None:
        self.spec = spec
        self.num_pages = num_pages
        self.tokens = np.full((num_pages, spec.page_size), -1, dtype=np.int32)

    layout = "scripted-1"

    def read_page(self, page: int) -> NDArray[np.uint8]:
        data = np.zeros(self.spec.bytes_per_page, dtype=np.uint8)
        tokens = self.tokens[page].view(np.uint8)
        data[: len(tokens)] = tokens
        return data

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        assert data.shape == (self.spec.bytes_per_page,)
        self.tokens[page] = data[: 4 * self.spec.page_size].view(np.int32)

    def copy_page(self, source: int, target: int) -> None:
        assert source != target
        self.tokens[target] = self.tokens[source]


@dataclass
class ScriptedBackend:
    """Checks every batch, and keeps the number of tokens of each run."""

    name: str = "scripted"
    max_uniform_tokens: int = 1 << 30
    run_sizes: list[int] = field(default_factory=list)
    fails_at: int | None = None  # the number of the run that raises an error
    max_tokens: int = 0

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> ScriptedStorage:
        return ScriptedStorage(spec, num_pages)

    def compile(self, program: Program, *, max_tokens: int) -> ScriptedBackend:
        self.max_tokens = max_tokens
        return self

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        assert isinstance(kv, ScriptedStorage)
        self.run_sizes.append(len(batch.token_ids))
        if self.fails_at == len(self.run_sizes):
            raise ValueError("the scripted failure")
        check_batch(batch, self.max_tokens)
        size = kv.spec.page_size
        histories = []
        starts = batch.query_starts.tolist()
        for begin, end, length, table in zip(starts, starts[1:], batch.kv_lengths, batch.page_tables, strict=False):
            places = batch.positions[begin:end]
            kv.tokens[table[places // size], places % size] = batch.token_ids[begin:end]
            every = np.arange(length)
            histories.append((begin, kv.tokens[table[every // size], every % size]))
        rows = []
        for row in batch.output_rows.tolist():
            begin, history = max((item for item in histories if item[0] <= row), key=lambda item: item[0])
            rows.append(logits_of(history[: batch.positions[row] + 1]))
        return np.array(rows, dtype=np.float32).reshape(len(rows), VOCAB)


def check_batch(batch: Batch, max_tokens: int) -> None:
    for array in (batch.token_ids, batch.positions, batch.query_starts, batch.kv_lengths, batch.output_rows):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert batch.page_tables.dtype == np.int32
    assert 0 < len(batch.token_ids) <= max_tokens
    assert len(batch.positions) == len(batch.token_ids) == batch.query_starts[-1]
    assert batch.query_starts[0] == 0
    counts = np.diff(batch.query_starts)
    assert (counts > 0).all()
    for sequence, count in enumerate(counts):
        begin, length = batch.query_starts[sequence], batch.kv_lengths[sequence]
        assert batch.positions[begin : begin + count].tolist() == list(range(length - count, length))
    assert (np.diff(batch.output_rows) > 0).all()
    assert ((batch.output_rows >= 0) & (batch.output_rows < len(batch.token_ids))).all()


class Letters:
    """A tokenizer of one letter per token."""

    vocab_size = VOCAB - 8  # the last rows of the embedding have no text
    end_of_generation_ids = frozenset({END})

    def detokenizer(self) -> Letters:
        return self

    def append(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(ord("A") + token) for token in token_ids)

    def flush(self) -> str:
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        return self.append([token_id]).encode()

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [ord(letter) - ord("A") for letter in text]


def scripted_engine(backend: ScriptedBackend | None = None, **options: object) -> Engine:
    """An engine on the scripted model."""
    defaults: dict[str, object] = {"ctx_size": 64, "page_size": 4, "shuffle_pages": random.Random(0)}
    model = ScriptedModel()
    return Engine(model, backend or ScriptedBackend(), Letters(), ReferenceSampler(), **{**defaults, **options})  # type: ignore[arg-type]


def expected_output(
    prompt: Sequence[int], sampling: SamplingParams, ctx_size: int = 64
) -> tuple[list[int], FinishReason]:
    """What a request has to give, from a plain loop without engine, pages or batches. No stop strings."""
    sampler = ReferenceSampler()
    end_ids = {END, *sampling.stop_token_ids}
    chain = request_chain(
        sampler,
        sampling,
        num_prompt=len(prompt),
        end_ids=end_ids,
        generation_end_ids={END},
        texts=TokenTexts(Letters()),
    )
    state = sampler.state(chain)
    no_drafts = np.zeros(0, dtype=np.int32)
    tokens = list(prompt)
    while True:
        num_generated = len(tokens) - len(prompt)
        if len(tokens) >= ctx_size or num_generated == sampling.max_tokens:
            return tokens[len(prompt) :], FinishReason.LENGTH
        array = np.array(tokens, dtype=np.int32)
        draw = Draw(chain, state, array, sampling.seed or 0, len(tokens), no_drafts)
        ((token,), _) = sampler.sample_batch(logits_of(array)[None], [draw])[0]
        if token < 0:
            return tokens[len(prompt) :], FinishReason.ERROR
        tokens.append(token)
        if token == END or token in sampling.stop_token_ids:
            return tokens[len(prompt) :], FinishReason.STOP
