'''How turns are typed: one line, several between `"""`, or several where a line that ends in a backslash decides.'''

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TextIO

from quipu.errors import UsageError

QUOTES = '"""'
FIRST_PROMPT = ">>> "
NEXT_PROMPT = "... "


class Lines(Protocol):
    """A source of lines."""

    def read(self, prompt: str) -> str:
        """The next line, without its line break.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        ...

    def remember(self, text: str) -> None:
        """Keep `text` for recall with the arrow keys, where the source can."""
        ...

    def keep_history(self, keep: bool) -> None:
        """Whether `remember` has an effect from now on."""
        ...


class StreamLines:
    """Lines from a pipe or a file: nothing is echoed, nothing remembered."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self, prompt: str) -> str:
        try:
            line = self._stream.readline()
        except UnicodeDecodeError:
            raise UsageError("the text on standard input is not UTF-8; convert it first") from None
        if not line:
            raise EOFError
        return line.removesuffix("\n").removesuffix("\r")

    def remember(self, text: str) -> None: ...

    def keep_history(self, keep: bool) -> None: ...


def read_message(lines: Lines, *, multiline: bool) -> str:
    r"""One turn as its author meant it.

    A turn that starts with three double quotes goes on until three more. Otherwise a line is a turn, and a backslash at
    its end asks for another line; with `multiline` it is the other way round: turns go on until a line ends in a
    backslash. A line that starts with a slash is a command and ends at once.

    Raises:
        EOFError: no more input, and nothing was typed. Text before the end of the input is returned.
        KeyboardInterrupt: Ctrl-C was pressed; what was typed is dropped.
    """
    text = lines.read(FIRST_PROMPT)
    while (text.startswith(QUOTES) and not _closed(text)) or (
        not text.startswith((QUOTES, "/")) and text.endswith("\\") != multiline
    ):
        if not text.startswith(QUOTES):
            text = text.removesuffix("\\")
        try:
            text += "\n" + lines.read(NEXT_PROMPT)
        except EOFError:
            break
    if text.strip():
        lines.remember(text)
    if text.startswith(QUOTES):
        return text.removeprefix(QUOTES).removesuffix(QUOTES).removeprefix("\n").removesuffix("\n")
    return text.removesuffix("\\") if multiline and not text.startswith("/") else text


def _closed(text: str) -> bool:
    return len(text) >= 2 * len(QUOTES) and text.rstrip().endswith(QUOTES)


def history_file(environment: dict[str, str] | None = None) -> Path:
    """Where lines are remembered: `quipu/history` under XDG_STATE_HOME, or under `~/.local/state`."""
    values = dict(os.environ) if environment is None else environment
    state = values.get("XDG_STATE_HOME", "")
    root = Path(state) if state else Path.home() / ".local" / "state"
    return root / "quipu" / "history"
