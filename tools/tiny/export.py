"""Trained weights as GGUF files, F16 and Q8_0, through quipu's own writer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.gguf import GGMLType, GGUFReader, write_gguf
from tiny.encode import encode_q8_0
from tiny.recipes import ModelConfig, Recipe

Array = NDArray[Any]
_FILE_TYPES = {GGMLType.F16: 1, GGMLType.Q8_0: 7}  # general.file_type


def export(recipe: Recipe, weights: Mapping[str, Array], vocabulary: Path, folder: Path) -> list[Path]:
    """Write NAME-F16.gguf, NAME-Q8_0.gguf and their SHA-256 into `folder`; returns the model files.

    Args:
        weights: float32 arrays by the names of the modules' parameters.
        vocabulary: the file that `write_vocabulary` made.
    """
    with GGUFReader(vocabulary) as reader:
        tokenizer = {key: value for key, value in reader.metadata.items() if key.startswith("tokenizer.")}
        tokenizer = {key: _plain(value) for key, value in tokenizer.items()}
    paths = []
    for file_type in (GGMLType.F16, GGMLType.Q8_0):
        path = folder / f"{recipe.name}-{file_type.name}.gguf"
        write_gguf(path, metadata(recipe, file_type) | tokenizer, list(tensors(weights, file_type)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        paths.append(path)
    return paths


def _plain(value: Any) -> Any:
    """A value as the writer takes it: strings of a file are read lazily, and the file will be closed."""
    to_list: Callable[[], list[str]] | None = getattr(value, "to_list", None)
    if to_list is not None:
        return to_list()
    return np.array(value) if isinstance(value, np.ndarray) else value


def metadata(recipe: Recipe, file_type: GGMLType) -> dict[str, Any]:
    config: ModelConfig = recipe.config
    return {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.name": recipe.name,
        "general.description": recipe.description,
        "general.license": "mit",
        **({"quipu.examples": list(recipe.examples)} if recipe.examples else {}),
        "general.languages": ["en", "zh"],
        "general.quantization_version": np.uint32(2),
        "general.file_type": np.uint32(_FILE_TYPES[file_type]),
        # Small models are sure of what they know; high temperatures only add mistakes.
        "general.sampling.temp": np.float32(0.2),
        "general.sampling.top_k": np.int32(20),
        "general.sampling.top_p": np.float32(0.9),
        "qwen3.block_count": np.uint32(config.num_layers),
        "qwen3.context_length": np.uint32(config.context_length),
        "qwen3.embedding_length": np.uint32(config.hidden_size),
        "qwen3.feed_forward_length": np.uint32(config.feed_forward_size),
        "qwen3.attention.head_count": np.uint32(config.num_heads),
        "qwen3.attention.head_count_kv": np.uint32(config.num_kv_heads),
        "qwen3.attention.key_length": np.uint32(config.head_size),
        "qwen3.attention.value_length": np.uint32(config.head_size),
        "qwen3.attention.layer_norm_rms_epsilon": np.float32(config.norm_epsilon),
        "qwen3.rope.freq_base": np.float32(config.rope_freq_base),
        "qwen3.vocab_size": np.uint32(config.vocab_size),
    }


def tensors(
    weights: Mapping[str, Array], file_type: GGMLType
) -> Iterator[tuple[str, tuple[int, ...], GGMLType, Array]]:
    """All tensors: matrices in `file_type`, norms in F32. Names lose the names of the modules around them."""
    for name, array in weights.items():
        parts = [part for part in name.split(".") if part not in ("attention", "feed_forward")]
        shape = tuple(reversed(array.shape))
        if array.ndim == 1:
            yield ".".join(parts), shape, GGMLType.F32, array.astype("<f4")
        elif file_type == GGMLType.F16:
            yield ".".join(parts), shape, file_type, array.astype("<f2")
        else:
            # From the F16 weights, as anyone would quantize who has that file only.
            yield ".".join(parts), shape, file_type, encode_q8_0(array.astype("<f2").astype(np.float32))
