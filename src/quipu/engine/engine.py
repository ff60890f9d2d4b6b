"""The engine: requests in, events out, one synchronous step at a time.

    submit -> schedule -> forward -> sample -> commit -> events

There is no thread and no loop in here; whoever wants progress calls `step`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Backend, Recorder
from quipu.engine.arrivals import Arrivals, EngineTokenizer
from quipu.engine.constraining import CompileConstraint, Constraining, Refusal
from quipu.engine.deadlines import Deadlines
from quipu.engine.draft_model import DraftModel, DraftModelDrafter
from quipu.engine.embedding import Embedder
from quipu.engine.fairness import AGING_S
from quipu.engine.machine import available_memory_bytes
from quipu.engine.memory import plan_memory
from quipu.engine.outcomes import Outcomes
from quipu.engine.pages import PageAllocator
from quipu.engine.runner import RunnableModel, Runner, weight_bytes, workspace_bytes
from quipu.engine.sampler import Sampler
from quipu.engine.saved_state import SavedState
from quipu.engine.scheduler import Scheduler, Work
from quipu.engine.sequence import SequenceState
from quipu.engine.sequence_cache import (
    CacheOptions,
    SequenceCache,
    check_shift,
    open_prefix_cache,
    state_fingerprint,
)
from quipu.engine.speculating import Speculating, SpeculationOptions
from quipu.engine.stats import EngineStats
from quipu.engine.step_time import StepTimeModel
from quipu.errors import ContextLengthError, InvalidRequestError, UsageError
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec
from quipu.types import Event, FinishReason, Request

if TYPE_CHECKING:
    from random import Random

_OUTPUT_BYTES = 64 << 20  # a step with the logits of many prompt tokens keeps them within this
_FEWEST_OUTPUTS = 16
_NO_PREFIXES = "this model embeds whole texts, so no beginnings of them are kept: the cache folder is not used"


class Engine:
    """Continues many token sequences at once with one model.

    `submit`, `check` and `abort` may be called from any thread at any time; what they ask for happens at the beginning
    of the next step. All else belongs to the one thread that steps.

    Attributes:
        ctx_size: most tokens of a request, its prompt included.
        vocab_size: rows of the model's embedding.
        plan: the memory plan.
        step_time: how long steps take, learned while they run.
        warnings: what the user should know, one sentence each.
        last_ended: the computed tokens of the sequence that ended last, and its `cache_salt`.
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
        kv_bytes: int | None = None,
        cache: CacheOptions = CacheOptions(),  # noqa: B008 - frozen
        fingerprint: Callable[[], bytes] = bytes,
        page_size: int = 64,
        itl_target_s: float | None = None,
        aging_s: float = AGING_S,
        deterministic: bool = False,
        compile_constraint: CompileConstraint | None = None,
        speculation: SpeculationOptions = SpeculationOptions(),  # noqa: B008 - frozen
        draft_model: DraftModel | None = None,
        shuffle_pages: Random | None = None,
        clock: Callable[[], float] = time.perf_counter,
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
            kv_bytes: bytes of the KV cache, instead of `kv_tokens`.
            cache: what the prefix cache may use.
            fingerprint: tells models apart in files with saved pages; called only where there are such files.
            page_size: tokens per page of the KV cache.
            itl_target_s: seconds that a step may take, and so the tokens of a stream lie apart, while prompts of others
                are computed. None: twice what the streams would take alone.
            aging_s: time in which a waiting request climbs one priority.
            deterministic: give a request the same tokens and logits, bit for bit, whatever else is computed beside it
                and however its prompt is cut. Long prompts take several times as long.
            compile_constraint: makes a constraint; called in threads. None: constrained requests are refused.
            speculation: where guesses at the next tokens come from, for requests that do not say.
            draft_model: a smaller model that guesses.
            shuffle_pages: hands out pages in random order; for tests.
            clock: seconds that only grow; for tests.

        Raises:
            UsageError: a size or a time is out of range, or a draft model is asked for and missing.
            UnsupportedModelError: the draft model has another vocabulary.
            InsufficientMemoryError: weights, KV cache and workspace do not fit the free memory.
        """
        for name, size in (("batch_size", batch_size), ("ubatch_size", ubatch_size)):
            if size < 1:
                raise UsageError(f"{name} must be 1 or more, not {size}")
        for name, seconds in (("itl_target_s", itl_target_s), ("aging_s", aging_s)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise UsageError(f"{name} must be a number of seconds above 0, not {seconds}")
        self.vocab_size = model.spec.vocab_size
        max_tokens, max_outputs = _step_sizes(model, ctx_size, min(batch_size, ubatch_size))
        unused_cache: tuple[str, ...] = ()
        if model.embedding.is_encoder:
            unused_cache = () if cache.folder is None else (_NO_PREFIXES,)
            cache = CacheOptions(enabled=False)
        program = model.record(Recorder())
        kv_spec = model.kv_spec(*kv_types, page_size)
        self.plan = plan_memory(
            kv_spec,
            weight_bytes=weight_bytes(program),
            workspace_bytes=workspace_bytes(program, max_tokens, max_outputs),
            trained_ctx=model.spec.context_length,
            ctx_size=ctx_size,
            kv_tokens=kv_tokens,
            kv_bytes=kv_bytes,
            cache_bytes=cache.max_bytes if cache.enabled else 0,
            available_bytes=available_memory_bytes(),
        )
        self.ctx_size = self.plan.ctx_size
        self.warnings = self.plan.warnings + unused_cache
        self._clock = clock
        self._runner = Runner(
            program,
            backend,
            kv_spec,
            self.plan.num_pages,
            max_tokens,
            deterministic=deterministic,
            whole_prompts=model.embedding.is_encoder,
        )
        self._embedder = Embedder(model, self._runner)
        self._pages = PageAllocator(
            self.plan.num_pages, page_size, max_kept=self.plan.max_kept_pages, shuffle=shuffle_pages
        )
        self._fingerprint = fingerprint
        model_fingerprint = b"" if cache.folder is None else fingerprint()
        prefix_cache = open_prefix_cache(cache, self._pages, self._runner.kv, model_fingerprint, deterministic)
        self._cache = SequenceCache(self._pages, prefix_cache)
        self.last_ended: tuple[NDArray[np.int32], str] = np.zeros(0, dtype=np.int32), ""
        self.step_time = StepTimeModel()
        self._scheduler = Scheduler(
            self._pages,
            self._cache,
            self.step_time,
            max_tokens=max_tokens,
            max_outputs=max_outputs,
            itl_target_s=itl_target_s,
            aging_s=aging_s,
            whole_prompts=model.embedding.is_encoder,
        )
        self._deadlines = Deadlines()
        self._constraining = Constraining(compile_constraint, self.vocab_size)
        drafter = None
        if draft_model is not None:
            drafter = DraftModelDrafter(
                draft_model,
                backend,
                sampler,
                target=tokenizer,
                vocab_size=self.vocab_size,
                ctx_size=self.ctx_size,
                kv_types=kv_types,
                page_size=page_size,
                max_tokens=max_tokens,
                max_outputs=max_outputs,
                needed_bytes=self.plan.needed_bytes,
                clock=clock,
            )
        self._speculating = Speculating(
            speculation,
            self.step_time,
            self._constraining,
            max_run_tokens=None if deterministic else backend.max_uniform_tokens,
            draft_model=drafter,
        )
        self._arrivals = Arrivals(
            tokenizer, sampler, self._cache, vocab_size=self.vocab_size, ctx_size=self.ctx_size, clock=clock
        )
        self._outcomes = Outcomes(
            sampler, self._constraining, self._speculating, self._scheduler, self._cache, self._drop
        )
        self._live: dict[str, list[SequenceState]] = {}  # the choices of each request that have not ended
        self._new: deque[SequenceState] = deque()
        self._aborts: deque[str] = deque()
        self._num_steps = self._num_tokens = self._num_step_tokens = 0

    @property
    def embedding(self) -> EmbeddingSpec:
        """How the model embeds text."""
        return self._embedder.spec

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._live)

    @property
    def kv_size(self) -> int:
        """Tokens that the KV cache holds."""
        return self._pages.num_pages * self._pages.page_size

    @property
    def page_size(self) -> int:
        return self._pages.page_size

    @property
    def page_bytes(self) -> int:
        return self._runner.kv.spec.bytes_per_page

    @property
    def num_running(self) -> int:
        """Sequences that are being computed; each choice of a request is one."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Sequences that are not."""
        return len(self._scheduler.waiting) + len(self._scheduler.held) + len(self._new)

    @property
    def num_preemptions(self) -> int:
        return self._scheduler.num_preemptions

    def stats(self) -> EngineStats:
        """What the engine is doing. May be called from any thread."""
        return EngineStats(
            self.num_running,
            self.num_waiting,
            self._num_steps,
            self._num_tokens,
            self.num_preemptions,
            self._num_step_tokens,
            self._pages.num_pages,
            self._pages.num_free,
            self._scheduler.mean_output_tokens,
            self.step_time.last_times,
            self._speculating.stats.num_drafted,
            self._speculating.stats.num_accepted,
        )

    def check_request(self, request: Request) -> None:
        """Refuse what could never be carried out.

        Raises:
            InvalidRequestError: the prompt is empty, a token id is not in the vocabulary, there is a constraint and no
                vocabulary, a context shift would have next to nothing to drop, there is no draft model to ask, or the
                model does not give what is asked for: text, embeddings or scores.
            ContextLengthError: the prompt leaves no room for a token in the context.
        """
        prompt = request.prompt_token_ids
        if len(prompt) == 0:
            raise InvalidRequestError("the prompt has no tokens; give at least one", field="prompt")
        self._arrivals.check_ids(request)
        self._embedder.check(request)
        self._speculating.check(request)
        self._constraining.check(request.constraint)
        room_for_token = 0 if request.sampling.max_tokens == 0 else 1
        if len(prompt) + room_for_token > self.ctx_size:
            raise ContextLengthError(len(prompt), self.ctx_size)
        check_shift(request, self.ctx_size)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            InvalidRequestError: as for `check_request`, or the id is in use.
            ContextLengthError: as for `check_request`.
        """
        self.check_request(request)
        if request.request_id in self._live:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use; choose another", field="id")
        choices = self._arrivals.open(request)
        self._live[request.request_id] = choices
        self._new.extend(choices)

    def abort(self, request_id: str) -> None:
        """End a request at the beginning of the next step. One that has ended, or never was, is ignored."""
        self._aborts.append(request_id)

    def step(self) -> list[Event]:
        """Compute up to a budget of tokens for the requests at hand, and return what came out of it."""
        events = self.settle()
        began_s = self._clock()
        step = self._scheduler.schedule(began_s)
        if not step:
            return events
        for work in step:
            work.sequence.started_s = work.sequence.started_s or began_s
        texts = [work for work in step if work.sequence.request.pooling is not None]
        generating = [work for work in step if work.sequence.request.pooling is None] if texts else step
        generating = self._speculating.extend(generating, self._scheduler)
        drafted_s = self._clock()
        embeddings = self._embedder.forward(texts)
        logits = self._runner.forward(generating)
        chosen = self._outcomes.sample(generating, logits)
        ended_s = self._clock()
        self._observe([*texts, *generating], ended_s - drafted_s)
        events += self._outcomes.commit_embeddings(texts, embeddings, ended_s)
        events += self._outcomes.commit(generating, logits, chosen, ended_s)
        if not self._live:
            self._pages.check_integrity([])
        return events

    def settle(self) -> list[Event]:
        """Let arrivals, aborts and deadlines take effect without computing anything, and return the events."""
        while self._new:
            sequence = self._new.popleft()
            if request_constraint := sequence.request.constraint:
                sequence.pending = self._constraining.submit(sequence, request_constraint)
            self._cache.arrive(sequence)
            self._scheduler.add(sequence)
            if sequence.request.deadline_s is not None:
                self._deadlines.add(sequence)
        events = [self._refuse(refusal) for refusal in self._constraining.settle()]
        while self._aborts:
            choices = list(self._live.get(self._aborts.popleft(), ()))
            events += [self._end(sequence, FinishReason.ABORT) for sequence in choices]
        if len(self._deadlines):
            now_s = self._clock()
            for sequence in self._deadlines.late(now_s, self._scheduler.latest_start_s):
                events.append(self._end(sequence, FinishReason.DEADLINE, _deadline_error(sequence, now_s)))
        return events

    def reset(self) -> None:
        """Drop all requests without a word: a step that failed leaves the engine between two states."""
        self._new.clear()
        self._aborts.clear()
        self._deadlines.clear()
        self._scheduler.clear()
        self._constraining.reset()
        self._speculating.clear()
        self._live.clear()
        self._embedder.clear()
        self.clear_cache()  # of what the step was writing, nothing can be said

    def clear_cache(self) -> None:
        """Forget what could be reused. What requests hold stays with them; files stay where they are."""
        if self._cache.cache is not None:
            self._cache.cache.clear()

    def close(self) -> None:
        """End the threads that compile constraints, and those that write and read pages on disk."""
        self._constraining.close()
        if self._cache.store is not None:
            self._cache.store.close()

    @property
    def state_fingerprint(self) -> bytes:
        """What a saved state belongs to."""
        return state_fingerprint(self._fingerprint(), self._runner.kv)

    def export_state(self, token_ids: Sequence[int] | NDArray[np.int32], cache_salt: str = "") -> SavedState:
        """The state of a sequence that has ended, as far as it is still in the cache.

        Raises:
            UsageError: nothing of it is.
        """
        tokens = np.array(token_ids, dtype=np.int32)
        cache = self._cache.cache
        num_tokens, pages = (0, []) if cache is None else cache.export(tokens, cache_salt)
        if num_tokens == 0:
            raise UsageError("nothing of these tokens is in the KV cache; compute them first, with the same cache_salt")
        return SavedState(tokens[:num_tokens], pages)

    def export_request(self, request_id: str) -> SavedState:
        """The state of a request that is running, of its first choice where it has several.

        Raises:
            UsageError: there is no such request, or nothing of it is computed.
        """
        sequence = next(iter(self._live.get(request_id, ())), None)
        if sequence is None or sequence.num_computed == 0:
            raise UsageError(f"request {request_id!r} has nothing computed that could be saved; wait until it runs")
        table = sequence.table.pages[: self._pages.pages_for(sequence.num_computed)]
        tokens = sequence.tokens(0, sequence.num_computed).copy()
        return SavedState(tokens, [self._runner.kv.read_page(page) for page in table])

    def import_state(self, state: SavedState, cache_salt: str = "") -> int:
        """Make a state findable for later requests; how many of its tokens there was room for.

        Raises:
            UsageError: the prefix cache is off.
        """
        if self._cache.cache is None:
            raise UsageError("a state can only be restored into the prefix cache, which is off; switch it on")
        return self._cache.cache.restore(state.token_ids, state.pages, cache_salt)

    def check_integrity(self) -> None:
        """Assert that pages and requests are accounted for."""
        scheduler = self._scheduler
        queued = [*scheduler.running, *scheduler.waiting, *scheduler.held, *self._new]
        live = [sequence for choices in self._live.values() for sequence in choices]
        assert set(queued) == set(live), "a request is lost"
        assert len(queued) == len(live), "a request is queued twice"
        for request_id, choices in self._live.items():
            assert choices, "a request has ended and is still known"
            for sequence in choices:
                assert sequence.request_id == request_id
                assert sequence.siblings is choices
                assert sequence.finish_reason is None
        self._pages.check_integrity([sequence.table for sequence in queued])
        if self._cache.cache is not None:
            self._cache.cache.check_integrity()
        self._speculating.check_integrity()
        for sequence in scheduler.running:
            assert sequence.num_drafts == 0, "drafts that no step has settled"
            assert len(sequence.table) >= self._pages.pages_for(sequence.num_computed), "computed tokens without pages"
        for sequence in (*scheduler.waiting, *scheduler.held):
            assert len(sequence.table) == sequence.num_computed == 0, "a waiting request holds pages"

    def _observe(self, step: list[Work], seconds: float) -> None:
        """Count a step, and learn from the time it took."""
        num_tokens = sum([work.num_tokens for work in step])
        # Token i of a sequence attends to i + 1 tokens.
        products = sum([work.num_tokens * (work.begin + (work.num_tokens + 1) / 2) for work in step])
        self.step_time.observe(num_tokens, products / num_tokens, seconds)
        self._speculating.observe(num_tokens, products / num_tokens, seconds)
        self._num_steps += 1
        self._num_tokens += num_tokens
        self._num_step_tokens = num_tokens

    def _refuse(self, refusal: Refusal) -> Event:
        """End a request whose constraint cannot be carried out."""
        refusal.sequence.error_field = refusal.field
        return self._end(refusal.sequence, FinishReason.ERROR, refusal.error)

    def _end(self, sequence: SequenceState, reason: FinishReason, error: str = "") -> Event:
        """End a sequence from outside."""
        text = sequence.end(reason, error)
        event = sequence.event((), text, self._clock())
        self._drop(sequence)
        return event

    def _drop(self, sequence: SequenceState) -> None:
        self._embedder.drop(sequence)
        if sequence.num_computed and sequence.request.pooling is None:
            self.last_ended = sequence.tokens(0, sequence.num_computed).copy(), sequence.request.cache_salt
        self._constraining.drop(sequence)
        self._speculating.drop(sequence)
        self._scheduler.remove(sequence)
        if sequence.request.deadline_s is not None:
            self._deadlines.forget(sequence)
        if not self._live[sequence.request_id]:
            del self._live[sequence.request_id]


def _step_sizes(model: RunnableModel, ctx_size: int | None, batch_size: int) -> tuple[int, int]:
    """Most tokens of a step, and most rows of logits or vectors.

    Raises:
        UsageError: an encoder is asked for a longer context than it has positions.
    """
    if model.embedding.is_encoder:  # computes a text in one step, and has a vector for each token
        num_positions = model.spec.context_length
        if ctx_size is not None and ctx_size > num_positions:
            raise UsageError(f"this model has {num_positions} positions; ctx_size {ctx_size} has to be at most that")
        max_tokens = max(batch_size, num_positions if ctx_size is None else ctx_size)
        return max_tokens, max_tokens
    within_bytes = min(batch_size, _OUTPUT_BYTES // (4 * model.spec.vocab_size))
    return batch_size, max(min(_FEWEST_OUTPUTS, batch_size), within_bytes)


def _deadline_error(sequence: SequenceState, now_s: float) -> str:
    limit = f"the deadline of {sequence.request.deadline_s:g} s"
    if sequence.num_generated:
        return f"{limit} has passed while the request was running; allow it more time or ask for fewer tokens"
    if now_s >= sequence.deadline:
        return f"{limit} has passed before the first token; allow the request more time or send it again later"
    return f"{limit} would have been missed, as the prompt alone takes longer than what is left of it; allow more time"
