"""Texts to embeddings and to scores: what the library and the server call, over one shared engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sharing import SharedEngine
from quipu.engine.stream import EventStream
from quipu.errors import ContextLengthError, EngineError, InvalidRequestError
from quipu.tokenizer import Tokenizer
from quipu.types import FinishReason, Pooling, Request, SamplingParams

_NO_TOKENS = SamplingParams(max_tokens=0)


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document among those that were compared with a query.

    Attributes:
        index: its place in the list that was given.
        score: what the model's head says, unbounded; the higher, the better it fits. Its logistic function is a
            probability for models that were trained as classifiers.
    """

    index: int
    score: float


def compute_embeddings(
    shared: SharedEngine,
    prompts: Sequence[Sequence[int]],
    pooling: Pooling,
    token_types: Sequence[Sequence[int]] = (),
) -> list[NDArray[np.float32]]:
    """The embeddings of prompts, which are computed together with whatever else the engine does.

    Args:
        shared: the engine.
        prompts: token ids.
        pooling: see `Event.embedding` for what comes of it.
        token_types: one per token of each prompt; none: all 0.

    Raises:
        InvalidRequestError, ContextLengthError: a prompt cannot be embedded; none of them is then.
        EngineError: the computation failed.
    """
    types = token_types or [()] * len(prompts)
    requests = [
        Request(shared.new_id(), tuple(ids), _NO_TOKENS, streamed=False, pooling=pooling, token_types=tuple(of_ids))
        for ids, of_ids in zip(prompts, types, strict=True)
    ]
    found: dict[str, NDArray[np.float32]] = {}
    ids = [request.request_id for request in requests]
    with EventStream(shared, shared.submit(requests), ids, lambda event: event) as events:
        for event in events:
            if event.finish_reason is FinishReason.ERROR:
                raise EngineError(event.error)
            if event.embedding is not None:
                found[event.request_id] = event.embedding
    return [found[request_id] for request_id in ids]


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows [..., length] divided by their Euclidean length; rows of zeros stay."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=-1, keepdims=True))
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def choose_pooling(asked: str | None, own: Pooling) -> Pooling:
    """The pooling that a caller asked for by name, or else the model's own.

    Raises:
        InvalidRequestError: the name is unknown, or no embedding comes of the choice.
    """
    names = [pooling.value for pooling in Pooling if pooling is not Pooling.RANK]
    if asked == Pooling.RANK or (asked is None and own is Pooling.RANK):
        raise InvalidRequestError(
            f"ranking gives scores of pairs, not embeddings; use rerank, or a pooling of {', '.join(names)}",
            field="pooling",
        )
    if asked is None and own is Pooling.NONE:
        raise InvalidRequestError(
            f"the model does not say how it pools; choose a pooling of {', '.join(names)}", field="pooling"
        )
    if asked is not None and asked not in names:
        raise InvalidRequestError(f"pooling must be one of {', '.join(names)}, not {asked!r}", field="pooling")
    return own if asked is None else Pooling(asked)


def fit_text(token_ids: Sequence[int], tokenizer: Tokenizer | None, ctx_size: int, *, truncate: bool) -> Sequence[int]:
    """The tokens of one text as they go to the model: with `truncate` its end is cut off where the context is full.

    The token that ends a text stays. Whoever is given a shorter text hears of it by a warning.

    Raises:
        ContextLengthError: it is too long, and may not be cut.
    """
    if len(token_ids) <= ctx_size:
        return token_ids
    if not truncate:
        raise ContextLengthError(len(token_ids), ctx_size)
    _warn_of_cut(len(token_ids) - ctx_size, ctx_size)
    ends = () if tokenizer is None else (tokenizer.eos_token_id, tokenizer.special_tokens.separator)
    if token_ids[-1] in ends:
        return [*token_ids[: ctx_size - 1], token_ids[-1]]
    return token_ids[:ctx_size]


def fit_pair(
    query: Sequence[int], document: Sequence[int], tokenizer: Tokenizer, ctx_size: int, *, truncate: bool
) -> tuple[list[int], list[int]]:
    """The tokens of a query and a document, and the type of each; with `truncate` the document may lose its end.

    Raises:
        ContextLengthError: they are too long, and may not be cut, or the query alone is.
    """
    token_ids, token_types = tokenizer.join_pair(query, document)
    excess = len(token_ids) - ctx_size
    if excess <= 0:
        return token_ids, token_types
    if not truncate or excess >= len(document):
        raise ContextLengthError(len(token_ids), ctx_size)
    _warn_of_cut(excess, ctx_size)
    return tokenizer.join_pair(query, document[: len(document) - excess])


def rank(scores: Sequence[NDArray[np.float32]], top_n: int | None) -> list[RankedDocument]:
    """Documents by falling score; of equal ones the earlier comes first.

    Raises:
        InvalidRequestError: the model gives several scores, or `top_n` is not positive.
    """
    if top_n is not None and top_n < 1:
        raise InvalidRequestError(f"top_n must be 1 or more, or None, not {top_n}", field="top_n")
    if any(len(of_one) != 1 for of_one in scores):
        raise InvalidRequestError(
            f"this model is a classifier with {len(scores[0])} classes, which gives no single score; use a "
            "cross-encoder (reranker)",
            field="model",
        )
    ranked = [RankedDocument(index, float(of_one[0])) for index, of_one in enumerate(scores)]
    return sorted(ranked, key=lambda document: -document.score)[:top_n]


def _warn_of_cut(num_cut: int, ctx_size: int) -> None:
    warnings.warn(f"{num_cut} tokens were cut off: the context holds {ctx_size}", UserWarning, stacklevel=5)
