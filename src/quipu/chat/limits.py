"""What one rendering of a chat template may cost, and the meter that stops it.

A template comes from a model file and is hostile until proven otherwise. It runs in this process, so nothing can
interrupt it from outside: instead every loop turn, call, operator and output passes through a `Meter`, which refuses an
operation before it is carried out when its result would be too large, and all of them when the time is up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from jinja2.utils import Namespace

_TICKS_PER_CHECK = 64
_BYTES_PER_TICK = 16  # what a turn of a loop may leave behind in an output buffer
_BYTES_PER_ITEM = 8
_MAX_NESTING = 400  # well before Python's own C code runs out of stack on a nested value
BYTES_PER_PIECE = 57  # a short str and its place in a list

# What is walked before it is compared or printed; dict_keys and its kin have no public names.
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: tuple[type, ...] = (list, dict, tuple, *_VIEWS, set, Namespace)


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What a template may use. `text_chars` and `memory_bytes` grow with the input, so that a long conversation fits.

    Attributes:
        time_s: processor time of the rendering thread, for compiling and for each rendering, in seconds.
        memory_bytes: sum over all values a rendering creates, also those freed again.
        text_chars: length of any one text, the prompt included.
        items: length of any one list, and parts of a nested value that is printed or compared.
        integer_bits: size of any whole number.
        template_chars: length of the template.
        template_tokens: lexical tokens in the template.
    """

    time_s: float = 2.0
    memory_bytes: int = 256 << 20
    text_chars: int = 16 << 20
    items: int = 500_000
    integer_bits: int = 4096
    template_chars: int = 256 << 10
    template_tokens: int = 32 << 10


class LimitExceededError(Exception):
    """A template reached a limit. The text completes "the chat template was stopped because it ..."."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a nested value is when it is walked as a tree: shared parts count each time they occur."""

    num_nodes: int
    num_chars: int
    depth: int


class Meter:
    """Counts what one rendering uses.

    Args:
        limits: what it may use.
        input_chars: characters in the messages and other variables.
    """

    def __init__(self, limits: RenderLimits, input_chars: int = 0) -> None:
        self.limits = limits
        self.max_chars = max(limits.text_chars, 4 * input_chars)
        # Templates that rebuild the whole prompt at each message copy it once per message.
        self._max_bytes = max(limits.memory_bytes, 128 * input_chars)
        self._deadline_s = time.thread_time() + limits.time_s
        self._num_bytes = 0
        self._num_ticks = 0

    def tick(self) -> None:
        """Count one step. Raises LimitExceededError when time or memory is used up."""
        self._num_ticks += 1
        if self._num_ticks % _TICKS_PER_CHECK == 0:
            self.spend(_TICKS_PER_CHECK * _BYTES_PER_TICK)
            if time.thread_time() > self._deadline_s:
                raise LimitExceededError(f"ran longer than {self.limits.time_s:g} s")

    def spend(self, num_bytes: int) -> None:
        """Count memory that is about to be used."""
        self._num_bytes += num_bytes
        if self._num_bytes > self._max_bytes:
            raise LimitExceededError(f"used more than {self._max_bytes >> 20} MiB of memory")

    def require(self, num_bytes: int) -> None:
        """Check, without counting it, that `num_bytes` more could be used."""
        if self._num_bytes + num_bytes > self._max_bytes:
            raise LimitExceededError(f"used more than {self._max_bytes >> 20} MiB of memory")

    def require_chars(self, num_chars: int) -> None:
        """Check that a text of `num_chars` may be built."""
        if num_chars > self.max_chars:
            raise LimitExceededError(f"built a text of more than {self.max_chars} characters")

    def require_items(self, num_items: int) -> None:
        """Check that a list of `num_items` may be built."""
        if num_items > self.limits.items:
            raise LimitExceededError(f"built a list of more than {self.limits.items} items")

    def require_bits(self, num_bits: int) -> None:
        """Check that a whole number of `num_bits` may be built."""
        if num_bits > self.limits.integer_bits:
            raise LimitExceededError(f"computed a number of more than {self.limits.integer_bits} bits")

    def admit(self, result: Any) -> Any:
        """Count a value that an operation returned, and return it."""
        self.tick()
        if isinstance(result, str):
            self.require_chars(len(result))
            self.spend(sys.getsizeof(result))
        elif isinstance(result, list | tuple | dict):
            self.require_items(len(result))
            self.spend(sys.getsizeof(result))
        elif isinstance(result, int):
            self.require_bits(result.bit_length())
        return result

    def admit_pieces(self, pieces: list[str]) -> list[str]:
        """Count a list of new texts, and return it."""
        self.tick()
        self.require_items(len(pieces))
        self.spend(len(pieces) * BYTES_PER_PIECE + sum(map(len, pieces)))
        return pieces

    def collect(self, iterable: Iterable[Any]) -> list[Any]:
        """The items of `iterable` in a new list, counted."""
        if isinstance(iterable, str):  # a character may cost an object of its own
            self.require(len(iterable) * BYTES_PER_PIECE)
        items: list[Any] = []
        for item in iterable:
            items.append(item)
            if len(items) % _TICKS_PER_CHECK == 0:
                self.require_items(len(items))
                self.tick()
        self.spend(_BYTES_PER_ITEM * len(items))
        return items

    def follow(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """The same items, counting a step for each."""
        for item in iterator:
            self.tick()
            yield item

    def measure(self, value: Any) -> Extent:
        """Walk a nested value. Raises LimitExceededError when it is too large, or contains itself."""
        num_nodes = num_chars = depth = 0
        pending: list[tuple[Any, int]] = [(value, 1)]
        while pending:
            item, level = pending.pop()
            num_nodes += 1
            depth = max(depth, level)
            if num_nodes % _TICKS_PER_CHECK == 0:
                self.tick()
            if isinstance(item, str):
                num_chars += len(item)
                continue
            children = _children(item)
            if not children:
                continue
            if level > _MAX_NESTING:
                raise LimitExceededError(f"used a value that is nested more than {_MAX_NESTING} deep")
            if num_nodes + len(pending) + len(children) > self.limits.items:
                raise LimitExceededError(
                    f"used a value that contains itself or has more than {self.limits.items} parts"
                )
            pending.extend((child, level + 1) for child in children)
        return Extent(num_nodes, num_chars, depth)

    def bound(self, value: Any) -> Any:
        """`value`, once it is known that comparing or hashing it ends, and naming it in an error, too."""
        if isinstance(value, _CONTAINERS):
            self.require_chars(self.measure(value).num_chars)
        return value

    def text(self, value: Any) -> str:
        """`str(value)` within the limits."""
        if isinstance(value, str):
            self.require_chars(len(value))
            return value
        if isinstance(value, _CONTAINERS):
            extent = self.measure(value)
            self.require_chars(4 * (extent.num_chars + extent.num_nodes))  # quotes, commas and escapes
        result = str(value)
        self.admit(result)
        return result

    def join(self, pieces: Iterable[str]) -> str:
        """`"".join(pieces)` within the limits. It is also how Jinja puts the prompt together."""
        parts = []
        num_chars = 0
        for piece in pieces:
            parts.append(piece)
            num_chars += len(piece)
            if num_chars > self.max_chars:
                self.require_chars(num_chars)
        result = "".join(parts)
        self.spend(sys.getsizeof(result))
        return result


def _children(value: Any) -> list[Any]:
    """What a container holds, one level down; nothing for other values."""
    if not isinstance(value, _CONTAINERS):
        return []
    if isinstance(value, Namespace):
        return [object.__getattribute__(value, "_Namespace__attrs")]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return [*cast(Iterable[Any], value)]
