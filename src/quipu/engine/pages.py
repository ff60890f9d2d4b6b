"""Pages of the KV cache: who holds which. Numbers only; the memory itself belongs to the backend.

A page holds a fixed number of token positions for all layers. A sequence holds a list of pages, in any order. Pages are
counted, so that several sequences can hold the same full page once prefixes are shared.
"""

from __future__ import annotations

from array import array
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


class PageAllocator:
    """Hands out pages and takes them back.

    Freed pages are handed out again first: memory that was never used stays untouched.

    Args:
        num_pages: pages there are.
        page_size: token positions per page.
        shuffle: hands pages out in random order, as after long use. For tests: nothing may rely on neighbours.
    """

    def __init__(self, num_pages: int, page_size: int, *, shuffle: Random | None = None) -> None:
        assert num_pages > 0
        assert page_size > 0
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_holders = array("i", bytes(4 * num_pages))
        self._random = shuffle
        if self._random is not None:
            self._random.shuffle(self._free)

    @property
    def num_free(self) -> int:
        return len(self._free)

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
        if missing > len(self._free):
            return False
        for _ in range(missing):
            page = self._free.pop()
            self._num_holders[page] = 1
            table.pages.append(page)
        return True

    def share(self, table: PageTable, num_tokens: int) -> PageTable:
        """A new table that holds the full pages among the first `num_tokens` positions of `table`.

        A shared page is never written again, hence full pages only.
        """
        shared = PageTable()
        shared.pages.extend(table.pages[: num_tokens // self.page_size])
        for page in shared.pages:
            self._num_holders[page] += 1
        return shared

    def trim(self, table: PageTable, num_tokens: int) -> None:
        """Give back the pages behind the first `num_tokens` positions."""
        kept = self.pages_for(num_tokens)
        while len(table.pages) > kept:
            page = table.pages.pop()
            self._num_holders[page] -= 1
            if self._num_holders[page] == 0:
                self._release(page)

    def free(self, table: PageTable) -> None:
        """Give back all pages of `table`, which is empty afterwards."""
        self.trim(table, 0)

    def check_integrity(self, tables: list[PageTable]) -> None:
        """Assert that every page is either free or held exactly as often as it occurs in `tables`, all there are."""
        holders = [0] * self.num_pages
        for table in tables:
            assert len(set(table.pages)) == len(table.pages), "a table holds a page twice"
            for page in table.pages:
                holders[page] += 1
        assert holders == list(self._num_holders), "pages are counted wrongly"
        assert len(set(self._free)) == len(self._free), "a page is free twice"
        assert {page for page, count in enumerate(holders) if count == 0} == set(self._free), "a page is lost"

    def _release(self, page: int) -> None:
        self._free.append(page)
        if self._random is not None:
            other = self._random.randrange(len(self._free))
            self._free[other], self._free[-1] = self._free[-1], self._free[other]
