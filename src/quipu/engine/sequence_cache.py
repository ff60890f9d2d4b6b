"""What the prefix cache does in the life of a sequence: beginning, being computed, letting go, and shifting."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import KVStorage
from quipu.engine.page_store import PageStore
from quipu.engine.pages import PageAllocator, PageTable
from quipu.engine.prefix_cache import PrefixCache, PrefixChain
from quipu.engine.sequence import Pending, SequenceState
from quipu.errors import InvalidRequestError, UsageError
from quipu.types import Request, Reuse, ReuseLimit

DEFAULT_FOLDER_BYTES = 16 << 30
_MOST_KEPT = 0.75  # of a context that shifts


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """What the prefix cache may use.

    Attributes:
        enabled: whether anything is reused.
        max_bytes: most memory of pages that no request holds; None: what the KV cache has.
        folder: where full pages are kept on disk, for later processes too; None: nowhere.
        folder_bytes: most bytes of files there.
    """

    enabled: bool = True
    max_bytes: int | None = None
    folder: Path | None = None
    folder_bytes: int = DEFAULT_FOLDER_BYTES


def state_fingerprint(model: bytes, kv: KVStorage) -> bytes:
    """What bytes of pages belong to: the model, the types and sizes of its KV cache, and the layout of a page."""
    return blake2b(model + repr((kv.layout, kv.spec)).encode(), digest_size=32, person=b"quipu state").digest()


def open_prefix_cache(
    options: CacheOptions, pages: PageAllocator, kv: KVStorage, model: bytes, deterministic: bool
) -> PrefixCache | None:
    """The prefix cache that the options ask for.

    Args:
        pages, kv: the KV cache.
        model: the model's fingerprint, where there is a folder.
        deterministic: whether the engine gives the same bits however a prompt is cut. Its pages on disk are its own:
            those that were computed in larger pieces differ in their last bits.

    Raises:
        UsageError: the folder cannot be made or read.
    """
    if not options.enabled:
        return None
    store = None
    if options.folder is not None:
        fingerprint = state_fingerprint(model + (b"deterministic" if deterministic else b""), kv)
        try:
            store = PageStore(options.folder, fingerprint, kv.spec.bytes_per_page, options.folder_bytes)
        except OSError as error:
            raise UsageError(
                f"{options.folder}: the folder of the prefix cache cannot be used ({error.strerror}); choose another"
            ) from None
    return PrefixCache(pages, kv, store)


def check_shift(request: Request, ctx_size: int) -> None:
    """Refuse a context shift that would have next to nothing to drop.

    Raises:
        InvalidRequestError: `keep` is too large.
    """
    num_kept = len(request.prompt_token_ids) if request.keep < 0 else request.keep
    if request.context_shift and num_kept > _MOST_KEPT * ctx_size:
        raise InvalidRequestError(
            f"keep asks for {num_kept} tokens, but of a context of {ctx_size} that shifts at most "
            f"{int(_MOST_KEPT * ctx_size)} can stay; keep fewer",
            field="keep",
        )


_OFF = Reuse(0, ReuseLimit.OFF, "0 tokens were reused: the prefix cache is off")
_OFF_EMBEDDING = Reuse(0, ReuseLimit.OFF, "0 tokens were reused: an embedding needs all tokens of its text computed")
_OFF_HERE = Reuse(0, ReuseLimit.OFF, "0 tokens were reused: cache_prompt is off for the request")


class SequenceCache:
    """Gives sequences their first pages and takes all of them back.

    Args:
        pages: the pages of the KV cache.
        cache: finds pages again; None: nothing is reused.
    """

    def __init__(self, pages: PageAllocator, cache: PrefixCache | None) -> None:
        self._pages = pages
        self._cache = cache

    @property
    def cache(self) -> PrefixCache | None:
        return self._cache

    @property
    def store(self) -> PageStore | None:
        return None if self._cache is None else self._cache.store

    def chain(self, request: Request) -> PrefixChain | None:
        """Where a new sequence of the request stands; None where it reuses nothing."""
        is_used = self._cache is not None and request.cache_prompt and request.pooling is None
        return PrefixChain(request.cache_salt) if is_used else None

    def arrive(self, sequence: SequenceState) -> None:
        """Begin to load what only the disk has of its prompt; the sequence is pending until it is there."""
        if self._cache is not None and sequence.prefix is not None:
            self._cache.prefetch(_tokens(sequence), _limit(sequence), sequence.prefix)
            if sequence.prefix.loading is not None:
                before, loading = sequence.pending, sequence.prefix.loading
                sequence.pending = loading if before is None else _Both(before, loading)

    def peek(self, sequence: SequenceState) -> tuple[int, int]:
        """Tokens that a waiting sequence need not compute, and how many of their pages others hold at present."""
        if self._cache is None or sequence.prefix is None:
            return 0, 0
        return self._cache.peek(_tokens(sequence), _limit(sequence), sequence.prefix)

    def begin(self, sequence: SequenceState) -> None:
        """Give a sequence that starts, or starts over, the pages that hold its beginning."""
        if self._cache is None or sequence.prefix is None:
            reuse = _OFF if self._cache is None else _OFF_HERE
            if sequence.request.pooling is not None:
                reuse = _OFF_EMBEDDING
        else:
            limit = _limit(sequence)
            reuse = self._cache.attach(sequence.table, _tokens(sequence), limit, sequence.prefix)
            if limit < sequence.num_known - 1:
                number = reuse.cached_tokens
                reason = f"{number} tokens were reused: the logits of the prompt are asked for, hence computed"
                reuse = Reuse(number, ReuseLimit.PROMPT_LOGITS, reason)
        sequence.num_computed = sequence.num_shared = reuse.cached_tokens
        if self.store is not None:
            sequence.warnings += self.store.take_warnings()
        if sequence.reuse is None:
            sequence.reuse = reuse

    def inherit(self, sequence: SequenceState, table: PageTable, num_tokens: int) -> None:
        """Give a sequence the pages of another choice of its request, in place of what it has."""
        self._pages.free(sequence.table)
        sequence.num_computed = 0
        if sequence.prefix is not None:
            sequence.prefix.rewind()
        sequence.take_over(table, num_tokens)
        reason = f"{num_tokens} of {sequence.num_known} tokens were shared with another choice of the request"
        sequence.reuse = Reuse(num_tokens, ReuseLimit.PAGE_BORDER, reason)

    def computed(self, sequence: SequenceState) -> None:
        """Make the pages that became full findable."""
        prefix = sequence.prefix
        if self._cache is None or prefix is None:
            return
        if sequence.num_computed // self._pages.page_size > prefix.num_registered:
            self._cache.register(sequence.table, _computed(sequence), prefix)

    def release(self, sequence: SequenceState) -> None:
        """Take back all pages of a sequence, and keep what they hold."""
        if self._cache is None:
            self._pages.free(sequence.table)
        else:
            self._cache.release(sequence.table, _computed(sequence), sequence.prefix)

    def shift(self, sequence: SequenceState, num_kept: int) -> str:
        """Drop half of the tokens behind the first `num_kept`, the oldest, and return a warning that says so.

        The tokens that stay are computed again, at their new positions. Turning the cached keys to those positions
        instead would be faster, and wrong twice: keys and values above the first layer were made while looking at the
        tokens that are gone, and a quantized key would be rounded once more with every shift.
        """
        num_dropped = (sequence.num_known - num_kept) // 2
        num_whole = min(num_kept // self._pages.page_size * self._pages.page_size, sequence.num_computed)
        self._pages.trim(sequence.table, num_whole)
        sequence.drop(num_kept, num_dropped, num_whole)
        if sequence.prefix is not None:
            sequence.prefix.restart()
        return (
            f"the context is full: {num_dropped} tokens after the first {num_kept} were dropped, and the model no "
            "longer sees them"
        )


class _Both:
    """Two things that are prepared elsewhere."""

    def __init__(self, one: Pending, other: Pending) -> None:
        self._parts = one, other

    def done(self) -> bool:
        return all(part.done() for part in self._parts)


def _tokens(sequence: SequenceState) -> NDArray[np.int32]:
    return sequence.tokens(0, sequence.num_known)


def _computed(sequence: SequenceState) -> NDArray[np.int32]:
    return sequence.tokens(0, sequence.num_computed)


def _limit(sequence: SequenceState) -> int:
    """Most tokens that may come from the cache: not the last one, nor any whose logits are wanted."""
    limit = sequence.num_known - 1
    return min(limit, sequence.num_delivered) if sequence.num_undelivered(sequence.num_prompt) else limit
