"""`quipu run` from its words to what it prints, with a scripted model in place of the real one."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import INTERRUPT, ScriptedLLM

from quipu.cli import main
from quipu.gguf import write_gguf

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def chat_file(tmp_path: Path) -> str:
    """A GGUF file that says it has a chat template."""
    path = tmp_path / "chat.gguf"
    write_gguf(path, {"general.architecture": "llama", "tokenizer.chat_template": "{{ messages }}"}, [])
    return str(path)


@pytest.fixture
def raw_file(tmp_path: Path) -> str:
    """A GGUF file without a chat template."""
    path = tmp_path / "raw.gguf"
    write_gguf(path, {"general.architecture": "llama"}, [])
    return str(path)


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(["one two", "three", "four"])


@pytest.fixture
def run(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `quipu run WORDS` with `text` on standard input: exit code, standard output, lines of standard error."""

    def open_llm(path: Path, **arguments: Any) -> ScriptedLLM:
        llm.arguments = arguments
        return llm

    def run_words(*words: str, text: str = "") -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code = main(["run", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    monkeypatch.setattr("quipu.cli.run.LLM", open_llm)
    return run_words


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_prompt_is_answered_once(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    assert run(chat_file, "-p", "hello", "--system", "Be brief.") == (0, "one two\n", [])
    assert llm.asked == [[{"role": "system", "content": "Be brief."}, user("hello")]]


@pytest.mark.parametrize("words", [[], ["-i"]])
def test_piped_text_must_be_utf8(
    run: Run, chat_file: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disguised = io.TextIOWrapper(io.BytesIO(b"a\xff\n"), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", disguised)
    assert main(["run", chat_file, *words]) == 2
    assert capsys.readouterr().err == "error: the text on standard input is not UTF-8; convert it first\n"


def test_words_and_piped_text_are_the_prompt(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    assert run(chat_file, "sum", "up", text="a text\n") == (0, "one two\n", [])
    assert llm.asked == [[user("sum up\na text")]]


def test_piped_text_alone_is_the_prompt(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    run("-m", chat_file, text="a text\n")
    assert llm.asked == [[user("a text")]]


def test_raw_text_is_shown_and_continued(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    code, out, notes = run(chat_file, "-no-cnv", "-p", "<s>Once")
    assert (code, out, notes) == (0, "<s>Onceone two\n", [])
    assert llm.asked == ["<s>Once"]
    assert llm.options == [{"parse_special": True}]
    assert run(chat_file, "-no-cnv", "-p", "<s>Once", "--no-display-prompt")[1] == "three\n"


def test_file_without_template_is_continued_with_a_note(run: Run, llm: ScriptedLLM, raw_file: str) -> None:
    code, out, notes = run(raw_file, "-p", "Once")
    assert (code, out) == (0, "Onceone two\n")
    assert len(notes) == 1
    assert "no chat template in this file" in notes[0]
    run(raw_file, "-p", "Once", "--chat-template", "chatml")
    assert llm.asked[1] == [user("Once")]
    assert llm.arguments["chat_template"] == "chatml"


def test_conversation_begins_with_the_prompt_and_hints_at_system(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    code, out, notes = run(chat_file, "-cnv", "-p", "hello", text="more\n")
    assert (code, out) == (0, "one two\nthree\n")
    assert notes == ["(-p is your first message here; --system TEXT sets the system message)"]
    assert llm.asked[1][0] == user("hello")
    assert llm.asked[1][-1] == user("more")


def test_interactive_first(run: Run, llm: ScriptedLLM, chat_file: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("A text.\n", encoding="utf-8")
    run(chat_file, "--file", str(tmp_path / "prompt.txt"), "--interactive-first", "--color", text="What is it?\n")
    assert llm.asked == [[user("A text.\nWhat is it?")]]


def test_several_lines_of_input(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    run(chat_file, "-mli", text="one\ntwo\\\nthree\\\n")
    assert [messages[-1] for messages in llm.asked] == [user("one\ntwo"), user("three")]


def test_options_that_do_nothing_warn(run: Run, chat_file: str) -> None:
    _, _, notes = run(chat_file, "-p", "x", "-ngl", "99", "-fa", "on")
    assert [note.split(" ")[1] for note in notes] == ["-ngl"]
    assert all(note.startswith("warning: ") for note in notes)


def test_escapes_are_hinted_at(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    assert "-e reads them as a line break" in run(chat_file, "-p", r"a\nb")[2][0]
    assert run(chat_file, "-p", r"a\nb", "-e")[2] == []
    assert run(chat_file, "-p", r"a\nb", "--no-escape")[2] == []
    assert [messages[0]["content"] for messages in llm.asked] == [r"a\nb", "a\nb", r"a\nb"]


def test_json_holds_everything(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    llm.answers = [("hm", "one two")]
    code, out, notes = run(chat_file, "-p", "hello", "--json", "--no-think")
    report = json.loads(out)
    assert (code, notes) == (0, [])
    assert (report["text"], report["reasoning"], report["finish_reason"]) == ("one two", "hm", "stop")
    assert report["seed"] == 7
    assert report["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 3,
        "cached_tokens": 0,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
        "total_tokens": 4,
    }
    assert report["timings"]["generation_tokens_per_second"] == 1.0
    assert llm.variables == [{"enable_thinking": False}]


def test_json_needs_a_prompt(run: Run, chat_file: str) -> None:
    assert run(chat_file, "--json", "-i")[0] == 2
    assert run(chat_file, "--json", "-cnv", "-p", "x")[0] == 2


def test_timings_on_request(run: Run, chat_file: str) -> None:
    _, out, notes = run(chat_file, "-p", "hello", "--verbose")
    assert out == "one two\n"
    assert [note.split()[0] for note in notes] == ["load", "text", "prompt", "generation", "total"]


def test_context_errors(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    llm.ctx_size = 3
    code, out, notes = run(chat_file, "-p", "a b c d")
    assert (code, out) == (2, "")
    assert notes == ["error: the prompt has 4 tokens but the context holds 3; shorten the prompt or raise --ctx-size"]
    code, out, notes = run(chat_file, "-p", "a b")
    assert (code, out) == (0, "one\n")
    assert notes == ["warning: the text was cut: the context of 3 tokens is full; raise --ctx-size"]


def test_ctrl_c_ends_one_answer_with_130(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    llm.answers = [f"one {INTERRUPT}two three", f"{INTERRUPT}one"]
    assert run(chat_file, "-p", "hello") == (130, "one two\n", [])
    assert run(chat_file, "-p", "hello") == (130, "", [])


def test_warnings_of_the_model_are_shown(run: Run, llm: ScriptedLLM, chat_file: str) -> None:
    llm.load_warnings = ("the context is cut down",)
    assert run(chat_file, "-p", "hello")[2] == ["warning: the context is cut down"]


def test_metadata_is_shown_as_inspect_does(
    run: Run, chat_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown, _ = run("--meta", "--model", chat_file)
    assert main(["inspect", chat_file]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-mu", "https://x/M.gguf", "-i"], "fetch https://x/M.gguf"),
        (["/dev/null", "-p", "x"], "not a regular file"),
        (["deepseek-r1:1.5b"], "there is no file 'deepseek-r1:1.5b'"),
        ([], "name a model"),
        (["FILE", "-p", "x", "--top-p", "3"], "top_p must be between 0 and 1"),
        (["FILE", "-p", "x", "-f", "/no/such/file"], "cannot be read"),
        (["FILE", "-p", "a\udcff"], "the text on the command line is not UTF-8"),
        (["FILE", "--system", "a\udcff", "-p", "x"], "the text on the command line is not UTF-8"),
        (["FILE", "-p", "x", "--prio", "9"], "--prio must be between"),
    ],
)
def test_mistakes_are_one_line(run: Run, chat_file: str, words: list[str], message: str) -> None:
    code, out, notes = run(*[chat_file if word == "FILE" else word for word in words])
    assert code in (1, 2)
    assert out == ""
    assert len(notes) == 1
    assert notes[0].startswith("error: ")
    assert message in notes[0]


def test_priority_that_is_not_permitted_is_a_warning(run: Run, chat_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []

    def refuse(which: int, who: int, level: int) -> None:
        levels.append(level)
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    code, out, notes = run(chat_file, "-p", "hello", "--prio", "2")
    assert (code, out, levels) == (0, "one two\n", [-10])
    assert notes == ["warning: --prio 2 is not permitted for this user: the priority stays as it is"]
