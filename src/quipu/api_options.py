"""What callers of `LLM` may pass, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import CACHE_TYPES
from quipu.engine import CacheOptions
from quipu.engine.speculating import SpeculationOptions
from quipu.errors import InvalidRequestError, UsageError
from quipu.gguf import GGMLType
from quipu.types import RequestOptions, Speculation

Prompt: TypeAlias = str | Sequence[int] | NDArray[np.integer[Any]]
"""Text, or token ids."""
Prompts: TypeAlias = list[str] | list[list[int]] | list[str | list[int]]
Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation: each message has a `role` and a `content`."""

ToolChoiceArgument: TypeAlias = Literal["none", "auto", "required"] | Mapping[str, Any] | None
"""Whether tools are called; or which, as `{"type": "function", "function": {"name": NAME}}`."""

KV_TYPES = {kv_type.name.lower(): kv_type for kv_type in CACHE_TYPES}
"""The types that the KV cache can be stored in, by the names that llama.cpp uses."""

T = TypeVar("T")


def is_list(value: Any) -> bool:
    """Whether it is a list, or the like, with something in it. Texts and arrays are not."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0


def as_prompts(prompt: Prompt | Prompts) -> tuple[Prompts | list[Prompt], bool]:
    """The prompts that were given, and whether they came as a list."""
    is_batch = is_list(prompt) and not isinstance(prompt[0], int | float | np.number)
    return (cast(Prompts, prompt), True) if is_batch else ([cast(Prompt, prompt)], False)


def for_each(given: T | Sequence[T], num_prompts: int, kind: type[Any], field: str) -> Sequence[T]:
    """One for every prompt: what was given for all of them, or for each.

    Raises:
        InvalidRequestError: it is neither.
    """
    if given is None or isinstance(given, kind):
        return [cast(T, given)] * num_prompts
    each = cast(Sequence[T], given)
    if not is_list(each) or not all(one is None or isinstance(one, kind) for one in each):
        raise InvalidRequestError(f"{field} must be a {kind.__name__}, or one for each prompt", field=field)
    if len(each) != num_prompts:
        raise InvalidRequestError(
            f"there are {len(each)} {field} parameters for {num_prompts} prompts; give one, or one for each",
            field=field,
        )
    return each


def whole_numbers(token_ids: Any) -> tuple[int, ...]:
    """Token ids as a tuple; whether they are whole numbers of the vocabulary is checked by the engine.

    Raises:
        InvalidRequestError: they are not even a list.
    """
    if isinstance(token_ids, np.ndarray):
        return tuple(token_ids.tolist())
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Iterable):
        raise InvalidRequestError("a prompt is text or a list of token ids", field="prompt")
    return tuple(token_ids)


def request_options(options: RequestOptions | None) -> RequestOptions:
    """
    Raises:
        InvalidRequestError: it is of another kind.
    """
    if options is None:
        return RequestOptions()
    if not isinstance(options, RequestOptions):
        raise InvalidRequestError(
            f"options must be RequestOptions, not {type(options).__name__}; write RequestOptions(priority=1)",
            field="options",
        )
    return options


def cache_options(
    enabled: bool, max_bytes: int | None, folder: str | os.PathLike[str] | None, folder_bytes: int
) -> CacheOptions:
    """
    Raises:
        UsageError: a size is negative.
    """
    for name, size in (("cache_bytes", max_bytes), ("cache_folder_bytes", folder_bytes)):
        if size is not None and size < 0:
            raise UsageError(f"{name} must be 0 or more, not {size}")
    return CacheOptions(enabled and max_bytes != 0, max_bytes, None if folder is None else Path(folder), folder_bytes)


def speculation_options(
    source: str | None, draft_model: str | os.PathLike[str] | None, draft_max: int, draft_min: int
) -> SpeculationOptions:
    """
    Raises:
        UsageError: guesses are to come from a draft model, and there is none.
    """
    if source is None:
        source = Speculation.OFF if draft_model is None else Speculation.DRAFT
    if source == Speculation.DRAFT and draft_model is None:
        raise UsageError("speculate='draft' needs a draft model; give its file as draft_model")
    return SpeculationOptions(cast(Speculation, source), draft_max, draft_min)


def deterministic_by_environment() -> bool:
    """
    Raises:
        UsageError: QUIPU_DETERMINISTIC is neither 0 nor 1.
    """
    value = os.environ.get("QUIPU_DETERMINISTIC", "0")
    if value not in ("0", "1"):
        raise UsageError(f"QUIPU_DETERMINISTIC must be 0 or 1, not {value!r}")
    return value == "1"


def read_kv_types(kv_type: str | tuple[str, str]) -> tuple[GGMLType, GGMLType]:
    """The types of keys and of values.

    Raises:
        UsageError: a name is unknown.
    """
    names = (kv_type, kv_type) if isinstance(kv_type, str) else tuple(kv_type)
    if len(names) != 2 or not all(isinstance(name, str) and name.lower() in KV_TYPES for name in names):
        raise UsageError(f"kv_type must be one of {', '.join(KV_TYPES)}, or a pair of them, not {kv_type!r}")
    return KV_TYPES[names[0].lower()], KV_TYPES[names[1].lower()]
