"""One choice of a request while it lives in the engine: its tokens, how far they are computed, when it is finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.engine.pages import PageTable
from quipu.engine.prefix_cache import PrefixChain
from quipu.engine.sampler import num_penalized
from quipu.engine.stopping import StopMatcher
from quipu.types import Event, FinishReason, Request, Reuse, Timings, Usage

ENDLESS = 1 << 62  # tokens to generate, where neither the request nor the context sets an end
_NO_TOKENS: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class Detokenizer(Protocol):
    """Turns tokens that arrive one by one into text; see quipu.tokenizer."""

    def append(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


class Pending(Protocol):
    """Something that is prepared elsewhere, such as a `concurrent.futures.Future`."""

    def done(self) -> bool: ...


class SequenceState:
    """The tokens of a request. `num_computed` of them are in the KV cache and chase the `num_known`.

    Prefill in pieces, decoding, and starting over after a preemption differ only in how large the gap is.

    Attributes:
        request: what was asked.
        choice: which of the request's choices this is, from 0.
        siblings: all choices of the request that have not ended, this one included.
        number: the order of arrival; later ones are larger.
        seed: the seed in use.
        max_tokens: most tokens to generate.
        chain: how its tokens are chosen, from the sampler.
        sampler_state: what the chain remembers of it.
        end_ids: tokens that end the generation.
        num_known: tokens of the prompt and generated ones.
        num_computed: tokens whose keys and values are in the cache.
        num_delivered: prompt tokens whose logits have been delivered, where asked for.
        num_shared: tokens whose pages were found ready when it started last.
        num_drafts: drafted tokens behind the known ones, which the step under way checks.
        num_drafted, num_accepted: drafts that were checked, and those that came true.
        num_dropped: tokens that context shifts took out; positions in the cache do not count them, `position` does.
        table: the pages that hold them.
        prefix: where it stands in the prefix cache; None: it reuses nothing.
        reuse: what the prefix cache did for it; None until it has begun.
        warnings: for its next event.
        ctx_size: most tokens that it may know at a time.
        pending: what it waits for before it can start, such as a grammar; None: nothing.
        deadline: the moment at which it has to end.
        arrival_s, started_s, first_token_s: moments; None until they come.
        finish_reason: None while it runs.
        error: one sentence, where it failed.
        error_field: the name of the field at fault, where the request was.
    """

    def __init__(
        self,
        request: Request,
        *,
        choice: int,
        siblings: list[SequenceState],
        number: int,
        ctx_size: int,
        seed: int,
        chain: Any,
        sampler_state: Any,
        end_ids: frozenset[int],
        detokenizer: Detokenizer | None,
        text_vocab_size: int,
        arrival_s: float,
    ) -> None:
        sampling = request.sampling
        self.request = request
        self.choice = choice
        self.siblings = siblings
        self.number = number
        self.seed = seed
        self.chain = chain
        self.sampler_state = sampler_state
        self.end_ids = end_ids
        self.num_prompt = len(request.prompt_token_ids)
        self.num_known = self.num_prompt
        self.num_computed = 0
        self.num_delivered = 0
        self.num_shared = 0
        self.num_dropped = 0
        self.num_drafts = self.num_drafted = self.num_accepted = 0
        self.table = PageTable()
        self.prefix: PrefixChain | None = None
        self.reuse: Reuse | None = None
        self.warnings: list[str] = []
        self.ctx_size = ctx_size
        self.pending: Pending | None = None
        self.deadline = math.inf if request.deadline_s is None else arrival_s + request.deadline_s
        self.was_charged = False  # for its prompt; see fairness.py
        self.arrival_s = arrival_s
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.finish_reason: FinishReason | None = None
        self.error = ""
        self.error_field = ""
        # The end of the prompt that the model writes again, which is no part of the answer.
        self._num_hidden = len(request.constraint.prefix) if request.constraint is not None else 0
        room = ENDLESS if request.context_shift else ctx_size - self.num_prompt
        self.max_tokens = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        self._tokens = np.empty(self.num_prompt + min(self.max_tokens, 256), dtype=np.int32)
        self._tokens[: self.num_prompt] = request.prompt_token_ids
        self._num_penalized = num_penalized(sampling)
        self._detokenizer = detokenizer
        self._text_vocab_size = text_vocab_size
        self._stop = StopMatcher(sampling.stop)
        self._delivers_logits = request.wants_prompt_rows and choice == 0

    @property
    def is_pending(self) -> bool:
        """Whether it cannot start yet."""
        return self.pending is not None and not self.pending.done()

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_remaining(self) -> int:
        """Known tokens that are not yet computed: 1 while decoding."""
        return self.num_known - self.num_computed

    @property
    def num_generated(self) -> int:
        return self.num_known + self.num_dropped - self.num_prompt

    @property
    def position(self) -> int:
        """The place of the next token among all that were ever known."""
        return self.num_known + self.num_dropped

    @property
    def is_full(self) -> bool:
        """Whether it goes on and needs a context shift for it."""
        return self.finish_reason is None and self.wants_token and self.num_known >= self.ctx_size

    @property
    def room(self) -> int:
        """Most tokens that may be added before it ends, or before its context is full."""
        return min(self.max_tokens - self.num_generated, self.ctx_size - self.num_known)

    @property
    def drafts(self) -> NDArray[np.int32]:
        """The drafted tokens; a view."""
        return self._tokens[self.num_known : self.num_known + self.num_drafts]

    @property
    def num_kept(self) -> int:
        """Tokens at the beginning that a context shift leaves alone."""
        return self.num_prompt if self.request.keep < 0 else min(self.request.keep, self.num_prompt)

    @property
    def wants_token(self) -> bool:
        """Whether a token follows once all known ones are computed."""
        return self.max_tokens > 0

    @property
    def history(self) -> NDArray[np.int32]:
        """The recent tokens that penalties and DRY look at; a view."""
        if self._num_penalized == 0:
            return _NO_TOKENS
        begin = 0 if self._num_penalized < 0 else max(0, self.num_known - self._num_penalized)
        return self._tokens[begin : self.num_known]

    def token(self, position: int) -> int:
        """The known token at a position."""
        return self._tokens.item(position)

    def tokens(self, begin: int, end: int) -> NDArray[np.int32]:
        """Tokens begin ... end - 1, known or drafted; a view."""
        return self._tokens[begin:end]

    def draft(self, token_ids: Sequence[int] | NDArray[np.int32]) -> None:
        """Put drafts behind the known tokens, for the next step only."""
        assert len(token_ids) < max(1, self.room)
        self.num_drafts = len(token_ids)
        self._reserve(self.num_known + self.num_drafts)
        self._tokens[self.num_known : self.num_known + self.num_drafts] = token_ids

    def settle_drafts(self, num_tokens: int) -> None:
        """The drafts were checked; the first `num_tokens` came true and are known now, and computed, all but the last
        that is known unless it ended in an error."""
        self.num_drafted += self.num_drafts
        self.num_accepted += num_tokens
        self.num_computed += num_tokens
        self.num_drafts = 0

    def preempt(self) -> None:
        """Forget what was computed. The caller frees the pages."""
        self.num_computed = self.num_shared = 0

    def take_over(self, table: PageTable, num_tokens: int) -> None:
        """Start with pages that hold its first `num_tokens`; some are left to compute."""
        assert self.num_computed == len(self.table) == 0
        assert num_tokens < self.num_known
        self.table = table
        self.num_computed = self.num_shared = num_tokens

    def drop(self, begin: int, count: int, num_computed: int) -> None:
        """Take `count` known tokens out from `begin` on; of what is left, the first `num_computed` stay computed."""
        assert num_computed <= begin
        self._tokens[begin : self.num_known - count] = self._tokens[begin + count : self.num_known].copy()
        self.num_known -= count
        self.num_dropped += count
        self.num_computed = num_computed

    def num_undelivered(self, end: int) -> int:
        """Of the first `end` tokens, how many have logits that were asked for and not delivered."""
        if not self._delivers_logits:
            return 0
        return max(0, min(end, self.num_prompt) - self.num_delivered)

    def advance(self, num_tokens: int) -> None:
        """Another `num_tokens` are computed."""
        self.num_computed += num_tokens
        self.num_delivered += self.num_undelivered(self.num_computed)
        if self.num_remaining == 0 and not self.wants_token:
            self.finish_reason = FinishReason.LENGTH

    def add_token(self, token_id: int, now_s: float) -> str:
        """Append a generated token, see whether it is the last, and return the text that became final."""
        self._reserve(self.num_known + 1)
        self._tokens[self.num_known] = token_id
        self.num_known += 1
        if self.first_token_s is None:
            self.first_token_s = now_s
        text = ""
        if token_id in self.end_ids:
            self.finish_reason = FinishReason.STOP
        else:
            text = self._text_of(token_id)
            if self._stop.stopped:
                self.finish_reason = FinishReason.STOP
            elif self.num_generated >= self.max_tokens:
                self.finish_reason = FinishReason.LENGTH
        return text + self._rest_of_text() if self.finish_reason is not None else text

    def end(self, reason: FinishReason, error: str = "") -> str:
        """End the request from outside, and return the text held back so far."""
        self.finish_reason = reason
        self.error = error
        return self._rest_of_text()

    def event(
        self, token_ids: tuple[int, ...], text: str, now_s: float, logits: NDArray[np.float32] | None = None
    ) -> Event:
        """What happened to the request in one step."""
        finished = self.finish_reason is not None
        warnings, self.warnings = tuple(self.warnings), []
        return Event(
            self.request_id,
            token_ids,
            text,
            self.finish_reason,
            Usage(
                self.num_prompt,
                self.num_generated,
                0 if self.reuse is None else self.reuse.cached_tokens,
                self.num_drafted,
                self.num_accepted,
            ),
            timings=self._timings(now_s) if finished else None,
            warnings=warnings,
            seed=self.seed if finished else None,
            error=self.error,
            error_field=self.error_field,
            logits=logits,
            choice=self.choice,
            reuse=self.reuse,
        )

    def _reserve(self, num_tokens: int) -> None:
        """Have room for so many tokens."""
        if num_tokens > len(self._tokens):
            grown = np.empty(min(2 * num_tokens, self.ctx_size), dtype=np.int32)
            grown[: len(self._tokens)] = self._tokens
            self._tokens = grown

    def _text_of(self, token_id: int) -> str:
        # An embedding may have more rows than there are texts.
        if self._detokenizer is None or token_id >= self._text_vocab_size:
            return ""
        shown = self.request.shown_tokens.get(token_id)
        text = self._detokenizer.append([token_id]) if shown is None else self._detokenizer.flush() + shown
        if self._num_hidden:
            text, self._num_hidden = text[self._num_hidden :], max(0, self._num_hidden - len(text))
        if self.num_generated <= self.request.sampling.min_tokens:
            return text
        return self._stop.append(text)

    def _rest_of_text(self) -> str:
        if self._detokenizer is None or self._stop.stopped:
            return ""
        rest = self._stop.append(self._detokenizer.flush())
        return rest + self._stop.flush()

    def _timings(self, now_s: float) -> Timings:
        started_s = now_s if self.started_s is None else self.started_s
        first_s = now_s if self.first_token_s is None else self.first_token_s
        return Timings(started_s - self.arrival_s, first_s - started_s, now_s - first_s)
