"""The benchmark scripts run, on the embedded model and without the neighbour. What they measure is not judged here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(str(files("quipu") / "data" / "tiny.gguf"))

pytestmark = [
    pytest.mark.skipif(not MODEL.is_file(), reason="the package was installed without its embedded model"),
    pytest.mark.skipif(sys.platform != "linux", reason="the scripts read Linux's own accounts"),
    pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"),
]


@pytest.mark.parametrize(
    ("script", "options", "key"),
    [
        ("decode.py", ["-r", "1", "-n", "4", "-p", "4"], "tokens_per_second"),
        ("prefill.py", ["-r", "1", "-p", "16"], "tokens_per_second"),
        ("first_token.py", ["-r", "1"], "seconds"),
        ("memory.py", ["-c", "64"], "bytes"),
    ],
)
def test_benchmark_runs(script: str, options: list[str], key: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / script), "-m", str(MODEL), "-t", "1", "--no-llama"]
    done = subprocess.run(
        [*command, *options, "--json", str(report)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| quipu" in done.stdout
    measured = json.loads(report.read_text(encoding="utf-8"))
    assert measured["machine"]["processor"]
    assert any(name.startswith("quipu") for name in measured[key])
    assert all(value for value in measured[key].values())
