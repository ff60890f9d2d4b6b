"""One request while it lives in the engine: its tokens, how far they are computed, and when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.engine.pages import PageTable
from quipu.engine.sampler import num_penalized
from quipu.engine.stopping import StopMatcher
from quipu.types import Event, FinishReason, Request, Timings, Usage

_NO_TOKENS: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class Detokenizer(Protocol):
    """Turns tokens that arrive one by one into text; see quipu.tokenizer."""

    def append(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Chains:
    """How a request's tokens are chosen.

    Attributes:
        chain: the sampler's chain.
        early_chain: the one for the first `min_tokens` tokens, which does not end the generation.
    """

    chain: Any
    early_chain: Any


class SequenceState:
    """The tokens of a request. `num_computed` of them are in the KV cache and chase the `num_known`.

    Prefill in pieces, decoding, and starting over after a preemption differ only in how large the gap is.

    Attributes:
        request: what was asked.
        seed: the seed in use.
        end_ids: tokens that end the generation.
        num_known: tokens of the prompt and generated ones.
        num_computed: tokens whose keys and values are in the cache.
        num_delivered: prompt tokens whose logits have been delivered, where asked for.
        table: the pages that hold them.
        arrival_s, started_s, first_token_s: moments; None until they come.
        finish_reason: None while it runs.
        error: one sentence, where it failed.
        error_field: the name of the field at fault, where the request was.
    """

    def __init__(
        self,
        request: Request,
        *,
        ctx_size: int,
        seed: int,
        chains: Chains,
        end_ids: frozenset[int],
        detokenizer: Detokenizer | None,
        text_vocab_size: int,
        arrival_s: float,
    ) -> None:
        sampling = request.sampling
        self.request = request
        self.seed = seed
        self.end_ids = end_ids
        self.num_prompt = len(request.prompt_token_ids)
        self.num_known = self.num_prompt
        self.num_computed = 0
        self.num_delivered = 0
        self.table = PageTable()
        self.arrival_s = arrival_s
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.finish_reason: FinishReason | None = None
        self.error = ""
        self.error_field = ""
        # The end of the prompt that the model writes again, which is no part of the answer.
        self._num_hidden = len(request.constraint.prefix) if request.constraint is not None else 0
        room = ctx_size - self.num_prompt
        self._max_tokens = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        self._tokens = np.empty(self.num_prompt + min(self._max_tokens, 256), dtype=np.int32)
        self._tokens[: self.num_prompt] = request.prompt_token_ids
        self._chains = chains
        self._num_penalized = num_penalized(sampling)
        self._detokenizer = detokenizer
        self._text_vocab_size = text_vocab_size
        self._stop = StopMatcher(sampling.stop)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_remaining(self) -> int:
        """Known tokens that are not yet computed: 1 while decoding."""
        return self.num_known - self.num_computed

    @property
    def num_generated(self) -> int:
        return self.num_known - self.num_prompt

    @property
    def wants_token(self) -> bool:
        """Whether a token follows once all known ones are computed."""
        return self._max_tokens > 0

    @property
    def chain(self) -> Any:
        """The chain for the next token."""
        early = self.num_generated < self.request.sampling.min_tokens
        return self._chains.early_chain if early else self._chains.chain

    @property
    def history(self) -> NDArray[np.int32]:
        """The recent tokens that penalties count; a view."""
        if self._num_penalized == 0:
            return _NO_TOKENS
        begin = 0 if self._num_penalized < 0 else max(0, self.num_known - self._num_penalized)
        return self._tokens[begin : self.num_known]

    def tokens(self, begin: int, end: int) -> NDArray[np.int32]:
        """Known tokens begin ... end - 1; a view."""
        return self._tokens[begin:end]

    def preempt(self) -> None:
        """Forget what was computed. The caller frees the pages."""
        self.num_computed = 0

    def num_undelivered(self, end: int) -> int:
        """Of the first `end` tokens, how many have logits that were asked for and not delivered."""
        return max(0, min(end, self.num_prompt) - self.num_delivered) if self.request.prompt_logits else 0

    def advance(self, num_tokens: int) -> None:
        """Another `num_tokens` are computed."""
        self.num_computed += num_tokens
        self.num_delivered += self.num_undelivered(self.num_computed)
        if self.num_remaining == 0 and not self.wants_token:
            self.finish_reason = FinishReason.LENGTH

    def add_token(self, token_id: int, now_s: float) -> str:
        """Append a generated token, see whether it is the last, and return the text that became final."""
        if self.num_known == len(self._tokens):
            grown = np.empty(min(2 * self.num_known, self.num_prompt + self._max_tokens), dtype=np.int32)
            grown[: self.num_known] = self._tokens
            self._tokens = grown
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
            elif self.num_generated >= self._max_tokens:
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
        return Event(
            self.request_id,
            token_ids,
            text,
            self.finish_reason,
            Usage(self.num_prompt, self.num_generated),
            timings=self._timings(now_s) if finished else None,
            seed=self.seed if finished else None,
            error=self.error,
            error_field=self.error_field,
            logits=logits,
        )

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
