"""The verb table, the help, and what a shell sees when something goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quipu import __version__
from quipu.cli import app, main
from quipu.cli.verbs import VERBS, Verb
from quipu.errors import ContextLengthError, ModelFileError, QuipuError


def run_quipu(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """`quipu WORDS` in a process of its own."""
    command = [sys.executable, "-m", "quipu", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Makes `quipu trial` raise the exception put into the list."""
    raised: list[BaseException] = []

    def trial() -> int:
        if raised:
            raise raised[0]
        return 0

    monkeypatch.setattr(sys.modules[__name__], "trial", trial, raising=False)
    monkeypatch.setattr(app, "VERBS", {**VERBS, "trial": Verb(__name__, "trial", "")})
    monkeypatch.setattr("quipu.cli.command.VERBS", {**VERBS, "trial": Verb(__name__, "trial", "")})
    monkeypatch.delenv("QUIPU_DEBUG", raising=False)
    return raised


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["help"], ["--help"], ["-h"]):
        assert main(words) == 0
        output = capsys.readouterr().out
        assert all(f"  {name} " in output and verb.summary in output for name, verb in VERBS.items())


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-V"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"quipu {__version__}\n"


def test_help_and_version_load_next_to_nothing() -> None:
    code = (
        "import sys; from quipu.cli import main; main(['--help']); main(['--version'])\n"
        "print([name for name in ('numpy', 'typer', 'rich', 'pathlib', 'quipu.api') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")


def test_unknown_verb_suggests_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenise"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: there is no verb 'tokenise', but there is 'tokenize'; `quipu help` lists them\n"
    assert main(["xyzzy"]) == 2
    assert capsys.readouterr().err == "error: there is no verb 'xyzzy'; `quipu help` lists them\n"
    assert main(["help", "xyzzy"]) == 2


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (QuipuError("it\nfailed"), 1, "error: it failed\n"),
        (ModelFileError("damaged"), 1, "error: damaged\n"),
        (ContextLengthError(20, 10), 2, "error: the prompt has 20 tokens but the context holds 10; "),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("surprise"), 1, "error: ValueError: surprise (unexpected; QUIPU_DEBUG=1 shows where)\n"),
        (MemoryError(), 1, "error: MemoryError"),
    ],
)
def test_errors_become_one_line(
    verb: list[BaseException], error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.append(error)
    assert main(["trial"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == (1 if line else 0)


def test_debug_shows_the_traceback(verb: list[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    verb.append(ValueError("surprise"))
    monkeypatch.setenv("QUIPU_DEBUG", "1")
    with pytest.raises(ValueError, match="surprise"):
        main(["trial"])


def test_error_line_is_red_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    app.report("no")
    assert capsys.readouterr().err == "\x1b[31merror: no\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    app.report("no")
    assert capsys.readouterr().err == "error: no\n"


def test_closed_pipe_is_quiet() -> None:
    code = "import sys; from quipu.cli import main; sys.exit(main(['help']))"
    # A shell whose reader is gone before quipu writes.
    done = subprocess.run(
        ["bash", "-c", '{ sleep 0.3; "$0" -c "$1"; echo $? >&2; } | true', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == "141\n"


def test_wrong_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "--no-such-option"], ["run", "--temp", "hot"], ["run", "-c"], ["doctor", "extra"]):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert f"`quipu help {words[0]}` lists the options" in captured.err


@pytest.mark.parametrize("name", ["run", "bench", "doctor"])
def test_help_of_a_verb(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: quipu {name} ")
    assert main(["help", name]) == 0
    assert capsys.readouterr().out == output


def test_help_of_run_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    output = capsys.readouterr().out
    for names in ("-ngl, --n-gpu-layers, --gpu-layers N", "-cnv, --conversation, -no-cnv, --no-conversation"):
        assert names in output
    assert "Raises" not in output
    assert [line for line in output.splitlines() if len(line) > 120] == []


def test_python_dash_m() -> None:
    done = run_quipu("doctor", "--json")
    assert done.returncode in (0, 1)
    report = json.loads(done.stdout)
    assert report["quipu"] == __version__
    assert {"machine", "kernels", "hindrances", "python", "packages"} <= set(report)


def test_missing_model_is_one_line(tmp_path: Path) -> None:
    done = run_quipu("run", str(tmp_path / "nothing.gguf"), "-p", "hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no file ")
    assert done.stderr.count("\n") == 1
    done = run_quipu("run", str(tmp_path), "-p", "hi")
    assert done.returncode == 1
    assert "is a folder" in done.stderr
