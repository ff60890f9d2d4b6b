"""What a model says of a text in numbers: `LLM.logits`, `LLM.embed` and `LLM.rerank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from quipu.api_options import Prompt, Prompts, as_prompts, whole_numbers
from quipu.engine import EventStream, SharedEngine, available_memory_bytes
from quipu.engine.embedding_calls import (
    RankedDocument,
    choose_pooling,
    compute_embeddings,
    fit_pair,
    fit_text,
    normalized,
    rank,
)
from quipu.errors import ContextLengthError, InsufficientMemoryError, InvalidRequestError
from quipu.tokenizer import Tokenizer
from quipu.types import Pooling, Request, SamplingParams


class VectorCalls(ABC):
    """The part of `LLM` that gives vectors and scores; the rest of it brings the model.

    Attributes:
        ctx_size: most tokens of a text.
        vocab_size: token ids are below it.
    """

    ctx_size: int
    vocab_size: int
    _tokenizer: Tokenizer | None

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer: ...

    @abstractmethod
    def _open_engine(self) -> SharedEngine: ...

    @abstractmethod
    def _encode(self, prompt: Any, parse_special: bool) -> Sequence[int]: ...

    def logits(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """float32 [number of ids, vocab_size]: row i scores the token that follows ids 0 ... i.

        Raises:
            InvalidRequestError: there are no ids, or one is not in the vocabulary.
            ContextLengthError: there are more ids than the context holds.
            InsufficientMemoryError: the result does not fit the free memory.
            EngineError: the computation failed.
        """
        shared = self._open_engine()
        ids = whole_numbers(token_ids)
        if len(ids) > self.ctx_size:
            raise ContextLengthError(len(ids), self.ctx_size)
        self._check_result(len(ids))
        request = Request(shared.new_id(), ids, SamplingParams(max_tokens=0), prompt_logits=True, streamed=False)
        result = np.empty((len(ids), self.vocab_size), dtype=np.float32)
        num_rows = 0
        with EventStream(shared, shared.submit([request]), [request.request_id], lambda event: event) as stream:
            for event in stream:
                if event.logits is not None:
                    result[num_rows : num_rows + len(event.logits)] = event.logits
                    num_rows += len(event.logits)
        assert num_rows == len(ids)
        return result

    @overload
    def embed(
        self,
        text: Prompt | Prompts,
        *,
        pooling: Literal["none"],
        normalize: bool = True,
        truncate: bool = False,
    ) -> list[NDArray[np.float32]]: ...

    @overload
    def embed(
        self,
        text: Prompt | Prompts,
        *,
        pooling: Literal["mean", "cls", "last"] | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> NDArray[np.float32]: ...

    def embed(
        self,
        text: Prompt | Prompts,
        *,
        pooling: str | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """The embedding of a text, or of each of a list, which are computed together.

        Args:
            text: text or token ids, or a list of either. Text is given the special tokens that the model expects around
                it; token ids are taken as they are.
            pooling: how the vectors of the tokens become one: "mean", "cls" (the first) or "last"; "none" keeps them.
                None: as the file says, and where it says nothing the mean for encoders and the last for decoders.
            normalize: divide each vector by its Euclidean length, so that products of two are cosines.
            truncate: cut a text that is longer than the context, with a warning, instead of refusing it.

        Returns:
            float32 [texts, length]; with pooling "none" for each text float32 [tokens, length].

        Raises:
            InvalidRequestError: there is no text, or it is empty, or something is out of range.
            ContextLengthError: a text is longer than the context.
            TokenizerError: it is text, and the file has no usable vocabulary.
            EngineError: the computation failed.
        """
        shared = self._open_engine()
        chosen = choose_pooling(pooling, shared.engine.embedding.pooling)
        texts, _ = as_prompts(text)
        prompts = [
            fit_text(self._encode_whole(item), self._tokenizer, self.ctx_size, truncate=truncate) for item in texts
        ]
        vectors = compute_embeddings(shared, prompts, chosen)
        if chosen is Pooling.NONE:
            return [normalized(of_one) if normalize else of_one for of_one in vectors]
        stacked = np.stack(vectors)
        return normalized(stacked) if normalize else stacked

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, truncate: bool = False
    ) -> list[RankedDocument]:
        """How well documents fit a query, by a cross-encoder: the best first, each with its place in `documents`.

        Args:
            query: a text.
            documents: texts, each of which is compared with the query.
            top_n: return only so many; None: all.
            truncate: cut a document that does not fit the context beside the query, with a warning, instead of refusing
                it.

        Raises:
            InvalidRequestError: the model cannot rank, or there is no query, no document, or an empty one.
            ContextLengthError: a document is too long.
            TokenizerError: the file has no usable vocabulary.
            EngineError: the computation failed.
        """
        shared = self._open_engine()
        if not shared.engine.embedding.num_scores:
            raise InvalidRequestError(
                "this model has no head that ranks; use a cross-encoder (reranker), or compare embeddings",
                field="model",
            )
        if isinstance(documents, str) or not documents:
            raise InvalidRequestError("documents must be a list of at least one text", field="documents")
        query_ids, *document_ids = (
            self.tokenizer.encode(_some_text(item, field), add_special=False)
            for item, field in [(query, "query"), *((document, "documents") for document in documents)]
        )
        pairs = [fit_pair(query_ids, ids, self.tokenizer, self.ctx_size, truncate=truncate) for ids in document_ids]
        types = [types for _, types in pairs] if shared.engine.embedding.num_token_types > 1 else ()
        scores = compute_embeddings(shared, [ids for ids, _ in pairs], Pooling.RANK, types)
        return rank(scores, top_n)

    def _check_result(self, num_rows: int) -> None:
        needed_bytes, available_bytes = 4 * num_rows * self.vocab_size, available_memory_bytes()
        if available_bytes is not None and needed_bytes > available_bytes:
            raise InsufficientMemoryError(
                f"the logits of {num_rows} tokens take {needed_bytes} bytes but {available_bytes} are free; pass fewer",
                needed_bytes=needed_bytes,
                available_bytes=available_bytes,
            )

    def _encode_whole(self, text: Any) -> Sequence[int]:
        """A text to embed as tokens, with the special tokens around it; token ids as they are."""
        return self._encode(_some_text(text, "text") if isinstance(text, str) else text, parse_special=False)


def _some_text(text: Any, field: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{field}: there is nothing to read in {text!r}; give a text", field=field)
    return text
