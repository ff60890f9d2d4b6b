"""Stop strings: finding them across the borders of tokens, and holding back text that may begin one."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text through until one of the stop strings is complete.

    The cut does not depend on how the text arrives in pieces: the stop string that is complete first counts, and the
    longest of those that end together. No text is lost: what was held back comes with `flush`.

    Every stop string that has begun is followed by the method of Knuth, Morris and Pratt (SIAM J. Comput. 6, 1977), so
    a character costs as much as there are strings that it may belong to, however long they are.

    Attributes:
        stopped: a stop string was found. Later text is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stops))
        self._by_first: dict[str, list[str]] = {}
        for stop in self._stops:
            self._by_first.setdefault(stop[0], []).append(stop)
        self._matched: dict[str, int] = {}  # stop string -> how many of its first characters the text ends with
        self._borders: dict[str, list[int]] = {}
        self._held = ""
        self.stopped = False

    def append(self, text: str) -> str:
        """Adds text and returns what is certainly not part of a stop string, up to the first one."""
        if self.stopped or not text:
            return ""
        if not self._stops:
            return text
        num_seen = len(self._held)
        text = self._held + text
        for end, character in enumerate(text[num_seen:], num_seen + 1):
            length = self._follow(character)
            if length:
                self.stopped = True
                self._held = ""
                return text[: end - length]
        num_held = max(self._matched.values(), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """Ends the text: what was held back."""
        held, self._held = self._held, ""
        self._matched.clear()
        return held

    def _follow(self, character: str) -> int:
        """Take in a character. Returns the length of the longest stop string that it completes, or 0."""
        before, self._matched = self._matched, {}
        longest = 0
        for stop in before | dict.fromkeys(self._by_first.get(character, ()), 0):
            matched = before.get(stop, 0)
            while matched and stop[matched] != character:
                matched = self._borders_of(stop)[matched - 1]
            matched += stop[matched] == character
            if matched == len(stop):
                longest = max(longest, matched)
            elif matched:
                self._matched[stop] = matched
        return longest

    def _borders_of(self, stop: str) -> list[int]:
        """For each beginning of `stop`: the length of its longest proper end that is a beginning, too."""
        if stop not in self._borders:
            borders = [0]
            for character in stop[1:]:
                length = borders[-1]
                while length and stop[length] != character:
                    length = borders[length - 1]
                borders.append(length + (stop[length] == character))
            self._borders[stop] = borders
        return self._borders[stop]
