"""A small random BERT as it is published (config.json, safetensors, tokenizer), and what it computes in numpy."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

Array = NDArray[np.float64]

WIDTH, HEADS, INNER, LAYERS, CONTEXT, TYPES = 64, 4, 96, 2, 80, 2
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = [
    "[unused0]",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *".,?!-'[]",
    "the",
    "cat",
    "sat",
    "##ing",
    "漢",
    "é",
]
VOCABULARY = [*SPECIAL, *WORDS]
CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")

_erf = np.vectorize(math.erf, otypes=[np.float64])


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: Any = None) -> None:
    """Write tensors: name -> (the format's type name, values as stored)."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


@dataclass
class Checkpoint:
    """A model that can be changed before it is written.

    Attributes:
        config: config.json.
        tensors: by their published names.
        num_labels: rows of the classifier; 0: there is none.
    """

    num_labels: int = 0
    seed: int = 5
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = {
            "architectures": ["BertForSequenceClassification" if self.num_labels else "BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": CONTEXT,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "type_vocab_size": TYPES,
            "vocab_size": len(VOCABULARY),
        }
        rng = np.random.default_rng(self.seed)

        def linear(name: str, rows: int, columns: int) -> None:
            self.tensors[f"{name}.weight"] = rng.standard_normal((rows, columns)).astype(np.float32) / columns**0.5
            self.tensors[f"{name}.bias"] = rng.standard_normal(rows).astype(np.float32) / 4

        def norm(name: str) -> None:
            self.tensors[f"{name}.weight"] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
            self.tensors[f"{name}.bias"] = rng.standard_normal(WIDTH).astype(np.float32) / 4

        prefix = "bert." if self.num_labels else ""
        for table, rows in (("word", len(VOCABULARY)), ("position", CONTEXT), ("token_type", TYPES)):
            name = f"{prefix}embeddings.{table}_embeddings.weight"
            self.tensors[name] = rng.standard_normal((rows, WIDTH)).astype(np.float32)
        norm(f"{prefix}embeddings.LayerNorm")
        for layer in range(LAYERS):
            base = f"{prefix}encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                linear(f"{base}.attention.self.{part}", WIDTH, WIDTH)
            linear(f"{base}.attention.output.dense", WIDTH, WIDTH)
            norm(f"{base}.attention.output.LayerNorm")
            linear(f"{base}.intermediate.dense", INNER, WIDTH)
            linear(f"{base}.output.dense", WIDTH, INNER)
            norm(f"{base}.output.LayerNorm")
        linear(f"{prefix}pooler.dense", WIDTH, WIDTH)
        if self.num_labels:
            linear("classifier", self.num_labels, WIDTH)

    def write(
        self, folder: Path, *, pooling: str | None = "mean_tokens", tokenizer: str = "json", dtype: str = "F32"
    ) -> Path:
        """Write the folder.

        Args:
            pooling: as sentence-transformers call it (`pooling_mode_...`); None: no modules.json.
            tokenizer: "json" for tokenizer.json, "text" for vocab.txt.
            dtype: how the weights are stored.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        stored = {name: (dtype, as_stored(values, dtype)) for name, values in self.tensors.items()}
        prefix = "bert." if self.num_labels else ""
        stored[f"{prefix}embeddings.position_ids"] = ("I64", np.arange(CONTEXT)[None])
        write_safetensors(folder / "model.safetensors", stored, {"format": "pt"})
        if tokenizer == "json":
            published_tokenizer().save(str(folder / "tokenizer.json"))
        else:
            (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "cls_token": "[CLS]"}))
        (folder / "special_tokens_map.json").write_text(json.dumps({"sep_token": {"content": "[SEP]"}}))
        if pooling is not None:
            modules = [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
            (folder / "modules.json").write_text(json.dumps(modules))
            (folder / "1_Pooling").mkdir(exist_ok=True)
            modes = {f"pooling_mode_{mode}": mode == pooling for mode in ("cls_token", "mean_tokens", "max_tokens")}
            settings = {"word_embedding_dimension": WIDTH, **modes, f"pooling_mode_{pooling}": True}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        return folder

    def vectors(self, token_ids: Sequence[int], token_types: Sequence[int] | None = None) -> Array:
        """float64 [tokens, width] after the last layer, for weights stored exactly."""
        prefix = "bert." if self.num_labels else ""
        tensors = {name.removeprefix(prefix): values.astype(np.float64) for name, values in self.tensors.items()}

        def linear(name: str, x: Array) -> Array:
            return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

        def norm(name: str, x: Array) -> Array:
            centred = x - x.mean(-1, keepdims=True)
            scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
            return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

        ids = np.asarray(token_ids)
        types = np.zeros_like(ids) if token_types is None else np.asarray(token_types)
        x = (
            tensors["embeddings.word_embeddings.weight"][ids]
            + tensors["embeddings.token_type_embeddings.weight"][types]
        )
        x = norm("embeddings.LayerNorm", x + tensors["embeddings.position_embeddings.weight"][: len(ids)])
        for layer in range(LAYERS):
            base = f"encoder.layer.{layer}"
            q, k, v = (
                linear(f"{base}.attention.self.{part}", x).reshape(len(ids), HEADS, -1).swapaxes(0, 1)
                for part in ("query", "key", "value")
            )
            scores = q @ k.swapaxes(1, 2) / math.sqrt(WIDTH // HEADS)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ v).swapaxes(0, 1).reshape(len(ids), WIDTH)
            x = norm(f"{base}.attention.output.LayerNorm", x + linear(f"{base}.attention.output.dense", mixed))
            inner = linear(f"{base}.intermediate.dense", x)
            inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
            x = norm(f"{base}.output.LayerNorm", x + linear(f"{base}.output.dense", inner))
        return x

    def scores(self, token_ids: Sequence[int], token_types: Sequence[int]) -> Array:
        """float64 [labels] of a pair."""
        tensors = {name: values.astype(np.float64) for name, values in self.tensors.items()}
        first = self.vectors(token_ids, token_types)[0]
        pooled = np.tanh(tensors["bert.pooler.dense.weight"] @ first + tensors["bert.pooler.dense.bias"])
        result: Array = tensors["classifier.weight"] @ pooled + tensors["classifier.bias"]
        return result


def as_stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The values in one of the format's types."""
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])


def published_tokenizer() -> Tokenizer:
    """The tokenizer that belongs to VOCABULARY, by the `tokenizers` package."""
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer
