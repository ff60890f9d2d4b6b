"""Which tokens the next step computes: {request: how many}, under a budget of tokens, pages and rows of logits.

Running requests that decode come first, then running ones with a part of their known tokens left to compute, then
waiting ones in the order of arrival. When pages run out, the request that arrived last gives its pages back and starts
over later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from quipu.engine.pages import PageAllocator
from quipu.engine.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence's share of a step.

    Attributes:
        sequence: whose tokens.
        num_tokens: how many of them, from `sequence.num_computed` on.
        completes: all known tokens are computed then.
        num_outputs: rows of logits wanted, those of the last tokens.
        num_prompt_rows: how many of these are to be delivered as logits of the prompt.
    """

    sequence: SequenceState
    num_tokens: int
    completes: bool
    num_outputs: int
    num_prompt_rows: int

    @property
    def samples(self) -> bool:
        """Whether the last row of logits chooses a token."""
        return self.completes and self.sequence.wants_token


class Scheduler:
    """Orders requests and gives them pages.

    Args:
        pages: the pages of the KV cache.
        max_tokens: most tokens in a step.
        max_outputs: most rows of logits in a step, for requests that want those of their prompts.
        whole_prompts: a prompt is computed in one step, as encoders need it; no request is longer than `max_tokens`.
    """

    def __init__(self, pages: PageAllocator, *, max_tokens: int, max_outputs: int, whole_prompts: bool = False) -> None:
        self._whole_prompts = whole_prompts
        self._pages = pages
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self._tokens_left = 0  # of the step being planned
        self._outputs_left = 0
        self.running: dict[SequenceState, None] = {}  # in the order of arrival
        self.waiting: deque[SequenceState] = deque()
        self.num_preemptions = 0

    def add(self, sequence: SequenceState) -> None:
        """Queue a new request."""
        self.waiting.append(sequence)

    def remove(self, sequence: SequenceState) -> None:
        """Drop a request, finished or not, and free its pages."""
        self._pages.free(sequence.table)
        if sequence in self.running:
            del self.running[sequence]
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> list[Work]:
        """The next step, with pages for all its tokens. Empty only when there is nothing to do."""
        self._tokens_left = self._max_tokens
        self._outputs_left = self._max_outputs
        num_preemptions = self.num_preemptions
        step: dict[SequenceState, Work] = {}
        self._plan(step, [sequence for sequence in self.running if sequence.num_remaining == 1])
        self._plan(step, [sequence for sequence in self.running if sequence.num_remaining > 1])
        if self.num_preemptions == num_preemptions:
            self._admit(step)
        return list(step.values())

    def _plan(self, step: dict[SequenceState, Work], sequences: list[SequenceState]) -> None:
        """Give running requests their share of the step."""
        for sequence in sequences:
            # An earlier turn of this loop may have preempted it.
            if sequence not in self.running:
                continue
            num_tokens = self._share(sequence)
            if num_tokens and self._make_room(step, sequence, num_tokens):
                self._take(step, sequence, num_tokens)

    def _admit(self, step: dict[SequenceState, Work]) -> None:
        """Start waiting requests whose known tokens fit beside what the running ones still need."""
        if not self.waiting:
            return
        promised = sum(map(self._num_promised, self.running))
        while self.waiting:
            sequence = self.waiting[0]
            num_tokens = self._share(sequence)
            if num_tokens == 0:
                return
            needed = self._pages.pages_for(sequence.num_known + 1)
            if self.running and needed + promised > self._pages.num_free:
                return
            self.running[self.waiting.popleft()] = None
            has_pages = self._pages.append(sequence.table, sequence.num_computed + num_tokens)
            assert has_pages, "a request was accepted that is larger than the cache"
            promised += self._num_promised(sequence)
            self._take(step, sequence, num_tokens)

    def _num_promised(self, sequence: SequenceState) -> int:
        """Pages that a running request will take soon: for its known tokens, and one to grow into.

        Without the latter, an admission would cause the next preemption.
        """
        return self._pages.num_missing(sequence.table, sequence.num_known) + 1

    def _share(self, sequence: SequenceState) -> int:
        """How many tokens of `sequence` the rest of the step's budget allows."""
        num_tokens = min(sequence.num_remaining, self._tokens_left)
        if self._whole_prompts and num_tokens < sequence.num_remaining:
            return 0
        if sequence.num_undelivered(sequence.num_prompt):
            num_tokens = min(num_tokens, self._outputs_left)
        return max(num_tokens, 0)

    def _make_room(self, step: dict[SequenceState, Work], sequence: SequenceState, num_tokens: int) -> bool:
        """Get pages for the tokens, preempting requests that came later.

        False if there are none: then the sequence waits with what it has, which those before it may take. The first of
        all never waits, because the cache holds at least one full context.
        """
        while not self._pages.append(sequence.table, sequence.num_computed + num_tokens):
            victim = next(reversed(self.running))
            if victim is sequence:
                return False
            self._preempt(victim)
            if victim in step:
                work = step.pop(victim)
                self._tokens_left += work.num_tokens
                self._outputs_left += work.num_outputs
        return True

    def _preempt(self, victim: SequenceState) -> None:
        """Take all pages of a running request, which starts over before any other that waits."""
        del self.running[victim]
        self._pages.free(victim.table)
        victim.preempt()
        self.waiting.appendleft(victim)
        self.num_preemptions += 1

    def _take(self, step: dict[SequenceState, Work], sequence: SequenceState, num_tokens: int) -> None:
        completes = num_tokens == sequence.num_remaining
        num_prompt_rows = sequence.num_undelivered(sequence.num_computed + num_tokens)
        num_outputs = max(num_prompt_rows, int(completes and sequence.wants_token))
        step[sequence] = Work(sequence, num_tokens, completes, num_outputs, num_prompt_rows)
        self._tokens_left -= num_tokens
        self._outputs_left -= num_outputs
