"""LLM: the public Python surface. Text and messages become token ids, events of the engine become text."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, cast, overload

import numpy as np

from quipu.api_options import (
    KV_TYPES,
    Messages,
    Prompt,
    Prompts,
    ToolChoiceArgument,
    as_prompts,
    cache_options,
    deterministic_by_environment,
    for_each,
    is_list,
    read_kv_types,
    request_options,
    speculation_options,
    whole_numbers,
)
from quipu.api_vectors import VectorCalls
from quipu.backends.choice import choose_backend
from quipu.backends.cpu import measure_threads
from quipu.chat import Answer, ChatEncoder, ChatTemplate, OfferedTools, encode_prompt
from quipu.chat.constraints import ConstraintCompiler, heal_prompt
from quipu.engine import Engine, EventStream, SharedEngine, choose_threads, read_topology
from quipu.engine.draft_model import DraftModel
from quipu.engine.memory import parse_kv_size
from quipu.engine.native_sampler import choose_sampler
from quipu.engine.saved_state import read_state, write_state
from quipu.engine.sequence_cache import DEFAULT_FOLDER_BYTES
from quipu.engine.speculating import DEFAULT_DRAFT_MAX
from quipu.errors import TokenizerError, UsageError
from quipu.gguf import GGUFReader
from quipu.models import load_model, recommended_sampling
from quipu.tokenizer import Tokenizer
from quipu.types import ChatEvent, Completion, ConstraintSpec, Event, Request, RequestOptions, SamplingParams

__all__ = ["KV_TYPES", "LLM", "ChatEvent", "Completion", "ConstraintSpec", "EventStream", "RequestOptions"]

E = TypeVar("E", bound=Event)


class LLM(VectorCalls):
    """A model in a GGUF file, ready to continue text.

    Several threads may use one LLM: their requests are computed together.

    Attributes:
        path: the file.
        ctx_size: most tokens of a request, its prompt included.
        vocab_size: token ids are below it.
        threads: CPU threads in use for generation.
        threads_batch: CPU threads in use for prompts.
        context_shift: whether a full context goes on without its oldest half instead of ending.
        default_sampling: how tokens are chosen where a call brings no `SamplingParams`: what the file recommends
            (`general.sampling.*`) over the usual defaults.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ctx_size: int | None = None,
        threads: int | None = None,
        threads_batch: int | None = None,
        kv_type: str | tuple[str, str] = "f16",
        device: str = "auto",
        batch_size: int = 2048,
        ubatch_size: int = 512,
        kv_size: int | str | None = None,
        prefix_cache: bool = True,
        cache_bytes: int | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        cache_folder_bytes: int = DEFAULT_FOLDER_BYTES,
        context_shift: bool = False,
        keep: int = 0,
        itl_target_s: float | None = None,
        deterministic: bool | None = None,
        speculate: str | None = None,
        draft_model: str | os.PathLike[str] | None = None,
        draft_max: int = DEFAULT_DRAFT_MAX,
        draft_min: int = 0,
        chat_template: str | None = None,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            path: a GGUF file; of a split model the first shard.
            ctx_size: most tokens of a request; None: the trained length, as far as memory allows.
            threads: CPU threads; None: QUIPU_THREADS, or as many as measured best for generation, and for prompts one
                for each physical core that this process may use.
            threads_batch: CPU threads for prompts; None: as `threads` where that is given.
            kv_type: how keys and values are cached, a name of `KV_TYPES`; a pair chooses for each separately. Encoders
                cache nothing, and do without it.
            device: "auto" or "cpu".
            batch_size, ubatch_size: most tokens in a step; the smaller of the two counts.
            kv_size: what the KV cache holds over all requests, in tokens, or in bytes with a unit ("2GiB"); None: one
                full context, or several short ones.
            prefix_cache: reuse what earlier requests computed of the same beginning. See docs/cache.md.
            cache_bytes: most memory of the KV cache that holds what no request needs at present; None: all of it, up to
                8 GiB. Where `kv_size` is not given, it grows by as much as is asked for here.
            cache_folder: where pages of the prefix cache are kept on disk, for later processes too; None: nowhere.
            cache_folder_bytes: most bytes of files there.
            context_shift: when the context is full, drop the oldest half of it instead of ending. Said in a warning.
            keep: tokens at the beginning that a context shift never drops; -1: the whole prompt.
            itl_target_s: seconds that the tokens of a stream may lie apart while prompts of others are computed, as far
                as the model is fast enough; None: twice what they would without.
            deterministic: a request's tokens and logits are the same, bit for bit, whatever is computed beside it;
                prompts take several times as long. None: as QUIPU_DETERMINISTIC says, 0 or 1.
            speculate: where guesses at the next tokens come from, which change the speed and not the text: "ngram"
                (what followed the same tokens earlier), "draft" (the draft model) or "off". None: "draft" where there
                is a draft model. See docs/speculation.md.
            draft_model: a GGUF file with a smaller model of the same vocabulary.
            draft_max: most tokens guessed at a time; how many are, is adapted to what pays.
            draft_min: fewer are not worth a try.
            chat_template: name of a built-in template, or the text of one; None: the model's own.
            seed: start of the seeds of requests that bring none; None draws them at random.

        Raises:
            ModelNotFoundError, ModelFileError, UnsupportedModelError: the file is not there, damaged, or asks too much.
            UsageError: an argument is out of range.
            UnsupportedModelError: the draft model has another vocabulary.
            InsufficientMemoryError: weights, KV cache and workspace do not fit the free memory.
        """
        speculation = speculation_options(speculate, draft_model, draft_max, draft_min)
        if device not in ("auto", "cpu"):
            raise UsageError(f"device {device!r} is not available in this build; use 'auto' or 'cpu'")
        kv_types = read_kv_types(kv_type)
        kv_tokens, kv_bytes = (None, None) if kv_size is None else parse_kv_size(kv_size)
        counts = choose_threads(read_topology(), measure_threads, threads=threads, threads_batch=threads_batch)
        self.threads, self.threads_batch = counts.generation, counts.prompt
        self._reader = GGUFReader(path)
        self.path = Path(self._reader.path)
        self._tokenizer, self._tokenizer_error = _open_tokenizer(self._reader)
        model = load_model(self._reader)
        self._constraints: ConstraintCompiler | None = None
        if self._tokenizer is not None:
            self._constraints = ConstraintCompiler(self._tokenizer, model.spec.vocab_size)
        self._draft_reader = None if draft_model is None else GGUFReader(draft_model)
        engine = Engine(
            model,
            choose_backend(counts.most, few_token_threads=counts.generation, owns_cores=counts.owns_cores),
            self._tokenizer,
            choose_sampler(),
            ctx_size=ctx_size,
            kv_types=kv_types,
            kv_tokens=kv_tokens,
            kv_bytes=kv_bytes,
            cache=cache_options(prefix_cache, cache_bytes, cache_folder, cache_folder_bytes),
            fingerprint=self._reader.fingerprint,
            batch_size=batch_size,
            ubatch_size=ubatch_size,
            itl_target_s=itl_target_s,
            deterministic=deterministic_by_environment() if deterministic is None else deterministic,
            compile_constraint=self._constraints.compile if self._constraints is not None else None,
            speculation=speculation,
            draft_model=None if self._draft_reader is None else _draft_model(self._draft_reader),
        )
        self.ctx_size = engine.ctx_size
        self.vocab_size = engine.vocab_size
        self.default_sampling, sampling_warnings = recommended_sampling(self._reader.metadata)
        self._warnings = engine.warnings + sampling_warnings
        if self._tokenizer_error is not None:
            self._warnings += (f"only token ids are understood and given: {self._tokenizer_error}",)
        self._shared: SharedEngine | None = SharedEngine(engine)
        self._seed = seed
        self.context_shift, self._keep = context_shift, keep
        self._template_lock = threading.Lock()
        self._template_name = chat_template
        self._template: ChatTemplate | None = None
        self._encoder: ChatEncoder | None = None
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
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | None = None,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: Literal[False] = False,
        parse_special: bool = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
    ) -> list[Completion]: ...

    @overload
    def generate(
        self,
        prompt: Prompt | Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: Literal[True],
        parse_special: bool = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
    ) -> EventStream[Event]: ...

    def generate(
        self,
        prompt: Prompt | Prompts,
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        parse_special: bool = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
    ) -> Completion | list[Completion] | EventStream[Event]:
        """Continue a text, or a list of texts that are computed together.

        Args:
            prompt: text or token ids, or a list of either. Text is given the BOS and EOS tokens that the model expects
                around it; token ids are taken as they are.
            sampling: how tokens are chosen; for a list also one for each prompt. None: `default_sampling`.
            stream: return an iterator over events instead of waiting for the end.
            parse_special: recognise the texts of control tokens. Never with text that a stranger wrote.
            cache_salt: only calls with the same salt reuse each other's work; one for each tenant keeps them apart.
            options: how the prompts are served: number of choices, priority, deadline and the like. Of several choices,
                `Completion.choices` has all, and events tell their `choice`.
            constraint: what the text must look like; for a list also one for each prompt. Where the prompt is text that
                ends inside of a token, its end is written again as part of that token.

        Raises:
            InvalidRequestError: the prompt is empty, something in it is out of range, or the constraint cannot be
                carried out.
            ContextLengthError: the prompt leaves no room for a token in the context.
            TokenizerError: the prompt is text, and the file has no usable vocabulary.
            EngineError: the request failed. In a list it does not raise: its finish_reason is ERROR.
        """
        items, is_batch = as_prompts(prompt)
        prompts = [self._encode(item, parse_special) for item in items]
        constraints = for_each(constraint, len(prompts), ConstraintSpec, "constraint")
        if any(constraints):
            healed = [self._heal(*each) for each in zip(items, prompts, constraints, strict=True)]
            prompts, constraints = [ids for ids, _ in healed], [one for _, one in healed]
        events = self._submit(
            prompts,
            sampling,
            lambda event: event,
            constraints=constraints,
            streamed=stream,
            cache_salt=cache_salt,
            options=options,
        )
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
        tool_choice: ToolChoiceArgument = None,
        parallel_tool_calls: bool = True,
        stream: Literal[False] = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | None = None,
        **variables: Any,
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoiceArgument = None,
        parallel_tool_calls: bool = True,
        stream: Literal[False] = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
        **variables: Any,
    ) -> list[Completion]: ...

    @overload
    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoiceArgument = None,
        parallel_tool_calls: bool = True,
        stream: Literal[True],
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
        **variables: Any,
    ) -> EventStream[ChatEvent]: ...

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoiceArgument = None,
        parallel_tool_calls: bool = True,
        stream: bool = False,
        cache_salt: str = "",
        options: RequestOptions | None = None,
        constraint: ConstraintSpec | Sequence[ConstraintSpec | None] | None = None,
        **variables: Any,
    ) -> Completion | list[Completion] | EventStream[ChatEvent]:
        """Answer a conversation, or a list of conversations that are computed together.

        Args:
            messages: mappings with `role` and `content`, the oldest first; or a list of such conversations.
            sampling: as for `generate`.
            tools: functions that the model may call: `{"type": "function", "function": {"name", "description",
                "parameters"}}`, with a JSON schema of the parameters.
            tool_choice: "none", "auto", "required", or `{"type": "function", "function": {"name": NAME}}`; None:
                "auto" where there are tools. With "none" the tools are not shown to the model.
            parallel_tool_calls: False holds the model to one call in an answer.
            stream: return an iterator over events instead of waiting for the end.
            cache_salt: as for `generate`.
            options: as for `generate`.
            constraint: what the answer must look like; for a list also one for each conversation. Where the template
                has the model think first, it holds from the end of that on.
            variables: further variables of the chat template, such as `enable_thinking=False`, and further arguments
                of `ChatTemplate.render`.

        Raises:
            TemplateError: the template refuses the messages, failed, or was stopped.
            InvalidRequestError: a message or tool is malformed, or `tool_choice` names none of the tools; and as for
                `generate`.
            ContextLengthError, TokenizerError, EngineError: as for `generate`.
        """
        is_batch = is_list(messages) and is_list(messages[0])
        conversations = cast(Sequence[Messages], messages if is_batch else [messages])
        options = request_options(options)
        encoder = self._chat_encoder()
        offered = OfferedTools.read(tools, tool_choice, parallel_tool_calls, is_constrained=constraint is not None)
        constraints = for_each(constraint, len(conversations), ConstraintSpec, "constraint")
        prompts = [
            encoder.encode(conversation, offered, one, variables, num_choices=options.num_choices)
            for conversation, one in zip(conversations, constraints, strict=True)
        ]
        answers: dict[tuple[str, int], Answer] = {}
        events = self._submit(
            [prompt.token_ids for prompt in prompts],
            sampling,
            lambda event: answers[event.request_id, event.choice].translate(event),
            [prompt.shown_tokens for prompt in prompts],
            [prompt.constraint for prompt in prompts],
            streamed=stream,
            cache_salt=cache_salt,
            options=options,
        )
        for request_id, prompt in zip(events.request_ids, prompts, strict=True):
            answers.update(((request_id, number), answer) for number, answer in enumerate(prompt.answers))
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
        constraints: Sequence[ConstraintSpec | None] = (),
        *,
        streamed: bool,
        cache_salt: str,
        options: RequestOptions | None,
    ) -> EventStream[E]:
        options = request_options(options)
        shared = self._open_engine()
        requests = []
        if sampling is None:
            sampling = self.default_sampling
        num_prompts = len(prompts)
        samplings = for_each(sampling, num_prompts, SamplingParams, "sampling")
        each = zip(prompts, samplings, shown or [{}] * num_prompts, constraints or [None] * num_prompts, strict=True)
        for token_ids, one, shown_tokens, constraint in each:
            request_id = shared.new_id()
            if one.seed is None and self._seed is not None:
                one = dataclasses.replace(one, seed=self._seed + int(request_id) - 1)
            requests.append(
                Request(
                    request_id,
                    tuple(token_ids),
                    one,
                    shown_tokens=shown_tokens,
                    constraint=constraint,
                    streamed=streamed,
                    cache_salt=cache_salt,
                    **dataclasses.asdict(options),
                    context_shift=self.context_shift,
                    keep=self._keep,
                )
            )
        return EventStream(shared, shared.submit(requests), [request.request_id for request in requests], translate)

    # --- saved states ------------------------------------------------------------------------------------------------

    @property
    def can_save_state(self) -> bool:
        """Whether a request has ended whose state could be saved."""
        return len(self._open_engine().engine.last_ended[0]) > 0

    def save_state(self, path: str | os.PathLike[str], token_ids: Prompt | None = None, *, cache_salt: str = "") -> int:
        """Write keys and values to a file, from which `restore_state` brings them back in another process.

        Args:
            path: the file; one that exists is replaced.
            token_ids: the tokens, or text that is encoded as a prompt; as many of them as are in the cache are saved.
                None: those of the request that ended last, prompt and answer.
            cache_salt: the one that they were computed with.

        Returns:
            How many tokens were saved.

        Raises:
            UsageError: nothing of the tokens is in the cache.
            StateFileError: the file cannot be written.
        """
        shared = self._open_engine()
        if token_ids is None:
            ids, cache_salt = shared.engine.last_ended
        else:
            ids = np.array(self._encode(token_ids, False), dtype=np.int32)
        state = shared.between_steps(lambda engine: engine.export_state(ids, cache_salt))
        write_state(Path(path), state, shared.engine.state_fingerprint)
        return len(state.token_ids)

    def restore_state(self, path: str | os.PathLike[str], *, cache_salt: str = "") -> list[int]:
        """Bring back what `save_state` wrote: a later prompt that begins like its tokens need not be computed again.

        Args:
            path: the file.
            cache_salt: of the calls that may use it.

        Returns:
            The tokens that are in the cache now, fewer than were saved where it is too small.

        Raises:
            UsageError: the prefix cache is off.
            StateFileError: the file is missing, damaged, or belongs to another model, KV type or backend.
        """
        shared = self._open_engine()
        engine = shared.engine
        state = read_state(
            Path(path),
            engine.state_fingerprint,
            page_bytes=engine.page_bytes,
            page_size=engine.page_size,
            max_tokens=engine.kv_size,
            vocab_size=self.vocab_size,
        )
        count = shared.between_steps(lambda engine: engine.import_state(state, cache_salt))
        return [int(token) for token in state.token_ids[:count]]

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

    def _encode(self, prompt: Any, parse_special: bool) -> Sequence[int]:
        if not isinstance(prompt, str):
            return whole_numbers(prompt)
        return encode_prompt(self.tokenizer, prompt, parse_special=parse_special)

    def _heal(
        self, prompt: Any, token_ids: Sequence[int], constraint: ConstraintSpec | None
    ) -> tuple[Sequence[int], ConstraintSpec | None]:
        """A prompt that was given as text, without the end that the model should write as part of a longer token."""
        if constraint is None or not isinstance(prompt, str) or self._constraints is None:
            return token_ids, constraint
        return heal_prompt(token_ids, constraint, self._constraints)

    # --- resources ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all requests and give the memory back. Closing twice does nothing."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
            self._reader.close()
            if self._draft_reader is not None:
                self._draft_reader.close()

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

    def _chat_encoder(self) -> ChatEncoder:
        template = self._chat_template()
        if self._encoder is None:
            self._encoder = ChatEncoder(template, self.tokenizer)
        return self._encoder


def _fold(stream: EventStream[E]) -> list[Completion]:
    """What all events of each request come to."""
    events: dict[str, list[E]] = {request_id: [] for request_id in stream.request_ids}
    with stream:
        for event in stream:
            events[event.request_id].append(event)
    return [Completion.of(of_one) for of_one in events.values()]


def _draft_model(reader: GGUFReader) -> DraftModel:
    tokenizer, error = _open_tokenizer(reader)
    if error is not None:
        raise error
    return DraftModel(load_model(reader), tokenizer, str(reader.path))


def _open_tokenizer(reader: GGUFReader) -> tuple[Tokenizer | None, TokenizerError | None]:
    """The tokenizer of a file, or why there is none; files without a vocabulary work on token ids."""
    if reader.metadata.get("tokenizer.ggml.model") in (None, "none", "no_vocab"):
        return None, None
    try:
        return Tokenizer.from_gguf(reader), None
    except TokenizerError as error:
        return None, error
