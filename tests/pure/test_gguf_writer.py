"""Writing GGUF files: byte-exact round trips, agreement with the `gguf` package, and failures that leave nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_bytes as raw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.errors import QuipuError
from quipu.gguf import GGMLType, GGUFReader, GGUFWriter, TensorSpec, ValueType, write_gguf
from quipu.gguf.encode import encode_value

DATA = os.environ.get("QUIPU_TEST_DATA")
NUMBER_CODES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8")


def copy(source: Path, target: Path) -> None:
    """Read `source` and write it again."""
    with GGUFReader(source) as reader:
        tensors = [(name, info.shape, info.type, reader.tensor_data(name)) for name, info in reader.tensors.items()]
        write_gguf(target, reader.metadata.typed(), tensors, version=reader.version)


def read(path: Path) -> dict[str, Any]:
    """All metadata of a file, arrays as lists."""
    with GGUFReader(path) as reader:
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in reader.metadata.items()
        }


@pytest.mark.skipif(DATA is None, reason="QUIPU_TEST_DATA is not set")
def test_real_files_come_out_byte_for_byte(tmp_path: Path) -> None:
    paths = sorted(Path(str(DATA)).glob("*/*.gguf"))
    assert len(paths) > 40
    for path in paths:
        copy(path, tmp_path / "copy.gguf")
        assert (tmp_path / "copy.gguf").read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value_comes_out_byte_for_byte(tmp_path: Path, version: int) -> None:
    keys = (
        raw.key("string", raw.STRING, raw.string("ü")),
        raw.key("broken", raw.STRING, raw.string(b"\xff\xfe")),
        raw.key("empty", raw.STRING, raw.string("")),
        raw.key("nan", raw.F32, b"\x01\x00\xa0\x7f"),
        raw.key("true", raw.BOOL, b"\x01"),
        *(
            raw.key(f"number {value_type}", value_type, bytes(range(1, size + 1)))
            for value_type, size in zip((0, 1, 2, 3, 4, 5, 6, 10, 11, 12), (1, 1, 2, 2, 4, 4, 4, 8, 8, 8), strict=True)
        ),
        *(raw.key(f"none of {value_type}", raw.ARRAY, raw.array(value_type, b"", 0)) for value_type in range(13)),
        raw.key("strings", raw.ARRAY, raw.array(raw.STRING, raw.string("a") + raw.string(b"\xff") + raw.string(""), 3)),
        raw.key("bools", raw.ARRAY, raw.array(raw.BOOL, b"\x01\x00", 2)),
        raw.key("nested", raw.ARRAY, raw.array(raw.ARRAY, raw.array(raw.I8, b"\x01", 1) + raw.array(8, b"", 0), 2)),
    )
    source = tmp_path / "source.gguf"
    source.write_bytes(
        raw.file_bytes(
            keys,
            (raw.tensor("b", (32, 2), 8), raw.tensor("a", (), 0, 96), raw.tensor("c", (3,), 1, 128)),
            bytes(range(160)),
            version=version,
        )
    )
    copy(source, tmp_path / "copy.gguf")
    stored, copied = source.read_bytes(), (tmp_path / "copy.gguf").read_bytes()
    gaps = [slice(-160 + 68, -160 + 96), slice(-160 + 100, -160 + 128), slice(-160 + 134, None)]
    for gap in gaps:  # padding between tensors is written as zeros
        stored = stored[: len(stored) + gap.start] + bytes(len(stored[gap])) + stored[gap.stop or len(stored) :]
    assert copied == stored


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.gguf"
    numbers = {np.dtype(code).name: np.dtype(code).type(7) for code in NUMBER_CODES}
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "flag": True,
        "text": "schön",
        "texts": ["a", "", "ü" * 300],
        "integers": [1, -2],
        "floats": [0.5, 1],
        "flags": [True, False],
    }
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    blocks = np.arange(68, dtype=np.uint8).reshape(2, 34)
    tensors = [("m", matrix), ("h", matrix.astype(np.float16)), ("q", (32, 2), GGMLType.Q8_0, blocks)]
    write_gguf(path, metadata | numbers, tensors)
    theirs = gguf.GGUFReader(path)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(fields) == [*metadata, *numbers]
    for name, value in metadata.items():
        assert fields[name].contents() == value
    for name, value in numbers.items():
        assert fields[name].contents() == value
        assert fields[name].types[0].name == name.upper()
    assert theirs.alignment == 64
    by_name = {tensor.name: tensor for tensor in theirs.tensors}
    np.testing.assert_array_equal(by_name["m"].data, matrix)
    np.testing.assert_array_equal(by_name["h"].data, matrix)
    np.testing.assert_array_equal(by_name["q"].data, blocks)
    assert by_name["q"].tensor_type is gguf.GGMLQuantizationType.Q8_0


def test_same_bytes_as_the_gguf_package(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_array("tokens", ["a", "b"])
    writer.add_array("types", [1, -1])
    writer.add_tensor("odd", np.arange(3, dtype=np.float32))
    writer.add_tensor("even", np.ones((2, 8), np.float16))
    writer.add_tensor("last", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_gguf(
        tmp_path / "ours.gguf",
        {
            "general.architecture": "llama",
            "llama.block_count": 3,
            "llama.rope.freq_base": 10000.0,
            "tokens": ["a", "b"],
            "types": [1, -1],
        },
        [
            ("odd", np.arange(3, dtype=np.float32)),
            ("even", np.ones((2, 8), np.float16)),
            ("last", np.arange(5, dtype=np.float32)),
        ],
    )
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0, "uint32"),
        (2**32 - 1, "uint32"),
        (-1, "int32"),
        (2**32, "int64"),
        (-(2**31) - 1, "int64"),
        (2**63, "uint64"),
        (0.5, "float32"),
        (True, "bool"),
        ("x", "string"),
        (b"x", "string"),
        (np.uint8(1), "uint8"),
        (np.float64(0.5), "float64"),
        (np.bool_(True), "bool"),
        ([True], "array of bool"),
        ([1, 2], "array of int32"),
        ([2**31], "array of int64"),
        ([2**63], "array of uint64"),
        ([1, 0.5], "array of float32"),
        (("a", b"b"), "array of string"),
        ([[1], ["a"]], "array of array"),
        (np.zeros(2, ">u2"), "array of uint16"),
        (np.zeros(4, np.int8)[::2], "array of int8"),
    ],
)
def test_types_chosen_for_values(tmp_path: Path, value: Any, name: str) -> None:
    write_gguf(tmp_path / "a.gguf", {"k": value})
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert reader.metadata.type_name("k") == name
        assert reader.metadata_types["k"] is ValueType[name.split()[0].upper()]
        if name != "array of array":
            assert plain(reader.metadata["k"]) == plain(value)


@pytest.mark.parametrize(
    ("value", "needle"),
    [
        (None, "no type for NoneType"),
        ({"a": 1}, "no type for dict"),
        ([], "element type of an empty list"),
        ([1, "a"], "one kind"),
        ([True, 1], "one kind"),
        ([None], "no type for NoneType"),
        (2**64, "64 bits"),
        ([-1, 2**63], "one 64-bit type"),
        (1e39, "too large for float32"),
        ([0.5, -1e39], "too large for float32"),
        (np.float16(1), "no type for float16"),
        (np.zeros((2, 2), np.int32), "one dimension"),
        (np.zeros(2, np.complex64), "no type for complex64"),
        ([[[[[1]]]]], "more than 4 deep"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_values_that_cannot_be_stored(tmp_path: Path, value: Any, needle: str) -> None:
    with pytest.raises((TypeError, ValueError), match=needle):
        encode_value(value)
    with pytest.raises((TypeError, ValueError)):
        write_gguf(tmp_path / "a.gguf", {"k": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "tensors", "needle"),
    [
        ({"": 1}, [], "metadata key has 0 bytes"),
        ({"k" * 65536: 1}, [], "65536 bytes"),
        ({"general.alignment": 12}, [], "power of two"),
        ({"general.alignment": "32"}, [], "int"),
        ({"general.alignment": True}, [], "int"),
        ({}, [("", np.ones(1, np.float32))], "tensor name has 0 bytes"),
        ({}, [("a", np.ones(1, np.float32))] * 2, "given twice"),
        ({}, [("a", np.ones((1, 1, 1, 1, 1), np.float32))], "at most 4"),
        ({}, [("a", np.ones((2, 0), np.float32))], "from 1 on"),
        ({}, [("a", np.ones(1, np.uint16))], "uint16"),
        ({}, [("a", (33,), GGMLType.Q8_0, bytes(34))], "blocks of 32"),
        ({}, [("a", (32,), GGMLType.Q8_0, bytes(33))], "1 bytes of tensor 'a' were not written"),
        ({}, [("a", (32,), GGMLType.Q8_0, bytes(35))], "only 34 are missing"),
        ({}, [("a", (32,), GGMLType.Q8_0, np.ones(34, np.float32))], "Q8_0, which dtype float32 is not"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, metadata: dict[str, Any], tensors: list[Any], needle: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=needle):
        write_gguf(tmp_path / "a.gguf", metadata, tensors)
    assert not list(tmp_path.iterdir())


def test_big_endian_and_strided_arrays(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = [("big", values.astype(">f4")), ("columns", values.T), ("half", values[:, ::2])]
    write_gguf(tmp_path / "a.gguf", {}, tensors)
    with GGUFReader(tmp_path / "a.gguf") as reader:
        for name, expected in (("big", values), ("columns", values.T), ("half", values[:, ::2])):
            assert reader.tensors[name].shape == expected.shape[::-1]
            np.testing.assert_array_equal(reader.tensor_data(name).view(np.float32), expected)


def test_data_is_asked_for_when_its_turn_comes(tmp_path: Path) -> None:
    asked = []

    def make(name: str) -> Callable[[], bytes]:
        def data() -> bytes:
            asked.append((name, [path.suffix for path in tmp_path.iterdir()]))
            return name.encode() * 4

        return data

    write_gguf(tmp_path / "a.gguf", {}, [(name, (1,), GGMLType.F32, make(name)) for name in "xy"])
    assert asked == [("x", [".part"]), ("y", [".part"])]
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert reader.tensor_data("y").tobytes() == b"yyyy"


def test_tensors_in_pieces(tmp_path: Path) -> None:
    specs = [TensorSpec("a", (32, 4), GGMLType.Q8_0), TensorSpec("b", (4,), GGMLType.F32)]
    with GGUFWriter(tmp_path / "a.gguf", {}, specs) as writer:
        for row in range(4):
            writer.write("a", np.full(34, row, np.uint8))
        with pytest.raises(ValueError, match="'b' is next"):
            writer.write("a", b"")
        writer.write("b", np.ones(4, np.float32))
        with pytest.raises(ValueError, match="'the end' is next"):
            writer.write("b", b"")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert reader.tensor_data("a")[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="not open"):
        writer.write("a", b"")


def test_an_exception_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, {"old": True})

    def fail() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(path, {"new": True}, [("a", (1,), GGMLType.F32, fail)])
    assert read(path) == {"old": True}
    assert [item.name for item in tmp_path.iterdir()] == ["a.gguf"]


def test_a_mapped_file_can_be_replaced_by_its_own_copy(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, {"k": [1, 2]}, [("t", np.arange(8, dtype=np.float32))])
    before = path.read_bytes()
    copy(path, path)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    class FullDisk:
        def __init__(self, file: Any, room_bytes: int) -> None:
            self.file, self.room_bytes = file, room_bytes

        def write(self, data: bytes) -> int:
            self.room_bytes -= len(data)
            if self.room_bytes < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

        def close(self) -> None:
            self.file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with GGUFWriter(tmp_path / "a.gguf", {}, [TensorSpec("a", (1024,), GGMLType.F32)]) as writer:
            writer._file = FullDisk(writer._file, 4000)  # type: ignore[assignment]
            writer.write("a", bytes(4096))

    with pytest.raises(QuipuError, match=r"a\.gguf cannot be written \(No space left on device\)"):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_is_full_when_buffers_are_flushed(tmp_path: Path) -> None:
    def write() -> None:
        with GGUFWriter(tmp_path / "a.gguf", {}, []) as writer:
            assert writer._file is not None
            writer._file.close()
            writer._file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
            writer._file.write(b"x")

    with pytest.raises(QuipuError, match="No space left on device"):
        write()
    assert not list(tmp_path.iterdir())


def test_folders_that_do_not_take_the_file(tmp_path: Path) -> None:
    with pytest.raises(QuipuError, match="No such file or directory"):
        write_gguf(tmp_path / "nowhere" / "a.gguf", {})
    (tmp_path / "a.gguf").mkdir()
    with pytest.raises(QuipuError, match="cannot be written"):
        write_gguf(tmp_path / "a.gguf", {})
    assert [item.name for item in tmp_path.iterdir()] == ["a.gguf"]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {})
    (tmp_path / "b").touch()
    assert (tmp_path / "a.gguf").stat().st_mode == (tmp_path / "b").stat().st_mode


texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(width=32, allow_nan=False)
    | st.booleans()
    | texts
    | st.sampled_from(NUMBER_CODES).map(lambda code: np.dtype(code).type(3))
)
lists = (
    st.lists(texts, min_size=1, max_size=20)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(st.booleans(), min_size=1)
)
nested = st.recursive(lists, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=4)


def plain(value: Any) -> Any:
    """A value that was read as Python objects."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str | int | float) else [plain(item) for item in value]


@settings(deadline=None)
@given(st.dictionaries(texts.map("key {}".format), scalars | lists, max_size=8), st.sampled_from([2, 3]))
def test_metadata_round_trip(tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], version: int) -> None:
    folder = tmp_path_factory.mktemp("round")
    write_gguf(folder / "a.gguf", metadata, version=version)
    with GGUFReader(folder / "a.gguf") as reader:
        assert {key: plain(value) for key, value in reader.metadata.items()} == {
            key: plain(value) for key, value in metadata.items()
        }
    copy(folder / "a.gguf", folder / "b.gguf")
    assert (folder / "b.gguf").read_bytes() == (folder / "a.gguf").read_bytes()


@settings(deadline=None)
@given(nested)
def test_nested_round_trip(tmp_path_factory: pytest.TempPathFactory, value: list[Any]) -> None:
    def depth(item: Any) -> int:
        return 1 + max(map(depth, item)) if isinstance(item, list) else 0

    folder = tmp_path_factory.mktemp("nested")
    if depth(value) > 4:
        with pytest.raises(ValueError, match="deep"):
            write_gguf(folder / "a.gguf", {"n": value})
        return
    write_gguf(folder / "a.gguf", {"n": value})
    with GGUFReader(folder / "a.gguf") as reader:
        assert plain(reader.metadata["n"]) == value


def test_floats_are_stored_as_the_nearest_float32(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {"tiny": 1e-5, "none": 1e-60, "infinite": float("inf"), "double": np.float64(1e39)})
    expected = {"tiny": float(np.float32(1e-5)), "none": 0.0, "infinite": float("inf"), "double": 1e39}
    assert read(tmp_path / "a.gguf") == expected
