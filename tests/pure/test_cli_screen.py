"""What reaches the screen: colours only where wanted, no control characters from a model, streams kept apart."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from quipu.cli.reader import history_file, read_message
from quipu.cli.screen import Screen, printable
from quipu.cli.terminal import CommandCompleter, TerminalLines
from quipu.types import ToolCallDelta


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as source:
        yield source


def lines_at(keys: PipeInput, history: Path | None = None) -> TerminalLines:
    return TerminalLines(history, ["/clear", "/drop", "/bye"], source=keys, target=DummyOutput())


def test_tool_calls_have_lines_of_their_own() -> None:
    out = io.StringIO()
    screen = Screen(out, io.StringIO())
    screen.answer("Let me see.")
    for delta in (
        ToolCallDelta(0, "a", "add", '{"a":'),
        ToolCallDelta(0, arguments=" 1}"),
        ToolCallDelta(1, "b", "ping", "{"),
        ToolCallDelta(1, is_withdrawn=True),
    ):
        screen.tool_call(delta)
    screen.answer("ping {")
    screen.end()
    assert out.getvalue() == ('Let me see.\n[tool call] add {"a": 1}\n[tool call] ping { (no call after all)\nping {\n')


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Terminal(), Terminal()
    screen = Screen(out, err)
    screen.reasoning("hm")
    screen.answer("yes")
    screen.end()
    screen.warn("odd")
    assert out.getvalue() == "\x1b[2mhm\x1b[0m\n\nyes\n"
    assert err.getvalue() == "\x1b[33mwarning: odd\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen(out, err).colour
    assert Screen(out, err, colour=True).colour
    assert not Screen(io.StringIO(), io.StringIO()).colour
    assert not Screen(out, err, colour=False).colour


def test_forced_colours_reach_a_pipe() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err, colour=True)
    screen.prompt("Once")
    screen.answer(" upon")
    assert out.getvalue() == "\x1b[32mOnce\x1b[0m upon"


def test_pipe_holds_the_answer_alone() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err)
    screen.reasoning("\nhm")
    screen.answer("\n\nyes\nno\n")
    screen.end()
    screen.note("by the way")
    assert out.getvalue() == "yes\nno\n"
    assert err.getvalue() == "[thinking]\nhm\n[answer]\nby the way\n"


def test_reasoning_can_be_hidden() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err, show_reasoning=False)
    screen.reasoning("hm")
    screen.answer("yes")
    screen.end()
    assert (out.getvalue(), err.getvalue()) == ("yes\n", "")


def test_note_starts_on_its_own_line() -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=False)
    screen.answer("half")
    screen.note("note")
    assert terminal.getvalue() == "half\nnote\n"


@given(st.text())
def test_nothing_commands_the_terminal(text: str) -> None:
    shown = printable(text)
    assert not {character for character in shown if ord(character) < 32 or 0x7F <= ord(character) < 0xA0} - {"\n", "\t"}
    assert len(shown) == len(text)


def test_escape_sequences_are_shown_not_obeyed() -> None:
    out = Terminal()
    Screen(out, io.StringIO(), colour=False).answer("\x1b[2Ja\tb\r\n")
    assert out.getvalue() == "␛[2Ja\tb␍\n"
    pipe = io.StringIO()
    Screen(pipe, io.StringIO()).answer("\x1b[2J")
    assert pipe.getvalue() == "\x1b[2J"  # a file gets the text as it is


def test_lines_are_edited(keys: PipeInput) -> None:
    keys.send_text("helo\x1b[Dl\r")  # left arrow, then the missing letter
    assert read_message(lines_at(keys), multiline=False) == "hello"


def test_ctrl_c_and_ctrl_d(keys: PipeInput) -> None:
    lines = lines_at(keys)
    keys.send_text("half\x03")
    with pytest.raises(KeyboardInterrupt):
        lines.read(">>> ")
    keys.send_text("\x04")
    with pytest.raises(EOFError):
        lines.read(">>> ")


def test_tab_completes_commands() -> None:
    completer = CommandCompleter(["/clear", "/drop", "/bye"])
    found = {
        text: [completion.text for completion in completer.get_completions(Document(text), CompleteEvent())]
        for text in ("/dr", "/", "dr", "/drop 2")
    }
    assert found == {"/dr": ["/drop"], "/": ["/clear", "/drop", "/bye"], "dr": [], "/drop 2": []}


def test_paste_of_several_lines_is_one_message(keys: PipeInput) -> None:
    keys.send_text("\x1b[200~one\ntwo\x1b[201~\r")
    assert read_message(lines_at(keys), multiline=False) == "one\ntwo"


def test_history_remembers_whole_messages(keys: PipeInput, tmp_path: Path) -> None:
    history = tmp_path / "state" / "quipu" / "history"
    keys.send_text('"""one\rtwo"""\rthree\r')
    lines = lines_at(keys, history)
    assert read_message(lines, multiline=False) == "one\ntwo"
    assert read_message(lines, multiline=False) == "three"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    lines.keep_history(False)
    keys.send_text("secret\r")
    assert read_message(lines, multiline=False) == "secret"
    assert "secret" not in history.read_text(encoding="utf-8")

    with create_pipe_input() as later:
        later.send_text("\x1b[A\x1b[A\r")  # two arrows up, in a new session
        assert read_message(lines_at(later, history), multiline=False) == "one\ntwo"


def test_home_that_cannot_be_written_is_no_obstacle(keys: PipeInput, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    keys.send_text("hello\r")
    assert read_message(lines_at(keys, tmp_path / "file" / "history"), multiline=False) == "hello"


def test_place_of_the_history() -> None:
    assert history_file({"XDG_STATE_HOME": "/state"}) == Path("/state/quipu/history")
    assert history_file({}) == Path(os.path.expanduser("~/.local/state/quipu/history"))
