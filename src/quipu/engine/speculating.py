"""Speculation in the step: drafts for the sequences that decode, and what is learned from those that were checked.

    scheduler.schedule -> Speculating.extend -> forward -> sampler keeps what it would have chosen itself

A draft never changes a text: it is kept while it is the token that the sampler chooses at its place. Nor does it change
the bits of the logits that the sampler sees, since the runs stay as short as the backend gives the same bits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from quipu.engine.constraining import Constraining
from quipu.engine.draft_length import Acceptance, Candidate, StepCosts, draft_lengths
from quipu.engine.draft_model import DraftModelDrafter
from quipu.engine.drafting import NO_PROPOSAL, Drafter, NgramDrafter, Proposal
from quipu.engine.scheduler import Scheduler, Work
from quipu.engine.sequence import SequenceState
from quipu.engine.step_time import StepTimeModel, StepTimes
from quipu.errors import InvalidRequestError, UsageError
from quipu.types import MOST_DRAFTS, Request, Speculation

FORCED, DRAFT = "forced", "draft"
DEFAULT_DRAFT_MAX = 16
_NO_TIMES = StepTimes(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """What requests get that ask for nothing else.

    Attributes:
        source: where drafts come from.
        draft_max: most drafted tokens of a sequence in a step.
        draft_min: fewer are not worth a try.
    """

    source: Speculation = Speculation.OFF
    draft_max: int = DEFAULT_DRAFT_MAX
    draft_min: int = 0

    def __post_init__(self) -> None:
        if self.source not in tuple(Speculation):
            names = ", ".join(Speculation)
            raise UsageError(f"speculation must be one of {names}, not {self.source!r}")
        object.__setattr__(self, "source", Speculation(self.source))
        for name in ("draft_max", "draft_min"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_DRAFTS:
                raise UsageError(f"{name} must be a whole number from 0 to {MOST_DRAFTS}, not {value!r}")


class SpeculationStats(NamedTuple):
    """Since the engine was made.

    Attributes:
        num_drafts: how often a sequence had drafts in a step.
        num_drafted, num_accepted: drafted tokens that were checked, and those that came true.
    """

    num_drafts: int
    num_drafted: int
    num_accepted: int


@dataclass(slots=True)
class _Tracked:
    """What is known of one sequence.

    Attributes:
        ngrams: its index; None where it is not searched.
        proposal: what was guessed for the step under way, whether or not it was drafted.
    """

    ngrams: Drafter | None
    acceptance: Acceptance = field(default_factory=Acceptance)
    proposal: Proposal = NO_PROPOSAL


class _Share(NamedTuple):
    """A sequence that may have drafts in this step, and its place there."""

    place: int
    work: Work
    tracked: _Tracked
    kind: str
    limit: int


class Speculating:
    """Chooses, proposes and counts the drafts of an engine.

    Args:
        options: what requests get that ask for nothing else.
        step_time: predicts the time of a step.
        constraining: knows the tokens that constraints leave no choice about.
        max_run_tokens: most tokens that give the same bits in one run; None: any number does.
        draft_model: the smaller model, where there is one.

    Raises:
        UsageError: the options ask for a draft model, and there is none.
    """

    def __init__(
        self,
        options: SpeculationOptions,
        step_time: StepTimeModel,
        constraining: Constraining,
        *,
        max_run_tokens: int | None,
        draft_model: DraftModelDrafter | None = None,
    ) -> None:
        if options.source is Speculation.DRAFT and draft_model is None:
            raise UsageError("speculation with a draft model needs one; name its file")
        self._options = options
        self._constraining = constraining
        self._max_run_tokens = max_run_tokens
        self._draft_model = draft_model
        self._costs = StepCosts(step_time)
        self._tracked: dict[SequenceState, _Tracked] = {}
        self._num_drafts = self._num_drafted = self._num_accepted = 0

    @property
    def stats(self) -> SpeculationStats:
        return SpeculationStats(self._num_drafts, self._num_drafted, self._num_accepted)

    def check(self, request: Request) -> None:
        """
        Raises:
            InvalidRequestError: the request asks for a draft model, and there is none.
        """
        if request.speculation is Speculation.DRAFT and self._draft_model is None:
            raise InvalidRequestError(
                "speculation asks for a draft model, but none is loaded; load one or choose 'ngram'",
                field="speculation",
            )

    def extend(self, step: list[Work], scheduler: Scheduler) -> list[Work]:
        """The step with drafts for the sequences that decode, where they pay."""
        most = scheduler.num_tokens_left
        num_tokens = sum([work.num_tokens for work in step])
        if self._max_run_tokens is not None:
            most = min(most, self._max_run_tokens - num_tokens)
        shares = self._shares(step)
        if not shares or most <= 0:
            return step
        least = [max(1, self._bounds(share.work.sequence.request)[0]) for share in shares]
        lengths = self._lengths(step, shares, num_tokens, most)
        lengths = [length if length >= lowest else 0 for length, lowest in zip(lengths, least, strict=True)]
        self._draft(shares, lengths)
        step = list(step)
        for share, length, lowest in zip(shares, lengths, least, strict=True):
            token_ids = share.tracked.proposal.token_ids[:length]
            if len(token_ids) >= lowest:
                step[share.place] = scheduler.add_drafts(share.work, token_ids)
                self._num_drafts += step[share.place].num_drafts > 0
        return step

    def observe(self, num_tokens: int, context: float, seconds: float) -> None:
        """Learn from a step of `num_tokens` that attended to `context` tokens each, on average."""
        if self._tracked:
            self._costs.observe(num_tokens, context, seconds)

    def settle(self, work: Work, chosen: Sequence[int], num_accepted: int) -> None:
        """Learn from the tokens that were chosen for a sequence; the first `num_accepted` are drafts of it."""
        self._num_drafted += work.num_drafts
        self._num_accepted += num_accepted
        tracked = self._tracked.get(work.sequence)
        if tracked is None:
            return
        kind, token_ids = tracked.proposal
        if len(token_ids):
            tracked.acceptance.observe(kind, token_ids.tolist(), chosen)
        elif self._source(work.sequence.request) is Speculation.DRAFT:
            tracked.acceptance.relax(DRAFT)
        tracked.proposal = NO_PROPOSAL

    def drop(self, sequence: SequenceState) -> None:
        """Forget a sequence that has ended."""
        self._tracked.pop(sequence, None)
        if self._draft_model is not None:
            self._draft_model.drop(sequence)

    def clear(self) -> None:
        """Forget all sequences."""
        self._tracked.clear()
        if self._draft_model is not None:
            self._draft_model.clear()

    def check_integrity(self) -> None:
        """Assert that the draft model's pages are accounted for."""
        if self._draft_model is not None:
            self._draft_model.check_integrity()

    def _source(self, request: Request) -> Speculation:
        return self._options.source if request.speculation is None else request.speculation

    def _bounds(self, request: Request) -> tuple[int, int]:
        """Fewest and most drafts of a request."""
        options = self._options
        least = options.draft_min if request.draft_min is None else request.draft_min
        return least, options.draft_max if request.draft_max is None else request.draft_max

    def _shares(self, step: list[Work]) -> list[_Share]:
        """The sequences of the step that may have drafts, with what is proposed for them at no cost."""
        shares = []
        for place, work in enumerate(step):
            sequence = work.sequence
            request = sequence.request
            source = self._source(request)
            if (source is Speculation.OFF and request.constraint is None) or request.speculation is Speculation.OFF:
                continue
            if not work.samples or work.num_tokens > 1 or work.num_prompt_rows:
                continue
            limit = min(sequence.room - 1, self._bounds(request)[1])
            if limit <= 0:
                continue
            tracked = self._tracked.get(sequence)
            if tracked is None:
                tracked = _Tracked(NgramDrafter() if source is Speculation.NGRAM else None)
                self._tracked[sequence] = tracked
            tracked.proposal = self._free_proposal(sequence, tracked, limit)
            kind, token_ids = tracked.proposal
            if len(token_ids):
                shares.append(_Share(place, work, tracked, kind, len(token_ids)))
            elif source is Speculation.DRAFT and self._draft_model is not None:
                limit = min(limit, self._draft_model.limit(sequence))
                shares.append(_Share(place, work, tracked, DRAFT, limit))
        return shares

    def _free_proposal(self, sequence: SequenceState, tracked: _Tracked, limit: int) -> Proposal:
        """What a constraint forces, or what was said before."""
        forced = self._constraining.forced_tokens(sequence, limit)
        proposal = Proposal(FORCED, np.array(forced, dtype=np.int32))
        if not forced and tracked.ngrams is not None:
            proposal = tracked.ngrams.propose(sequence, limit)
        # Nothing is drafted from an end on: the step finds it as well.
        ends = [place for place, token in enumerate(proposal.token_ids.tolist()) if token in sequence.end_ids]
        return Proposal(proposal.kind, proposal.token_ids[: ends[0]]) if ends else proposal

    def _lengths(self, step: list[Work], shares: list[_Share], num_tokens: int, most: int) -> list[int]:
        context = sum([work.begin + work.num_tokens for work in step]) / len(step)
        return draft_lengths(
            [
                Candidate(share.tracked.acceptance.rate(share.kind), share.limit, share.kind == DRAFT)
                for share in shares
            ],
            lambda num_drafts: self._costs.predict(num_tokens + num_drafts, context),
            num_chosen=sum([work.samples for work in step]),
            most=most,
            draft_times=_NO_TIMES if self._draft_model is None else self._draft_model.step_time.times,
        )

    def _draft(self, shares: list[_Share], lengths: list[int]) -> None:
        """Have the draft model propose what was decided on."""
        limits = {
            share.work.sequence: length
            for share, length in zip(shares, lengths, strict=True)
            if share.kind == DRAFT and length > 0
        }
        if not limits or self._draft_model is None:
            return
        drafts = self._draft_model.propose(limits)
        for share in shares:
            token_ids = drafts.get(share.work.sequence, [])
            ends = [place for place, token in enumerate(token_ids) if token in share.work.sequence.end_ids]
            if token_ids:
                kept = token_ids[: ends[0]] if ends else token_ids
                share.tracked.proposal = Proposal(DRAFT, np.array(kept, dtype=np.int32))
