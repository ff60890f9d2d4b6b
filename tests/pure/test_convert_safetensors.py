"""The reader of safetensors files: what it reads, and that it refuses everything else with one sentence."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_checkpoint import as_stored, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.convert import safetensors
from quipu.convert.safetensors import SafetensorsFile
from quipu.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError


def read(path: Path, name: str) -> np.ndarray:
    return np.concatenate(list(SafetensorsFile(path).pieces(name)))


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_values_of_every_type(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    stored = as_stored(values, dtype)
    expected = (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else stored.astype(np.float32)
    write_safetensors(tmp_path / "a", {"first": ("F32", values[0]), "w": (dtype, stored)})
    np.testing.assert_array_equal(read(tmp_path / "a", "w"), expected.reshape(-1))
    assert SafetensorsFile(tmp_path / "a").tensors["w"].shape == (3, 5)


def test_large_tensors_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "_PIECE_VALUES", 64)
    values = np.arange(200, dtype=np.float32)
    write_safetensors(tmp_path / "a", {"w": ("F32", values)})
    pieces = list(SafetensorsFile(tmp_path / "a").pieces("w"))
    assert [len(piece) for piece in pieces] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate(pieces), values)


def test_metadata_and_empty_tensors_are_no_trouble(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"none": ("F32", np.zeros((0, 4), np.float32))}, {"format": "pt"})
    assert list(SafetensorsFile(tmp_path / "a").tensors) == ["none"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no file"):
        SafetensorsFile(tmp_path / "a")


def test_integers_are_listed_but_not_converted(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"ids": ("I64", np.arange(3))})
    with pytest.raises(UnsupportedModelError, match="'ids' is stored as I64"):
        read(tmp_path / "a", "ids")


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"{", b"", "not valid JSON"),
        (b"\xff\xfe", b"", "not UTF-8"),
        (b"[" * 200_000, b"", "nested too deeply"),
        (b'{"a": %s}' % (b"9" * 5000), b"", "not valid JSON"),
        ([], b"", "no JSON object"),
        (b'{"a": 1, "a": 2}', b"", "twice"),
        ({"a": 3}, b"", "described by no object"),
        ({"a": entry(dtype="F31")}, bytes(8), "unknown type"),
        ({"a": entry(dtype=4)}, bytes(8), "unknown type"),
        ({"a": {**entry(), "shape": "2"}}, bytes(8), "shape"),
        ({"a": entry(shape=[-2])}, bytes(8), "shape"),
        ({"a": entry(shape=[True, 2])}, bytes(8), "shape"),
        ({"a": entry(shape=[2.0])}, bytes(8), "shape"),
        ({"a": entry(shape=[1] * 9)}, bytes(8), "shape"),
        ({"a": entry(shape=[2**61, 2**61])}, bytes(8), "not what its shape needs"),
        ({"a": entry(offsets=[0])}, bytes(8), "offsets"),
        ({"a": entry(offsets=[0, 2**70])}, bytes(8), "offsets"),
        ({"a": entry(offsets=[8, 0])}, bytes(8), "outside the data"),
        ({"a": entry(offsets=[0, 80], shape=[20])}, bytes(8), "outside the data"),
        ({"a": entry(offsets=[8, 16])}, bytes(16), "begin where"),
        ({"a": entry(), "b": entry()}, bytes(8), "begin where"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "begin where"),
        ({"a": entry()}, bytes(12), "end at byte"),
        ({"a": entry()}, bytes(4), "outside the data"),
        ({}, b"x", "end at byte"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: Any, data: bytes, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        SafetensorsFile(write_raw(tmp_path / "a", header, data))


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 100), struct.pack("<Q", 2**63) + b"{}"])
def test_files_too_short_for_their_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelFileError, match="safetensors"):
        SafetensorsFile(tmp_path / "a")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes are changed: either the file still says where each tensor lies within it, or it is refused."""
    path = tmp_path_factory.mktemp("fuzz") / "a"
    write_safetensors(path, {"a": ("F32", np.ones((2, 3), np.float32)), "b": ("BF16", np.ones(4, np.uint16))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    with contextlib.suppress(ModelFileError, UnsupportedModelError):
        file = SafetensorsFile(path)
        for name, tensor in file.tensors.items():
            assert 8 <= tensor.begin <= tensor.end <= len(content)
            assert sum(map(len, file.pieces(name))) == tensor.num_values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    header=st.dictionaries(
        st.text(max_size=4),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "I8"]) | json_values,
                "shape": json_values,
                "data_offsets": json_values,
            },
        ),
        max_size=3,
    )
)
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    path = write_raw(tmp_path_factory.mktemp("fuzz") / "a", header, bytes(8))
    with contextlib.suppress(ModelFileError):
        SafetensorsFile(path)
