"""Lines from a terminal, with editing, history and completion of commands, through prompt_toolkit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output


class _Turns(History):
    """History of whole turns: prompt_toolkit would store every line of one by itself."""

    def __init__(self, store: History) -> None:
        super().__init__()
        self._store = store

    def load_history_strings(self) -> Iterable[str]:
        return self._store.load_history_strings()

    def store_string(self, string: str) -> None:
        self._store.store_string(string)

    def append_string(self, string: str) -> None:
        """Called by prompt_toolkit for every line that was accepted: not this way."""

    def remember(self, text: str) -> None:
        super().append_string(text)


class CommandCompleter(Completer):
    """Completes the first word of a line that starts with a slash."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if text.startswith("/"):
            yield from (Completion(name, -len(text)) for name in self._names if name.startswith(text))


class TerminalLines:
    """A terminal as a source of lines.

    Args:
        history: file of earlier turns, made (for this user alone) where it is missing; None keeps them in memory.
        commands: names that Tab completes, each with its slash.
        colour: whether the prompt is coloured.
        source, target: other ends for the terminal, for tests.
    """

    def __init__(
        self,
        history: Path | None,
        commands: Sequence[str] = (),
        *,
        colour: bool = True,
        source: Input | None = None,
        target: Output | None = None,
    ) -> None:
        self._turns = _Turns(_open_history(history))
        self._keep = True
        self._style = "ansigreen" if colour else ""
        self._session: PromptSession[str] = PromptSession(
            history=self._turns,
            completer=CommandCompleter(commands),
            complete_while_typing=False,
            input=source,
            output=target,
        )

    def read(self, prompt: str) -> str:
        return self._session.prompt(FormattedText([(self._style, prompt)]))

    def remember(self, text: str) -> None:
        if self._keep:
            self._turns.remember(text)

    def keep_history(self, keep: bool) -> None:
        self._keep = keep


def _open_history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()  # a home that cannot be written to is no reason not to talk
    return FileHistory(str(path))
