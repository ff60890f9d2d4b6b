"""`quipu inspect`: the table, the JSON object, single values, and files that are hostile to terminals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_bytes as raw
import numpy as np
import pytest

from quipu.cli.app import main
from quipu.gguf import GGMLType, write_gguf
from quipu.gguf.split import shard_paths

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.rope.freq_base": 10000.0,
    "llama.epsilon": 1e-5,
    "llama.limit": float("inf"),
    "llama.flag": True,
    "tokenizer.ggml.tokens": [f"tok{index}" for index in range(1000)],
    "tokenizer.ggml.scores": np.arange(1000, dtype=np.float32),
    "tokenizer.chat_template": "{{ line }}\n" * 100,
    "nested": [[1, 2], ["a"]],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    tensors = [
        ("token_embd.weight", (256, 4), GGMLType.Q4_K, bytes(144 * 4)),
        ("blk.0.attn_q.weight", (256, 2), GGMLType.Q6_K, bytes(210 * 2)),
        ("norm.weight", np.ones(256, np.float32)),
    ]
    write_gguf(path, METADATA, tensors)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `quipu inspect WORDS`."""
    code = main(["inspect", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, model)
    assert (code, err) == (0, "")
    assert f"{model}: GGUF version 3" in out
    assert "1,792 parameters in 3 tensors, 9.02 bits per weight" in out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    assert ["llama.rope.freq_base", "float32", "10000.0"] in rows
    assert ["llama.epsilon", "float32", "1e-05"] in rows
    assert ["llama.flag", "bool", "true"] in rows
    tokens = "1,000 elements: ['tok0', 'tok1', 'tok2', 'tok3', 'tok4', 'tok5', ...]"
    assert ["tokenizer.ggml.tokens", "array of string", tokens] in rows
    assert ["nested", "array of array", "2 elements: [<2 elements>, <1 elements>]"] in rows
    assert "(1,100 characters)" in out
    assert ["token_embd.weight", "256 x 4", "Q4_K", "576 B"] in rows
    assert ["norm.weight", "256", "F32", "1.00 KiB"] in rows
    assert ["Q6_K", "1", "512", "420 B", "6.562"] in rows
    assert ["all", "3", "1,792", "1.97 KiB", "9.018"] in rows
    assert "shards" not in out


def test_without_tensors(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, model, "--no-tensors")[1]
    assert "norm.weight" not in out
    assert "Q6_K" in out
    assert "tensors" not in json.loads(run(capsys, model, "--json", "--no-tensors")[1])


def test_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, model, "--json")
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert code == 0
    assert report["num_parameters"] == 1792
    assert report["num_tensors"] == 3
    assert report["file_bytes"] == model.stat().st_size
    assert report["shards"] == [{"path": str(model), "bytes": model.stat().st_size}]
    metadata = report["metadata"]
    assert metadata["tokenizer.ggml.tokens"] == {"type": "array of string", "value": METADATA["tokenizer.ggml.tokens"]}
    assert metadata["tokenizer.ggml.scores"]["value"] == list(range(1000))
    assert metadata["nested"]["value"] == [[1, 2], ["a"]]
    assert metadata["llama.flag"] == {"type": "bool", "value": True}
    assert metadata["llama.limit"]["value"] == "inf"
    assert report["tensors"][0] == {
        "name": "token_embd.weight",
        "shape": [256, 4],
        "type": "Q4_K",
        "bytes": 576,
        "offset": report["tensors"][0]["offset"],
        "shard": 0,
    }
    assert {entry["type"]: entry["bytes"] for entry in report["types"]} == {"F32": 1024, "Q4_K": 576, "Q6_K": 420}


def test_single_values(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = METADATA["tokenizer.chat_template"]
    assert run(capsys, model, "--metadata", "tokenizer.chat_template")[1] == template + "\n"
    assert json.loads(run(capsys, model, "--metadata", "tokenizer.chat_template", "--json")[1]) == template
    assert run(capsys, model, "--metadata", "llama.flag")[1] == "True\n"
    assert run(capsys, model, "--metadata", "nested")[1] == '[1, 2]\n["a"]\n'
    tokens = run(capsys, model, "--metadata", "tokenizer.ggml.tokens")[1].splitlines()
    assert tokens == METADATA["tokenizer.ggml.tokens"]


def test_unknown_keys(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, model, "--metadata", "general.architectur")
    assert (code, out) == (2, "")
    assert "no metadata key 'general.architectur'; did you mean 'general.architecture'?" in err
    assert "leave --metadata out" in run(capsys, model, "--metadata", "zzz")[2]


def test_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, path in enumerate(shard_paths(tmp_path / "model", 2)):
        metadata = {"split.no": np.uint16(number), "split.count": np.uint16(2)}
        write_gguf(path, metadata, [(f"tensor{number}", np.ones(8, np.float32))])
    out = run(capsys, tmp_path / "model-00001-of-00002.gguf")[1]
    assert "model-00002-of-00002.gguf" in out
    assert "tensor1" in out
    code, out, err = run(capsys, tmp_path / "model-00002-of-00002.gguf")
    assert (code, out) == (1, "")
    assert "name the first one" in err


def test_a_vocabulary_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "vocabulary.gguf", {"tokens": ["a"]})
    out = run(capsys, tmp_path / "vocabulary.gguf")[1]
    assert "0 parameters in 0 tensors\n" in out
    assert "sizes by type" not in out


def test_files_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x07[red]:smile:\u202e"
    path = tmp_path / "evil.gguf"
    path.write_bytes(
        raw.file_bytes(
            (
                raw.key(f"key {evil}", raw.STRING, raw.string(f"text {evil}")),
                raw.key("broken", raw.STRING, raw.string(b"\xff\x1b[0m")),
                raw.key(
                    "tokens", raw.ARRAY, raw.array(raw.STRING, raw.string(f"token {evil}") + raw.string(b"\xff"), 2)
                ),
            ),
            (raw.tensor(f"tensor {evil}"),),
            bytes(128),
        )
    )
    for words in ([], ["--json"], ["--metadata", "tokens"], ["--metadata", "broken"], ["--metadata", f"key {evil}"]):
        code, out, err = run(capsys, path, *words)
        assert (code, err) == (0, "")
        assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert r"\x1b[2J\x07[red]:smile:\u202e" in run(capsys, path, "--no-tensors")[1]
    code, out, err = run(capsys, path, "--metadata", f"no {evil}")
    assert "\x1b[2J" not in err


@pytest.mark.parametrize(
    ("stored", "needle"),
    [
        (b"", "the file is empty"),
        (b"hello world", "not a GGUF file"),
        (raw.file_bytes(version=0x03000000), "big-endian"),
        (raw.file_bytes(num_tensors=2**40), "claims 1099511627776 tensors"),
        (raw.file_bytes(tensors=(raw.tensor("t", (256,), 144),), data=bytes(500)), "IQ4_KS"),
    ],
)
def test_bad_files_give_one_line_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: bytes, needle: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(stored)
    code, out, err = run(capsys, path)
    assert (code, out) == (1, "")
    assert needle in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
