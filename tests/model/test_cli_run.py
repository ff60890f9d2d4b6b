"""`quipu run`, `bench` and the lines of public guides, with the embedded model, as a shell runs them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

MODEL = Path(str(files("quipu") / "data" / "tiny-chat-Q8_0.gguf"))
GUIDES = Path(__file__).resolve().parents[1] / "data" / "guides_run.txt"
QUIPU = [sys.executable, "-m", "quipu"]

pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="the embedded model has not been made")


def run_quipu(*words: str, text: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """`quipu WORDS` with `text` on standard input; it must exit with `code`."""
    done = subprocess.run([*QUIPU, *words], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def guide_lines() -> list[list[str]]:
    """The words after `quipu` of every guide line."""
    lines = GUIDES.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("words", guide_lines(), ids=" ".join)
def test_guide_line_runs(words: list[str], tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Tell me a story.\n", encoding="utf-8")
    places = {"M.gguf": str(MODEL), "M-00001-of-00003.gguf": str(MODEL), "prompt.txt": str(prompt)}
    words = [places.get(word, word) for word in words]
    if "-mu" in words:
        assert "fetch https://example.com/M.gguf" in run_quipu(*words, code=2).stderr
    elif "deepseek-r1:1.5b" in words:
        assert "there is no file 'deepseek-r1:1.5b'" in run_quipu(*words, code=1).stderr
    else:
        done = run_quipu(*words)
        has_prompt = "-p" in words or "--prompt" in words or words[0] != "run" or "--meta" in words
        assert bool(done.stdout) == has_prompt


def test_warnings_of_the_guides() -> None:
    done = run_quipu("run", "tiny", "-p", "x", "-n", "2", "-ngl", "8", "-ts", "24,24", "-ctk", "q4_0")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in warnings] == ["-ngl", "--tensor-split"]


def test_seed_repeats_the_answer() -> None:
    words = ["run", "tiny", "-p", "Once upon a time", "-n", "12", "--seed", "5", "--temp", "1.5"]
    first, second = run_quipu(*words), run_quipu(*words)
    assert first.stdout == second.stdout
    assert first.stdout.strip()


TOOLS = """[{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.",
"parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"""


def test_tool_calls_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(TOOLS, encoding="utf-8")
    words = ["run", "tiny", "--tools", str(path), "--temp", "0"]
    question = "What is the weather in Paris?"
    assert run_quipu(*words, "-p", question).stdout == '[tool call] get_weather {"city": "Paris"}\n'
    report = json.loads(run_quipu(*words, "-p", question, "--json").stdout)
    assert report["finish_reason"] == "tool_calls"
    assert [(call["name"], call["arguments"]) for call in report["tool_calls"]] == [
        ("get_weather", '{"city": "Paris"}')
    ]
    result = '{"weather": "sunny", "temperature": 21}'
    talk = run_quipu(*words, "-cnv", text=f"{question}\n{result}\n")
    assert "21 degrees" in talk.stdout
    assert "handed to the model as what the tool answered" in talk.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("{}", "must hold a JSON list of tools"),
        ('[{"type": "function"}]', "tools[0].function.name must be a text"),
    ],
)
def test_wrong_tools(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(text, encoding="utf-8")
    assert problem in run_quipu("run", "tiny", "-p", "x", "--tools", str(path), code=2).stderr


def test_json_object() -> None:
    done = run_quipu("run", "tiny", "-p", "Once upon a time", "-n", "8", "--json", "--ignore-eos")
    report = json.loads(done.stdout)
    assert report["finish_reason"] == "length"
    assert report["usage"]["completion_tokens"] == 8
    assert report["timings"]["generation_tokens_per_second"] > 0
    again = run_quipu(
        *["run", "tiny", "-p", "Once upon a time", "-n", "8", "--json", "--ignore-eos"], "--seed", str(report["seed"])
    )
    assert json.loads(again.stdout)["text"] == report["text"]


def test_raw_text_shows_the_prompt_unless_told_not_to() -> None:
    words = ["run", "tiny", "-no-cnv", "-p", "Once upon", "-n", "4", "--temp", "0"]
    with_prompt = run_quipu(*words).stdout
    without = run_quipu(*words, "--no-display-prompt").stdout
    assert with_prompt.removesuffix("\n") == "Once upon" + without.removesuffix("\n")


def test_piped_text_is_appended() -> None:
    words = ["run", "tiny", "-no-cnv", "-n", "1"]
    done = run_quipu(*words, "-p", "Once", text="upon a time\n")
    assert done.stdout.startswith("Once\nupon a time")
    assert run_quipu(*words, text="Once upon\n").stdout.startswith("Once upon")


def test_prompt_longer_than_the_context_is_refused() -> None:
    done = run_quipu("run", "tiny", "-c", "64", "-p", "word " * 500, code=2)
    assert re.search(r"error: the prompt has \d+ tokens but the context holds 64", done.stderr)
    assert done.stdout == ""


def test_verbose_timings_go_to_standard_error() -> None:
    done = run_quipu("run", "tiny", "-p", "x", "-n", "4", "--verbose")
    assert re.search(r"generation +\d+\.\d\d s +\d+ tokens", done.stderr)
    assert "tokens/s" not in done.stdout


def test_colours_only_where_wanted() -> None:
    assert "\x1b[" not in run_quipu("run", "tiny", "-no-cnv", "-p", "x", "-n", "2").stdout
    assert run_quipu("run", "tiny", "-no-cnv", "-p", "x", "-n", "2", "-co").stdout.startswith("\x1b[32mx\x1b[0m")


def test_conversation_through_a_pipe() -> None:
    typed = "hello\n/drop 1\n/set parameter num_predict 3\n/nonsense\nagain\n/bye\n"
    done = run_quipu("run", "tiny", "-i", "-n", "6", text=typed)
    assert "forgot 1 turn, 0 turns left" in done.stderr
    assert "error: there is no command /nonsense" in done.stderr


def test_bench_reports() -> None:
    done = run_quipu("bench", "-m", "tiny", "-p", "16", "-n", "8", "-r", "2", "--json")
    report = json.loads(done.stdout)
    assert [result["test"] for result in report["results"]] == ["pp16", "tg8"]
    assert all(result["tokens_per_second"] > 0 for result in report["results"])
    assert report["results"][1]["bandwidth_fraction"] > 0
    assert report["model"]["file_bytes"] == MODEL.stat().st_size


class Pty:
    """`quipu` at a terminal of its own."""

    def __init__(self, *words: str, state: Path) -> None:
        controller, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(state), "PROMPT_TOOLKIT_NO_CPR": "1"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [*QUIPU, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
        )
        os.close(terminal)
        self.controller = controller
        self.shown = ""

    def expect(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Read until `pattern` appears, and return all that came before its end."""
        until = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.shown)):
            readable, _, _ = select.select([self.controller], [], [], max(0.0, until - time.monotonic()))
            assert readable, f"{pattern!r} did not appear in {self.shown!r}"
            try:
                self.shown += os.read(self.controller, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                raise AssertionError(f"{pattern!r} did not appear before the end of {self.shown!r}") from None
        before, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def leave(self) -> int:
        code = self.process.wait(timeout=30)
        os.close(self.controller)
        return code


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Pty]:
    opened = Pty("run", "tiny", "-n", "400", "--ignore-eos", "--temp", "0", state=tmp_path)
    yield opened
    if opened.process.poll() is None:
        opened.process.kill()
        opened.process.wait()


def test_conversation_at_a_terminal(terminal: Pty, tmp_path: Path) -> None:
    assert "context" in terminal.expect(">>> ")
    terminal.type("/set parameter num_predict 4\r")
    terminal.expect("set num_predict to 4")
    terminal.expect(">>> ")
    terminal.type('"""one\r')
    terminal.expect(r"\.\.\. ")
    terminal.type('two"""\r')
    terminal.expect(">>> ")
    terminal.type("/history\r")
    terminal.expect(r"1  one \.\.\.")
    terminal.type("/bye\r")
    assert terminal.leave() == 0
    assert "one" in (tmp_path / "quipu" / "history").read_text(encoding="utf-8")


def test_ctrl_c_stops_the_answer_at_a_terminal(terminal: Pty) -> None:
    terminal.expect(">>> ")
    terminal.type("/set parameter num_predict -1\r")
    terminal.expect(">>> ")
    terminal.type("talk\r")
    terminal.expect("talk")
    time.sleep(0.2)
    terminal.process.send_signal(signal.SIGINT)
    terminal.expect(r"\(stopped|cut")
    terminal.expect(">>> ")
    terminal.type("\x03")
    terminal.expect(r"/bye or Ctrl-D leaves")
    terminal.expect(">>> ")
    terminal.type("\x04")
    assert terminal.leave() == 0
