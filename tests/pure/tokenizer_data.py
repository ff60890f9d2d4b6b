"""Vocabularies for the tokenizer tests: three that travel with them, and those of QUIPU_TEST_DATA if it is set."""

from __future__ import annotations

import lzma
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from quipu.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data" / "tokenizer"
SMALL = ("gpt-2", "llama-spm", "bert-bge")
LARGE = ("llama-bpe", "qwen2", "deepseek-llm", "phi-3")
# How GPT-2 spells the 256 bytes: the printable ones as they are, then the others from U+0100 on.
BYTE_ALPHABET = [
    chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))
]
SEPARATOR = "\n__ggml_vocab_test__\n"


def large_folder() -> Path | None:
    """The folder with the large vocabularies, or None."""
    root = os.environ.get("QUIPU_TEST_DATA")
    return Path(root) / "vocab" if root else None


@cache
def vocabulary_path(name: str) -> Path:
    """A GGUF file of the vocabulary, unpacked if need be."""
    packed = DATA / f"ggml-vocab-{name}.gguf.xz"
    if not packed.exists():
        folder = large_folder()
        assert folder is not None
        return folder / f"ggml-vocab-{name}.gguf"
    path = Path(mkdtemp(prefix="quipu-vocab-")) / packed.stem
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@cache
def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a vocabulary, shared by all tests."""
    return Tokenizer.from_gguf(vocabulary_path(name))


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """Test strings and the ids that llama.cpp publishes for them."""
    folder = large_folder()
    expected = DATA / f"ggml-vocab-{name}.gguf.out"
    if not expected.exists():
        assert folder is not None
        expected = folder / expected.name
    texts = (DATA / "ggml-vocab.inp").read_bytes().decode().split(SEPARATOR)
    ids = [[int(number) for number in line.split()] for line in expected.read_text().split("\n")]
    return list(zip(texts, ids, strict=True))


def metadata(
    tokens: Sequence[str],
    *,
    model: str = "gpt2",
    types: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    merges: Sequence[str] | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Metadata of a made-up vocabulary. Further keys go under `tokenizer.ggml`; None leaves a key out."""
    values: dict[str, Any] = {"model": model, "tokens": list(tokens)}
    if model == "gpt2":
        values |= {"pre": "gpt-2", "merges": list(merges or [])}
    if types is not None:
        values["token_type"] = np.array(types, dtype=np.int32)
    if scores is not None:
        values["scores"] = np.array(scores, dtype=np.float32)
    values |= keys
    return {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}
