"""What all tests share: engines hand out scattered pages, and account for them when a test is over."""

from __future__ import annotations

import importlib.util
import random
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

_SEED = 20


@pytest.fixture(scope="session", autouse=True)
def engines() -> Iterator[weakref.WeakSet[Any]]:
    """All engines that are alive. Their pages are handed out in random order, unless a test chooses the order."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    if importlib.util.find_spec("quipu") is None:
        yield alive
        return
    engine = importlib.import_module("quipu.engine.engine")
    initialize, allocator = engine.Engine.__init__, engine.PageAllocator

    def shuffled(*arguments: Any, shuffle: random.Random | None = None, **options: Any) -> Any:
        return allocator(*arguments, shuffle=shuffle or random.Random(_SEED), **options)

    def remembered(self: Any, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        alive.add(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "PageAllocator", shuffled)
        patch.setattr(engine.Engine, "__init__", remembered)
        yield alive


@pytest.fixture(autouse=True)
def pages_are_accounted_for(engines: weakref.WeakSet[Any]) -> Iterator[None]:
    """After each test, every page of every idle engine is free, kept, or held by a request."""
    yield
    if sys.exc_info()[0] is not None:
        return
    for engine in tuple(engines):
        if not engine.has_work:
            engine.check_integrity()
