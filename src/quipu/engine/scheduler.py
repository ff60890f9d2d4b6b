"""Which tokens the next step computes: {sequence: how many}, under a budget of tokens, time, pages and rows of logits.

Sequences that decode come first, then running ones with a part of their known tokens left to compute, then waiting
ones: the highest priority first, keys in turn (fairness.py). A waiting one starts when its known tokens fit beside what
the running ones are expected to need. When pages run out all the same, the running sequence of the lowest priority, of
those the latest, gives its pages back and starts over later.

Beside streams that somebody reads, prompts are cut into chunks that keep the step within a time. By default that is
twice what the decoding sequences would take alone: an even split, which slows a stream down to half at worst and a lone
long prompt likewise. A time in seconds would be no bound for one model and no use for another.

Several choices of one request: the first one computes the prompt, the others wait for it and share its full pages,
found by the prefix cache or, where that is off for the request, taken from a choice that runs. The rest of the prompt,
less than a page, each computes itself: cheaper than it sounds, as they do it in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quipu.engine.fairness import AGING_S, OUTPUT_WEIGHT, PROMPT_WEIGHT, TokenCounters, WaitingQueue
from quipu.engine.pages import PageAllocator
from quipu.engine.sequence import SequenceState
from quipu.engine.sequence_cache import SequenceCache
from quipu.engine.step_time import StepTimeModel

_LEAST_CHUNK = 4  # prompt tokens that a step takes even where there is no time: they cost little beside what decodes
_SLOWDOWN = 2.0  # of a stream, at most, while prompts are computed beside it
_FIRST_MEAN_OUTPUT = 64.0  # tokens, before any request has ended
_MEAN_OUTPUT_RATE = 0.05


class Work(NamedTuple):
    """One sequence's share of a step.

    Attributes:
        sequence: whose tokens.
        begin: the first of them, `sequence.num_computed`.
        num_tokens: how many.
        completes: all known tokens are computed then.
        num_outputs: rows of logits wanted, those of the last tokens.
        num_prompt_rows: how many of these are to be delivered as logits of the prompt.
        num_drafts: how many of the tokens, the last ones, are drafts: each has a row of logits.
    """

    sequence: SequenceState
    begin: int
    num_tokens: int
    completes: bool
    num_outputs: int
    num_prompt_rows: int
    num_drafts: int = 0

    @property
    def samples(self) -> bool:
        """Whether the last row of logits chooses a token."""
        return self.completes and self.sequence.wants_token


class Scheduler:
    """Orders sequences and gives them pages.

    Args:
        pages: the pages of the KV cache.
        cache: gives sequences pages that were computed before, and takes all pages back.
        step_time: predicts the time of a step.
        max_tokens: most tokens in a step.
        max_outputs: most rows of logits in a step, for requests that want those of their prompts.
        itl_target_s: seconds that a step may take beside streams; None: twice what they take alone.
        aging_s: time in which a waiting sequence climbs one priority.
        whole_prompts: a prompt is computed in one step, as encoders need it; no request is longer than `max_tokens`.

    Attributes:
        running: sequences that may hold pages.
        waiting: those that hold none.
        held: choices that wait for the first one to compute their prompt.
        num_preemptions: how often a sequence had to give its pages back.
        mean_output_tokens: of requests that ended by themselves, the later ones counting more.
    """

    def __init__(
        self,
        pages: PageAllocator,
        cache: SequenceCache,
        step_time: StepTimeModel,
        *,
        max_tokens: int,
        max_outputs: int,
        itl_target_s: float | None = None,
        aging_s: float = AGING_S,
        whole_prompts: bool = False,
    ) -> None:
        self._pages = pages
        self._cache = cache
        self._step_time = step_time
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self._itl_target_s = itl_target_s
        self._whole_prompts = whole_prompts
        self._counters = TokenCounters()
        # Of the step being planned:
        self._now_s = 0.0
        self._tokens_left = 0
        self._outputs_left = 0
        self._prompt_time_left_s: float | None = None
        self._least_chunk_left = 0
        self.running: dict[SequenceState, None] = {}
        self.waiting = WaitingQueue(self._counters, aging_s)
        self.held: dict[SequenceState, None] = {}
        self.num_preemptions = 0
        self.mean_output_tokens = _FIRST_MEAN_OUTPUT

    def add(self, sequence: SequenceState) -> None:
        """Take in a new sequence. Of several choices the first one is added first."""
        self._counters.enter(sequence.request.key)
        if sequence.siblings[0] is sequence:
            self.waiting.push(sequence)
        else:
            self.held[sequence] = None

    def remove(self, sequence: SequenceState) -> None:
        """Drop a sequence, ended or not, and free its pages."""
        sequence.siblings.remove(sequence)
        if sequence in self.running:
            del self.running[sequence]
            self._bequeath(sequence)
        elif sequence in self.held:
            del self.held[sequence]
        else:
            self.waiting.remove(sequence)
        if sequence.siblings and not any(sibling in self.running for sibling in sequence.siblings):
            self._release_held(sequence)
        self._cache.release(sequence)
        self._counters.leave(sequence.request.key)

    def clear(self) -> None:
        """Drop everything, also between the two halves of a step that failed."""
        for sequence in self.running:
            self._pages.free(sequence.table)
        self.running.clear()
        self.held.clear()
        self.waiting.clear()
        self._counters.clear()

    def schedule(self, now_s: float) -> list[Work]:
        """The next step, with pages for all its tokens. Empty only when there is nothing to do, or all has to wait."""
        self._now_s = now_s
        self._tokens_left = self._max_tokens
        self._outputs_left = self._max_outputs
        num_preemptions = self.num_preemptions
        step: dict[SequenceState, Work] = {}
        decoding = [sequence for sequence in self.running if sequence.num_remaining == 1]
        self._plan(step, decoding if len(decoding) <= self._max_tokens else sorted(decoding, key=self._rank))
        if len(self.running) > len(decoding) or self.waiting:
            self._set_prompt_time([sequence for sequence in decoding if sequence in step])
            partial = [sequence for sequence in self.running if sequence.num_remaining > 1]
            self._plan(step, sorted(partial, key=self._rank))
            if self.num_preemptions == num_preemptions:
                self._admit(step)
        return list(step.values())

    @property
    def num_tokens_left(self) -> int:
        """Tokens that the step just planned could take beside those it has, each with a row of logits."""
        return max(0, min(self._tokens_left, self._outputs_left))

    def add_drafts(self, work: Work, token_ids: Sequence[int] | NDArray[np.int32]) -> Work:
        """The share with drafts behind it, as many as there are pages for: nobody gives way to a draft."""
        sequence = work.sequence
        num_drafts = len(token_ids)
        if not self._pages.append(sequence.table, sequence.num_known + num_drafts):
            num_drafts = min(num_drafts, len(sequence.table) * self._pages.page_size - sequence.num_known)
        sequence.draft(token_ids[:num_drafts])
        self._tokens_left -= num_drafts
        self._outputs_left -= num_drafts
        return work._replace(
            num_tokens=work.num_tokens + num_drafts, num_outputs=work.num_outputs + num_drafts, num_drafts=num_drafts
        )

    def settle_drafts(self, sequence: SequenceState, num_tokens: int) -> None:
        """Of a sequence's drafts the first `num_tokens` came true. Pages that the others took are free again."""
        sequence.settle_drafts(num_tokens)
        self._pages.trim(sequence.table, sequence.num_computed)

    def advance(self, work: Work) -> None:
        """The share of a step has been computed, apart from its drafts."""
        sequence = work.sequence
        sequence.advance(work.num_tokens - work.num_drafts)
        if self.held and sequence.num_computed >= sequence.num_prompt:
            self._release_held(sequence)

    def generated(self, sequence: SequenceState) -> None:
        """A token was added to a sequence, perhaps its last one."""
        self._counters.charge(sequence.request.key, OUTPUT_WEIGHT)
        if sequence.finish_reason is not None:
            self.mean_output_tokens += _MEAN_OUTPUT_RATE * (sequence.num_generated - self.mean_output_tokens)

    def latest_start_s(self, sequence: SequenceState) -> float:
        """The moment after which a sequence cannot meet its deadline, by what is known: a lower bound of its work.

        One that waits still has to compute its known tokens before the next one comes.
        """
        if sequence in self.running:
            return sequence.deadline
        num_tokens = sequence.num_known
        steps = -(-num_tokens // self._max_tokens)
        base_s = self._step_time.times.base_s
        return sequence.deadline - self._step_time.predict(num_tokens, num_tokens / 2) - (steps - 1) * base_s

    # --- one step ----------------------------------------------------------------------------------------------------

    def _plan(self, step: dict[SequenceState, Work], sequences: list[SequenceState]) -> None:
        """Give running sequences their share of the step."""
        for sequence in sequences:
            # An earlier turn of this loop may have preempted it.
            if sequence not in self.running:
                continue
            num_tokens = self._share(sequence)
            if num_tokens and self._make_room(step, sequence, num_tokens):
                self._take(step, sequence, num_tokens)

    def _set_prompt_time(self, decoding: list[SequenceState]) -> None:
        """How long the prompts of the step may take beside what decodes."""
        self._prompt_time_left_s = None
        self._least_chunk_left = _LEAST_CHUNK
        if not any(sequence.request.streamed for sequence in decoding):
            return
        context = sum(sequence.num_known for sequence in decoding) / len(decoding)
        alone_s = self._step_time.predict(len(decoding), context)
        target_s = _SLOWDOWN * alone_s if self._itl_target_s is None else self._itl_target_s
        self._prompt_time_left_s = max(0.0, target_s - alone_s)

    def _share(self, sequence: SequenceState, num_computed: int | None = None) -> int:
        """How many tokens of `sequence`, after `num_computed`, the rest of the step's budget allows."""
        num_computed = sequence.num_computed if num_computed is None else num_computed
        num_tokens = min(sequence.num_known - num_computed, self._tokens_left)
        if self._prompt_time_left_s is not None and num_tokens > 1:
            within = self._step_time.num_tokens_within(self._prompt_time_left_s, num_computed)
            num_tokens = min(num_tokens, max(within, self._least_chunk_left))
        if sequence.num_undelivered(sequence.num_prompt):
            num_tokens = min(num_tokens, self._outputs_left)
        if self._whole_prompts and num_tokens < sequence.num_known - num_computed:
            return 0
        return max(num_tokens, 0)

    def _take(self, step: dict[SequenceState, Work], sequence: SequenceState, num_tokens: int) -> None:
        begin, num_remaining = sequence.num_computed, sequence.num_remaining
        completes = num_tokens == num_remaining
        num_prompt_rows = sequence.num_undelivered(begin + num_tokens)
        num_outputs = max(num_prompt_rows, int(completes and sequence.wants_token))
        step[sequence] = Work(sequence, begin, num_tokens, completes, num_outputs, num_prompt_rows)
        self._tokens_left -= num_tokens
        self._outputs_left -= num_outputs
        if self._prompt_time_left_s is not None and num_remaining > 1:
            times = self._step_time.times
            context = begin + num_tokens / 2
            self._prompt_time_left_s -= num_tokens * (times.per_token_s + times.per_product_s * context)
            self._prompt_time_left_s = max(0.0, self._prompt_time_left_s)
            self._least_chunk_left = max(0, self._least_chunk_left - num_tokens)

    # --- starting ----------------------------------------------------------------------------------------------------

    def _admit(self, step: dict[SequenceState, Work]) -> None:
        """Start waiting sequences whose tokens fit beside what the running ones are expected to need."""
        promised = -1
        while self._tokens_left > 0:
            sequence = self.waiting.best(self._now_s)
            if sequence is None:
                return
            num_ready, num_held = self._ready(sequence)
            if self._share(sequence, num_ready) == 0:
                return
            if promised < 0:
                promised = sum(map(self._num_promised, self.running))
            num_expected = self._pages.pages_for(self._expected_known(sequence))
            if self.running and num_expected - num_held + promised > self._pages.num_free:
                return
            self._start(sequence)
            # It may have come with less than was ready: a copy of a page, for one, needs a free one.
            num_tokens = max(1, self._share(sequence))
            if not self._pages.append(sequence.table, sequence.num_computed + num_tokens):
                return  # the next step makes room for it
            promised += self._num_promised(sequence)
            self._take(step, sequence, num_tokens)

    def _start(self, sequence: SequenceState) -> None:
        """Move a sequence from the waiting to the running ones, with the pages that are ready for it."""
        self.waiting.remove(sequence)
        self.running[sequence] = None
        self._cache.begin(sequence)
        lender = self._lender(sequence)
        num_shareable = self._num_shareable(sequence)
        if lender is not None and num_shareable > sequence.num_computed:
            self._cache.inherit(sequence, self._pages.share(lender.table, num_shareable), num_shareable)
        if not sequence.was_charged:
            sequence.was_charged = True
            self._counters.charge(sequence.request.key, PROMPT_WEIGHT * (sequence.num_prompt - sequence.num_computed))

    def _ready(self, sequence: SequenceState) -> tuple[int, int]:
        """How many of the first tokens of a waiting sequence need not be computed, and how many of their pages others
        hold: those that the prefix cache has, or a sibling's full ones.
        """
        num_cached, num_held = self._cache.peek(sequence)
        num_shareable = self._num_shareable(sequence)
        if num_cached >= num_shareable or self._lender(sequence) is None:
            return num_cached, num_held
        return num_shareable, num_shareable // self._pages.page_size

    def _lender(self, sequence: SequenceState) -> SequenceState | None:
        """A running sibling whose pages hold what `sequence` can share of the prompt."""
        if len(sequence.siblings) == 1 or sequence.num_undelivered(sequence.num_prompt):
            return None
        wanted = self._num_shareable(sequence)
        for sibling in sequence.siblings:
            if wanted and sibling is not sequence and sibling in self.running and sibling.num_computed >= wanted:
                return sibling
        return None

    def _num_shareable(self, sequence: SequenceState) -> int:
        """Tokens in full pages of the prompt; one token at least is left to compute, for its logits."""
        page_size = self._pages.page_size
        return min(sequence.num_prompt, sequence.num_known - 1) // page_size * page_size

    def _release_held(self, sequence: SequenceState) -> None:
        """Let the choices wait like others that were held until `sequence` had computed their prompt."""
        for sibling in reversed(sequence.siblings):
            if sibling in self.held:
                del self.held[sibling]
                self.waiting.push(sibling, first=True)

    def _bequeath(self, sequence: SequenceState) -> None:
        """Where the only one that holds the pages of a prompt leaves, hand them to a sibling that has not started."""
        if sequence.num_computed < sequence.num_prompt:
            return
        if any(sibling in self.running for sibling in sequence.siblings):
            return
        for heir in sequence.siblings:
            num_ready = self._num_shareable(heir)
            if heir.finish_reason is not None or heir.is_pending or num_ready == 0 or heir not in self.waiting:
                continue
            self.waiting.remove(heir)
            self.running[heir] = None
            heir.was_charged = True
            self._cache.inherit(heir, self._pages.share(sequence.table, num_ready), num_ready)
            return

    # --- pages -------------------------------------------------------------------------------------------------------

    def _expected_known(self, sequence: SequenceState) -> int:
        """Tokens that a sequence is expected to have in the end: as many generated ones as others had, or one more."""
        num_generated = sequence.num_generated
        expected = min(max(round(self.mean_output_tokens), num_generated + 1), sequence.max_tokens)
        return min(sequence.num_prompt + expected, sequence.ctx_size)

    def _num_promised(self, sequence: SequenceState) -> int:
        """Pages that a running sequence will take: without them, an admission would cause the next preemption."""
        return self._pages.num_missing(sequence.table, self._expected_known(sequence))

    def _make_room(self, step: dict[SequenceState, Work], sequence: SequenceState, num_tokens: int) -> bool:
        """Get pages for the tokens, preempting sequences of a lower rank.

        False if there are none: then the sequence waits with what it has, which those of a higher rank may take. The
        first of all never waits, because the cache holds at least one full context.
        """
        while not self._pages.append(sequence.table, sequence.num_computed + num_tokens):
            victim = max(self.running, key=self._rank)
            if victim is sequence:
                return False
            self._preempt(victim)
            work = step.pop(victim, None)
            if work is not None:
                self._tokens_left += work.num_tokens
                self._outputs_left += work.num_outputs
        return True

    def _rank(self, sequence: SequenceState) -> tuple[int, int]:
        """The order in which running sequences are served, and the reverse of that in which they give way."""
        return -self.waiting.band(sequence, self._now_s), sequence.number

    def _preempt(self, victim: SequenceState) -> None:
        """Take all pages of a running sequence, which waits again before others of its key."""
        del self.running[victim]
        self._cache.release(victim)
        victim.preempt()
        self.waiting.push(victim, first=True)
        self.num_preemptions += 1
