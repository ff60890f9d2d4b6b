"""The memory plan: how long the context can be, and whether it fits, decided before anything is allocated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quipu.backends.program import KVSpec
from quipu.errors import InsufficientMemoryError, UsageError

_SMALLEST_DEFAULT_CTX = 512  # a default context shorter than this is of no use
_DEFAULT_POOL_TOKENS = 16384  # where nobody says otherwise, room for several short contexts at a time
_SHARE_OF_FREE = 0.8  # of the memory left beside the weights, for a context that nobody asked for
_GIB = 1 << 30
_DEFAULT_CACHE_BYTES = 8 * _GIB  # of pages that nobody holds; llama.cpp's default for its cache of prompts
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What will be allocated.

    Attributes:
        ctx_size: most tokens of one request.
        num_pages: pages of the KV cache.
        max_kept_pages: of these, most that may hold what no request needs at present, for later ones.
        weight_bytes: the mapped weights.
        kv_bytes: the KV cache.
        workspace_bytes: intermediate results.
        available_bytes: memory that is free; None where unknown.
        warnings: what the user should know, one sentence each.
    """

    ctx_size: int
    num_pages: int
    max_kept_pages: int
    weight_bytes: int
    kv_bytes: int
    workspace_bytes: int
    available_bytes: int | None
    warnings: tuple[str, ...]

    @property
    def needed_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.workspace_bytes


def parse_kv_size(size: int | str) -> tuple[int | None, int | None]:
    """The size of a KV cache as (tokens, bytes), one of them None: 8192 and "8192" are tokens, "2 GiB" is bytes.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        return size, None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", size) if isinstance(size, str) else None
    number, unit = ("", "") if match is None else (match[1], match[2].lower())
    if match is None or unit not in _UNITS or (not unit and "." in number):
        raise UsageError(
            f"kv_size must be a number of tokens, or bytes with a unit such as 2GiB or 512MiB, not {size!r}"
        )
    return (int(number), None) if not unit else (None, int(float(number) * _UNITS[unit]))


def plan_memory(
    spec: KVSpec,
    *,
    weight_bytes: int,
    workspace_bytes: int,
    trained_ctx: int,
    ctx_size: int | None,
    kv_tokens: int | None,
    available_bytes: int | None,
    kv_bytes: int | None = None,
    cache_bytes: int | None = None,
) -> MemoryPlan:
    """Size the context and the KV cache.

    The pool of the KV cache is main memory, so what the prefix cache keeps lies in it: there is no second copy. A
    `cache_bytes` that is asked for makes the pool larger by as much where its size is not given, and memory allows it.

    Args:
        spec: a page of the cache.
        trained_ctx: tokens that the model was trained for.
        ctx_size: tokens asked for; None: the trained length, as far as memory allows.
        kv_tokens, kv_bytes: what the cache holds over all requests, in one of the two; None: one full context, or
            several short ones.
        available_bytes: memory that is free, None where unknown.
        cache_bytes: most bytes of pages that are kept for later requests; None: all, up to 8 GiB.

    Raises:
        UsageError: a size is below 1, or the cache is asked to be smaller than the context.
        InsufficientMemoryError: the plan does not fit.
    """
    kv_tokens = _check_sizes(spec, ctx_size, kv_tokens, kv_bytes)
    fixed_bytes = weight_bytes + workspace_bytes
    warnings: list[str] = []
    affordable = None  # tokens of cache that fit without being asked for
    if available_bytes is not None:
        affordable = int(max(0, available_bytes - fixed_bytes) * _SHARE_OF_FREE) // spec.bytes_per_token
    ctx_size = _context(spec, trained_ctx, ctx_size, kv_tokens, affordable, warnings)
    num_pages = _pages(spec, ctx_size if kv_tokens is None else kv_tokens)
    needed_bytes = fixed_bytes + num_pages * spec.bytes_per_page
    if available_bytes is not None and needed_bytes > available_bytes:
        raise InsufficientMemoryError(
            f"{_gib(needed_bytes)} of memory are needed (weights {_gib(weight_bytes)}, KV cache for "
            f"{num_pages * spec.page_size} tokens {_gib(num_pages * spec.bytes_per_page)}, workspace "
            f"{_gib(workspace_bytes)}) but {_gib(available_bytes)} are free; lower --ctx-size, take a smaller model or "
            "free memory",
            needed_bytes=needed_bytes,
            available_bytes=available_bytes,
        )
    if kv_tokens is None:
        wanted = _DEFAULT_POOL_TOKENS
        if affordable is not None:
            wanted = min(max(wanted, ctx_size + (cache_bytes or 0) // spec.bytes_per_token), affordable)
        num_pages = max(num_pages, wanted // spec.page_size)
    kept_bytes = _DEFAULT_CACHE_BYTES if cache_bytes is None else cache_bytes
    return MemoryPlan(
        ctx_size,
        num_pages,
        min(num_pages, kept_bytes // spec.bytes_per_page),
        weight_bytes,
        num_pages * spec.bytes_per_page,
        workspace_bytes,
        available_bytes,
        tuple(warnings),
    )


def _context(
    spec: KVSpec,
    trained_ctx: int,
    ctx_size: int | None,
    kv_tokens: int | None,
    affordable: int | None,
    warnings: list[str],
) -> int:
    """Tokens of a context; appends what the user should know about it to `warnings`."""
    if ctx_size is None:
        ctx_size = trained_ctx if kv_tokens is None else min(trained_ctx, kv_tokens)
        if affordable is not None and affordable < ctx_size:
            ctx_size = max(affordable // spec.page_size * spec.page_size, min(ctx_size, _SMALLEST_DEFAULT_CTX))
            warnings.append(
                f"the context is cut down to {ctx_size} of the trained {trained_ctx} tokens, which is what fits the "
                "free memory; free some, or choose a length with --ctx-size"
            )
    elif ctx_size > trained_ctx:
        warnings.append(
            f"a context of {ctx_size} tokens exceeds the {trained_ctx} that the model was trained for: answers may get "
            "worse beyond them"
        )
    return ctx_size


def _check_sizes(spec: KVSpec, ctx_size: int | None, kv_tokens: int | None, kv_bytes: int | None) -> int | None:
    """Tokens that the cache shall hold, or None."""
    for name, size in (("ctx_size", ctx_size), ("the size of the KV cache", kv_tokens)):
        if size is not None and size < 1:
            raise UsageError(f"{name} must be 1 or more, not {size}")
    if kv_bytes is not None:
        if kv_tokens is not None:
            raise UsageError("give the size of the KV cache in tokens or in bytes, not both")
        if kv_bytes < spec.bytes_per_page:
            raise UsageError(
                f"a KV cache of {kv_bytes} bytes is smaller than one page of {spec.page_size} tokens, which takes "
                f"{spec.bytes_per_page}; raise kv_size"
            )
        kv_tokens = kv_bytes // spec.bytes_per_page * spec.page_size
    if ctx_size is not None and kv_tokens is not None and kv_tokens < ctx_size:
        raise UsageError(
            f"a KV cache of {kv_tokens} tokens cannot hold a context of {ctx_size}; raise kv_size or lower ctx_size"
        )
    return kv_tokens


def _pages(spec: KVSpec, num_tokens: int) -> int:
    return -(-num_tokens // spec.page_size)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
