"""How far logits are from exact ones, ours beside llama.cpp's: relative L2 error and KL divergence.

    python benchmarks/accuracy.py [--golden FOLDER] [--types Q4_K,IQ3_S] [-t 2] [--no-llama] [--json FILE]

Two sources. The golden models (`golden` in the folder that QUIPU_TEST_DATA names): small models quantized by llama.cpp,
with its logits and with those of the same weights computed in float32. And one synthetic model per weight type: there
llama.cpp computes beside ours, and exact is quipu's plain numpy backend, which rounds nothing. The KV cache is f32, so
that the arithmetic alone is compared. Ours is measured for a prompt in one step and for one token at a time, which run
different kernels. The goal is to be no worse than llama.cpp.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import common
from measured import THEIRS, table
from quipu import LLM
from quipu.cli.synthetic import synthetic_model
from quipu.errors import UnsupportedModelError
from weight_types import TYPES

_GOLDEN_ARRAYS = ("logits.npz", "logits_architectures.npz")
_NUM_TOKENS = 48
_SHAPE = "llama-tiny"
# Tokens whose second and third expert are so close that any rounding may swap them, which moves the whole row.
_NEAR_TIES = {"qwen2moe-Q4_K_M": [10]}


@dataclass(frozen=True)
class Deviation:
    """How far logits are from exact ones.

    Attributes:
        error: relative L2 error of the logits.
        divergence: mean over the tokens of the Kullback-Leibler divergence of their distribution from the exact one.
    """

    error: float
    divergence: float


def deviation(got: NDArray[np.float32], exact: NDArray[np.float32]) -> Deviation:
    """Compare rows of logits."""
    difference = np.linalg.norm(got.astype(np.float64) - exact)
    log_p, log_q = _log_softmax(exact), _log_softmax(got)
    # Never negative but for rounding, where one token has all of the probability.
    divergence = max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1))))
    return Deviation(float(difference / np.linalg.norm(exact.astype(np.float64))), divergence)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return result


def our_logits(path: Path, tokens: list[int], threads: int, step_tokens: int) -> NDArray[np.float32]:
    """Logits of all tokens, so many of them in one step."""
    with LLM(path, ctx_size=len(tokens), threads=threads, kv_type="f32", ubatch_size=step_tokens) as llm:
        return llm.logits(tokens)


@contextmanager
def plain_backend() -> Iterator[None]:
    """What is loaded within computes with numpy."""
    before = os.environ.get("QUIPU_BACKEND")
    os.environ["QUIPU_BACKEND"] = "reference"
    try:
        yield
    finally:
        del os.environ["QUIPU_BACKEND"]
        if before is not None:
            os.environ["QUIPU_BACKEND"] = before


def our_deviations(
    path: Path, tokens: list[int], exact: NDArray[np.float32], threads: int, left_out: list[int]
) -> dict[str, Deviation]:
    """Those of a whole prompt and of one token at a time."""
    found = {}
    for name, step_tokens in (("prompt", 512), ("decode", 1)):
        got = our_logits(path, tokens, threads, step_tokens)
        found[name] = deviation(np.delete(got, left_out, axis=0), np.delete(exact, left_out, axis=0))
    return found


def measure_golden(folder: Path, threads: int) -> dict[str, dict[str, Deviation]]:
    """By file: ours, and llama.cpp's from the logits stored beside."""
    found = {}
    for name in _GOLDEN_ARRAYS:
        if not (folder / name).is_file():
            continue
        with np.load(folder / name) as arrays:
            for stem in sorted(key.removeprefix("exact/") for key in arrays if key.startswith("exact/")):
                path, left_out = folder / f"{stem}.gguf", _NEAR_TIES.get(stem, [])
                if not path.is_file() or stem not in arrays:
                    continue
                exact = arrays[f"exact/{stem}"]
                tokens = arrays["tokens"].tolist()
                if len(tokens) != len(exact):
                    continue
                try:
                    of_stem = our_deviations(path, tokens, exact, threads, left_out)
                except UnsupportedModelError:
                    continue
                theirs, truth = (np.delete(rows, left_out, axis=0) for rows in (arrays[stem], exact))
                found[stem] = {**of_stem, THEIRS[0]: deviation(theirs, truth)}
                print(".", end="", flush=True)
    print()
    return found


def measure_type(arguments: argparse.Namespace, type_name: str) -> tuple[dict[str, Deviation], dict[str, str]]:
    """Ours and llama.cpp's on one synthetic model, and what the engines call themselves."""
    path = synthetic_model(_SHAPE, type_name)
    size = common.measure_model(path)
    tokens = common.random_ids(_NUM_TOKENS, size.vocab_size, seed=0)
    with plain_backend():
        exact = our_logits(path, tokens, arguments.threads, 512)
    found = our_deviations(path, tokens, exact, arguments.threads, [])
    workers = common.start_workers(arguments, path, ctx_size=256, both_layouts=False, kv_type="f32")
    if THEIRS[0] in workers:
        rows = workers[THEIRS[0]].ask("logits", token_ids=tokens)["logits"]
        found[THEIRS[0]] = deviation(np.array(rows, dtype=np.float32), exact)
    for worker in workers.values():
        worker.close()
    return found, {name: worker.engine for name, worker in workers.items()}


def accuracy_rows(found: dict[str, dict[str, Deviation]]) -> list[list[str]]:
    """A row per model or type."""
    rows = []
    for name, of_name in found.items():
        theirs = of_name.get(THEIRS[0])
        worst = max(of_name[kind].error for kind in ("prompt", "decode"))
        rows.append(
            [
                name,
                *(f"{of_name[kind].error:.5f}" for kind in ("prompt", "decode")),
                "-" if theirs is None else f"{theirs.error:.5f}",
                "-" if theirs is None else f"{worst / max(theirs.error, 1e-12):.2f}",
                *(f"{of_name[kind].divergence:.1e}" for kind in ("prompt", "decode")),
                "-" if theirs is None else f"{theirs.divergence:.1e}",
            ]
        )
    return rows


HEADER = [
    "model",
    "L2 error, prompt",
    "token by token",
    "llama.cpp",
    "worse / llama.cpp",
    "KL, prompt",
    "token by token",
    "llama.cpp",
]


def main() -> None:
    data = os.environ.get("QUIPU_TEST_DATA")
    parser = common.options("error of logits against exact ones")
    parser.add_argument(
        "--golden", type=Path, default=Path(data) / "golden" if data else None, help="folder with the golden models"
    )
    parser.add_argument("--types", default=TYPES.replace(" ", ","), help="separated by commas; empty: none")
    arguments = parser.parse_args()
    if arguments.model is not None:
        parser.error("this benchmark makes its own models; choose them with --types and --golden")
    golden: dict[str, dict[str, Deviation]] = {}
    if arguments.golden is None:
        print("the golden models are left out: --golden or QUIPU_TEST_DATA names their folder")
    else:
        golden = measure_golden(arguments.golden, arguments.threads)
    types: dict[str, dict[str, Deviation]] = {}
    engines: dict[str, str] = {}
    for type_name in filter(None, arguments.types.split(",")):
        types[type_name], engines = measure_type(arguments, type_name)
    for title, found in (("Golden models", golden), ("Weight types, synthetic models", types)):
        if found:
            print(f"\n{title}\n\n{table(HEADER, accuracy_rows(found))}")
    if arguments.json:
        content = {
            kind: {name: {who: asdict(value) for who, value in of_name.items()} for name, of_name in found.items()}
            for kind, found in (("golden", golden), ("types", types))
        }
        common.write_json(arguments.json, engines, {"title": "Accuracy", **content})


if __name__ == "__main__":
    main()
