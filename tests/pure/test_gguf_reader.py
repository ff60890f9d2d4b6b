"""Reading GGUF files: values of every type, laziness, mapped weights, and real files."""

from __future__ import annotations

import gc
import os
import struct
import tracemalloc
from pathlib import Path

import gguf
import gguf_bytes as raw
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.errors import ModelFileError, ModelNotFoundError
from quipu.gguf import GGMLType, GGUFReader, NestedArray, StringArray, ValueType, write_gguf
from quipu.gguf.values import index_strings

DATA = os.environ.get("QUIPU_TEST_DATA")
NUMBER_CODES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8")


def extremes(dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """The smallest and largest values of a dtype, and for floats also those that are not numbers."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        limits = np.finfo(kind)
        return np.array([limits.min, limits.max, limits.smallest_subnormal, -0.0, np.inf, np.nan], dtype=kind)
    return np.array([np.iinfo(kind).min, 0, np.iinfo(kind).max], dtype=kind)


@pytest.fixture
def written_elsewhere(tmp_path: Path) -> Path:
    """A file with all value types that the `gguf` package wrote."""
    path = tmp_path / "elsewhere.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"uint8": 255, "int8": -128, "uint16": 65535, "int16": -32768, "uint32": 2**32 - 1}.items():
        getattr(writer, f"add_{name}")(f"a.{name}", value)
    for name, value in {"int32": -(2**31), "uint64": 2**64 - 1, "int64": -(2**63)}.items():
        getattr(writer, f"add_{name}")(f"a.{name}", value)
    writer.add_float32("a.float32", 0.1)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "schön ✓")
    writer.add_array("a.strings", ["", "x", "y" * 300, "ü"])
    writer.add_array("a.integers", [1, -2, 3])
    writer.add_array("a.floats", [0.5, -1.5])
    writer.add_array("a.bools", [True, False])
    writer.add_tensor("matrix", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("vector", np.arange(5, dtype=np.float16))
    writer.add_tensor("cube", np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    quantized = gguf.quants.quantize(np.ones((3, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blocks", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_written_by_the_gguf_package(written_elsewhere: Path) -> None:
    with GGUFReader(written_elsewhere) as reader:
        metadata = reader.metadata
        assert reader.version == 3
        assert metadata["general.architecture"] == "llama"
        assert metadata["a.uint8"] == 255
        assert metadata["a.int8"] == -128
        assert metadata["a.uint16"] == 65535
        assert metadata["a.int16"] == -32768
        assert metadata["a.uint32"] == 2**32 - 1
        assert metadata["a.int32"] == -(2**31)
        assert metadata["a.uint64"] == 2**64 - 1
        assert metadata["a.int64"] == -(2**63)
        assert metadata["a.float32"] == np.float32(0.1)
        assert metadata["a.float64"] == 0.1
        assert metadata["a.bool"] is True
        assert metadata["a.string"] == "schön ✓"
        assert list(metadata["a.strings"]) == ["", "x", "y" * 300, "ü"]
        assert metadata["a.integers"].tolist() == [1, -2, 3]
        assert metadata["a.floats"].tolist() == [0.5, -1.5]
        assert metadata["a.bools"].tolist() == [True, False]
        for name in ("uint8", "int16", "uint64", "float64", "bool", "string"):
            assert type(metadata[f"a.{name}"]) in (int, float, bool, str)
            assert reader.metadata_types[f"a.{name}"] is ValueType[name.upper()]
            assert metadata.type_name(f"a.{name}") == name
        assert metadata.type_name("a.strings") == "array of string"
        assert metadata.type_name("a.integers") == "array of int32"
        assert metadata.get("a.missing") is None
        assert "a.missing" not in metadata


def test_tensors_written_by_the_gguf_package(written_elsewhere: Path) -> None:
    with GGUFReader(written_elsewhere) as reader:
        assert list(reader.tensors) == ["matrix", "vector", "cube", "blocks"]
        matrix = reader.tensors["matrix"]
        assert (matrix.shape, matrix.type, matrix.num_bytes, matrix.shard) == ((3, 2), GGMLType.F32, 24, 0)
        assert (matrix.num_rows, matrix.row_bytes, matrix.num_elements) == (2, 12, 6)
        assert reader.tensor_data("matrix").view(np.float32).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert reader.tensor_data("vector").view(np.float16).tolist() == [[0, 1, 2, 3, 4]]
        assert reader.tensor_data("cube").shape == (6, 16)
        assert reader.tensor_data("cube").view(np.int32).ravel().tolist() == list(range(24))
        blocks = reader.tensor_data("blocks")
        assert blocks.shape == (3, 68)
        assert reader.tensors["blocks"].shape == (64, 3)
        stored = written_elsewhere.read_bytes()
        start = reader.tensors["blocks"].offset
        assert stored[start : start + reader.tensors["blocks"].num_bytes] == blocks.tobytes()
        assert reader.file_bytes == len(stored)


@pytest.mark.parametrize("code", NUMBER_CODES)
def test_numbers_keep_their_value_and_type(tmp_path: Path, code: str) -> None:
    values = extremes(code)
    path = tmp_path / "numbers.gguf"
    write_gguf(path, {"array": values} | {f"number.{index}": value for index, value in enumerate(values)})
    with GGUFReader(path) as reader:
        stored = reader.metadata["array"]
        assert isinstance(stored, np.ndarray)
        assert stored.dtype == np.dtype(code)
        np.testing.assert_array_equal(stored, values)
        typed = reader.metadata.typed()
        for index, value in enumerate(values):
            assert typed[f"number.{index}"].tobytes() == value.tobytes()
            np.testing.assert_equal(reader.metadata[f"number.{index}"], value.item())


def test_numeric_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "views.gguf"
    write_gguf(path, {"a": np.arange(4, dtype=np.int32)}, [("t", np.ones((2, 8), np.float32))])
    with GGUFReader(path) as reader:
        for view in (reader.metadata["a"], reader.tensor_data("t")):
            assert isinstance(view, np.ndarray)
            assert not view.flags.owndata
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "views.gguf"
    write_gguf(path, {"s": ["a", "b"], "n": [[1], [2]]}, [("t", np.arange(8, dtype=np.float32))])
    reader = GGUFReader(path)
    weights, strings, nested = reader.tensor_data("t"), reader.metadata["s"], reader.metadata["n"]
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.tensor_data("t")
    del reader
    gc.collect()
    assert weights.view(np.float32).tolist() == [list(range(8))]
    assert list(strings) == ["a", "b"]
    assert [item.tolist() for item in nested] == [[1], [2]]


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {})
    with GGUFReader(tmp_path / "a.gguf") as reader, pytest.raises(ModelFileError, match=r"'output\.weight'"):
        reader.tensor_data("output.weight")


def test_single_values_and_four_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "shapes.gguf"
    path.write_bytes(
        raw.file_bytes(
            tensors=(raw.tensor("scalar", ()), raw.tensor("four", (32, 2, 1, 3), 8, 32)), data=bytes(32 + 34 * 6)
        )
    )
    with GGUFReader(path) as reader:
        assert reader.tensors["scalar"].shape == ()
        assert reader.tensors["scalar"].num_elements == 1
        assert reader.tensor_data("scalar").shape == (1, 4)
        assert reader.tensor_data("four").shape == (6, 34)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "aligned.gguf"
    write_gguf(path, {"general.alignment": alignment}, [(name, np.ones(3, np.float32)) for name in "abc"])
    with GGUFReader(path) as reader:
        assert reader.alignment == alignment
        assert all(tensor.offset % alignment == 0 for tensor in reader.tensors.values())


def test_weights_may_end_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(raw.file_bytes(tensors=(raw.tensor("t", (3,)),), data=bytes(12)))
    with GGUFReader(path) as reader:
        assert reader.tensor_data("t").shape == (1, 12)


def test_version_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(raw.file_bytes((raw.key("k", raw.U8, b"\x07"),), version=2))
    with GGUFReader(path) as reader:
        assert (reader.version, reader.metadata["k"], len(reader.tensors)) == (2, 7, 0)


def test_nested_arrays(tmp_path: Path) -> None:
    path = tmp_path / "nested.gguf"
    write_gguf(path, {"n": [[1, 2], ["a", "b"], [[0.5], [True]]]})
    with GGUFReader(path) as reader:
        nested = reader.metadata["n"]
        assert isinstance(nested, NestedArray)
        assert len(nested) == 3
        assert nested[0].tolist() == [1, 2]
        assert list(nested[1]) == ["a", "b"]
        assert [item.tolist() for item in nested[-1]] == [[0.5], [True]]
        assert [len(item) for item in nested[1:]] == [2, 2]
        with pytest.raises(IndexError):
            nested[3]
        assert reader.metadata.type_name("n") == "array of array"


def test_string_array_is_a_sequence(tmp_path: Path) -> None:
    texts = ["a", "", "bc", "ü" * 200, "d"]
    write_gguf(tmp_path / "s.gguf", {"s": texts, "none": np.array([], np.int32)})
    with GGUFReader(tmp_path / "s.gguf") as reader:
        strings = reader.metadata["s"]
        assert isinstance(strings, StringArray)
        assert len(strings) == 5
        assert strings[0] == "a"
        assert strings[-2] == "ü" * 200
        assert strings[1:4] == texts[1:4]
        assert strings[::-1] == texts[::-1]
        assert strings.index("bc") == 2
        assert "d" in strings
        assert list(strings) == strings.to_list() == texts
        assert strings.to_bytes_list() == [text.encode() for text in texts]
        assert strings.get_bytes(3) == ("ü" * 200).encode()
        for index in (5, -6):
            with pytest.raises(IndexError):
                strings[index]
        assert len(reader.metadata["none"]) == 0


def test_tokens_that_are_not_utf8_lose_nothing(tmp_path: Path) -> None:
    stored = [b"\xff", b"\xfe\x80", b"ok", "é".encode("latin-1")]
    write_gguf(tmp_path / "s.gguf", {"tokens": stored})
    with GGUFReader(tmp_path / "s.gguf") as reader:
        texts = reader.metadata["tokens"].to_list()
        assert len(set(texts)) == 4
        assert [text.encode("utf-8", "surrogateescape") for text in texts] == stored
        assert reader.metadata["tokens"].to_bytes_list() == stored
        assert reader.metadata["tokens"][0] == texts[0]


def test_metadata_text_that_is_not_utf8_is_refused_when_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "s.gguf", {"general.name": b"\xffabc", "other": 1})
    with GGUFReader(tmp_path / "s.gguf") as reader:
        assert reader.metadata["other"] == 1
        with pytest.raises(ModelFileError, match=r"'general\.name' is not valid UTF-8 \(byte 0 of 4\)"):
            reader.metadata["general.name"]
        assert reader.metadata.typed()["general.name"] == b"\xffabc"


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=40) | st.binary(min_size=250, max_size=600) | st.integers(0, 30).map(bytes), max_size=60
    ),
    st.integers(0, 20),
)
def test_finding_strings_equals_walking_them(strings: list[bytes], num_before: int) -> None:
    stored = bytes(num_before) + b"".join(raw.string(text) for text in strings) + b"\x05\0\0\0\0\0\0\0behind"
    expected = [num_before]
    for text in strings:
        expected.append(expected[-1] + 8 + len(text))
    data = np.frombuffer(stored, np.uint8)
    offsets = index_strings(stored, data, num_before, len(strings), len(stored))
    assert not isinstance(offsets, int)
    assert offsets.tolist() == expected
    assert StringArray(stored, offsets).to_bytes_list() == strings
    if strings:  # one byte too few: the last string, or the one before an empty one, runs past the limit
        assert isinstance(index_strings(stored, data, num_before, len(strings), expected[-1] - 1), int)


@pytest.mark.parametrize("text", [b"ab", b"", b"\0", b"x" * 255, b"y" * 256])
def test_finding_strings_across_chunks(text: bytes) -> None:
    count = 40_000
    stored = raw.string(text) * count
    offsets = index_strings(stored, np.frombuffer(stored, np.uint8), 0, count, len(stored))
    np.testing.assert_array_equal(offsets, np.arange(count + 1) * (8 + len(text)))


def test_opening_builds_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    write_gguf(path, {"tokens": [f"token-{index}" for index in range(150_000)]})
    tracemalloc.start()
    try:
        with GGUFReader(path) as reader:
            _, peak_bytes = tracemalloc.get_traced_memory()
            assert reader.metadata["tokens"][149_999] == "token-149999"
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * 150_000 * 8  # offsets, and room to find them; 150,000 str objects take ten times as much


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.gguf"):
        GGUFReader(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelNotFoundError):
        GGUFReader(tmp_path / "nowhere" / "model.gguf")
    with pytest.raises(ModelFileError, match="this is a folder"):
        GGUFReader(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        GGUFReader(f"{tmp_path}/a\0b")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(raw.file_bytes())
    path.chmod(0)
    with pytest.raises(ModelFileError, match="Permission denied"):
        GGUFReader(path)


@pytest.mark.skipif(DATA is None, reason="QUIPU_TEST_DATA is not set")
def test_real_files_read_as_the_gguf_package_reads_them() -> None:
    for path in sorted(Path(str(DATA), "golden").glob("llama-Q*.gguf")):
        theirs = gguf.GGUFReader(path)
        with GGUFReader(path) as ours:
            assert list(ours.metadata) == [name for name in theirs.fields if not name.startswith("GGUF.")]
            for name, field in theirs.fields.items():
                if not name.startswith("GGUF."):
                    np.testing.assert_array_equal(ours.metadata[name], field.contents())
            assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
            for tensor in theirs.tensors:
                info = ours.tensors[tensor.name]
                assert (info.shape, info.offset) == (tuple(tensor.shape.tolist()), tensor.data_offset)
                assert info.type.value == tensor.tensor_type.value
                assert ours.tensor_data(tensor.name).tobytes() == tensor.data.tobytes()


@pytest.mark.skipif(DATA is None, reason="QUIPU_TEST_DATA is not set")
def test_real_vocabularies_are_found_completely() -> None:
    for path in sorted(Path(str(DATA), "vocab").glob("*.gguf")):
        stored = path.read_bytes()
        with GGUFReader(path) as reader:
            assert not reader.tensors
            for value in reader.metadata.values():
                if isinstance(value, StringArray):
                    walked, position = [], stored.index(value.stored_bytes())
                    for _ in range(len(value)):
                        (length,) = struct.unpack_from("<Q", stored, position)
                        walked.append(stored[position + 8 : position + 8 + length])
                        position += 8 + length
                    assert value.to_bytes_list() == walked
