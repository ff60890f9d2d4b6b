"""LLM: the public Python surface. Text and messages become token ids, events of the engine become text."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from quipu.backends.choice import choose_backend
from quipu.backends.program import CACHE_TYPES
from quipu.chat import ChatTemplate, ReasoningParser
from quipu.engine import (
    Engine,
    EventStream,
    SharedEngine,
    available_memory_bytes,
    num_usable_cores,
)
from quipu.engine.embedding_calls import (
    RankedDocument,
    choose_pooling,
    compute_embeddings,
    fit_pair,
    fit_text,
    normalized,
    rank,
)
from quipu.engine.native_sampler import choose_sampler
from quipu.errors import (
    ContextLengthError,
    InsufficientMemoryError,
    InvalidRequestError,
    TokenizerError,
    UsageError,
)
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import load_model, recommended_sampling
from quipu.tokenizer import Tokenizer
from quipu.types import ChatEvent, Completion, Event, Pooling, Request, SamplingParams

__all__ = ["LLM", "ChatEvent", "Completion", "EventStream"]

Prompt: TypeAlias = str | Sequence[int] | NDArray[np.integer[Any]]
"""Text, or token ids."""
Prompts: TypeAlias = list[str] | list[list[int]] | list[str | list[int]]
Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation: each message has a `role` and a `content`."""

KV_TYPES = {kv_type.name.lower(): kv_type for kv_type in CACHE_TYPES}
"""The types that the KV cache can be stored in, by the names that llama.cpp uses."""
_MOST_THREADS = 1024


E = TypeVar("E", bound=Event)


class LLM:
    """A model in a GGUF file, ready to continue text.

    Several threads may use one LLM: their requests are computed together.

    Attributes:
        path: the file.
        ctx_size: most tokens of a request, its prompt included.
        vocab_size: token ids are below it.
        threads: CPU threads in use.
        default_sampling: how tokens are chosen where a call brings no `SamplingParams`: what the file recommends
            (`general.sampling.*`) over the usual defaults.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ctx_size: int | None = None,
        threads: int | None = None,
        kv_type: str | tuple[str, str] = "f16",
        device: str = "auto",
        batch_size: int = 2048,
        ubatch_size: int = 512,
        kv_tokens: int | None = None,
        chat_template: str | None = None,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            path: a GGUF file; of a split model the first shard.
            ctx_size: most tokens of a request; None: the trained length, as far as memory allows.
            threads: CPU threads; None: one for each physical core that this process may use.
            kv_type: how keys and values are cached, a name of `KV_TYPES`; a pair chooses for each separately. Encoders
                cache nothing, and do without it.
            device: "auto" or "cpu".
            batch_size, ubatch_size: most tokens in a step; the smaller of the two counts.
            kv_tokens: tokens that the cache holds over all requests; None: one full context, or several short ones.
            chat_template: name of a built-in template, or the text of one; None: the model's own.
            seed: start of the seeds of requests that bring none; None draws them at random.

        Raises:
            ModelNotFoundError, ModelFileError, UnsupportedModelError: the file is not there, damaged, or asks too much.
            UsageError: an argument is out of range.
            InsufficientMemoryError: weights, KV cache and workspace do not fit the free memory.
        """
        if device not in ("auto", "cpu"):
            raise UsageError(f"device {device!r} is not available in this build; use 'auto' or 'cpu'")
        kv_types = _kv_types(kv_type)
        self.threads = _checked_threads(num_usable_cores() if threads is None else threads)
        self._reader = GGUFReader(path)
        self.path = Path(self._reader.path)
        self._tokenizer, self._tokenizer_error = _open_tokenizer(self._reader)
        engine = Engine(
            load_model(self._reader),
            choose_backend(self.threads),
            self._tokenizer,
            choose_sampler(),
            ctx_size=ctx_size,
            kv_types=kv_types,
            kv_tokens=kv_tokens,
            batch_size=batch_size,
            ubatch_size=ubatch_size,
        )
        self.ctx_size = engine.ctx_size
        self.vocab_size = engine.vocab_size
        self.default_sampling, sampling_warnings = recommended_sampling(self._reader.metadata)
        self._warnings = engine.warnings + sampling_warnings
        if self._tokenizer_error is not None:
            self._warnings += (f"only token ids are understood and given: {self._tokenizer_error}",)
        self._shared: SharedEngine | None = SharedEngine(engine)
        self._seed = seed
        self._template_lock = threading.Lock()
        self._template_name = chat_template
        self._template: ChatTemplate | None = None
        self._shown_tokens: dict[tuple[str, ...], Mapping[int, str]] = {}  # by the markers of a parser
        if chat_template is not None:
            self._chat_template()  # a wrong name is found now

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the model and how it was loaded, one sentence each."""
        return self._warnings + (self._tokenizer.warnings if self._tokenizer is not None else ())

    @property
    def tokenizer(self) -> Tokenizer:
        """
        Raises:
            TokenizerError: the file has no vocabulary, or one that cannot be used.
        """
        if self._tokenizer is None:
            raise self._tokenizer_error or TokenizerError("the file has no vocabulary; pass token ids instead of text")
        return self._tokenizer

    # --- generating --------------------------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompt: Prompt,
        sampling: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        parse_special: bool = False,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: Literal[False] = False,
        parse_special: bool = False,
    ) -> list[Completion]: ...

    @overload
    def generate(
        self,
        prompt: Prompt | Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: Literal[True],
        parse_special: bool = False,
    ) -> EventStream[Event]: ...

    def generate(
        self,
        prompt: Prompt | Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        parse_special: bool = False,
    ) -> Completion | list[Completion] | EventStream[Event]:
        """Continue a text, or a list of texts that are computed together.

        Args:
            prompt: text or token ids, or a list of either. Text is given the BOS and EOS tokens that the model expects
                around it; token ids are taken as they are.
            sampling: how tokens are chosen; for a list also one for each prompt. None: `default_sampling`.
            stream: return an iterator over events instead of waiting for the end.
            parse_special: recognise the texts of control tokens. Never with text that a stranger wrote.

        Raises:
            InvalidRequestError: the prompt is empty, or something in it is out of range.
            ContextLengthError: the prompt leaves no room for a token in the context.
            TokenizerError: the prompt is text, and the file has no usable vocabulary.
            EngineError: the request failed. In a list it does not raise: its finish_reason is ERROR.
        """
        is_batch = _is_list(prompt) and not isinstance(prompt[0], int | float | np.number)
        prompts = [self._encode(item, parse_special) for item in (cast(Prompts, prompt) if is_batch else [prompt])]
        events = self._submit(prompts, sampling, lambda event: event)
        if stream:
            return events
        completions = _fold(events)
        return completions if is_batch else completions[0]

    @overload
    def chat(
        self,
        messages: Messages,
        sampling: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: Literal[False] = False,
        **variables: Any,
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: Literal[False] = False,
        **variables: Any,
    ) -> list[Completion]: ...

    @overload
    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: Literal[True],
        **variables: Any,
    ) -> EventStream[ChatEvent]: ...

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: bool = False,
        **variables: Any,
    ) -> Completion | list[Completion] | EventStream[ChatEvent]:
        """Answer a conversation, or a list of conversations that are computed together.

        Args:
            messages: mappings with `role` and `content`, the oldest first; or a list of such conversations.
            sampling: as for `generate`.
            tools: descriptions of functions, for templates that show them to the model.
            stream: return an iterator over events instead of waiting for the end.
            variables: further variables of the chat template, such as `enable_thinking=False`, and further arguments
                of `ChatTemplate.render`.

        Raises:
            TemplateError: the template refuses the messages, failed, or was stopped.
            InvalidRequestError, ContextLengthError, TokenizerError, EngineError: as for `generate`.
        """
        is_batch = _is_list(messages) and _is_list(messages[0])
        conversations = cast(Sequence[Messages], messages if is_batch else [messages])
        template = self._chat_template()
        rendered = [template.render(conversation, tools=tools, **variables) for conversation in conversations]
        prompts = [self._encode_chat(prompt.text) for prompt in rendered]
        parsers = [template.reasoning_parser(prompt.text) for prompt in rendered]
        shown = [self._tokens_shown(parser.markers) for parser in parsers]
        answers = [_Answer(parser, prompt.warnings) for parser, prompt in zip(parsers, rendered, strict=True)]
        by_id: dict[str, _Answer] = {}
        events = self._submit(prompts, sampling, lambda event: by_id[event.request_id].translate(event), shown)
        by_id.update(zip(events.request_ids, answers, strict=True))
        if stream:
            return events
        completions = _fold(events)
        return completions if is_batch else completions[0]

    def _submit(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingParams | Sequence[SamplingParams] | None,
        translate: Callable[[Event], E],
        shown: Sequence[Mapping[int, str]] = (),
    ) -> EventStream[E]:
        shared = self._open_engine()
        requests = []
        if sampling is None:
            sampling = self.default_sampling
        each = zip(prompts, _for_each(sampling, len(prompts)), shown or [{}] * len(prompts), strict=True)
        for token_ids, one, shown_tokens in each:
            request_id = shared.new_id()
            if one.seed is None and self._seed is not None:
                one = dataclasses.replace(one, seed=self._seed + int(request_id) - 1)
            requests.append(Request(request_id, tuple(token_ids), one, shown_tokens=shown_tokens))
        return EventStream(shared, shared.submit(requests), [request.request_id for request in requests], translate)

    # --- tokens ------------------------------------------------------------------------------------------------------

    def tokenize(self, text: str, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """The token ids of a text.

        Args:
            text: any text.
            add_special: add the BOS and EOS tokens that the model expects around a prompt.
            parse_special: recognise the texts of control tokens. Never with text that a stranger wrote.

        Raises:
            TokenizerError: the file has no usable vocabulary.
        """
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, token_ids: Iterable[int]) -> str:
        """The text of token ids, control tokens included.

        Raises:
            TokenizerError: the file has no usable vocabulary.
            InvalidRequestError: an id is not in the vocabulary.
        """
        return self.tokenizer.decode(token_ids)

    def logits(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """float32 [number of ids, vocab_size]: row i scores the token that follows ids 0 ... i.

        Raises:
            InvalidRequestError: there are no ids, or one is not in the vocabulary.
            ContextLengthError: there are more ids than the context holds.
            InsufficientMemoryError: the result does not fit the free memory.
            EngineError: the computation failed.
        """
        shared = self._open_engine()
        ids = _whole_numbers(token_ids)
        if len(ids) > self.ctx_size:
            raise ContextLengthError(len(ids), self.ctx_size)
        self._check_result(len(ids))
        request = Request(shared.new_id(), ids, SamplingParams(max_tokens=0), prompt_logits=True)
        result = np.empty((len(ids), self.vocab_size), dtype=np.float32)
        num_rows = 0
        with EventStream(shared, shared.submit([request]), [request.request_id], lambda event: event) as stream:
            for event in stream:
                if event.logits is not None:
                    result[num_rows : num_rows + len(event.logits)] = event.logits
                    num_rows += len(event.logits)
        assert num_rows == len(ids)
        return result

    # --- embeddings --------------------------------------------------------------------------------------------------

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
        is_batch = _is_list(text) and not isinstance(text[0], int | float | np.number)
        texts = cast(Prompts, text) if is_batch else [text]
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

    def _encode_whole(self, text: Any) -> Sequence[int]:
        """A text to embed as tokens, with the special tokens around it; token ids as they are."""
        return self._encode(_some_text(text, "text") if isinstance(text, str) else text, parse_special=False)

    def _check_result(self, num_rows: int) -> None:
        needed_bytes, available_bytes = 4 * num_rows * self.vocab_size, available_memory_bytes()
        if available_bytes is not None and needed_bytes > available_bytes:
            raise InsufficientMemoryError(
                f"the logits of {num_rows} tokens take {needed_bytes} bytes but {available_bytes} are free; pass fewer",
                needed_bytes=needed_bytes,
                available_bytes=available_bytes,
            )

    def _encode(self, prompt: Any, parse_special: bool) -> Sequence[int]:
        if not isinstance(prompt, str):
            return _whole_numbers(prompt)
        token_ids = self.tokenizer.encode(prompt, parse_special=parse_special)
        return _without_second_bos(token_ids, self.tokenizer)

    def _encode_chat(self, text: str) -> Sequence[int]:
        """A rendered conversation as tokens. Templates write BOS or leave it to the tokenizer: it comes once."""
        tokenizer = self.tokenizer
        token_ids = tokenizer.encode(text, add_special=False, parse_special=True)
        if tokenizer.add_bos and tokenizer.bos_token_id is not None:
            token_ids.insert(0, tokenizer.bos_token_id)
        return _without_second_bos(token_ids, tokenizer)

    def _tokens_shown(self, markers: tuple[str, ...]) -> Mapping[int, str]:
        """Those of `markers` that are one token: text leaves control tokens out, but the parser has to see them."""
        if markers not in self._shown_tokens:
            tokenizer = self.tokenizer
            encoded = [(text, tokenizer.encode(text, add_special=False, parse_special=True)) for text in markers]
            self._shown_tokens[markers] = {
                ids[0]: text
                for text, ids in encoded
                if len(ids) == 1 and tokenizer.token_bytes(ids[0]) == text.encode("utf-8")
            }
        return self._shown_tokens[markers]

    # --- resources ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all requests and give the memory back. Closing twice does nothing."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
            self._reader.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({str(self.path)!r}, ctx_size={self.ctx_size}, threads={self.threads})"

    def _open_engine(self) -> SharedEngine:
        if self._shared is None:
            raise UsageError("the model is closed; open it again")
        return self._shared

    def _chat_template(self) -> ChatTemplate:
        with self._template_lock:
            if self._template is None:
                self._template = ChatTemplate.from_gguf(self._reader.metadata, self._template_name)
            return self._template


class _Answer:
    """Splits the text of one chat request into reasoning and answer."""

    def __init__(self, parser: ReasoningParser, warnings: tuple[str, ...]) -> None:
        self._parser = parser
        self._warnings = warnings  # for the first event

    def translate(self, event: Event) -> ChatEvent:
        reasoning, text = self._parser.append(event.text)
        if event.finish_reason is not None:
            rest = self._parser.flush()
            reasoning, text = reasoning + rest[0], text + rest[1]
        warnings, self._warnings = self._warnings + event.warnings, ()
        return ChatEvent(
            event.request_id,
            event.token_ids,
            text,
            event.finish_reason,
            event.usage,
            event.timings,
            warnings,
            event.seed,
            event.error,
            reasoning=reasoning,
        )


def _fold(stream: EventStream[E]) -> list[Completion]:
    """What all events of each request come to."""
    events: dict[str, list[E]] = {request_id: [] for request_id in stream.request_ids}
    with stream:
        for event in stream:
            events[event.request_id].append(event)
    return [Completion.of(of_one) for of_one in events.values()]


def _is_list(value: Any) -> bool:
    """Whether it is a list, or the like, with something in it. Texts and arrays are not."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0


def _for_each(sampling: SamplingParams | Sequence[SamplingParams], num_prompts: int) -> Sequence[SamplingParams]:
    if isinstance(sampling, SamplingParams):
        return [sampling] * num_prompts
    if len(sampling) != num_prompts:
        raise InvalidRequestError(
            f"there are {len(sampling)} sampling parameters for {num_prompts} prompts; give one, or one for each",
            field="sampling",
        )
    return sampling


def _whole_numbers(token_ids: Any) -> tuple[int, ...]:
    """Token ids as a tuple; whether they are whole numbers of the vocabulary is checked by the engine."""
    if isinstance(token_ids, np.ndarray):
        return tuple(token_ids.tolist())
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Iterable):
        raise InvalidRequestError("a prompt is text or a list of token ids", field="prompt")
    return tuple(token_ids)


def _some_text(text: Any, field: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{field}: there is nothing to read in {text!r}; give a text", field=field)
    return text


def _without_second_bos(token_ids: list[int], tokenizer: Tokenizer) -> list[int]:
    bos = tokenizer.bos_token_id
    return token_ids[1:] if bos is not None and token_ids[:2] == [bos, bos] else token_ids


def _checked_threads(threads: int) -> int:
    if not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads must be between 1 and {_MOST_THREADS}, not {threads}")
    return threads


def _kv_types(kv_type: str | tuple[str, str]) -> tuple[GGMLType, GGMLType]:
    names = (kv_type, kv_type) if isinstance(kv_type, str) else tuple(kv_type)
    if len(names) != 2 or not all(isinstance(name, str) and name.lower() in KV_TYPES for name in names):
        raise UsageError(f"kv_type must be one of {', '.join(KV_TYPES)}, or a pair of them, not {kv_type!r}")
    return KV_TYPES[names[0].lower()], KV_TYPES[names[1].lower()]


def _open_tokenizer(reader: GGUFReader) -> tuple[Tokenizer | None, TokenizerError | None]:
    """The tokenizer of a file, or why there is none; files without a vocabulary work on token ids."""
    if reader.metadata.get("tokenizer.ggml.model") in (None, "none", "no_vocab"):
        return None, None
    try:
        return Tokenizer.from_gguf(reader), None
    except TokenizerError as error:
        return None, error
