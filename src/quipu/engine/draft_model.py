"""Guesses at the next tokens from a second, smaller model with the same vocabulary.

It follows the sequences by their tokens: what it has computed of one is compared with what became known, and only the
difference is computed. Its guess is what the sequence's own sampler would choose from its logits, with the same random
numbers, so that the guess is right wherever the two models agree closely enough, also at a high temperature.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Backend, Batch, Recorder
from quipu.engine.machine import available_memory_bytes
from quipu.engine.memory import plan_memory
from quipu.engine.pages import PageAllocator, PageTable
from quipu.engine.runner import RunnableModel, weight_bytes, workspace_bytes
from quipu.engine.sampler import Draw, Sampler
from quipu.engine.sequence import SequenceState
from quipu.engine.step_time import StepTimeModel
from quipu.errors import UnsupportedModelError
from quipu.gguf import GGMLType

_POOL_TOKENS = 16384  # of its KV cache, unless one context takes more
_MOST_BEHIND = 64  # tokens: one that is further behind catches up first, and has no drafts in that step
_VERY_UNLIKELY = np.float32(-1e30)  # the logit of a token that the draft model does not have
_NO_DRAFTS: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class Vocabulary(Protocol):
    """What has to agree between two models."""

    @property
    def vocab_size(self) -> int: ...

    def token_bytes(self, token_id: int) -> bytes: ...


@dataclass(frozen=True)
class DraftModel:
    """A model to draft with.

    Attributes:
        model: what is run.
        tokenizer: of the same file; None where it has none.
        name: for messages, the path of its file.
    """

    model: RunnableModel
    tokenizer: Vocabulary | None = None
    name: str = "the draft model"


def check_vocabularies(target: Vocabulary | None, draft: Vocabulary | None, name: str) -> None:
    """Make sure that a token id means the same in both models.

    Raises:
        UnsupportedModelError: it does not.
    """
    if target is None or draft is None:
        if target is not draft:
            raise UnsupportedModelError(f"{name} cannot draft: one of the two models has no vocabulary to compare")
        return
    if target.vocab_size != draft.vocab_size:
        raise UnsupportedModelError(
            f"{name} cannot draft: it has {draft.vocab_size} tokens and the model {target.vocab_size}; choose a "
            "smaller model of the same family"
        )
    for token_id in range(target.vocab_size):
        if target.token_bytes(token_id) != draft.token_bytes(token_id):
            raise UnsupportedModelError(
                f"{name} cannot draft: its token {token_id} is {draft.token_bytes(token_id)!r} where the model has "
                f"{target.token_bytes(token_id)!r}; choose a smaller model of the same family"
            )


class _Follower:
    """Where the draft model stands in one sequence.

    Attributes:
        table: its pages in the draft model's KV cache.
        num_agreeing: tokens at the beginning that are computed and were known then.
        drafts: tokens that were drafted after these, all but the last of them computed.
        num_dropped: of the sequence, when this was written.
        state: of the sampler.
    """

    def __init__(self, state: Any) -> None:
        self.table = PageTable()
        self.num_agreeing = 0
        self.drafts: list[int] = []
        self.num_dropped = 0
        self.state = state


class DraftModelDrafter:
    """Drafts for several sequences at a time.

    Args:
        draft: the model.
        backend: what computes it.
        sampler: the one that made the chains of the sequences.
        target: the tokenizer of the model that is drafted for.
        vocab_size: rows of that model's embedding.
        ctx_size: most tokens of a sequence.
        kv_types: how keys and values are stored.
        max_tokens, max_outputs: most tokens and rows of logits in a run.
        needed_bytes: memory that is planned for already, and not allocated yet.

    Attributes:
        step_time: how long its runs take.

    Raises:
        UnsupportedModelError: the vocabularies differ.
        InsufficientMemoryError: it does not fit the free memory.
    """

    def __init__(
        self,
        draft: DraftModel,
        backend: Backend,
        sampler: Sampler,
        *,
        target: Vocabulary | None,
        vocab_size: int,
        ctx_size: int,
        kv_types: tuple[GGMLType, GGMLType],
        page_size: int,
        max_tokens: int,
        max_outputs: int,
        needed_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_vocabularies(target, draft.tokenizer, draft.name)
        program = draft.model.record(Recorder())
        kv_spec = draft.model.kv_spec(*kv_types, page_size)
        self._ctx_size = min(ctx_size, draft.model.spec.context_length)
        available = available_memory_bytes()
        plan = plan_memory(
            kv_spec,
            weight_bytes=weight_bytes(program),
            workspace_bytes=workspace_bytes(program, max_tokens, max_outputs),
            trained_ctx=draft.model.spec.context_length,
            ctx_size=self._ctx_size,
            kv_tokens=max(self._ctx_size, _POOL_TOKENS),
            available_bytes=None if available is None else max(0, available - needed_bytes),
        )
        self._kv = backend.create_kv_storage(kv_spec, plan.num_pages)
        self._pages = PageAllocator(plan.num_pages, page_size)
        self._executable = backend.compile(program, max_tokens=max_tokens)
        self._max_tokens = max_tokens
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._own_vocab_size = draft.model.spec.vocab_size
        self._clock = clock
        self._followers: dict[SequenceState, _Follower] = {}  # the one that drafted last comes last
        self.step_time = StepTimeModel()

    def limit(self, sequence: SequenceState) -> int:
        """Most drafts that its context has room for."""
        return max(0, self._ctx_size - sequence.num_known)

    def propose(self, limits: Mapping[SequenceState, int]) -> dict[SequenceState, list[int]]:
        """Draft up to so many tokens, 1 or more, for each sequence.

        One that is far behind, at the beginning above all, catches up by one run instead and has no drafts yet.
        """
        drafting: list[tuple[SequenceState, _Follower, int]] = []
        for sequence, limit in limits.items():
            follower = self._follow(sequence)
            if self._make_room(follower, sequence.num_known + limit, limits) and self._is_near(sequence, follower):
                drafting.append((sequence, follower, limit))
        drafts: dict[SequenceState, list[int]] = {sequence: [] for sequence, _, _ in drafting}
        level = 0
        while drafting:
            parts = [
                (follower, self._unread(sequence, follower) if level == 0 else drafts[sequence][-1:])
                for sequence, follower, _ in drafting
            ]
            chosen = self._choose(drafting, drafts, self._run(parts))
            level += 1
            for (sequence, follower, _), token in zip(drafting, chosen, strict=True):
                if level == 1:
                    follower.num_agreeing = sequence.num_known
                if token >= 0:
                    drafts[sequence].append(token)
                    follower.drafts.append(token)
            drafting = [
                item
                for item, token in zip(drafting, chosen, strict=True)
                if len(drafts[item[0]]) < item[2] and 0 <= token < self._own_vocab_size
            ]
        return drafts

    def drop(self, sequence: SequenceState) -> None:
        """Forget a sequence."""
        follower = self._followers.pop(sequence, None)
        if follower is not None:
            self._pages.free(follower.table)

    def clear(self) -> None:
        """Forget all sequences."""
        for sequence in tuple(self._followers):
            self.drop(sequence)

    def check_integrity(self) -> None:
        """Assert that pages are accounted for."""
        self._pages.check_integrity([follower.table for follower in self._followers.values()])
        for follower in self._followers.values():
            num_computed = follower.num_agreeing + max(0, len(follower.drafts) - 1)
            assert len(follower.table) >= self._pages.pages_for(num_computed), "computed tokens without pages"

    # --- following ---------------------------------------------------------------------------------------------------

    def _follow(self, sequence: SequenceState) -> _Follower:
        """The follower of a sequence, at the last token that still agrees, and the last in the order of use."""
        follower = self._followers.pop(sequence, None)
        if follower is None:
            follower = _Follower(self._sampler.state(sequence.chain))
        self._followers[sequence] = follower
        if follower.num_dropped != sequence.num_dropped:
            follower.num_dropped = sequence.num_dropped
            follower.num_agreeing, follower.drafts = 0, []
        computed = follower.drafts[:-1]
        known = sequence.tokens(follower.num_agreeing, sequence.num_known).tolist()
        agreeing = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(computed, known, strict=False))
        follower.num_agreeing += sum(1 for _ in agreeing)
        # One at least is computed again, for its logits.
        follower.num_agreeing = min(follower.num_agreeing, sequence.num_known - 1)
        follower.drafts = []
        return follower

    def _make_room(self, follower: _Follower, num_tokens: int, keep: Mapping[SequenceState, int]) -> bool:
        """Get pages, from sequences that have not drafted for the longest time if need be."""
        while not self._pages.append(follower.table, num_tokens):
            idle = next((sequence for sequence in self._followers if sequence not in keep), None)
            if idle is None:
                return False
            self.drop(idle)
        return True

    def _is_near(self, sequence: SequenceState, follower: _Follower) -> bool:
        """Whether few tokens are left to compute before the first draft. If not, a run of them is made."""
        behind = sequence.num_known - follower.num_agreeing
        unread = sequence.tokens(follower.num_agreeing, sequence.num_known)
        if int(unread.max()) >= self._own_vocab_size:
            return False
        if behind <= min(_MOST_BEHIND, self._max_tokens):
            return True
        # The last one is left, for its logits.
        part = unread[: min(behind - 1, self._max_tokens)]
        self._run([(follower, part)])
        follower.num_agreeing += len(part)
        return False

    def _unread(self, sequence: SequenceState, follower: _Follower) -> NDArray[np.int32]:
        return sequence.tokens(follower.num_agreeing, sequence.num_known)

    # --- computing ---------------------------------------------------------------------------------------------------

    def _run(self, parts: Sequence[tuple[_Follower, Sequence[int] | NDArray[np.int32]]]) -> NDArray[np.float32]:
        """Compute the next tokens of some followers, in as few runs as they fit; float32 [parts, own vocab size], the
        logits after the last token of each."""
        logits = []
        first = num_tokens = 0
        for index, (_, token_ids) in enumerate(parts):
            if num_tokens + len(token_ids) > self._max_tokens:
                logits.append(self._run_once(parts[first:index]).copy())
                first, num_tokens = index, 0
            num_tokens += len(token_ids)
        last = self._run_once(parts[first:])
        return np.concatenate([*logits, last]) if logits else last

    def _run_once(self, parts: Sequence[tuple[_Follower, Sequence[int] | NDArray[np.int32]]]) -> NDArray[np.float32]:
        counts = np.array([len(token_ids) for _, token_ids in parts], dtype=np.int32)
        # What was drafted so far is computed, but for the last token, which is the one to compute now.
        begins = np.array(
            [follower.num_agreeing + max(0, len(follower.drafts) - 1) for follower, _ in parts], dtype=np.int32
        )
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        tables = np.zeros((len(parts), max(len(follower.table) for follower, _ in parts)), dtype=np.int32)
        for row, (follower, _) in zip(tables, parts, strict=True):
            row[: len(follower.table)] = follower.table.pages
        positions = np.concatenate(
            [np.arange(begin, begin + count, dtype=np.int32) for begin, count in zip(begins, counts, strict=True)]
        )
        token_ids = np.concatenate([np.asarray(ids, dtype=np.int32) for _, ids in parts])
        began_s = self._clock()
        logits = self._executable.run(
            Batch(token_ids, positions, starts, begins + counts, tables, starts[1:] - 1), self._kv
        )
        self.step_time.observe(len(token_ids), float(positions.mean()) + 1, self._clock() - began_s)
        return logits

    def _choose(
        self,
        drafting: Sequence[tuple[SequenceState, _Follower, int]],
        drafts: Mapping[SequenceState, list[int]],
        logits: NDArray[np.float32],
    ) -> list[int]:
        """What the sequences' samplers choose from float32 [sequences, own vocab size]; below 0 where nothing."""
        missing = self._vocab_size - self._own_vocab_size
        if missing > 0:
            logits = np.pad(logits, ((0, 0), (0, missing)), constant_values=_VERY_UNLIKELY)
        elif missing < 0:
            logits = np.ascontiguousarray(logits[:, : self._vocab_size])
        draws = []
        for sequence, follower, _ in drafting:
            drafted = drafts[sequence]
            history = sequence.history
            if len(history) and drafted:
                history = np.concatenate([history, np.array(drafted, dtype=np.int32)])
            position = sequence.position + len(drafted)
            draws.append(Draw(sequence.chain, follower.state, history, sequence.seed, position, _NO_DRAFTS))
        return [drawn.token_ids[-1] for drawn in self._sampler.sample_batch(logits, draws)]
