"""The memory plan: how long the context can be, and whether it fits, decided before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from quipu.backends.program import KVSpec
from quipu.errors import InsufficientMemoryError, UsageError

_SMALLEST_DEFAULT_CTX = 512  # a default context shorter than this is of no use
_DEFAULT_POOL_TOKENS = 16384  # where nobody says otherwise, room for several short contexts at a time
_SHARE_OF_FREE = 0.8  # of the memory left beside the weights, for a context that nobody asked for
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What will be allocated.

    Attributes:
        ctx_size: most tokens of one request.
        num_pages: pages of the KV cache.
        weight_bytes: the mapped weights.
        kv_bytes: the KV cache.
        workspace_bytes: intermediate results.
        available_bytes: memory that is free; None where unknown.
        warnings: what the user should know, one sentence each.
    """

    ctx_size: int
    num_pages: int
    weight_bytes: int
    kv_bytes: int
    workspace_bytes: int
    available_bytes: int | None
    warnings: tuple[str, ...]

    @property
    def needed_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.workspace_bytes


def plan_memory(
    spec: KVSpec,
    *,
    weight_bytes: int,
    workspace_bytes: int,
    trained_ctx: int,
    ctx_size: int | None,
    kv_tokens: int | None,
    available_bytes: int | None,
) -> MemoryPlan:
    """Size the context and the KV cache.

    Args:
        spec: a page of the cache.
        trained_ctx: tokens that the model was trained for.
        ctx_size: tokens asked for; None: the trained length, as far as memory allows.
        kv_tokens: tokens that the cache holds over all requests; None: one full context, or several short ones.
        available_bytes: memory that is free, None where unknown.

    Raises:
        UsageError: a size is below 1, or the cache is asked to be smaller than the context.
        InsufficientMemoryError: the plan does not fit.
    """
    _check_sizes(ctx_size, kv_tokens)
    fixed_bytes = weight_bytes + workspace_bytes
    warnings: list[str] = []
    affordable = None  # tokens of cache that fit without being asked for
    if available_bytes is not None:
        affordable = int(max(0, available_bytes - fixed_bytes) * _SHARE_OF_FREE) // spec.bytes_per_token
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
    num_pages = _pages(spec, ctx_size if kv_tokens is None else kv_tokens)
    plan = _plan(spec, ctx_size, num_pages, weight_bytes, workspace_bytes, available_bytes, warnings)
    if available_bytes is not None and plan.needed_bytes > available_bytes:
        raise InsufficientMemoryError(
            f"{_gib(plan.needed_bytes)} of memory are needed (weights {_gib(weight_bytes)}, KV cache for "
            f"{num_pages * spec.page_size} tokens {_gib(plan.kv_bytes)}, workspace {_gib(workspace_bytes)}) but "
            f"{_gib(available_bytes)} are free; lower --ctx-size, take a smaller model or free memory",
            needed_bytes=plan.needed_bytes,
            available_bytes=available_bytes,
        )
    if kv_tokens is not None:
        return plan
    extra = _DEFAULT_POOL_TOKENS if affordable is None else min(_DEFAULT_POOL_TOKENS, affordable)
    num_pages = max(num_pages, extra // spec.page_size)
    return _plan(spec, ctx_size, num_pages, weight_bytes, workspace_bytes, available_bytes, warnings)


def _check_sizes(ctx_size: int | None, kv_tokens: int | None) -> None:
    for name, size in (("ctx_size", ctx_size), ("kv_tokens", kv_tokens)):
        if size is not None and size < 1:
            raise UsageError(f"{name} must be 1 or more, not {size}")
    if ctx_size is not None and kv_tokens is not None and kv_tokens < ctx_size:
        raise UsageError(
            f"a KV cache of {kv_tokens} tokens cannot hold a context of {ctx_size}; raise kv_tokens or lower ctx_size"
        )


def _plan(
    spec: KVSpec,
    ctx_size: int,
    num_pages: int,
    weight_bytes: int,
    workspace_bytes: int,
    available_bytes: int | None,
    warnings: list[str],
) -> MemoryPlan:
    kv_bytes = num_pages * spec.bytes_per_page
    return MemoryPlan(ctx_size, num_pages, weight_bytes, kv_bytes, workspace_bytes, available_bytes, tuple(warnings))


def _pages(spec: KVSpec, num_tokens: int) -> int:
    return -(-num_tokens // spec.page_size)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
