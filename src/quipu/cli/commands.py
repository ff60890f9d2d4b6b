"""The commands of an interactive conversation: a word after a slash, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from quipu.cli.reader import QUOTES
from quipu.cli.session import Session
from quipu.cli.settings import change_setting
from quipu.cli.show import show
from quipu.errors import QuipuError, UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """What a slash word does.

    Attributes:
        act: takes the session and the text after the word, and returns whether to leave.
        usage: the command as `/help` writes it; "" hides it, as for second names.
        summary: one line for `/help`.
    """

    act: Callable[[Session, str], bool]
    usage: str = ""
    summary: str = ""


def obey(session: Session, line: str) -> bool:
    """Do what a line that starts with a slash says; what is wrong with it is shown.

    Returns:
        Whether the user wants to leave.
    """
    name, _, rest = line[1:].strip().partition(" ")
    command = COMMANDS.get(name)
    try:
        if command is None:
            raise UsageError(
                f'there is no command /{name}; /help lists them (a message that starts with / goes between """)'
            )
        return command.act(session, rest.strip())
    except QuipuError as error:
        session.screen.error(str(error))
        return False


def _help(session: Session, rest: str) -> bool:
    shown = [command for command in COMMANDS.values() if command.usage]
    width = max(len(command.usage) for command in shown) + 2
    for command in shown:
        session.screen.note(f"{command.usage:<{width}}{command.summary}")
    session.screen.note("")
    session.screen.note("Ctrl-C".ljust(width) + "stops the answer; Ctrl-D leaves")
    session.screen.note(QUOTES.ljust(width) + "starts and ends a message of several lines")
    return False


def _clear(session: Session, rest: str) -> bool:
    num_turns = len(session.conversation.turns)
    session.conversation.clear()
    session.screen.note(
        f"forgot {_turns(num_turns)}" + ("; the system message stays" if session.conversation.system else "")
    )
    return False


def _drop(session: Session, rest: str) -> bool:
    if not rest.isdecimal() or int(rest) < 1:
        raise UsageError(f"/drop takes how many of the oldest turns to forget, as in /drop 2, not {rest!r}")
    dropped = session.conversation.drop(int(rest))
    session.screen.note(f"forgot {_turns(dropped)}, {_turns(len(session.conversation.turns))} left")
    return False


def _history(session: Session, rest: str) -> bool:
    for number, turn in enumerate(session.conversation.turns, start=1):
        session.screen.note(f"{number:3d}  {_first_line(turn.question)}")
        session.screen.note(f"     {_first_line(turn.answer)}")
    if not session.conversation.turns:
        session.screen.note("nothing has been said yet")
    return False


def _system(session: Session, rest: str) -> bool:
    if rest:
        return change_setting(session, f"system {rest}")
    session.screen.note(session.conversation.system or "there is no system message")
    return False


def _leave(session: Session, rest: str) -> bool:
    return True


def _turns(number: int) -> str:
    return f"{number} turn" if number == 1 else f"{number} turns"


def _first_line(text: str, width: int = 72) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines) == 1 and len(lines[0]) <= width else lines[0][:width] + " ..."


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "clear": Command(_clear, "/clear", "forget the conversation"),
        "drop": Command(_drop, "/drop N", "forget the N oldest turns"),
        "history": Command(_history, "/history", "show the turns so far"),
        "system": Command(_system, "/system [TEXT]", "show or replace the system message"),
        "set": Command(change_setting, "/set NAME ...", "change a setting; /set alone lists them"),
        "show": Command(show, "/show [WHAT]", "show info, parameters, system, template or license"),
        "help": Command(_help, "/help, /?", "show this list"),
        "?": Command(_help),
        "bye": Command(_leave, "/bye, /exit", "leave"),
        "exit": Command(_leave),
        "quit": Command(_leave),
    }
)
