"""What tests of sampling share: one draw for many positions, and a vocabulary of few texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sampler import Draw, Drawn, Sampler, request_chain
from quipu.engine.token_texts import TokenTexts
from quipu.types import SamplingParams

NO_TOKENS = np.zeros(0, dtype=np.int32)
PIECES = (
    b"",
    b"a",
    b"b",
    b"ab",
    b"abc",
    b"c",
    b"\n",
    b".\n",
    b":",
    b": ",
    b"end of",
    b" text",
    b"</s>",
    b"\xc3",
    b"\xa9",
)
END = 12


class Pieces:
    """A vocabulary; every byte of a text is its own token where there is one."""

    vocab_size = len(PIECES)
    end_of_generation_ids = frozenset({END})

    def token_bytes(self, token_id: int) -> bytes:
        return PIECES[token_id]

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [PIECES.index(bytes([byte])) for byte in text.encode() if bytes([byte]) in PIECES]


def texts() -> TokenTexts:
    return TokenTexts(Pieces())


def make_draw(
    sampler: Sampler,
    sampling: SamplingParams,
    *,
    position: int = 0,
    history: Sequence[int] | NDArray[np.int32] = (),
    drafts: Sequence[int] = (),
    masks: NDArray[np.int32] | None = None,
    chain: Any = None,
    state: Any = None,
) -> Draw:
    """A draw of one sequence whose prompt is empty."""
    if chain is None:
        chain = request_chain(sampler, sampling, num_prompt=0, texts=texts())
    return Draw(
        chain,
        sampler.state(chain) if state is None else state,
        np.array(history, dtype=np.int32),
        (sampling.seed or 0) % 2**64,
        position,
        np.array(drafts, dtype=np.int32),
        masks,
        -1 if sampling.logprobs is None else sampling.logprobs,
    )


def choose(
    sampler: Sampler,
    logits: NDArray[np.float32],
    sampling: SamplingParams,
    history: Sequence[int] | NDArray[np.int32] = (),
    num_draws: int = 1,
    masks: NDArray[np.int32] | None = None,
) -> list[Drawn]:
    """What is drawn for the same logits at several positions, by one sequence after the other."""
    chain = request_chain(sampler, sampling, num_prompt=0, texts=texts())
    rows = np.ascontiguousarray(np.broadcast_to(logits, (num_draws, len(logits))))
    draws = [
        make_draw(sampler, sampling, position=position, history=history, chain=chain, masks=masks)
        for position in range(num_draws)
    ]
    return sampler.sample_batch(rows, draws)


def tokens(drawn: Sequence[Drawn]) -> list[int]:
    return [token for item in drawn for token in item.token_ids]


def mask_of(allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Bits of bool [..., vocab] as int32 [..., ceil(vocab / 32)]."""
    count = -(-allowed.shape[-1] // 32) * 32
    padded = np.zeros((*allowed.shape[:-1], count), dtype=np.bool_)
    padded[..., : allowed.shape[-1]] = allowed
    return np.packbits(padded, axis=-1, bitorder="little").view(np.int32)


def generate(
    sampler: Sampler,
    rows: Mapping[int, NDArray[np.float32]] | Any,
    sampling: SamplingParams,
    num_tokens: int,
    drafts: Any = None,
    masks: Any = None,
) -> tuple[list[int], list[Any], Any]:
    """A whole sequence.

    Args:
        rows: rows(history) gives the logits that follow it.
        drafts: drafts(history) gives guesses at the next tokens; None: there are none.
        masks: masks(history) gives the allowed tokens after it, as a mask; None: all are.

    Returns:
        The tokens, their logprobs, and the state in the end.
    """
    chain = request_chain(sampler, sampling, num_prompt=0, end_ids=(END,), generation_end_ids=(END,), texts=texts())
    state = sampler.state(chain)
    history: list[int] = []
    logprobs: list[Any] = []
    while len(history) < num_tokens:
        guesses = [] if drafts is None else list(drafts(history))
        contexts = [history + guesses[:count] for count in range(len(guesses) + 1)]
        draw = make_draw(
            sampler,
            sampling,
            position=len(history),
            history=history,
            drafts=guesses,
            masks=None if masks is None else np.stack([masks(context) for context in contexts]),
            chain=chain,
            state=state,
        )
        (drawn,) = sampler.sample_batch(np.stack([rows(context) for context in contexts]), [draw])
        if drawn.token_ids[-1] < 0:
            return [*history, *drawn.token_ids], logprobs, state
        history += drawn.token_ids
        logprobs += drawn.logprobs or []
    return history, logprobs, state
