"""`quipu bench`: what is timed, what a token reads, and how the result is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripted import FACTS

from quipu.api import LLM
from quipu.bench.bandwidth import Bandwidth
from quipu.bench.measure import Measurement, Reads, measure_generation, measure_prompt
from quipu.bench.reads import cache_bytes_per_position, weight_bytes_per_token
from quipu.cli import bench, main
from quipu.cli.synthetic import cache_folder, synthetic_model
from quipu.errors import UsageError
from quipu.gguf import GGUFReader
from quipu.types import SamplingParams, Timings

BANDWIDTH = Bandwidth(20e9, "avx2 x4", {"avx2 x4": 20e9, "memcpy": 15e9}, 2, 1 << 30)


@dataclass
class TimedLLM:
    """Takes 1 ms per prompt token and 10 ms per generated one, and a second longer the first time."""

    vocab_size: int = 100
    threads: int = 2
    threads_batch: int = 2
    ctx_size: int = 1024
    prompts: list[Sequence[int]] = field(default_factory=list)

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Any:
        assert sampling.ignore_eos
        assert sampling.temperature == 0.0
        assert sampling.max_tokens is not None
        assert all(0 <= token < self.vocab_size for token in prompt)
        self.prompts.append(prompt)
        warm_up_s = 1.0 if len(self.prompts) == 1 else 0.0
        timings = Timings(0.0, warm_up_s + len(prompt) / 1000, warm_up_s + (sampling.max_tokens - 1) / 100)
        return SimpleNamespace(token_ids=tuple(range(sampling.max_tokens)), timings=timings)


def reader_of(metadata: dict[str, Any], tensors: dict[str, tuple[tuple[int, ...], int]]) -> GGUFReader:
    """As much of a reader as the counting of bytes looks at: name -> (shape, bytes)."""
    rows = {name: SimpleNamespace(shape=shape, num_bytes=size) for name, (shape, size) in tensors.items()}
    return SimpleNamespace(metadata=metadata, tensors=rows, path=Path("x.gguf"))  # type: ignore[return-value]


def test_prompt_is_timed_after_warming_up() -> None:
    llm, steps = TimedLLM(), []
    model: LLM = llm  # type: ignore[assignment]
    result = measure_prompt(model, 50, 3, lambda: steps.append(1))
    assert result.test == "pp50"
    assert result.samples == pytest.approx([1000.0] * 3)
    assert result.tokens_per_second == pytest.approx(1000.0)
    assert result.bandwidth_fraction is None
    assert len(steps) == 4
    assert len({tuple(prompt) for prompt in llm.prompts}) == 4  # a cache of earlier prompts never helps


def test_generation_is_compared_with_the_bandwidth() -> None:
    llm: LLM = TimedLLM()  # type: ignore[assignment]
    result = measure_generation(llm, 20, 2, Reads(1_000_000, 100, 1e9), lambda: None)
    assert result.test == "tg20"
    assert result.tokens_per_second == pytest.approx(100.0)
    assert result.read_bytes_per_second == pytest.approx(100 * (1_000_000 + 100 * 11))
    assert result.bandwidth_fraction == pytest.approx(result.read_bytes_per_second / 1e9)
    result = measure_generation(llm, 20, 2, Reads(1_000_000, 100, None), lambda: None)
    assert result.bandwidth_fraction is None


def test_an_untied_embedding_is_read_one_row_at_a_time() -> None:
    tensors = {"token_embd.weight": ((64, 10), 1000), "blk.0.attn_q.weight": ((64, 64), 500)}
    assert weight_bytes_per_token(reader_of({}, tensors)) == 1500
    tensors["output.weight"] = ((64, 10), 2000)
    assert weight_bytes_per_token(reader_of({}, tensors)) == 100 + 500 + 2000


def test_only_the_experts_in_use_are_read() -> None:
    metadata = {"general.architecture": "llama", "llama.expert_count": 8, "llama.expert_used_count": 2}
    tensors = {"blk.0.ffn_up_exps.weight": ((64, 64, 8), 8000), "blk.0.ffn_gate_inp.weight": ((64, 8), 500)}
    assert weight_bytes_per_token(reader_of(metadata, tensors)) == 2000 + 500


def test_bytes_of_cache_per_position() -> None:
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 16,
        "llama.embedding_length": 2048,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    }
    assert cache_bytes_per_position(reader_of(metadata, {})) == 16 * 8 * (64 + 64) * 2
    metadata["llama.attention.key_length"] = 128
    assert cache_bytes_per_position(reader_of(metadata, {}), 4, 2) == 16 * 8 * (128 * 4 + 64 * 2)
    metadata["llama.attention.head_count_kv"] = np.array([8] * 15 + [4], np.int32)
    assert cache_bytes_per_position(reader_of(metadata, {}), 4, 2) == (15 * 8 + 4) * (128 * 4 + 64 * 2)
    assert cache_bytes_per_position(reader_of({"general.architecture": "llama"}, {})) == 0


RESULTS = [
    Measurement("pp512", 512, 400.0, (390.0, 400.0, 410.0)),
    Measurement("tg128", 128, 15.0, (14.0, 15.0, 16.5), 12e9, 0.6),
]


def test_report_for_programs() -> None:
    report = json.loads(json.dumps(bench._report(RESULTS, FACTS, BANDWIDTH, 0.25, {"threads": 2})))
    assert [result["test"] for result in report["results"]] == ["pp512", "tg128"]
    assert report["results"][1]["tokens_per_second"] == 15.0
    assert report["results"][1]["bandwidth_fraction"] == 0.6
    assert report["results"][1]["spread"] == [14.0, 16.5]
    assert report["results"][0]["bandwidth_fraction"] is None
    assert report["bandwidth"]["bytes_per_second"] == 20e9
    assert report["load_s"] == 0.25
    assert report["model"]["architecture"] == "llama"
    assert "template" not in report["model"]
    assert report["machine"]["num_cores"] >= 1


def test_table_and_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    text = bench._markdown(RESULTS, FACTS, BANDWIDTH, 0.25, 2)
    assert "| tg128 | 15.00 | 14.00 to 16.50, ±1.00 | 12.0 | 60% |" in text
    assert "loaded in 0.25 s; this machine reads 20.0 GB/s (avx2 x4)" in text
    bench._show(RESULTS, FACTS, BANDWIDTH, 0.25, 2)
    shown = capsys.readouterr().out
    assert "tg128" in shown
    assert "60%" in shown


@pytest.mark.parametrize("words", [[], ["-m", "a.gguf", "--synthetic", "llama-1b"], ["--synthetic", "../x"]])
def test_model_must_be_clear(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_synthetic_model_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str, int]] = []

    def write(path: Path, shape: str, type_name: str, *, seed: int, progress: Any) -> None:
        progress(1, 2)
        path.write_bytes(b"GGUF")
        written.append((shape, type_name, seed))

    monkeypatch.setenv("QUIPU_CACHE", str(tmp_path))
    monkeypatch.setattr("quipu.cli.synthetic.write_synthetic_model", write)
    path = synthetic_model("llama-1b", "Q4_K_M")
    assert path == tmp_path / "synthetic" / "llama-1b-Q4_K_M.gguf"
    assert synthetic_model("llama-1b", "Q4_K_M") == path
    assert written == [("llama-1b", "Q4_K_M", 0)]


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, shape: str, type_name: str, *, seed: int, progress: Any) -> None:
        path.write_bytes(b"GG")
        raise UsageError(f"there is no shape {shape!r}")

    monkeypatch.setenv("QUIPU_CACHE", str(tmp_path))
    monkeypatch.setattr("quipu.cli.synthetic.write_synthetic_model", write)
    with pytest.raises(UsageError, match="there is no shape 'llama-9b'"):
        synthetic_model("llama-9b", "Q4_K_M")
    assert list((tmp_path / "synthetic").iterdir()) == []


def test_place_of_synthetic_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUIPU_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/quipu/synthetic")
