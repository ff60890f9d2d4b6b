"""Requests with a deadline, in the order in which something may have to be done about them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from quipu.engine.sequence import SequenceState

_FEWEST_ENTRIES = 64


class Deadlines:
    """Finds the sequences that are too late, at the cost of those whose moment has come and not of all."""

    def __init__(self) -> None:
        self._watched: dict[int, SequenceState] = {}  # by their number
        self._entries: list[tuple[float, int]] = []  # a heap: moment to look again, whose; also of ended ones

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, sequence: SequenceState) -> None:
        """Watch a sequence whose deadline is finite."""
        self._watched[sequence.number] = sequence
        heapq.heappush(self._entries, (sequence.arrival_s, sequence.number))

    def forget(self, sequence: SequenceState) -> None:
        """A sequence has ended. Its entry goes when it is met, or when such ones outnumber the others."""
        del self._watched[sequence.number]
        if len(self._entries) > 2 * len(self._watched) + _FEWEST_ENTRIES:
            self._entries = [entry for entry in self._entries if entry[1] in self._watched]
            heapq.heapify(self._entries)

    def late(self, now_s: float, latest: Callable[[SequenceState], float]) -> list[SequenceState]:
        """The watched sequences whose latest moment has come.

        Args:
            latest: the last moment at which a sequence can still meet its deadline, by what is known now. It is asked
                again when that moment has come.
        """
        found, again = [], []
        while self._entries and self._entries[0][0] <= now_s:
            number = heapq.heappop(self._entries)[1]
            sequence = self._watched.get(number)
            if sequence is None:
                continue
            moment = latest(sequence)
            if moment <= now_s:
                found.append(sequence)
            again.append((max(moment, now_s), number))  # watched until it is known to have ended
        for entry in again:
            heapq.heappush(self._entries, entry)
        return found

    def clear(self) -> None:
        self._watched.clear()
        self._entries.clear()
