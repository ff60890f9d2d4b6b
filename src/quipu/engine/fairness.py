"""Who is served next among requests that wait: priority bands, aging, and equal shares for every key.

Each key has a counter of the work done for it, prompt and generated tokens with their weights (virtual token counters,
arXiv:2401.00588); of two keys that wait, the one with the lower counter is served. A key that comes back after it had
nothing to do starts at the lowest counter of those that are active: nobody can save up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from quipu.engine.sequence import SequenceState

PROMPT_WEIGHT = 1.0  # of a token that had to be computed
OUTPUT_WEIGHT = 2.0  # of a generated one: alone in its step, it costs far more than one of many
AGING_S = 30.0  # a request climbs one band in this time, so the lowest one leads after ten minutes
_FEWEST_IDLE_KEYS, _MOST_IDLE_KEYS = 256, 4096  # counters of idle keys that are kept


class TokenCounters:
    """The counter of every key that is active, and of idle ones that are ahead of those."""

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._num_active: dict[str, int] = {}  # sequences of each key that have not ended
        self._most_idle = _FEWEST_IDLE_KEYS  # before it is worth looking for those that can go

    def __getitem__(self, key: str) -> float:
        return self._counters[key]

    def __len__(self) -> int:
        return len(self._counters)

    def enter(self, key: str) -> None:
        """Another sequence of `key` arrives."""
        count = self._num_active.get(key, 0)
        if count == 0:
            self._counters[key] = max(self._counters.get(key, 0.0), self._floor())
        self._num_active[key] = count + 1

    def leave(self, key: str) -> None:
        """A sequence of `key` has ended."""
        self._num_active[key] -= 1
        if self._num_active[key] == 0:
            del self._num_active[key]
            self._forget_idle()

    def charge(self, key: str, amount: float) -> None:
        """Work was done for an active key."""
        self._counters[key] += amount

    def clear(self) -> None:
        """Forget all keys."""
        self._counters.clear()
        self._num_active.clear()

    def _floor(self) -> float:
        return min((self._counters[key] for key in self._num_active), default=0.0)

    def _forget_idle(self) -> None:
        """Drop idle keys that would be lifted anyway, and the lowest of too many others."""
        if not self._num_active:
            self._counters.clear()
            return
        if len(self._counters) - len(self._num_active) <= self._most_idle:
            return
        floor = self._floor()
        idle = [key for key, count in self._counters.items() if key not in self._num_active and count > floor]
        idle.sort(key=self._counters.__getitem__, reverse=True)
        del idle[_MOST_IDLE_KEYS // 2 :]
        self._most_idle = max(_FEWEST_IDLE_KEYS, 2 * len(idle))
        self._counters = {key: self._counters[key] for key in (*self._num_active, *idle)}


class WaitingQueue:
    """Sequences that wait, first those that arrived first within each band and key.

    Picking one costs as much as there are pairs of band and key in the queue, whatever the number of requests.
    """

    def __init__(self, counters: TokenCounters, aging_s: float = AGING_S) -> None:
        self._counters = counters
        self._aging_s = aging_s
        self._queues: dict[tuple[int, str], OrderedDict[SequenceState, None]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[SequenceState]:
        for queue in self._queues.values():
            yield from queue

    def __contains__(self, sequence: SequenceState) -> bool:
        return sequence in self._queues.get((sequence.request.priority, sequence.request.key), ())

    def push(self, sequence: SequenceState, *, first: bool = False) -> None:
        """Queue a sequence behind those of its band and key, or before them."""
        queue = self._queues.setdefault((sequence.request.priority, sequence.request.key), OrderedDict())
        assert sequence not in queue
        queue[sequence] = None
        queue.move_to_end(sequence, last=not first)
        self._size += 1

    def remove(self, sequence: SequenceState) -> None:
        place = (sequence.request.priority, sequence.request.key)
        del self._queues[place][sequence]
        self._size -= 1
        if not self._queues[place]:
            del self._queues[place]

    def best(self, now_s: float) -> SequenceState | None:
        """The one to be served next; None if there is none that can start."""
        found, lowest = None, None
        for (_, key), queue in self._queues.items():
            # Those that cannot start yet are passed over and block nobody.
            head = next((sequence for sequence in queue if not sequence.is_pending), None)
            if head is None:
                continue
            rank = (-self.band(head, now_s), self._counters[key], head.number)
            if lowest is None or rank < lowest:
                found, lowest = head, rank
        return found

    def band(self, sequence: SequenceState, now_s: float) -> int:
        """The priority of a sequence, raised by the time since it arrived."""
        return sequence.request.priority + int((now_s - sequence.arrival_s) / self._aging_s)

    def clear(self) -> None:
        self._queues.clear()
        self._size = 0
