"""The prefix cache on the allocator alone: what it finds is right, tenants never meet, and no page is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu.engine import prefix_cache
from quipu.engine.pages import PageAllocator, PageTable
from quipu.engine.prefix_cache import PrefixCache, PrefixChain
from quipu.types import Reuse, ReuseLimit

PAGE = 8


class TokenMemory:
    """Pages that hold the tokens themselves, with their tenant, so that a wrong page is seen at once."""

    layout = "tokens"

    def __init__(self, num_pages: int) -> None:
        self.places = np.full((num_pages, PAGE, 2), -1, dtype=np.int32)

    def read_page(self, page: int) -> NDArray[np.uint8]:
        return self.places[page].reshape(-1).view(np.uint8).copy()

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        self.places[page] = data.view(np.int32).reshape(PAGE, 2)

    def copy_page(self, source: int, target: int) -> None:
        assert source != target
        self.places[target] = self.places[source]


class Pool:
    """A cache with the sequences that use it."""

    def __init__(self, num_pages: int, *, max_kept: int | None = None, shuffle: random.Random | None = None) -> None:
        self.pages = PageAllocator(num_pages, PAGE, max_kept=max_kept, shuffle=shuffle)
        self.memory = TokenMemory(num_pages)
        self.cache = PrefixCache(self.pages, self.memory)  # type: ignore[arg-type]
        self.live: list[Running] = []

    def check(self) -> None:
        self.pages.check_integrity([running.table for running in self.live])
        self.cache.check_integrity()


class Running:
    """A sequence: its tokens, and how many of them are computed."""

    def __init__(self, pool: Pool, tokens: Sequence[int], salt: str = "") -> None:
        self.pool = pool
        self.tokens = np.array(tokens, dtype=np.int32)
        self.salt = salt
        self.chain = PrefixChain(salt)
        self.table = PageTable()
        self.num_computed = 0
        self.reuse: Reuse | None = None

    @property
    def tenant(self) -> int:
        return sum(map(ord, self.salt))

    def begin(self) -> Reuse:
        limit = len(self.tokens) - 1
        expected, _ = self.pool.cache.peek(self.tokens, limit, self.chain)
        self.reuse = self.pool.cache.attach(self.table, self.tokens, limit, self.chain)
        self.num_computed = self.reuse.cached_tokens
        assert self.num_computed <= limit
        assert self.num_computed in (expected, expected // PAGE * PAGE)  # a copy may find no page
        self.pool.live.append(self)
        self.verify()
        return self.reuse

    def compute(self, count: int) -> bool:
        """Another `count` tokens at most; False where pages are missing."""
        end = min(len(self.tokens), self.num_computed + count)
        if not self.pool.pages.append(self.table, end):
            return False
        for position in range(self.num_computed, end):
            page = self.table.pages[position // PAGE]
            self.pool.memory.places[page, position % PAGE] = self.tokens[position], self.tenant
        self.num_computed = end
        self.pool.cache.register(self.table, self.tokens[:end], self.chain)
        self.verify()
        return True

    def end(self) -> None:
        self.verify()
        self.pool.cache.release(self.table, self.tokens[: self.num_computed], self.chain)
        self.num_computed = 0
        self.pool.live.remove(self)

    def verify(self) -> None:
        """Its pages hold its own tokens, computed for its own tenant."""
        for position in range(self.num_computed):
            place = self.pool.memory.places[self.table.pages[position // PAGE], position % PAGE]
            assert place.tolist() == [self.tokens[position], self.tenant]


def finished(pool: Pool, tokens: Sequence[int], salt: str = "") -> Reuse:
    """What a sequence reuses that runs from beginning to end."""
    running = Running(pool, tokens, salt)
    reuse = running.begin()
    assert running.compute(len(tokens))
    running.end()
    pool.check()
    return reuse


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(6, 24), st.one_of(st.none(), st.integers(0, 8)), st.booleans())
def test_random_prompts_with_shared_beginnings(seed: int, num_pages: int, max_kept: int | None, shuffle: bool) -> None:
    rng = random.Random(seed)
    pool = Pool(num_pages, max_kept=max_kept, shuffle=rng if shuffle else None)
    stems = [[rng.randrange(4) for _ in range(rng.randrange(40))] for _ in range(4)]
    for _ in range(40):
        action = rng.random()
        if action < 0.35 and len(pool.live) < 4:
            stem = rng.choice(stems)
            tokens = stem[: rng.randrange(len(stem) + 1)] + [rng.randrange(4) for _ in range(rng.randrange(1, 20))]
            Running(pool, tokens, rng.choice(["", "a", "b"])).begin()
        elif action < 0.8 and pool.live:
            running = rng.choice(pool.live)
            if not running.compute(rng.randrange(1, 20)):
                running.end()  # preempted
        elif action < 0.97 and pool.live:
            rng.choice(pool.live).end()
        elif action > 0.99:
            pool.cache.clear()
        pool.check()
        assert pool.pages.num_kept <= pool.pages.max_kept
        for running in pool.live:
            running.verify()
    for running in tuple(pool.live):
        running.end()
    pool.check()
    assert pool.pages.num_free == num_pages


def test_the_whole_prompt_but_its_last_token_is_found_again() -> None:
    pool = Pool(20)
    for length in (2, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 5):
        prompt = [100 + length] * length
        assert finished(pool, prompt).limit is ReuseLimit.NO_COMMON_PREFIX
        again = finished(pool, prompt)
        assert (again.cached_tokens, again.limit) == (length - 1, ReuseLimit.LAST_TOKEN)


def test_a_conversation_goes_on_where_it_ended() -> None:
    pool = Pool(40)
    conversation = list(range(30))
    finished(pool, conversation)
    for turn in range(1, 6):
        longer = conversation + [turn] * 11
        reuse = finished(pool, longer)
        assert reuse.cached_tokens == len(conversation)
        assert reuse.limit is ReuseLimit.NEW
        assert f"{len(conversation)} of {len(longer)} tokens were reused" in reuse.reason
        conversation = longer
    # The half-filled ends of earlier turns make room for the pages that go on from them.
    assert len(pool.cache) == pool.pages.pages_for(len(conversation))


def test_why_the_rest_was_computed() -> None:
    pool = Pool(8)
    finished(pool, range(30))
    differs = finished(pool, [*range(13), *[99] * 20])
    assert (differs.cached_tokens, differs.limit) == (13, ReuseLimit.DIFFERS)
    assert "from token 13 on" in differs.reason
    border = finished(pool, [*range(16), 50])
    assert (border.cached_tokens, border.limit) == (16, ReuseLimit.LAST_TOKEN)
    border = finished(pool, [*range(16), 50, 51])
    assert (border.cached_tokens, border.limit) == (17, ReuseLimit.LAST_TOKEN)
    other = finished(pool, range(30), salt="somebody")
    assert (other.cached_tokens, other.limit) == (0, ReuseLimit.NO_COMMON_PREFIX)
    assert "cache_salt" in other.reason
    finished(pool, [7] * 8 * PAGE)  # takes all pages
    gone = finished(pool, range(30))
    assert (gone.cached_tokens, gone.limit) == (0, ReuseLimit.EVICTED)


def test_few_agreeing_tokens_are_not_worth_a_copy() -> None:
    pool = Pool(20)
    pool.cache._fewest_copied = 4
    finished(pool, range(30))
    reuse = finished(pool, [*range(19), *[99] * 20])
    assert (reuse.cached_tokens, reuse.limit) == (16, ReuseLimit.PAGE_BORDER)
    assert "19 agree" in reuse.reason


def test_two_tenants_never_share() -> None:
    pool = Pool(40)
    prompt = list(range(50))
    finished(pool, prompt, "alice")
    for salt in ("bob", "", "alic", "alice "):
        assert finished(pool, prompt, salt).cached_tokens == 0
    assert finished(pool, prompt, "alice").cached_tokens == 49


def test_equal_hashes_of_different_texts_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash so bad that every page of the same depth has the same key."""
    monkeypatch.setattr(prefix_cache, "page_key", lambda parent, tokens: b"p" + parent[:3])
    monkeypatch.setattr(prefix_cache, "root_key", lambda salt: b"r")
    pool = Pool(40)
    rng = random.Random(1)
    prompts = [[rng.randrange(1000) for _ in range(40)] for _ in range(6)]
    prompts += [prompts[0][:16] + [5] * 20]
    for _ in range(60):
        running = Running(pool, rng.choice(prompts), rng.choice(["a", "b"]))
        running.begin()
        assert running.compute(40)
        if len(pool.live) > 3:
            pool.live[0].end()
        pool.pages.check_integrity([running.table for running in pool.live])
    for running in tuple(pool.live):
        running.end()


def test_two_that_compute_the_same_share_in_the_end() -> None:
    pool = Pool(20)
    first, second = Running(pool, range(40)), Running(pool, range(40))
    first.begin()
    second.begin()
    while first.num_computed < 40:
        assert first.compute(10)
        assert second.compute(10)
        pool.check()
    assert first.table.pages == second.table.pages
    assert pool.pages.num_free == 20 - 5
    first.end()
    second.verify()
    second.end()
    pool.check()


def test_beginnings_outlive_tails() -> None:
    pool = Pool(10)
    finished(pool, range(6 * PAGE))
    finished(pool, [99] * (7 * PAGE))  # 4 were free, so 3 of the 6 give way
    reuse = finished(pool, range(6 * PAGE))
    assert reuse.cached_tokens == 3 * PAGE
    assert reuse.limit is ReuseLimit.EVICTED


def test_what_is_used_again_stays() -> None:
    pool = Pool(8)
    for number in range(20):
        finished(pool, [1] * (2 * PAGE))
        finished(pool, [100 + number] * (3 * PAGE))
    assert finished(pool, [1] * (2 * PAGE)).cached_tokens == 2 * PAGE - 1


@pytest.mark.parametrize("max_kept", [0, 1, 5])
def test_the_memory_of_kept_pages_is_bounded(max_kept: int) -> None:
    pool = Pool(20, max_kept=max_kept)
    for number in range(10):
        finished(pool, [number] * (4 * PAGE))
        assert pool.pages.num_kept <= max_kept
        assert len(pool.cache) <= max_kept
    assert finished(pool, [9] * (4 * PAGE)).cached_tokens == min(max_kept * PAGE, 4 * PAGE - 1)


def test_a_very_long_prompt_is_given_up_whole() -> None:
    """The tree is as deep as a prompt is long, deeper than Python's stack."""
    pool = Pool(3000)
    finished(pool, [1] * (2500 * PAGE))
    node = next(iter(pool.cache._roots.values()))
    (first,) = node.children
    pool.cache._on_evict(first.page)
    assert len(pool.cache) == 0
    assert pool.cache.num_evictions == 2500


def test_the_tree_is_checked() -> None:
    pool = Pool(10)
    finished(pool, range(30))
    node = next(iter(pool.cache._nodes.values()))
    node.tokens = node.tokens[::-1]
    with pytest.raises(AssertionError):
        pool.cache.check_integrity()
