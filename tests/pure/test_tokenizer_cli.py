"""`quipu tokenize`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from tokenizer_data import vocabulary_path
from typer.testing import CliRunner

from quipu.cli.tokenize import tokenize
from quipu.errors import ModelNotFoundError, UsageError


def run(*arguments: str, name: str = "gpt-2", stdin: bytes = b"") -> Any:
    app = typer.Typer()
    app.command()(tokenize)
    return CliRunner().invoke(app, ["-m", str(vocabulary_path(name)), *arguments], input=stdin, catch_exceptions=True)


def test_a_line_for_each_token() -> None:
    assert run("Hello world").output == " 15496 -> 'Hello'\n   995 -> ' world'\n"


def test_ids_and_count() -> None:
    assert run("--ids", "--show-count", "-p", "Hello world").output == "[15496, 995]\nTotal number of tokens: 2\n"


def test_bos() -> None:
    assert run("--ids", "Hello", name="llama-spm").output == "[1, 15043]\n"
    assert run("--ids", "--no-bos", "Hello", name="llama-spm").output == "[15043]\n"


def test_special_tokens() -> None:
    assert run("--ids", "<|endoftext|>").output == "[50256]\n"
    assert len(json.loads(run("--ids", "--no-parse-special", "<|endoftext|>").output)) > 1


def test_json() -> None:
    found = json.loads(run("--json", "Hello \u4f60").output)
    assert found["count"] == len(found["tokens"])
    assert found["tokens"][0] == {"id": 15496, "piece": "Hello"}
    assert found["tokens"][-1]["piece"] == "\\xa0"
    assert found["warnings"] == []


def test_text_from_file_and_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"Hello\r\n")
    expected = run("--ids", "-p", "Hello\r\n").output
    assert run("--ids", "-f", str(path)).output == expected
    assert run("--ids", "--stdin", stdin=b"Hello\r\n").output == expected


@pytest.mark.parametrize("arguments", [(), ("a", "-p", "b"), ("a", "--stdin"), ("-f", "/nowhere/at/all")])
def test_the_text_is_given_once(arguments: tuple[str, ...]) -> None:
    assert isinstance(run(*arguments).exception, UsageError)


def test_text_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    with pytest.raises(UsageError, match="not UTF-8"):
        tokenize(model=vocabulary_path("gpt-2"), stdin=True)


def test_no_such_model() -> None:
    with pytest.raises(ModelNotFoundError):
        tokenize("a", model=Path("/nowhere/model.gguf"))
