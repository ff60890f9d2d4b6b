"""The loop of an interactive conversation: read a turn or a command, do it, until the end."""

from __future__ import annotations

from quipu import __version__
from quipu.cli.commands import COMMANDS, obey
from quipu.cli.reader import read_message
from quipu.cli.session import Session


def converse(session: Session, *, first: str | None = None, ahead: str | None = None, single_turn: bool = False) -> int:
    """Hold a conversation until the user leaves.

    Args:
        first: a first turn that needs no typing.
        ahead: text to put in front of the first turn that is typed.
        single_turn: leave after one answer.

    Returns:
        The exit code: 0, or that of the last turn that failed.
    """
    if first is not None:
        session.take_turn(first)
        if single_turn:
            return session.exit_code
    while True:
        try:
            text = read_message(session.lines, multiline=session.multiline)
        except EOFError:
            return session.exit_code
        except KeyboardInterrupt:
            session.screen.note("(/bye or Ctrl-D leaves)")
            continue
        if text.startswith("/") and "\n" not in text:
            if obey(session, text):
                return session.exit_code
            continue
        if not text.strip():
            continue
        if ahead is not None:
            text, ahead = f"{ahead}\n{text}", None
        session.take_turn(text)
        if single_turn:
            return session.exit_code


def welcome(session: Session) -> None:
    """Say which model this is, and how to talk to it."""
    facts, screen = session.facts, session.screen
    screen.note(f"quipu {__version__}: {facts.label}, context {session.llm.ctx_size} tokens")
    if facts.description:
        screen.note(facts.description)
    if facts.examples:
        screen.note("Try, for example:")
        for example in facts.examples:
            screen.note(f"  {example}")
    if session.multiline:
        screen.note("Type a message; a line that ends in \\ sends it. /help shows the commands, /bye leaves.")
    else:
        screen.note('Type a message (several lines between """). /help shows the commands, /bye leaves.')


def command_names() -> list[str]:
    """The commands, each with its slash, for completion."""
    return sorted(f"/{name}" for name in COMMANDS)
