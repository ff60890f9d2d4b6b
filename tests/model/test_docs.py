"""The documents and the examples do what they say: their commands are run with the installed package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODEL = Path(str(files("quipu") / "data" / "tiny.gguf"))

pytestmark = [
    pytest.mark.skipif(shutil.which("quipu", path=str(BIN)) is None, reason="the package is not installed"),
    pytest.mark.skipif(not MODEL.is_file(), reason="the package was installed without its embedded model"),
]


@dataclass(frozen=True)
class Block:
    """A fenced code block that asks to be run."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def find_blocks(path: Path) -> list[Block]:
    """The blocks of a document whose fence says `sh run` or `python run`."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(r"^```(sh|python) run\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(path, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


BLOCKS = [block for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))] for block in find_blocks(path)]


def run(command: list[str], folder: Path, text: str = "") -> str:
    """Standard output of a command in `folder` with the environment's programs in reach; it must succeed."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_document_commands_run(block: Block, tmp_path: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    assert run([*command, block.text], tmp_path).strip()


def test_some_blocks_are_run() -> None:
    assert len(BLOCKS) >= 5


def test_example_generate(tmp_path: Path) -> None:
    output = run([sys.executable, str(ROOT / "examples/generate.py"), str(MODEL), "Once"], tmp_path)
    assert output.startswith("Once")
    assert re.search(r"\[(stop|length), \d+ tokens\]", output)


def test_example_chat(tmp_path: Path) -> None:
    assert run([sys.executable, str(ROOT / "examples/chat.py"), str(MODEL)], tmp_path, "Hello\nAgain\n\n").strip()


def test_example_score(tmp_path: Path) -> None:
    output = run([sys.executable, str(ROOT / "examples/score.py"), str(MODEL), "one two three"], tmp_path)
    assert re.fullmatch(r"\d+ tokens, \d+\.\d\d bits per predicted token\n", output)
