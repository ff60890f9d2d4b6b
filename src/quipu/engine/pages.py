"""Pages of the KV cache: who holds which. Numbers only; the memory itself belongs to the backend.

A page holds a fixed number of token positions for all layers. A sequence holds a list of pages, in any order. Pages are
counted, so that several sequences can hold the same full page. A page that nobody holds is free, or *kept*: its content
may be asked for again, and it is handed out only when nothing else is left, the one that was let go of first.

64 tokens per page is what the attention kernels work on: they widen keys 16 at a time and take one softmax step per 64
keys, which a page of 64 meets with one look into the table.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


class PageTable:
    """The pages of one sequence: position p lives in page `pages[p // page_size]`.

    Attributes:
        pages: page ids, int32.
    """

    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages = array("i")

    def __len__(self) -> int:
        return len(self.pages)


def _nothing(page: int) -> None:
    """Nobody wants to know about an eviction."""


class PageAllocator:
    """Hands out pages and takes them back.

    Freed pages are handed out again first, then such as were never used, and kept ones last.

    Args:
        num_pages: pages there are.
        page_size: token positions per page.
        max_kept: most pages that are kept while nobody holds them; None: any number.
        shuffle: hands pages out in random order, as after long use. For tests: nothing may rely on neighbours.

    Attributes:
        on_evict: called with each kept page that is about to be handed out, or that exceeds `max_kept`.
    """

    def __init__(
        self, num_pages: int, page_size: int, *, max_kept: int | None = None, shuffle: Random | None = None
    ) -> None:
        assert num_pages > 0
        assert page_size > 0
        self.num_pages = num_pages
        self.page_size = page_size
        self.max_kept = num_pages if max_kept is None else max_kept
        self.on_evict: Callable[[int], None] = _nothing
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_holders = array("i", bytes(4 * num_pages))
        self._is_wanted = bytearray(num_pages)  # has content that is kept once nobody holds the page
        self._kept: OrderedDict[int, None] = OrderedDict()  # the one that was let go of first comes first
        self._random = shuffle
        if self._random is not None:
            self._random.shuffle(self._free)

    @property
    def num_free(self) -> int:
        """Pages that can be handed out: free ones and kept ones."""
        return len(self._free) + len(self._kept)

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that `num_tokens` positions take."""
        return -(-num_tokens // self.page_size)

    def num_missing(self, table: PageTable, num_tokens: int) -> int:
        """Pages to add to `table` before it holds `num_tokens` positions."""
        return max(0, self.pages_for(num_tokens) - len(table))

    def allocate(self, num_tokens: int) -> PageTable | None:
        """A new table for `num_tokens` positions, or None where too few pages are free."""
        table = PageTable()
        return table if self.append(table, num_tokens) else None

    def append(self, table: PageTable, num_tokens: int) -> bool:
        """Grow `table` until it holds `num_tokens` positions in all. False, and no change, if too few are free."""
        missing = self.num_missing(table, num_tokens)
        if missing > self.num_free:
            return False
        for _ in range(missing):
            page = self._free.pop() if self._free else self._evict()
            self._num_holders[page] = 1
            table.pages.append(page)
        return True

    def share(self, table: PageTable, num_tokens: int) -> PageTable:
        """A new table that holds the full pages among the first `num_tokens` positions of `table`.

        A shared page is never written again, hence full pages only.
        """
        shared = PageTable()
        self.hold(shared, table.pages[: num_tokens // self.page_size])
        return shared

    def hold(self, table: PageTable, pages: Sequence[int]) -> None:
        """Append pages that are kept, or that other tables hold, to `table`."""
        for page in pages:
            if self._num_holders[page] == 0:
                del self._kept[page]  # a page that is neither held nor kept has no content to share
            self._num_holders[page] += 1
            table.pages.append(page)

    def replace(self, table: PageTable, index: int, page: int) -> None:
        """Hold `page`, which is kept or held elsewhere, in place of the table's own at `index`."""
        old = table.pages[index]
        assert old != page
        self.hold(table, [page])
        table.pages[index] = table.pages.pop()
        self._release(old)

    def trim(self, table: PageTable, num_tokens: int) -> None:
        """Give back the pages behind the first `num_tokens` positions, the last first: beginnings are kept longest."""
        kept = self.pages_for(num_tokens)
        while len(table.pages) > kept:
            self._release(table.pages.pop())

    def free(self, table: PageTable) -> None:
        """Give back all pages of `table`, which is empty afterwards."""
        self.trim(table, 0)

    def keep(self, page: int) -> None:
        """Keep the content of a held page once nobody holds it."""
        assert self._num_holders[page] > 0
        self._is_wanted[page] = 1

    def forget(self, page: int) -> None:
        """No longer keep a page's content; it is free as soon as nobody holds it."""
        self._is_wanted[page] = 0
        if page in self._kept:
            del self._kept[page]
            self._put_back(page)

    def touch(self, page: int) -> None:
        """Count a kept page as let go of just now."""
        if page in self._kept:
            self._kept.move_to_end(page)

    def is_held(self, page: int) -> bool:
        return self._num_holders[page] > 0

    def check_integrity(self, tables: Iterable[PageTable]) -> None:
        """Assert that every page is free, kept, or held exactly as often as it occurs in `tables`, all there are."""
        holders = array("i", bytes(4 * self.num_pages))
        for table in tables:
            assert len(set(table.pages)) == len(table.pages), "a table holds a page twice"
            for page in table.pages:
                holders[page] += 1
        assert holders == self._num_holders, "pages are counted wrongly"
        free, kept = set(self._free), set(self._kept)
        assert len(free) == len(self._free), "a page is free twice"
        assert not free & kept, "a page is both free and kept"
        assert {page for page, count in enumerate(holders) if count == 0} == free | kept, "a page is lost"
        assert all(self._is_wanted[page] for page in kept), "a page is kept for nothing"
        assert not any(self._is_wanted[page] for page in free), "a free page has content"
        assert len(kept) <= self.max_kept, "more pages are kept than allowed"

    def _evict(self) -> int:
        """The page that was let go of first, without its content."""
        page, _ = self._kept.popitem(last=False)
        self._is_wanted[page] = 0
        self.on_evict(page)
        return page

    def _release(self, page: int) -> None:
        self._num_holders[page] -= 1
        if self._num_holders[page] > 0:
            return
        if not self._is_wanted[page]:
            self._put_back(page)
            return
        self._kept[page] = None
        while len(self._kept) > self.max_kept:
            self._put_back(self._evict())

    def _put_back(self, page: int) -> None:
        self._free.append(page)
        if self._random is not None:
            other = self._random.randrange(len(self._free))
            self._free[other], self._free[-1] = self._free[-1], self._free[other]
