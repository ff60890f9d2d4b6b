"""Pages of the KV cache: none is lost, none is held twice, whatever the order of calls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.engine.pages import PageAllocator, PageTable

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["allocate", "append", "trim", "free", "share"]), st.integers(0, 30), st.integers(0, 40)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS, st.one_of(st.none(), st.integers(0, 1000)))
def test_pages_are_accounted_for(operations: list[tuple[str, int, int]], shuffle_seed: int | None) -> None:
    pages = PageAllocator(20, 4, shuffle=None if shuffle_seed is None else random.Random(shuffle_seed))
    tables: list[PageTable] = []
    for operation, number, num_tokens in operations:
        if operation == "allocate":
            num_free = pages.num_free
            table = pages.allocate(num_tokens)
            assert (table is None) == (pages.pages_for(num_tokens) > num_free)
            if table is not None:
                tables.append(table)
        elif tables:
            table = tables[number % len(tables)]
            before = list(table.pages)
            if operation == "append":
                fits = pages.num_missing(table, num_tokens) <= pages.num_free
                assert pages.append(table, num_tokens) == fits
                assert list(table.pages[: len(before)]) == before
            elif operation == "trim":
                pages.trim(table, num_tokens)
                assert list(table.pages) == before[: pages.pages_for(num_tokens)]
            elif operation == "free":
                pages.free(table)
                assert len(table) == 0
            else:
                shared = pages.share(table, min(num_tokens, len(table) * 4))
                assert list(shared.pages) == before[: len(shared)]
                tables.append(shared)
        pages.check_integrity(tables)
    for table in tables:
        pages.free(table)
    pages.check_integrity([])
    assert pages.num_free == 20


def test_refusal_changes_nothing() -> None:
    pages = PageAllocator(3, 16)
    table = pages.allocate(33)
    assert table is not None
    assert pages.num_free == 0
    assert not pages.append(table, 49)
    assert len(table) == 3
    assert pages.allocate(1) is None
    assert pages.allocate(0) is not None


def test_freed_pages_are_used_again_first() -> None:
    pages = PageAllocator(100, 16)
    table = pages.allocate(48)
    assert table is not None
    held = set(table.pages)
    pages.free(table)
    again = pages.allocate(48)
    assert again is not None
    assert set(again.pages) == held


def test_shuffled_pages_are_scattered() -> None:
    table = PageAllocator(100, 16, shuffle=random.Random(1)).allocate(160)
    assert table is not None
    steps = [after - before for before, after in zip(table.pages, table.pages[1:], strict=False)]
    assert sum(step == 1 for step in steps) < 3


def test_integrity_check_finds_a_lost_page() -> None:
    pages = PageAllocator(4, 16)
    assert pages.allocate(20) is not None
    with pytest.raises(AssertionError):
        pages.check_integrity([])
