"""Requests with a deadline, in the order in which something may have to be done about them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from quipu.engine.sequence import SequenceState

_FEWEST_ENTRIES = 64


class Deadlines:
    """Finds the sequences that are too late, at the cost of those whose moment has come and not of all."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, SequenceState]] = []  # a heap: moment to look again, tie breaker, which
        self._num_pushed = 0
        self._num_live = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, sequence: SequenceState) -> None:
        """Watch a sequence whose deadline is finite."""
        self._num_live += 1
        self._push(sequence.arrival_s, sequence)

    def forget(self) -> None:
        """One of the sequences has ended. Its entry goes when it is met, or when ended ones outnumber the others."""
        self._num_live -= 1
        if len(self._entries) > 2 * self._num_live + _FEWEST_ENTRIES:
            self._entries = [entry for entry in self._entries if entry[2].finish_reason is None]
            heapq.heapify(self._entries)

    def late(self, now_s: float, latest: Callable[[SequenceState], float]) -> list[SequenceState]:
        """Sequences that have not ended and whose latest moment has come.

        Args:
            latest: the last moment at which a sequence can still meet its deadline, by what is known now. It is asked
                again when that moment has come.
        """
        found, again = [], []
        while self._entries and self._entries[0][0] <= now_s:
            sequence = heapq.heappop(self._entries)[2]
            if sequence.finish_reason is not None:
                continue
            moment = latest(sequence)
            if moment <= now_s:
                found.append(sequence)
                moment = now_s  # watched until it is known to have ended
            again.append((moment, sequence))
        for moment, sequence in again:
            self._push(moment, sequence)
        return found

    def clear(self) -> None:
        self._entries.clear()
        self._num_live = 0

    def _push(self, moment: float, sequence: SequenceState) -> None:
        self._num_pushed += 1
        heapq.heappush(self._entries, (moment, self._num_pushed, sequence))
