"""The benchmark scripts run, on the embedded model and without the neighbour. What they measure is not judged here."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import struct
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(str(files("quipu") / "data" / "tiny-chat-Q8_0.gguf"))

pytestmark = [
    pytest.mark.skipif(not MODEL.is_file(), reason="the package was installed without its embedded model"),
    pytest.mark.skipif(sys.platform != "linux", reason="the scripts read Linux's own accounts"),
    pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"),
]


CASES = {
    "batch": ["batch.py", "-r", "1", "-n", "2", "--sizes", "1,3"],
    "context": ["context.py", "-r", "1", "-n", "2", "--contexts", "0,70"],
    "decode": ["decode.py", "-r", "1", "-n", "4", "-p", "4"],
    "first_token": ["first_token.py", "-r", "1"],
    "memory": ["memory.py", "-c", "64"],
    "prefix_reuse": ["prefix_reuse.py", "-r", "1", "-p", "70", "--question", "4"],
    "prefill": ["prefill.py", "-r", "1", "-p", "16"],
    "serving": [
        *["serving.py", "-r", "1", "-n", "3", "-p", "8", "--requests", "2", "--sequences", "1,3"],
        *["--prefix", "70", "--long-prompt", "40", "--seeds", "1"],
    ],
    "threads": ["threads.py", "-r", "1", "-n", "2", "-p", "16", "--counts", "1"],
}
# Of these nothing but one model, made on the spot, is measured.
OWN_MODELS = {
    "accuracy": ["accuracy.py", "--types", "Q8_0", "--golden", "none"],
    "weight_types": ["weight_types.py", "-r", "1", "-n", "2", "-p", "16", "--types", "Q8_0", "--shape", "llama-tiny"],
}


def run(script: str, *options: str, **environment: str) -> str:
    """Standard output of a benchmark, which must succeed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the JSON files are, as the report reads them."""
    return tmp_path_factory.mktemp("bench")


def measure(name: str, folder: Path) -> dict[str, Any]:
    """What a benchmark wrote; it is run where it has not been."""
    path = folder / f"{name}.json"
    if not path.exists():
        script, *options = {**CASES, **OWN_MODELS}[name]
        if name in CASES:
            options += ["-m", str(MODEL)]
        output = run(script, *options, "-t", "1", "--no-llama", "--json", str(path), QUIPU_CACHE=str(folder / "cache"))
        assert any(first in output for first in ("| quipu", "| Q8_0", "| fresh", "| engine and sampler"))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", [*CASES, *OWN_MODELS])
def test_benchmark_writes_what_it_measured(name: str, folder: Path) -> None:
    measured = measure(name, folder)
    assert measured["machine"]["processor"]
    assert f"{name}.py" in measured["command"]
    assert measured["date"]
    speeds = [measured.get(key) for key in ("cases", "decode", "seconds", "bytes", "types", "sections")]
    assert any(speeds)
    for case in measured.get("cases", []):
        assert case["tokens_per_second"]["quipu"][0] > 0
        assert case["limit"] > 0


def test_every_section_of_serving_has_its_figures(folder: Path) -> None:
    sections = measure("serving", folder)["sections"]
    assert list(sections) == ["overhead", "throughput", "prefix_reuse", "stream", "constrained"]
    for case in sections["overhead"]["overheads"]:
        seconds = {part: values[0] for part, values in case["seconds_per_step"].items()}
        assert 0 < seconds["run"] + seconds["sampler"] < seconds["step"]
    assert sections["throughput"]["cases"][0]["tokens_per_second"]["quipu"][0] > 0
    assert sections["prefix_reuse"]["reused"]["another question"] >= 64
    assert len(sections["stream"]["alone"][0]) == 64
    assert len(sections["stream"]["beside"][0]) > 1
    assert sections["constrained"]["num_answers"] == 18
    assert sections["constrained"]["invalid"] == []


def test_the_report_has_a_section_for_each(folder: Path, tmp_path: Path) -> None:
    for name in [*CASES, *OWN_MODELS]:
        measure(name, folder)
    page = tmp_path / "performance.md"
    output = run("report.py", "--results", str(folder), "--page", str(page))
    assert "█" in output
    text = page.read_text(encoding="utf-8")
    for name in [*CASES, *OWN_MODELS]:
        assert f"benchmarks/{name}.py" in text
    assert "Not measured: `python benchmarks/attention.py`." in text
    for image in tmp_path.rglob("*.png"):
        assert image.stat().st_size < 60_000


def test_the_report_stands_without_results(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    run("report.py", "--results", str(tmp_path), "--page", str(page))
    text = page.read_text(encoding="utf-8")
    assert "Nothing was measured." in text
    assert "Not measured: `python benchmarks/decode.py`." in text


def saved_state(num_tokens: int, row: bytes) -> bytes:
    """One sequence as llama.cpp saves it: a layer of f16 keys and values, all rows starting with their position."""
    state = struct.pack("<IiII", 0xAF143CD8, 0, 1, num_tokens)
    state += b"".join(struct.pack("<iIi", position, 1, 0) for position in range(num_tokens))
    state += struct.pack("<II", 0, 1)
    rows = b"".join(struct.pack("<i", position % 3) + row for position in range(num_tokens))
    return state + (struct.pack("<iQ", 1, 4 + len(row)) + rows) * 2


def test_a_saved_state_of_llama_cpp_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "workers"))
    lengthen = importlib.import_module("llama_cpp_state").lengthen
    state = saved_state(3, b"keyvalue")
    assert lengthen(memoryview(state), 3) == state
    assert lengthen(memoryview(state), 8) == saved_state(8, b"keyvalue")
    for damaged in (state[:-1], state + b"?", b"\0" + state[1:], b""):
        assert lengthen(memoryview(damaged), 8) is None
