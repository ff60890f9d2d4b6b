"""From the logits of a step to events: sampling, what the sequences take of it, and who has ended."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from quipu.engine.constraining import Constraining, Refusal
from quipu.engine.sampler import NOT_A_NUMBER, Draw, Drawn, Sampler
from quipu.engine.scheduler import Scheduler, Work
from quipu.engine.sequence import SequenceState
from quipu.engine.sequence_cache import SequenceCache
from quipu.engine.speculating import Speculating
from quipu.errors import EngineError
from quipu.types import Event, FinishReason, Request, TokenLogprobs

_NOT_FINITE_EMBEDDING = "the model produced an embedding with NaN or infinite values; the file is damaged, get it again"


class Outcomes:
    """Turns what a step computed into tokens and events.

    Args:
        sampler: chooses tokens.
        constraining: says which tokens may be chosen.
        speculating: learns which of its drafts came true.
        scheduler, cache: told how far sequences have come.
        drop: called with each sequence that has ended.
    """

    def __init__(
        self,
        sampler: Sampler,
        constraining: Constraining,
        speculating: Speculating,
        scheduler: Scheduler,
        cache: SequenceCache,
        drop: Callable[[SequenceState], None],
    ) -> None:
        self._sampler = sampler
        self._constraining = constraining
        self._speculating = speculating
        self._scheduler = scheduler
        self._cache = cache
        self._drop = drop

    def sample(self, step: list[Work], logits: NDArray[np.float32]) -> list[Drawn | Refusal]:
        """What was chosen for every share of the step that samples, or why nothing can be."""
        sampling = [work for work in step if work.samples]
        if not sampling:
            return []
        masks, refused = self._constraining.fill([(work.sequence, work.sequence.drafts.tolist()) for work in sampling])
        draws = [_draw(work.sequence, masks.get(work.sequence)) for work in sampling]
        if sum([len(draw.drafts) + 1 for draw in draws]) < len(logits):
            # Rows of prompts, and of drafts that a constraint forbids, are left out.
            ends = itertools.accumulate([work.num_outputs for work in step])
            begins = [end - work.num_drafts - 1 for end, work in zip(ends, step, strict=True) if work.samples]
            counts = [len(draw.drafts) + 1 for draw in draws]
            logits = logits[
                [row for begin, count in zip(begins, counts, strict=True) for row in range(begin, begin + count)]
            ]
        drawn: list[Drawn | Refusal] = list(self._sampler.sample_batch(logits, draws))
        if refused:
            failed = {refusal.sequence: refusal for refusal in refused}
            drawn = [failed.get(work.sequence, one) for work, one in zip(sampling, drawn, strict=True)]
        return drawn

    def commit(
        self, step: list[Work], logits: NDArray[np.float32], drawn: list[Drawn | Refusal], now_s: float
    ) -> list[Event]:
        """Advance every sequence of the step, and report what is new."""
        events = []
        first_row = 0
        draws = iter(drawn)
        for work in step:
            sequence = work.sequence
            rows: NDArray[np.float32] | None = None
            prompt_logprobs: tuple[TokenLogprobs, ...] = ()
            if work.num_prompt_rows:
                prompt_rows = logits[first_row : first_row + work.num_prompt_rows]
                prompt_logprobs = self._prompt_logprobs(sequence, prompt_rows)
                rows = prompt_rows.copy() if sequence.request.prompt_logits else None
            chosen = next(draws) if work.samples else None
            self._scheduler.advance(work)
            token_ids: tuple[int, ...] = ()
            text = ""
            if chosen is not None:
                token_ids, text = self._add(work, chosen, now_s)
            self._cache.computed(sequence)
            if sequence.is_full:
                sequence.warnings.append(self._cache.shift(sequence, sequence.num_kept))
            if token_ids or rows is not None or prompt_logprobs or sequence.finish_reason is not None:
                event = sequence.event(token_ids, text, now_s, rows)
                logprobs = chosen.logprobs if isinstance(chosen, Drawn) else None
                if logprobs or prompt_logprobs:
                    chosen_logprobs = tuple(logprobs or ())[: len(token_ids)]
                    event = dataclasses.replace(event, logprobs=chosen_logprobs, prompt_logprobs=prompt_logprobs)
                events.append(event)
            if sequence.finish_reason is not None:
                self._drop(sequence)
            first_row += work.num_outputs
        return events

    def commit_embeddings(
        self, step: list[Work], embeddings: Mapping[SequenceState, NDArray[np.float32]], now_s: float
    ) -> list[Event]:
        """Advance the embedding requests of the step, and report those that are complete."""
        events = []
        for work in step:
            sequence = work.sequence
            self._scheduler.advance(work)
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

    def _add(self, work: Work, chosen: Drawn | Refusal, now_s: float) -> tuple[tuple[int, ...], str]:
        """Give a sequence the tokens that were chosen for it, one after another until it ends; these, and the text that
        became final.
        """
        sequence = work.sequence
        chosen_ids = chosen.token_ids if isinstance(chosen, Drawn) else []
        token_ids: list[int] = []
        text = ""
        for token_id in chosen_ids:
            if token_id < 0 or sequence.finish_reason is not None:
                break
            token_ids.append(token_id)
            text += sequence.add_token(token_id, now_s)
            if sequence.request.constraint is not None:
                text += self._follow(sequence, token_id)
            self._scheduler.generated(sequence)
        failed = sequence.finish_reason is None and (not chosen_ids or chosen_ids[-1] < 0)
        num_accepted = len(token_ids) if failed else len(token_ids) - 1
        if work.num_drafts:
            self._scheduler.settle_drafts(sequence, num_accepted)
        self._speculating.settle(work, token_ids, num_accepted)
        if failed:
            text += sequence.end(FinishReason.ERROR, _sampling_error(chosen, sequence.request))
            sequence.prefix = None  # what led to it is not kept
        return tuple(token_ids), text

    def _prompt_logprobs(self, sequence: SequenceState, rows: NDArray[np.float32]) -> tuple[TokenLogprobs, ...]:
        """Of the prompt tokens that `rows`, the next to be delivered, predict. The last row predicts none."""
        num_top = sequence.request.sampling.prompt_logprobs
        begin = sequence.num_delivered + 1
        tokens = sequence.tokens(begin, min(begin + len(rows), sequence.num_prompt))
        if num_top is None or len(tokens) == 0:
            return ()
        return tuple(self._sampler.logprobs(rows[: len(tokens)], tokens, num_top))

    def _follow(self, sequence: SequenceState, token_id: int) -> str:
        """Move the constraint on; the text that becomes final because the answer is complete, or cannot go on."""
        if sequence.finish_reason is FinishReason.STOP:
            return ""
        try:
            is_complete = self._constraining.accept(sequence, [token_id])
        except EngineError as error:
            return sequence.end(FinishReason.ERROR, str(error))
        return sequence.end(FinishReason.STOP) if is_complete else ""


def _draw(sequence: SequenceState, masks: NDArray[np.int32] | None) -> Draw:
    num_logprobs = sequence.request.sampling.logprobs
    return Draw(
        sequence.chain,
        sequence.sampler_state,
        sequence.history,
        sequence.seed,
        sequence.position,
        sequence.drafts if masks is None else sequence.drafts[: len(masks) - 1],
        masks,
        num_logprobs=-1 if num_logprobs is None else num_logprobs,
    )


def _sampling_error(chosen: Drawn | Refusal, request: Request) -> str:
    if isinstance(chosen, Refusal):
        return chosen.error
    if chosen.token_ids[-1] == NOT_A_NUMBER:
        return "the model produced NaN or infinite logits; the file is damaged, or its type is too coarse for the model"
    if request.constraint is not None:
        return "logit_bias and the constraint leave no token that both allow; allow at least one"
    return "logit_bias forbids every token; allow at least one"
