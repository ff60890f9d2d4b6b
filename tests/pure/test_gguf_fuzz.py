"""Random and mutated GGUF files: only our errors, no hang, and no memory beyond a small multiple of the file's size.

`tests/fuzz/fuzz_gguf.py` searches longer, guided by coverage.
"""

from __future__ import annotations

import struct
import tracemalloc
from functools import cache
from pathlib import Path

import gguf_bytes as raw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.errors import QuipuError
from quipu.gguf import GGMLType, GGUFReader, NestedArray, StringArray, write_gguf

pytestmark = pytest.mark.timeout(120)  # against a hang; all of these files together take a few seconds

FIXED_BYTES, BYTES_PER_BYTE = 150_000, 48

numbers = st.sampled_from([0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 2**31 - 1, 2**32 - 1, 2**61, 2**63, 2**64 - 1])
types = st.integers(0, 14)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are written, over and over."""
    return tmp_path_factory.mktemp("fuzz") / "fuzz.gguf"


@cache
def valid_file(folder: Path) -> bytes:
    """A small file with something of everything."""
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "split.count": np.uint16(1),
        "a.float": 0.5,
        "a.flag": True,
        "a.wide": np.uint64(2**63),
        "tokens": ["a", "", "bc", "d" * 300, "ü"] * 4,
        "types": np.arange(20, dtype=np.int32),
        "flags": [True, False],
        "nested": [[1, 2], ["x"], [[0.5], [True]]],
    }
    tensors = [
        ("blk.0.attn_q.weight", (32, 2), GGMLType.Q8_0, bytes(68)),
        ("norm", np.ones(8, np.float32)),
        ("blk.0.ffn_up.weight", (256, 1, 2), GGMLType.Q4_K, bytes(288)),
    ]
    write_gguf(folder / "valid.gguf", metadata, tensors)
    return (folder / "valid.gguf").read_bytes()


def open_and_use(path: Path, stored: bytes) -> bool:
    """Whether a file was valid. Fails on any error but a QuipuError, and on too much memory."""
    path.write_bytes(stored)
    tracemalloc.start()
    try:
        with GGUFReader(path) as reader:
            _, peak_bytes = tracemalloc.get_traced_memory()
            for name, tensor in reader.tensors.items():
                assert reader.tensor_data(name).nbytes == tensor.num_bytes
                assert tensor.offset + tensor.num_bytes <= len(stored)
            for key in reader.metadata:
                use(reader, key)
        is_valid = True
    except QuipuError as error:
        _, peak_bytes = tracemalloc.get_traced_memory()
        assert "\n" not in str(error), error  # noqa: PT017
        is_valid = False
    finally:
        tracemalloc.stop()
    assert peak_bytes < FIXED_BYTES + BYTES_PER_BYTE * len(stored)
    return is_valid


def use(reader: GGUFReader, key: str) -> None:
    """Decode one value; broken UTF-8 in a text is the only error that may come this late."""
    try:
        pending = [reader.metadata[key]]
    except QuipuError:
        assert isinstance(reader.metadata.typed()[key], bytes)
        return
    while pending:
        value = pending.pop()
        if isinstance(value, StringArray):
            assert len(value.to_list()) == len(value.to_bytes_list()) == len(value)
        elif isinstance(value, NestedArray):
            pending.extend(value)
        elif isinstance(value, np.ndarray):
            assert len(value.tolist()) == len(value)


def test_the_file_that_is_mutated_is_valid(target: Path) -> None:
    assert open_and_use(target, valid_file(target.parent))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x02\0\0\0\0\0\0\0\0\0\0\0"]))
def test_random_bytes(target: Path, stored: bytes, start: bytes) -> None:
    open_and_use(target, start + stored)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutations(target: Path, data: st.DataObject) -> None:
    stored = bytearray(valid_file(target.parent))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(stored) - 1))
        change = data.draw(st.sampled_from(["byte", "u32", "u64", "cut", "remove", "repeat"]))
        if change == "byte":
            stored[position] = data.draw(st.integers(0, 255))
        elif change in ("u32", "u64"):
            number = data.draw(numbers)
            packed = struct.pack("<I", number % 2**32) if change == "u32" else struct.pack("<Q", number)
            stored[position : position + len(packed)] = packed
        elif change == "cut":
            del stored[max(position, 1) :]
        elif change == "remove":
            del stored[max(position, 1) : position + data.draw(st.integers(1, 16))]
        else:
            stored[position:position] = stored[position : position + data.draw(st.integers(1, 64))]
    open_and_use(target, bytes(stored))


@st.composite
def strings(draw: st.DrawFn) -> bytes:
    text = draw(st.binary(max_size=12) | st.sampled_from([b"general.alignment", b"split.count", b"split.no", b"a"]))
    return raw.string(text, draw(st.none() | numbers) if draw(st.integers(0, 9)) == 0 else None)


@st.composite
def arrays(draw: st.DrawFn, depth: int = 0) -> bytes:
    element_type = draw(types)
    count = draw(st.integers(0, 6))
    if element_type == raw.STRING:
        elements = b"".join(draw(strings()) for _ in range(count))
    elif element_type == raw.ARRAY and depth < 6:
        elements = b"".join(draw(arrays(depth + 1)) for _ in range(count))
    else:
        elements = draw(st.binary(max_size=48))
    return raw.array(element_type, elements, draw(numbers) if draw(st.integers(0, 9)) == 0 else count)


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    value_type = draw(types)
    if value_type == raw.STRING:
        value = draw(strings())
    elif value_type == raw.ARRAY:
        value = draw(arrays())
    else:
        size = {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(value_type, 4)
        value = draw(st.binary(min_size=size, max_size=size)) if draw(st.booleans()) else bytes([1] + [0] * (size - 1))
    return draw(strings()) + struct.pack("<I", value_type) + value


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    shape = draw(st.lists(numbers | st.sampled_from([32, 64, 256]), max_size=5))
    head = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return draw(strings()) + head + struct.pack("<IQ", draw(st.integers(0, 50)), draw(numbers | st.just(0)))


@settings(max_examples=400, deadline=None)
@given(st.lists(keys(), max_size=5), st.lists(tensors(), max_size=3), st.binary(max_size=64), st.none() | numbers)
def test_random_headers(
    target: Path, key_list: list[bytes], tensor_list: list[bytes], data: bytes, num_keys: int | None
) -> None:
    open_and_use(target, raw.file_bytes(tuple(key_list), tuple(tensor_list), data, num_keys=num_keys))


@pytest.mark.parametrize(
    "value",
    [
        raw.array(raw.STRING, bytes(8 * 100_000), 100_000),
        raw.array(raw.STRING, (b"\x01" + bytes(8)) * 80_000, 80_000),
        raw.array(raw.STRING, (b"\x07" + bytes(14)) * 50_000, 50_000),
        raw.array(raw.ARRAY, raw.array(raw.U8, b"", 0) * 60_000, 60_000),
        raw.array(raw.U8, bytes(1_000_000), 1_000_000),
        raw.array(raw.BOOL, bytes(1_000_000), 1_000_000),
    ],
    ids=["empty strings", "zero bytes", "strings of zeros", "empty arrays", "bytes", "truth values"],
)
def test_large_files_that_look_alike_everywhere(target: Path, value: bytes) -> None:
    stored = raw.file_bytes((raw.key("k", raw.ARRAY, value),))
    target.write_bytes(stored)
    tracemalloc.start()
    try:
        GGUFReader(target).close()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < FIXED_BYTES + 3 * len(stored)


def test_many_small_keys_and_tensors(target: Path) -> None:
    """The entries that take the most memory for their size, as many as make a difference."""
    names = [f"{index:x}" for index in range(5_000)]
    for stored in (
        raw.file_bytes(tuple(raw.key(name, raw.U8, b"\0") for name in names)),
        raw.file_bytes(
            tensors=tuple(raw.tensor(name, (), 24, 32 * i) for i, name in enumerate(names)), data=bytes(160_000)
        ),
    ):
        assert open_and_use(target, stored)
