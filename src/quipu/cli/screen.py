"""What a person sees: the answer on standard output, everything else on standard error, colours where they help."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from quipu.types import ToolCallDelta

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_YELLOW = "\x1b[33m"
_RED = "\x1b[31m"
_GREEN = "\x1b[32m"

# Control characters, except tab and line feed, shown as Unicode's pictures of them: a model or a file must not be able
# to move the cursor or rewrite the screen.
_PICTURES = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


def printable(text: str) -> str:
    """`text` without characters that a terminal would obey."""
    return text.translate(_PICTURES)


class Screen:
    """Writes answers, reasoning and notes.

    Args:
        out: where answers go.
        err: where everything else goes.
        colour: True or False force colours on or off; None uses them where `out` is a terminal and NO_COLOR is unset.
        show_reasoning: False drops the model's reasoning.
    """

    def __init__(self, out: TextIO, err: TextIO, *, colour: bool | None = None, show_reasoning: bool = True) -> None:
        self._out = out
        self._err = err
        self._out_is_terminal = out.isatty()
        self._show_reasoning = show_reasoning
        automatic = self._out_is_terminal and not os.environ.get("NO_COLOR")
        self.colour = automatic if colour is None else colour
        self._colour_err = (err.isatty() and not os.environ.get("NO_COLOR")) if colour is None else colour
        self._in_reasoning = False
        self._last = "\n"  # the last character written to `out`

    def prompt(self, text: str) -> None:
        """The text that the answer continues."""
        self._write(self._out, text, _GREEN if self.colour else "")

    def answer(self, text: str) -> None:
        """A piece of the answer."""
        if text and self._in_reasoning:
            self._leave_reasoning()
            text = text.lstrip("\n")
        self._write(self._out, text, "")

    def reasoning(self, text: str) -> None:
        """A piece of what the model thinks before it answers: dim, or between marks where there is no colour.

        It goes to standard error where the output is a pipe or a file, which should hold the answer alone.
        """
        if not text or not self._show_reasoning:
            return
        if not self._in_reasoning:
            self._in_reasoning = True
            text = text.lstrip("\n")
            if not self.colour:
                self._write(self._reasoning_stream, "[thinking]\n", "")
        self._write(self._reasoning_stream, text, _DIM if self.colour else "")

    def tool_call(self, delta: ToolCallDelta) -> None:
        """A piece of a tool call: each call is a line of its own, with the name and the arguments."""
        if delta.name:
            self._end_answer()
            self._write(self._out, f"[tool call] {delta.name} ", "")
        self._write(self._out, delta.arguments + " (no call after all)\n" * delta.is_withdrawn, "")

    def end(self) -> None:
        """Finish the answer with a line break, if it has none."""
        self._end_answer()

    def _end_answer(self) -> None:
        if self._in_reasoning:
            self._leave_reasoning()
        if self._last != "\n":
            self._write(self._out, "\n", "")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self._line(text, _DIM)

    def warn(self, text: str) -> None:
        """Something that is not as asked for; one line."""
        self._line("warning: " + " ".join(text.split()), _YELLOW)

    def error(self, text: str) -> None:
        """Something that failed, where the session goes on; one line."""
        self._line("error: " + " ".join(text.split()), _RED)

    @property
    def _reasoning_stream(self) -> TextIO:
        return self._out if self._out_is_terminal else self._err

    def _leave_reasoning(self) -> None:
        self._in_reasoning = False
        self._write(self._reasoning_stream, "\n\n" if self.colour else "\n[answer]\n", "")

    def _line(self, text: str, colour: str) -> None:
        if self._last != "\n" and self._out_is_terminal:
            self._write(self._out, "\n", "")
        self._write(self._err, text, colour if self._colour_err else "")
        self._write(self._err, "\n", "")

    def _write(self, stream: TextIO, text: str, colour: str) -> None:
        if not text:
            return
        if stream is self._out:
            self._last = text[-1]
        if stream.isatty():
            text = printable(text)
        stream.write(f"{colour}{text}{_RESET}" if colour else text)
        stream.flush()


def stderr_screen() -> Screen:
    """A screen for verbs whose standard output is a report: it only writes notes."""
    return Screen(sys.stdout, sys.stderr)
