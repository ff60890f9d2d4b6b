"""Typed access to the hyper-parameters of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quipu.errors import ModelFileError
from quipu.gguf import GGUFReader, ModelKeys, write_gguf

VALUES: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.negative": -1,
    "llama.wide": np.uint64(2**40),
    "llama.eps": 1e-5,
    "llama.nan": float("nan"),
    "llama.causal": True,
    "llama.rope.scaling.type": "yarn",
    "llama.heads": [8, 4, 2],
    "llama.sections": [0.5, 1.5],
    "llama.pattern": [True, False, True],
    "llama.words": ["a", "b"],
    "llama.nested": [[1], [2]],
    "llama.long": "x" * 1000,
    "qwen2.block_count": 7,
}


@pytest.fixture
def keys(tmp_path: Path) -> ModelKeys:
    write_gguf(tmp_path / "m.gguf", VALUES)
    with GGUFReader(tmp_path / "m.gguf") as reader:
        return ModelKeys(reader.metadata, path=reader.path.name)


def test_values(keys: ModelKeys) -> None:
    assert keys.architecture == "llama"
    assert keys.key("block_count") == "llama.block_count"
    assert "block_count" in keys
    assert "general.architecture" not in keys
    assert keys.integer("block_count") == 3
    assert keys.integer("wide", maximum=2**50) == 2**40
    assert keys.integer("negative", minimum=-5) == -1
    assert keys.number("eps") == float(np.float32(1e-5))
    assert keys.number("block_count") == 3.0
    assert keys.flag("causal") is True
    assert keys.text("rope.scaling.type") == "yarn"
    assert keys.integers("heads", 3) == (8, 4, 2)
    assert keys.integers("heads") == (8, 4, 2)
    assert keys.integers("block_count", 4) == (3, 3, 3, 3)
    assert keys.integers("block_count") == (3,)
    assert keys.numbers("sections", 2) == (0.5, 1.5)
    assert keys.numbers("heads") == (8.0, 4.0, 2.0)
    assert keys.flags("pattern", 3) == (True, False, True)
    assert keys.flags("causal", 2) == (True, True)
    assert all(type(value) is int for value in keys.integers("heads"))
    assert all(type(value) is bool for value in keys.flags("pattern"))


def test_defaults(keys: ModelKeys) -> None:
    assert keys.integer("missing", 5) == 5
    assert keys.integer("missing", None) is None
    assert keys.number("missing", 0.5) == 0.5
    assert keys.flag("missing", False) is False
    assert keys.text("missing", None) is None
    assert keys.integers("missing", 3, None) is None
    assert keys.numbers("missing", None, ()) == ()
    assert keys.flags("missing", default=(True,)) == (True,)


@pytest.mark.parametrize("method", ["integer", "number", "flag", "text", "integers", "numbers", "flags"])
def test_missing_keys_are_named(keys: ModelKeys, method: str) -> None:
    with pytest.raises(ModelFileError, match=r"m\.gguf: metadata key 'llama\.missing' is missing"):
        getattr(keys, method)("missing")


@pytest.mark.parametrize(
    ("method", "name", "options", "needle"),
    [
        ("integer", "eps", {}, "a whole number"),
        ("integer", "causal", {}, "is True, but has to be a whole number"),
        ("integer", "rope.scaling.type", {}, "is 'yarn', but has to be a whole number"),
        ("integer", "heads", {}, "is a list of 3 values, but has to be a whole number"),
        ("integer", "negative", {}, "is -1, but has to be from 0 to 2147483647"),
        ("integer", "wide", {}, "is 1099511627776, but has to be from 0 to"),
        ("integer", "block_count", {"minimum": 4}, "from 4 to"),
        ("integer", "block_count", {"maximum": 2}, "from 0 to 2"),
        ("integer", "long", {}, r"is 'xxx.*\.\.\.x+', but"),
        ("number", "nan", {}, "a finite number"),
        ("number", "causal", {}, "a number"),
        ("number", "eps", {"minimum": 1.0}, "at least 1.0"),
        ("number", "block_count", {"maximum": 1.0}, "at most 1.0"),
        ("flag", "block_count", {}, "is 3, but has to be true or false"),
        ("text", "block_count", {}, "is 3, but has to be a text"),
        ("text", "words", {}, "is a list of 2 values, but has to be a text"),
        ("integers", "heads", {"length": 4}, "is a list of 3 values, but has to be 4 values"),
        ("integers", "heads", {"maximum": 4}, "from 0 to 4"),
        ("integers", "sections", {}, "a whole number"),
        ("integers", "words", {}, "a whole number"),
        ("integers", "nested", {}, "a whole number"),
        ("numbers", "words", {}, "a number"),
        ("flags", "heads", {}, "true or false"),
    ],
)
def test_unfit_values_are_named(keys: ModelKeys, method: str, name: str, options: dict[str, Any], needle: str) -> None:
    with pytest.raises(ModelFileError, match=rf"m\.gguf: metadata key 'llama\.{name}' .*{needle}") as caught:
        getattr(keys, method)(name, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_block_count_beyond_the_range_is_refused() -> None:
    """llama.cpp issues 25821 and 26051: `block_count` above the size of a fixed array."""
    keys = ModelKeys({"general.architecture": "llama", "llama.block_count": 2**32 - 1})
    with pytest.raises(ModelFileError, match=r"'llama\.block_count' is 4294967295"):
        keys.integer("block_count", minimum=1, maximum=4096)


@pytest.mark.parametrize(
    ("metadata", "needle"),
    [
        ({}, "'general.architecture' is missing"),
        ({"general.architecture": 3}, "has to be a text"),
        ({"general.architecture": ""}, "is empty"),
    ],
)
def test_no_architecture(metadata: dict[str, Any], needle: str) -> None:
    with pytest.raises(ModelFileError, match=needle):
        ModelKeys(metadata)
