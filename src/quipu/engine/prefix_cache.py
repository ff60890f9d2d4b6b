"""The automatic prefix cache: pages whose tokens begin a new prompt are found again instead of computed again.

Every full page is a node of a tree under the page before it. Its key is a hash of its parent's key and its own token
ids; the root's key is a hash of the tenant's salt. A page is used only if its token ids and its parent are also the
ones wanted, so equal hashes of different texts cannot mix anything up, and a salt separates tenants completely.

Of a page that agrees only in its beginning, or that was not full when its sequence ended, the agreeing part is used
through a copy: the copy is written on, and a page in the tree never is.

The pages stay where they are: the pool of the KV cache is main memory already, so a second tier of memory beside it
would only hold copies. Unheld pages wait in the pool until others need them, the longest unused and the tails first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import KVStorage
from quipu.engine.page_store import LoadedPage, Loading, PageStore, StoredPage
from quipu.engine.pages import PageAllocator, PageTable
from quipu.types import Reuse, ReuseLimit

_KEY_BYTES = 32
_MOST_COMPARED = 64  # pages that follow the same one, looked through for the longest common beginning
_REMEMBERED_EVICTIONS = 4  # per page of the pool


def root_key(salt: str) -> bytes:
    """The key that all prompts of one tenant start from."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES, person=b"quipu prefix").digest()


def page_key(parent: bytes, tokens: bytes) -> bytes:
    """The key of a page: 32 bytes of BLAKE2b over its parent's key and its int32 token ids, little-endian."""
    return blake2b(parent + tokens, digest_size=_KEY_BYTES).digest()


def token_bytes(tokens: NDArray[np.int32]) -> bytes:
    return tokens.astype("<i4", copy=False).tobytes()


class _Node:
    """A page in the tree. In a root, `page` is -1 and `tokens` is the salt."""

    __slots__ = ("children", "is_live", "key", "page", "parent", "tokens")

    def __init__(self, key: bytes, parent: _Node | None, tokens: bytes, page: int) -> None:
        self.key = key
        self.parent = parent
        self.tokens = tokens
        self.page = page
        self.children: dict[_Node, None] = {}
        self.is_live = True


class PrefixChain:
    """One sequence's way through the tree; its keys are computed once, as its tokens become known.

    Attributes:
        salt: the tenant's.
        keys: of the sequence's full pages, as far as they were asked for.
        loading: pages that are on their way from the disk, or None.
        num_registered: of the sequence's pages, how many are in the tree.
    """

    __slots__ = ("_node", "keys", "loading", "num_registered", "root", "salt")

    def __init__(self, salt: str) -> None:
        self.salt = salt
        self.root = root_key(salt)
        self.keys: list[bytes] = []
        self.loading: Loading | None = None
        self._node: _Node | None = None
        self.num_registered = 0

    def restart(self) -> None:
        """The tokens have changed, or the pages were given back."""
        self.keys.clear()
        self.rewind()

    def rewind(self) -> None:
        """The pages were given back; tokens and keys stay."""
        self._node = None
        self.num_registered = 0


@dataclass(frozen=True, slots=True)
class _Match:
    """What the tree has of a prompt: whole pages, and `num_partial` tokens of `partial`."""

    nodes: list[_Node]
    partial: _Node | None
    num_partial: int


class PrefixCache:
    """Finds, registers and gives back pages. Belongs to the thread that steps.

    Args:
        pages: the pages of the KV cache.
        kv: their memory.
        store: where pages outlive the process, or None.

    Attributes:
        num_evictions: pages that gave way to others, so far.
    """

    def __init__(self, pages: PageAllocator, kv: KVStorage, store: PageStore | None = None) -> None:
        self._pages = pages
        self._kv = kv
        self.store = store
        self._nodes: dict[bytes, _Node] = {}
        self._roots: dict[str, _Node] = {}  # by salt
        self._by_page: dict[int, _Node] = {}
        self._evicted: OrderedDict[bytes, None] = OrderedDict()
        self._fewest_copied = max(1, pages.page_size // 8)
        self.num_evictions = 0
        pages.on_evict = self._on_evict

    def __len__(self) -> int:
        """Pages that can be found."""
        return len(self._nodes)

    # --- finding -----------------------------------------------------------------------------------------------------

    def prefetch(self, tokens: NDArray[np.int32], limit: int, chain: PrefixChain) -> None:
        """Begin to load what only the disk has of a prompt; `chain.loading` tells when it is there."""
        if self.store is None or chain.loading is not None:
            return
        size = self._pages.page_size
        keys = self._keys(tokens, limit // size, chain)
        num_found = len(self._match(tokens, limit, chain).nodes)
        wanted = []
        for index in range(num_found, len(keys)):
            piece = token_bytes(tokens[index * size : (index + 1) * size])
            parent = keys[index - 1] if index else chain.root
            if not self.store.has(keys[index]):
                break
            wanted.append(StoredPage(keys[index], parent, piece))
        if wanted:
            chain.loading = self.store.load(wanted)

    def peek(self, tokens: NDArray[np.int32], limit: int, chain: PrefixChain) -> tuple[int, int]:
        """What `attach` would give: how many tokens, and how many of their pages others hold at present."""
        match = self._match(tokens, limit, chain)
        num_tokens = len(match.nodes) * self._pages.page_size
        if match.num_partial >= self._fewest_copied:
            num_tokens += match.num_partial
        return num_tokens, sum(self._pages.is_held(node.page) for node in match.nodes)

    def attach(self, table: PageTable, tokens: NDArray[np.int32], limit: int, chain: PrefixChain) -> Reuse:
        """Give the empty `table` the pages that hold a beginning of `tokens`, at most `limit` of them.

        `Reuse.cached_tokens` says how many, and why not more.
        """
        assert len(table) == 0
        chain.rewind()
        match = self._match(tokens, limit, chain)
        self._pages.hold(table, [node.page for node in match.nodes])
        if chain.loading is not None:
            loading, chain.loading = chain.loading, None
            if self._insert_loaded(table, loading.result(), chain):
                self._pages.free(table)
                match = self._match(tokens, limit, chain)
                self._pages.hold(table, [node.page for node in match.nodes])
        num_tokens = len(match.nodes) * self._pages.page_size
        num_copied = self._copy_beginning(table, match, num_tokens)
        chain._node = match.nodes[-1] if match.nodes else None
        chain.num_registered = len(match.nodes)
        return self._explain(tokens, match, num_copied, chain)

    def _keys(self, tokens: NDArray[np.int32], count: int, chain: PrefixChain) -> list[bytes]:
        """The keys of the first `count` pages of `tokens`."""
        size, keys = self._pages.page_size, chain.keys
        while len(keys) < count:
            begin = len(keys) * size
            keys.append(page_key(keys[-1] if keys else chain.root, token_bytes(tokens[begin : begin + size])))
        return keys[:count]

    def _match(self, tokens: NDArray[np.int32], limit: int, chain: PrefixChain) -> _Match:
        size = self._pages.page_size
        node = self._roots.get(chain.salt)
        if node is None:
            return _Match([], None, 0)
        nodes: list[_Node] = []
        keys = self._keys(tokens, limit // size, chain)
        for index in range(limit // size):
            child = self._verified(keys[index], node, token_bytes(tokens[index * size : (index + 1) * size]))
            if child is None:
                break
            nodes.append(child)
            node = child
        begin = len(nodes) * size
        wanted = tokens[begin : min(limit, begin + size)]
        best, most = None, 0
        for child in _latest(node):
            num_common = _num_common(wanted, child.tokens)
            if num_common > most:
                best, most = child, num_common
        return _Match(nodes, best, most)

    def _verified(self, key: bytes, parent: _Node, tokens: bytes) -> _Node | None:
        """The node of a key, if it is the one wanted and not another of equal hash."""
        node = self._nodes.get(key)
        return node if node is not None and node.parent is parent and node.tokens == tokens else None

    def _copy_beginning(self, table: PageTable, match: _Match, num_tokens: int) -> int:
        """Copy the page that agrees in its beginning; how many tokens that gives."""
        if match.partial is None or match.num_partial < self._fewest_copied:
            return 0
        source = PageTable()
        self._pages.hold(source, [match.partial.page])  # or it might be evicted for its own copy
        num_copied = match.num_partial if self._pages.append(table, num_tokens + match.num_partial) else 0
        if num_copied:
            self._kv.copy_page(match.partial.page, table.pages[-1])
        self._pages.free(source)
        return num_copied

    def _insert_loaded(self, table: PageTable, loaded: Iterable[LoadedPage], chain: PrefixChain) -> bool:
        """Put pages from the disk into the pool, behind those that `table` holds; whether there were any."""
        size = self._pages.page_size
        was_changed = False
        for page in loaded:
            parent = self._nodes.get(page.parent) if len(table) else self._root(chain)
            expected = (
                parent is not None
                and parent.key == page.parent
                and (parent.page == (table.pages[-1] if len(table) else -1))
            )
            if not expected or page.key in self._nodes:
                continue  # meanwhile computed, or its beginning is gone
            assert parent is not None
            if not self._pages.append(table, (len(table) + 1) * size):
                break
            self._kv.write_page(table.pages[-1], page.data)
            self._add(page.key, parent, page.tokens, table.pages[-1])
            was_changed = True
        self._drop_empty_root(chain.salt)
        return was_changed

    # --- registering -------------------------------------------------------------------------------------------------

    def register(self, table: PageTable, tokens: NDArray[np.int32], chain: PrefixChain) -> None:
        """Make the full pages of a sequence findable.

        Where the same page was computed twice, the table lets go of its own and holds the other.

        Args:
            table: its pages.
            tokens: the tokens whose keys and values they hold.
            chain: where the sequence is in the tree.
        """
        size = self._pages.page_size
        num_full = len(tokens) // size
        if chain._node is not None and not chain._node.is_live:
            chain.rewind()
        if chain.num_registered >= num_full:
            return
        keys = self._keys(tokens, num_full, chain)
        node = chain._node or self._root(chain)
        for index in range(chain.num_registered, num_full):
            piece = token_bytes(tokens[index * size : (index + 1) * size])
            child = self._nodes.get(keys[index])
            if child is None:
                child = self._add(keys[index], node, piece, table.pages[index])
                if self.store is not None:
                    self._offer(child)
            elif child is not self._verified(keys[index], node, piece):
                break  # another text of equal hash: this sequence's pages stay its own
            elif child.page != table.pages[index]:
                self._pages.replace(table, index, child.page)
            node = child
            chain._node, chain.num_registered = node, index + 1
        self._drop_empty_root(chain.salt)

    def release(self, table: PageTable, tokens: NDArray[np.int32], chain: PrefixChain | None) -> None:
        """Give back all pages of a sequence; what they hold is kept, the last and partly filled page included.

        Args:
            table: its pages.
            tokens: the tokens whose keys and values they hold.
            chain: where the sequence is in the tree; None: keep nothing.
        """
        if chain is not None and len(table):
            self.register(table, tokens, chain)
            size = self._pages.page_size
            num_full = len(tokens) // size
            rest = tokens[num_full * size :]
            if chain.num_registered == num_full and len(rest) >= self._fewest_copied:
                node = chain._node or self._root(chain)
                piece = token_bytes(rest)
                key = page_key(node.key, piece)
                if key not in self._nodes and not any(child.tokens.startswith(piece) for child in _latest(node)):
                    self._add(key, node, piece, table.pages[num_full])
            self._drop_empty_root(chain.salt)
        if chain is not None:
            chain.rewind()
        self._pages.free(table)

    def clear(self) -> None:
        """Forget all pages. Those that are held stay with their holders."""
        for node in tuple(self._nodes.values()):
            self._unlink(node)
            self._pages.forget(node.page)
        self._roots.clear()
        self._evicted.clear()

    def _root(self, chain: PrefixChain) -> _Node:
        if chain.salt not in self._roots:
            self._roots[chain.salt] = _Node(chain.root, None, chain.salt.encode("utf-8", "surrogatepass"), -1)
        return self._roots[chain.salt]

    def _add(self, key: bytes, parent: _Node, tokens: bytes, page: int) -> _Node:
        for sibling in _latest(parent):
            if tokens.startswith(sibling.tokens) and not sibling.children and not self._pages.is_held(sibling.page):
                self._unlink(sibling)  # the end of an earlier turn, which this page holds as well
                self._pages.forget(sibling.page)
        node = _Node(key, parent, tokens, page)
        self._nodes[key] = node
        self._by_page[page] = node
        parent.children[node] = None
        if parent.page < 0:
            self._roots[_salt(parent)] = parent
        self._evicted.pop(key, None)
        self._pages.keep(page)
        return node

    def _offer(self, node: _Node) -> None:
        assert self.store is not None
        assert node.parent is not None
        page = StoredPage(node.key, node.parent.key, node.tokens)
        if self.store.wants(page):
            self.store.put(page, self._kv.read_page(node.page))

    # --- forgetting --------------------------------------------------------------------------------------------------

    def _on_evict(self, page: int) -> None:
        """A page is handed out to others. What follows it in the tree could not be found any more."""
        node = self._by_page[page]
        for descendant in reversed(_descendants(node)):
            self._evict(descendant)
            self._pages.forget(descendant.page)
        self._evict(node)

    def _evict(self, node: _Node) -> None:
        self._unlink(node)
        self.num_evictions += 1
        self._evicted[node.key] = None
        if len(self._evicted) > _REMEMBERED_EVICTIONS * self._pages.num_pages:
            self._evicted.popitem(last=False)

    def _unlink(self, node: _Node) -> None:
        node.is_live = False
        del self._nodes[node.key]
        del self._by_page[node.page]
        parent = node.parent
        assert parent is not None
        del parent.children[node]
        if parent.page < 0 and not parent.children:
            self._roots.pop(_salt(parent), None)

    def _drop_empty_root(self, salt: str) -> None:
        root = self._roots.get(salt)
        if root is not None and not root.children:
            del self._roots[salt]

    # --- saving and restoring ----------------------------------------------------------------------------------------

    def export(self, tokens: NDArray[np.int32], salt: str) -> tuple[int, list[NDArray[np.uint8]]]:
        """Copies of the pages that hold a beginning of `tokens`, and how many tokens that is."""
        chain = PrefixChain(salt)
        match = self._match(tokens, len(tokens), chain)
        nodes = match.nodes + ([match.partial] if match.partial is not None else [])
        num_tokens = len(match.nodes) * self._pages.page_size + match.num_partial
        return num_tokens, [self._kv.read_page(node.page) for node in nodes]

    def restore(self, tokens: NDArray[np.int32], data: Sequence[NDArray[np.uint8]], salt: str) -> int:
        """Put pages from `export` into the tree, as many as there is room for; how many tokens can be found now."""
        chain = PrefixChain(salt)
        table = PageTable()
        size = self._pages.page_size
        self._pages.hold(table, [node.page for node in self._match(tokens, len(tokens), chain).nodes])
        while len(table) < len(data) and self._pages.append(table, (len(table) + 1) * size):
            self._kv.write_page(table.pages[-1], data[len(table) - 1])
        num_tokens = min(len(tokens), len(table) * size)
        self.release(table, tokens[:num_tokens], chain)
        return num_tokens

    # --- explaining --------------------------------------------------------------------------------------------------

    def _explain(self, tokens: NDArray[np.int32], match: _Match, num_copied: int, chain: PrefixChain) -> Reuse:
        """How many tokens were found, and why the others were not."""
        size = self._pages.page_size
        num_full = len(match.nodes) * size
        num_cached = num_full + num_copied
        num_agreeing = num_full + match.num_partial
        total = len(tokens)
        following = match.nodes[-1] if match.nodes else self._roots.get(chain.salt)
        end = len(match.nodes) + 1

        def reuse(limit: ReuseLimit, why: str) -> Reuse:
            return Reuse(num_cached, limit, f"{num_cached} of {total} tokens were reused: {why}")

        if num_cached == total - 1:
            return reuse(ReuseLimit.LAST_TOKEN, "the last one is always computed, for its logits")
        if total >= end * size and self._keys(tokens, end, chain)[-1] in self._evicted:
            return reuse(ReuseLimit.EVICTED, "the rest was cached and gave way to other requests")
        if num_cached < num_agreeing:
            return reuse(
                ReuseLimit.PAGE_BORDER,
                f"{num_agreeing} agree with what is cached, but it is shared in pages of {size}, and of a page that "
                f"agrees in part at least {self._fewest_copied} are copied",
            )
        if num_agreeing == 0:
            where = " under this cache_salt" if chain.salt else ""
            return reuse(ReuseLimit.NO_COMMON_PREFIX, f"the prompt begins like none that is cached{where}")
        is_longer = match.num_partial > 0 and match.partial is not None and len(match.partial.tokens) > 4 * num_copied
        if is_longer or (match.num_partial == 0 and following is not None and following.children):
            return reuse(ReuseLimit.DIFFERS, f"from token {num_agreeing} on the prompt differs from what is cached")
        return reuse(ReuseLimit.NEW, f"what is cached ends at token {num_agreeing}")

    def check_integrity(self) -> None:
        """Assert that the tree and the kept pages are the same thing."""
        assert len(self._by_page) == len(self._nodes)
        for key, node in self._nodes.items():
            parent = node.parent
            assert node.key == key == page_key(parent.key if parent is not None else b"", node.tokens)
            assert node.is_live
            assert self._by_page[node.page] is node
            assert parent is not None
            assert node in parent.children
            assert parent.page < 0 or self._nodes[parent.key] is parent, "a page whose beginning is gone"
            assert not self._pages.is_held(node.page) or parent.page < 0 or self._pages.is_held(parent.page)
        for salt, root in self._roots.items():
            assert root.key == root_key(salt)
            assert root.children, "an empty root"


def _salt(root: _Node) -> str:
    return root.tokens.decode("utf-8", "surrogatepass")


def _num_common(wanted: NDArray[np.int32], tokens: bytes) -> int:
    """How many tokens agree from the beginning."""
    count = min(len(wanted), len(tokens) // 4)
    differs = wanted[:count] != np.frombuffer(tokens, dtype="<i4", count=count)
    first = int(differs.argmax()) if count else 0
    return first if count and differs[first] else count


def _latest(node: _Node) -> list[_Node]:
    """The pages that follow one, the latest first, as many as are worth a look."""
    return list(islice(reversed(node.children), _MOST_COMPARED))


def _descendants(node: _Node) -> list[_Node]:
    """All nodes below, each before those below it. A loop, because a long text is a deep tree."""
    found = list(node.children)
    for descendant in found:
        found += descendant.children
    return found
