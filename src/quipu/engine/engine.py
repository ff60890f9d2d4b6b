"""The engine: requests in, events out, one synchronous step at a time.

    submit -> schedule -> forward -> sample -> commit -> events

There is no thread and no loop in here; whoever wants progress calls `step`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Backend, Recorder
from quipu.engine.embedding import Embedder
from quipu.engine.machine import available_memory_bytes
from quipu.engine.memory import plan_memory
from quipu.engine.pages import PageAllocator
from quipu.engine.runner import RunnableModel, Runner, weight_bytes, workspace_bytes
from quipu.engine.sampler import NOT_A_NUMBER, Sampler, bias_with_forbidden, chain_steps
from quipu.engine.scheduler import Scheduler, Work
from quipu.engine.sequence import Chains, Detokenizer, SequenceState
from quipu.errors import ContextLengthError, InvalidRequestError, UsageError
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec
from quipu.types import Event, FinishReason, Request, SamplingParams

if TYPE_CHECKING:
    from random import Random

_OUTPUT_BYTES = 64 << 20  # a step with the logits of many prompt tokens keeps them within this
_FEWEST_OUTPUTS = 16
_SEED_BYTES = 4
_NOT_FINITE_EMBEDDING = "the model produced an embedding with NaN or infinite values; the file is damaged, get it again"


class EngineTokenizer(Protocol):
    """What the engine needs of a tokenizer; see quipu.tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_of_generation_ids(self) -> frozenset[int]: ...

    def detokenizer(self) -> Detokenizer: ...


class Engine:
    """Continues many token sequences at once with one model.

    `submit`, `check` and `abort` may be called from any thread at any time; what they ask for happens at the beginning
    of the next step. All else belongs to the one thread that steps.

    Attributes:
        ctx_size: most tokens of a request, its prompt included.
        vocab_size: rows of the model's embedding.
        plan: the memory plan.
        warnings: what the user should know, one sentence each.
    """

    def __init__(
        self,
        model: RunnableModel,
        backend: Backend,
        tokenizer: EngineTokenizer | None,
        sampler: Sampler,
        *,
        ctx_size: int | None = None,
        kv_types: tuple[GGMLType, GGMLType] = (GGMLType.F16, GGMLType.F16),
        kv_tokens: int | None = None,
        batch_size: int = 2048,
        ubatch_size: int = 512,
        page_size: int = 64,
        shuffle_pages: Random | None = None,
    ) -> None:
        """
        Args:
            model: its program is recorded once, here.
            backend: what computes.
            tokenizer: gives text and the tokens that end a generation; None to work on token ids alone.
            sampler: what chooses tokens.
            ctx_size: most tokens of a request; None: the trained length, as far as memory allows.
            kv_types: how keys and values are stored, one of CACHE_TYPES each.
            kv_tokens: tokens that the KV cache holds over all requests; None: one full context, or several short ones.
            batch_size, ubatch_size: most tokens in a step. A step is one pass, so the smaller of the two counts.
            page_size: tokens per page of the KV cache.
            shuffle_pages: hands out pages in random order; for tests.

        Raises:
            UsageError: a size is out of range.
            InsufficientMemoryError: weights, KV cache and workspace do not fit the free memory.
        """
        for name, size in (("batch_size", batch_size), ("ubatch_size", ubatch_size)):
            if size < 1:
                raise UsageError(f"{name} must be 1 or more, not {size}")
        is_encoder = model.embedding.is_encoder
        trained_ctx = model.spec.context_length
        if is_encoder and ctx_size is not None and ctx_size > trained_ctx:
            raise UsageError(f"this model has {trained_ctx} positions; ctx_size {ctx_size} has to be at most that")
        max_tokens = min(batch_size, ubatch_size)
        if is_encoder:  # which computes a text in one step
            max_tokens = max(max_tokens, trained_ctx if ctx_size is None else ctx_size)
        self.vocab_size = model.spec.vocab_size
        max_outputs = max(min(_FEWEST_OUTPUTS, max_tokens), min(max_tokens, _OUTPUT_BYTES // (4 * self.vocab_size)))
        if is_encoder:
            max_outputs = max_tokens
        program = model.record(Recorder())
        kv_spec = model.kv_spec(*kv_types, page_size)
        self.plan = plan_memory(
            kv_spec,
            weight_bytes=weight_bytes(program),
            workspace_bytes=workspace_bytes(program, max_tokens, max_outputs),
            trained_ctx=trained_ctx,
            ctx_size=ctx_size,
            kv_tokens=kv_tokens,
            available_bytes=available_memory_bytes(),
        )
        self.ctx_size = self.plan.ctx_size
        self.warnings = self.plan.warnings
        self._tokenizer = tokenizer
        self._sampler = sampler
        self._runner = Runner(program, backend, kv_spec, self.plan.num_pages, max_tokens)
        self._pages = PageAllocator(self.plan.num_pages, page_size, shuffle=shuffle_pages)
        self._scheduler = Scheduler(
            self._pages, max_tokens=max_tokens, max_outputs=max_outputs, whole_prompts=is_encoder
        )
        self._embedder = Embedder(model, self._runner)
        self._live: dict[str, SequenceState] = {}
        self._arrivals: deque[SequenceState] = deque()
        self._aborts: deque[str] = deque()

    @property
    def embedding(self) -> EmbeddingSpec:
        """How the model embeds text."""
        return self._embedder.spec

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._live)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting) + len(self._arrivals)

    @property
    def num_preemptions(self) -> int:
        return self._scheduler.num_preemptions

    def check(self, prompt_token_ids: Sequence[int], sampling: SamplingParams) -> None:
        """Refuse what could never be carried out.

        Raises:
            InvalidRequestError: the prompt is empty, or a token id is not in the vocabulary.
            ContextLengthError: the prompt leaves no room for a token in the context.
        """
        if len(prompt_token_ids) == 0:
            raise InvalidRequestError("the prompt has no tokens; give at least one", field="prompt")
        self._check_ids("prompt", prompt_token_ids)
        self._check_ids("logit_bias", tuple(sampling.logit_bias))
        self._check_ids("stop_token_ids", sampling.stop_token_ids)
        room_for_token = 0 if sampling.max_tokens == 0 else 1
        if len(prompt_token_ids) + room_for_token > self.ctx_size:
            raise ContextLengthError(len(prompt_token_ids), self.ctx_size)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            InvalidRequestError: as for `check`, or the id is in use.
            ContextLengthError: as for `check`.
        """
        self.check(request.prompt_token_ids, request.sampling)
        self.check_embedding(request)
        if request.request_id in self._live:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use; choose another", field="id")
        sequence = self._sequence(request)
        self._live[request.request_id] = sequence
        self._arrivals.append(sequence)

    def check_embedding(self, request: Request) -> None:
        """Refuse a request for what the model does not give: text, embeddings or scores; part of `submit`.

        Raises:
            InvalidRequestError: an encoder is to generate, another model is to rank, or the request contradicts itself.
        """
        self._embedder.check(request)

    def abort(self, request_id: str) -> None:
        """End a request at the beginning of the next step. One that has ended, or never was, is ignored."""
        self._aborts.append(request_id)

    def step(self) -> list[Event]:
        """Compute up to a budget of tokens for the requests at hand, and return what came out of it."""
        events = self.settle()
        step = self._scheduler.schedule()
        if not step:
            return events
        now_s = time.perf_counter()
        for work in step:
            work.sequence.started_s = work.sequence.started_s or now_s
        embedding = [work for work in step if work.sequence.request.pooling is not None]
        if embedding:
            events += self._commit_embeddings(embedding, self._embedder.forward(embedding))
            step = [work for work in step if work.sequence.request.pooling is None]
        if step:
            logits = self._runner.forward(step)
            chosen = self._sample(step, logits)
            events += self._commit(step, logits, chosen)
        return events

    def settle(self) -> list[Event]:
        """Let arrivals and aborts take effect without computing anything, and return the events of the latter."""
        while self._arrivals:
            self._scheduler.add(self._arrivals.popleft())
        events = []
        while self._aborts:
            sequence = self._live.get(self._aborts.popleft())
            if sequence is not None:
                text = sequence.end(FinishReason.ABORT)
                events.append(sequence.event((), text, time.perf_counter()))
                self._drop(sequence)
        return events

    def reset(self) -> None:
        """Drop all requests without a word: a step that failed leaves the engine between two states."""
        self._arrivals.clear()
        self._aborts.clear()
        for sequence in self._live.values():
            self._pages.free(sequence.table)
        self._live.clear()
        self._embedder.clear()
        self._scheduler.running.clear()
        self._scheduler.waiting.clear()

    def check_integrity(self) -> None:
        """Assert that pages and requests are accounted for."""
        queued = [*self._scheduler.running, *self._scheduler.waiting, *self._arrivals]
        assert {sequence.request_id: sequence for sequence in queued} == self._live
        assert len(queued) == len(self._live), "a request is queued twice"
        self._pages.check_integrity([sequence.table for sequence in queued])
        for sequence in self._scheduler.running:
            assert len(sequence.table) >= self._pages.pages_for(sequence.num_computed), "computed tokens without pages"

    def _check_ids(self, field: str, token_ids: Sequence[int]) -> None:
        try:
            ids = np.asarray(token_ids)
        except ValueError:  # lists of several lengths
            ids = np.zeros((1, 1))
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
            raise InvalidRequestError(f"{field} must be made of token ids, which are whole numbers", field=field)
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if outside.size:
            raise InvalidRequestError(
                f"{field}: token id {outside[0]} is outside the vocabulary of {self.vocab_size} tokens", field=field
            )

    def _sequence(self, request: Request) -> SequenceState:
        sampling = request.sampling
        tokenizer = self._tokenizer
        end_ids = frozenset(sampling.stop_token_ids)
        if tokenizer is not None and not sampling.ignore_eos:
            end_ids |= tokenizer.end_of_generation_ids
        steps = chain_steps(sampling)
        chain = self._sampler.chain(steps, sampling.logit_bias)
        early_chain = chain
        if sampling.min_tokens > 0:
            early_chain = self._sampler.chain(steps, bias_with_forbidden(sampling.logit_bias, end_ids))
        return SequenceState(
            request,
            ctx_size=self.ctx_size,
            seed=int.from_bytes(os.urandom(_SEED_BYTES)) if sampling.seed is None else sampling.seed % 2**64,
            chains=Chains(chain, early_chain),
            end_ids=end_ids,
            detokenizer=None if tokenizer is None else tokenizer.detokenizer(),
            text_vocab_size=0 if tokenizer is None else tokenizer.vocab_size,
            arrival_s=time.perf_counter(),
        )

    def _sample(self, step: list[Work], logits: NDArray[np.float32]) -> dict[SequenceState, int]:
        """A token, or a negative code, for every sequence whose known tokens are all computed after this step."""
        last_rows = np.cumsum([work.num_outputs for work in step]) - 1
        rows = [row for row, work in zip(last_rows.tolist(), step, strict=True) if work.samples]
        sequences = [work.sequence for work in step if work.samples]
        if not sequences:
            return {}
        chosen = self._sampler.sample_batch(
            logits if len(rows) == len(logits) else logits[rows],
            [sequence.chain for sequence in sequences],
            [sequence.history for sequence in sequences],
            np.array([sequence.seed for sequence in sequences], dtype=np.uint64),
            np.array([sequence.num_known for sequence in sequences], dtype=np.int64),
        )
        return dict(zip(sequences, chosen, strict=True))

    def _commit(self, step: list[Work], logits: NDArray[np.float32], chosen: dict[SequenceState, int]) -> list[Event]:
        """Advance every sequence of the step, and report what is new."""
        now_s = time.perf_counter()
        events = []
        first_row = 0
        for work in step:
            sequence = work.sequence
            sequence.advance(work.num_tokens)
            token_ids: tuple[int, ...] = ()
            text = ""
            if sequence in chosen and chosen[sequence] >= 0:
                token_ids = (chosen[sequence],)
                text = sequence.add_token(token_ids[0], now_s)
            elif sequence in chosen:
                text = sequence.end(FinishReason.ERROR, _sampling_error(chosen[sequence]))
            rows = logits[first_row : first_row + work.num_prompt_rows].copy() if work.num_prompt_rows else None
            if token_ids or rows is not None or sequence.finish_reason is not None:
                events.append(sequence.event(token_ids, text, now_s, rows))
            if sequence.finish_reason is not None:
                self._drop(sequence)
            first_row += work.num_outputs
        return events

    def _commit_embeddings(
        self, step: list[Work], embeddings: Mapping[SequenceState, NDArray[np.float32]]
    ) -> list[Event]:
        """Advance the embedding requests of the step, and report those that are complete."""
        now_s = time.perf_counter()
        events = []
        for work in step:
            sequence = work.sequence
            sequence.advance(work.num_tokens)
            embedding = embeddings.get(sequence)
            if embedding is None:
                continue
            if np.isfinite(embedding).all():
                sequence.end(FinishReason.STOP)
            else:
                sequence.end(FinishReason.ERROR, _NOT_FINITE_EMBEDDING)
                embedding = None
            events.append(dataclasses.replace(sequence.event((), "", now_s), embedding=embedding))
            self._drop(sequence)
        return events

    def _drop(self, sequence: SequenceState) -> None:
        self._embedder.drop(sequence)
        self._scheduler.remove(sequence)
        del self._live[sequence.request_id]


def _sampling_error(code: int) -> str:
    if code == NOT_A_NUMBER:
        return "the model produced NaN or infinite logits; the file is damaged, or its type is too coarse for the model"
    return "logit_bias forbids every token; allow at least one"
