"""Embeddings of a small random encoder that llama.cpp quantized, against a float64 pass over the same weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu import LLM

STEM = "bert-Q4_K_M"
ROOM = 1.1  # over what llama.cpp's own rounding amounts to


def mean(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors.mean(axis=0)


def first(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors[0]


def all_of_them(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors


@pytest.mark.parametrize(
    ("pooling", "suffix", "pool"), [("none", "", all_of_them), ("mean", ".pool1", mean), ("cls", ".pool2", first)]
)
def test_embeddings_are_no_worse_than_theirs(
    pooling: str, suffix: str, pool: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    root = os.environ.get("QUIPU_TEST_DATA")
    if root is None:
        pytest.skip("QUIPU_TEST_DATA does not name the folder with the golden models")
    folder = Path(root) / "golden"
    with np.load(folder / "logits_architectures.npz") as arrays:
        token_ids = arrays["tokens"].tolist()
        expected, theirs = pool(arrays[f"np/{STEM}"].astype(np.float64)), arrays[STEM + suffix]
    with LLM(folder / f"{STEM}.gguf", threads=2) as llm:
        ours = llm.embed([token_ids], pooling=pooling, normalize=False)[0]  # type: ignore[call-overload]
    assert ours.shape == expected.shape
    assert np.linalg.norm(ours - expected) <= ROOM * np.linalg.norm(theirs - expected)
