"""Interactive conversations with a scripted model: turns, commands, limits, Ctrl-C."""

from __future__ import annotations

import dataclasses
import io
import signal
from collections.abc import Callable

import pytest
from scripted import FACTS, INTERRUPT, ScriptedLLM

from quipu.api import LLM
from quipu.cli.commands import COMMANDS
from quipu.cli.conversation import ChatConversation, Conversation, TextConversation
from quipu.cli.reader import StreamLines, read_message
from quipu.cli.repl import command_names, converse, welcome
from quipu.cli.screen import Screen
from quipu.cli.session import Session
from quipu.types import SamplingParams, ToolCall

SYSTEM = {"role": "system", "content": "Be brief."}


class Talk:
    """A session over scripted answers and typed lines."""

    def __init__(self, typed: str, *answers: str | tuple[str, str], raw: bool = False, **llm: object) -> None:
        self.llm = ScriptedLLM(answers, **llm)  # type: ignore[arg-type]
        self.out, self.err = io.StringIO(), io.StringIO()
        model: LLM = self.llm  # type: ignore[assignment]
        conversation: Conversation = TextConversation(model) if raw else ChatConversation(model)
        self.session = Session(
            model,
            FACTS,
            conversation,
            SamplingParams(),
            StreamLines(io.StringIO(typed)),
            Screen(self.out, self.err),
        )

    def hold(self, **options: object) -> int:
        return converse(self.session, **options)  # type: ignore[arg-type]

    @property
    def notes(self) -> list[str]:
        return self.err.getvalue().splitlines()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_the_line_after_tool_calls_is_their_result() -> None:
    conversation = ChatConversation(ScriptedLLM(()))  # type: ignore[arg-type]
    calls = (ToolCall("one", "add", '{"a": 1}'), ToolCall("two", "ping", "{}"))
    conversation.add("add and ping", "I will.", calls)
    messages = conversation.messages("done")
    assert messages[:1] == [user("add and ping")]
    assert messages[1]["content"] == "I will."
    assert [call["function"] for call in messages[1]["tool_calls"]] == [
        {"name": "add", "arguments": '{"a": 1}'},
        {"name": "ping", "arguments": "{}"},
    ]
    assert messages[2:] == [{"role": "tool", "tool_call_id": name, "content": "done"} for name in ("one", "two")]


def test_turns_accumulate() -> None:
    talk = Talk("hi\n\nhow are you\n", "hello there", "fine")
    assert talk.hold() == 0
    assert talk.out.getvalue() == "hello there\nfine\n"
    assert talk.llm.asked == [[user("hi")], [user("hi"), assistant("hello there"), user("how are you")]]
    assert talk.llm.closed_streams == 2
    assert talk.notes == []


def test_first_turn_comes_from_the_command_line() -> None:
    talk = Talk("more\n", "one", "two")
    assert talk.hold(first="start") == 0
    assert talk.llm.asked[1] == [user("start"), assistant("one"), user("more")]


def test_interactive_first_puts_the_prompt_ahead() -> None:
    talk = Talk("question one\nquestion two\n", "one", "two")
    talk.hold(ahead="A text.")
    assert talk.llm.asked[0] == [user("A text.\nquestion one")]
    assert talk.llm.asked[1][-1] == user("question two")


def test_single_turn_leaves() -> None:
    talk = Talk("hi\nagain\n", "one")
    assert talk.hold(single_turn=True) == 0
    assert len(talk.llm.asked) == 1
    talk = Talk("unread\n", "one")
    talk.hold(first="hi", single_turn=True)
    assert talk.llm.asked == [[user("hi")]]


def test_raw_text_goes_on() -> None:
    talk = Talk("Once upon\nThe end\n", " a time", ".", raw=True)
    talk.hold()
    assert talk.llm.asked == ["Once upon", "Once upon a timeThe end"]
    talk = Talk("/system x\n", raw=True)
    talk.hold()
    assert talk.notes == ["error: raw text has no system message; choose a chat template with --chat-template NAME"]


def test_reasoning_is_kept_apart() -> None:
    talk = Talk("hi\nmore\n", ("let me see", "yes"), "no")
    talk.hold()
    assert talk.out.getvalue() == "yes\nno\n"
    assert talk.notes[:3] == ["[thinking]", "let me see", "[answer]"]
    assert talk.llm.asked[1][1] == assistant("yes")


def test_full_context_names_both_numbers_and_the_way_out() -> None:
    talk = Talk("one two three\nfour five six\n/drop 1\nfour five six\n", "a b c", "d", ctx_size=9)
    assert talk.hold() == 2
    (message,) = [line for line in talk.notes if line.startswith("error")]
    assert "9 tokens but the context holds 9" in message
    assert "/clear" in message
    assert "/drop N" in message
    assert talk.llm.asked[-1] == [user("four five six")]  # nothing was trimmed without being asked


def test_answer_cut_by_the_context_says_so() -> None:
    talk = Talk("one two\n", "a b c d e f g h", ctx_size=6)
    talk.hold()
    assert talk.out.getvalue() == "a b c d\n"
    assert talk.notes[0].startswith("warning: the answer was cut: the conversation takes 6 of the context's 6 tokens; ")
    talk = Talk("/set parameter num_predict 2\none\n", "a b c")
    talk.hold()
    assert talk.notes[-1] == "(cut after 2 tokens, the limit of -n)"


def test_ctrl_c_stops_the_answer_and_keeps_the_session() -> None:
    before = signal.getsignal(signal.SIGINT)
    talk = Talk("hi\nmore\n", f"one {INTERRUPT}two three", "four")
    assert talk.hold() == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert talk.out.getvalue() == "one two\nfour\n"
    assert talk.notes == ["(stopped)"]
    assert talk.llm.asked[1] == [user("hi"), assistant("one two"), user("more")]
    assert talk.llm.closed_streams == 2


def test_ctrl_c_before_the_first_token_forgets_the_question() -> None:
    talk = Talk("hi\nmore\n", f"{INTERRUPT}one two", "four")
    assert talk.hold() == 0
    assert talk.out.getvalue() == "four\n"
    assert talk.notes == ["(stopped before the answer; your message is not kept)"]
    assert talk.llm.asked[1] == [user("more")]
    assert talk.llm.closed_streams == 2


def test_ctrl_c_at_the_prompt_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk("")
    presses = iter([KeyboardInterrupt, KeyboardInterrupt, EOFError])

    def read(prompt: str) -> str:
        raise next(presses)

    monkeypatch.setattr(talk.session.lines, "read", read)
    assert talk.hold() == 0
    assert talk.notes == ["(/bye or Ctrl-D leaves)"] * 2


def test_clear_keeps_the_system_message() -> None:
    talk = Talk("/system Be brief.\nhi\n/clear\nagain\n/system\n", "one", "two")
    talk.hold()
    assert talk.llm.asked == [[SYSTEM, user("hi")], [SYSTEM, user("again")]]
    assert talk.notes == ["set the system message", "forgot 1 turn; the system message stays", "Be brief."]


def test_drop_forgets_the_oldest() -> None:
    talk = Talk("a\nb\nc\n/drop 2\n/history\nd\n/drop 9\n/drop 0\n/drop\n/drop x\n", "1", "2", "3", "4")
    talk.hold()
    assert talk.llm.asked[-1] == [user("c"), assistant("3"), user("d")]
    assert talk.notes[:3] == ["forgot 2 turns, 1 turn left", "  1  c", "     3"]
    assert talk.notes[3] == "forgot 2 turns, 0 turns left"
    assert len([line for line in talk.notes if line.startswith("error: /drop takes")]) == 3


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit"])
def test_leaving(word: str) -> None:
    talk = Talk(f"{word}\nunread\n")
    assert talk.hold() == 0
    assert talk.llm.asked == []


@pytest.mark.parametrize("word", ["/help", "/?"])
def test_help_shows_every_command(word: str) -> None:
    talk = Talk(f"{word}\n")
    talk.hold()
    shown = talk.err.getvalue()
    assert all(command.usage in shown for command in COMMANDS.values())
    assert "Ctrl-C" in shown
    assert set(command_names()) >= {"/help", "/?", "/clear", "/drop", "/system", "/set", "/show", "/bye", "/exit"}


def test_set_parameters_by_every_name() -> None:
    talk = Talk(
        "/set parameter temperature 0.1\n/set parameter top_k 7\n/set parameter n_predict -1\n"
        '/set parameter stop "END OF" ###\n/set parameter seed 3\n/set verbose\n/set nothink\nhi\n/set quiet\nmore\n',
        "one two",
        "two",
    )
    talk.hold()
    assert talk.llm.sampling[0] == SamplingParams(temperature=0.1, top_k=7, stop=("END OF", "###"), seed=3)
    assert talk.llm.variables == [{"enable_thinking": False}] * 2
    rows = [line.split() for line in talk.notes if "tokens/s" in line]
    assert rows == [
        ["prompt", "0.50", "s", "1", "tokens", "2.00", "tokens/s"],
        ["generation", "2.00", "s", "2", "tokens", "0.50", "tokens/s"],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set parameter temperature hot", "'hot' is not a value for temperature"),
        ("/set parameter temperature", "needs a value"),
        ("/set parameter temperature 1 2", "is not a value"),
        ("/set parameter top_p 7", "top_p must be between 0 and 1"),
        ("/set parameter num_ctx 7", "start again with -c"),
        ("/set parameter mirostat 7", "mirostat must be 0 (off), 1 or 2"),
        ("/set parameter samplers kq", "samplers must be names out of"),
        ("/set parameter mirage 1", "there is no parameter 'mirage'"),
        ('/set parameter stop "x', "do not close"),
        ("/set parameter", "needs a name and a value"),
        ("/set nonsense", "there is no setting 'nonsense'"),
        ("/show nonsense", "there is no 'nonsense' to show"),
        ("/nonsense", "there is no command /nonsense"),
    ],
)
def test_wrong_commands_are_answered(line: str, message: str) -> None:
    talk = Talk(f"{line}\nhi\n", "still here")
    assert talk.hold() == 0
    assert talk.notes[0].startswith("error: ")
    assert message in talk.notes[0]
    assert talk.out.getvalue() == "still here\n"


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("", "weights       Q4_K, 807.7 MB"),
        ("info", "context       100 tokens (trained on 4096)"),
        ("parameters", "temperature       0.8"),
        ("system", "there is no system message"),
        ("template", "{{ messages }}"),
        ("license", "mit"),
    ],
)
def test_show(topic: str, line: str) -> None:
    talk = Talk(f"/show {topic}\n")
    talk.hold()
    assert line in talk.notes


def test_warnings_of_the_engine_are_shown() -> None:
    talk = Talk("hi\n", "one", event_warnings=("the system message was folded",))
    talk.hold()
    assert talk.notes == ["warning: the system message was folded"]


def test_welcome_names_the_model() -> None:
    talk = Talk("")
    welcome(talk.session)
    assert "Scripted (llama, 1.24B, Q4_K, 0.81 GB), context 100 tokens" in talk.notes[0]
    assert "/help" in talk.notes[-1]


def test_welcome_shows_the_examples_of_the_file() -> None:
    talk = Talk("")
    talk.session.facts = dataclasses.replace(FACTS, examples=("What is the capital of Peru?", "你好"))
    welcome(talk.session)
    assert talk.notes[1:4] == ["Try, for example:", "  What is the capital of Peru?", "  你好"]


@pytest.mark.parametrize(
    ("typed", "multiline", "messages"),
    [
        ("one\ntwo\n", False, ["one", "two"]),
        ("one\\\ntwo\nthree\n", False, ["one\ntwo", "three"]),
        ('"""one\ntwo"""\nthree\n', False, ["one\ntwo", "three"]),
        ('"""\none\n/bye\n"""\n', False, ["one\n/bye"]),
        ('"""one line"""\n', False, ["one line"]),
        ('"""open\nend', False, ["open\nend"]),
        ("one\ntwo\\\nthree\\\n", True, ["one\ntwo", "three"]),
        ("one\ntwo\n", True, ["one\ntwo"]),
        ("/bye\nx\\\n", True, ["/bye", "x"]),
        ("crlf\r\n", False, ["crlf"]),
        ("", False, []),
    ],
)
def test_messages_of_several_lines(typed: str, multiline: bool, messages: list[str]) -> None:
    lines = StreamLines(io.StringIO(typed))
    read: Callable[[], str] = lambda: read_message(lines, multiline=multiline)  # noqa: E731
    assert [read() for _ in messages] == messages
    with pytest.raises(EOFError):
        read()
