"""GGUF files that are damaged, foreign or made to attack: each is refused in one sentence, with little memory.

Every public vulnerability of a GGUF parser that we know of is rebuilt here as a small file; the docstrings name them.
"""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from pathlib import Path

import gguf_bytes as raw
import pytest

from quipu.errors import ModelFileError, QuipuError, UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader
from quipu.gguf import cursor as cursor_module
from quipu.gguf.types import describe_foreign_type

HUGE_COUNTS = (2**31, 2**32 + 1, 2**61, 2**62, 2**63 - 1, 2**63, raw.HUGE)


def refuse(folder: Path, stored: bytes, *needles: str, kind: type[QuipuError] = ModelFileError) -> str:
    """Open `stored` as a file, see that it is refused in one short sentence with all `needles`, and return it."""
    path = folder / "hostile.gguf"
    path.write_bytes(stored)
    tracemalloc.start()
    try:
        with pytest.raises(kind) as caught:
            GGUFReader(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert type(caught.value) is kind
    assert sentence.isprintable()
    assert len(sentence) < 500 + len(str(path))
    assert str(path) in sentence
    for needle in needles:
        assert needle in sentence
    assert peak_bytes < 100_000 + 16 * len(stored)
    return sentence


# --- not a GGUF file, or one of another kind ---


@pytest.mark.parametrize(
    ("start", "needle"),
    [
        (b"", "the file is empty"),
        (b"GG", "ends after 2 bytes"),
        (b"lmgg" + bytes(40), "before August 2023"),
        (b"tjgg\x03\0\0\0" + bytes(40), "GGJT"),
        (b"fmgg" + bytes(40), "GGMF"),
        (b"PK\x03\x04" + bytes(40), "ZIP archive"),
        (b'\x40\0\0\0\0\0\0\0{"__metadata__":', "safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!doctype html><html>", "web page"),
        (b"FUGG\0\0\0\x03" + bytes(40), "reversed"),
        (b"hello\nworld, this is text", "begins with b'hell'"),
        (b"\x1b[31m" + bytes(40), r"begins with b'\x1b[31'"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, start: bytes, needle: str) -> None:
    refuse(tmp_path, start, needle)


@pytest.mark.parametrize(
    ("version", "needle"),
    [
        (0x02000000, "big-endian (version 2)"),
        (0x03000000, "big-endian (version 3)"),
        (0, "version 0"),
        (1, "version 1, but quipu reads versions 2 and 3; convert the model again"),
        (4, "version 4"),
        (0xFFFFFFFF, "version 4294967295"),
    ],
)
def test_other_versions(tmp_path: Path, version: int, needle: str) -> None:
    refuse(tmp_path, raw.file_bytes(version=version), needle, kind=UnsupportedModelError)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """CVE-2024-32878 (uninitialised pointer freed), CVE-2024-41130 (null dereference), CVE-2024-39720 (out-of-bounds
    read of a file of four bytes), CVE-2025-66959 and CVE-2025-66960 (decoder panics): a file that ends anywhere."""
    whole = raw.file_bytes(
        (
            raw.key("general.architecture", raw.STRING, raw.string("llama")),
            raw.key("general.alignment", raw.U32, struct.pack("<I", 64)),
            raw.key("tokens", raw.ARRAY, raw.array(raw.STRING, raw.string("a") + raw.string("bc"), 2)),
            raw.key("nested", raw.ARRAY, raw.array(raw.ARRAY, raw.array(raw.F32, bytes(8), 2), 1)),
            raw.key("flag", raw.BOOL, b"\x01"),
        ),
        (raw.tensor("a", (32, 2)), raw.tensor("b", (32,), 8, 256)),
        bytes(256 + 34),
        alignment=64,
    )
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole)
    GGUFReader(path).close()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"fetch or convert it again$"):
            GGUFReader(path)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    stored = raw.file_bytes(tensors=(raw.tensor("a"), raw.tensor("b", offset=128)), data=bytes(256))
    refuse(tmp_path, stored[:-1], "tensor 'b' ends at byte", f"the file has only {len(stored) - 1} bytes")


# --- counts and lengths ---


@pytest.mark.parametrize("count", HUGE_COUNTS)
def test_hostile_counts_in_the_header(tmp_path: Path, count: int) -> None:
    """CVE-2024-21836 (header.n_tensors), CVE-2024-23605 (header.n_kv), CVE-2026-65315 and CVE-2025-0315 (allocation
    from a count in the file)."""
    refuse(tmp_path, raw.file_bytes(num_tensors=count), f"claims {count} tensors")
    refuse(tmp_path, raw.file_bytes(num_keys=count), f"claims {count} metadata keys")


def test_counts_within_the_caps_that_the_file_does_not_hold(tmp_path: Path) -> None:
    """CVE-2024-41130, CVE-2025-0312 (null dereference): entries are announced, but none follows."""
    refuse(tmp_path, raw.file_bytes(num_tensors=200_000), "tensor number 0")
    refuse(tmp_path, raw.file_bytes(num_keys=60_000), "metadata key number 0")


@pytest.mark.parametrize("length", HUGE_COUNTS)
def test_hostile_string_lengths(tmp_path: Path, length: int) -> None:
    """CVE-2024-23496 (gguf_fread_str: length + 1 wraps to 0), CVE-2025-66959 (make with a length from the file)."""
    refuse(tmp_path, raw.file_bytes((raw.string("k", length),)), "metadata key number 0", str(length))
    value = raw.key("general.name", raw.STRING, raw.string("abc", length))
    refuse(tmp_path, raw.file_bytes((value,)), "'general.name' needs", str(length))
    refuse(tmp_path, raw.file_bytes(tensors=(raw.string("t", length) + bytes(40),)), "tensor number 0", str(length))


@pytest.mark.parametrize("count", HUGE_COUNTS)
@pytest.mark.parametrize("element_type", range(13))
def test_hostile_array_counts(tmp_path: Path, element_type: int, count: int) -> None:
    """CVE-2024-21825 (arrays and arrays of strings: count times size wraps), CVE-2025-0315 (memory exhaustion),
    CVE-2024-12055 (out-of-bounds read)."""
    stored = raw.file_bytes((raw.key("tokens", raw.ARRAY, raw.array(element_type, bytes(64), count)),))
    refuse(tmp_path, stored, "metadata key 'tokens'", "before the end of the file")


@pytest.mark.parametrize("length", [5, 2**31, 2**32 + 1, 2**63, raw.HUGE - 7])
def test_hostile_token_lengths(tmp_path: Path, length: int) -> None:
    """CVE-2025-49847 (length of a token truncated to 32 bits)."""
    elements = raw.string("fine") * 3 + raw.string("abcd", length)
    stored = raw.file_bytes((raw.key("tokens", raw.ARRAY, raw.array(raw.STRING, elements, 4)),))
    refuse(tmp_path, stored, "metadata key 'tokens' has a string, number 3 of 4, that runs past the end")


@pytest.mark.parametrize("element_type", [13, 255, 2**31, 2**32 - 1])
def test_unknown_value_types(tmp_path: Path, element_type: int) -> None:
    """llama.cpp pull request 26690 (type of array elements not checked), CVE-2025-0313 (index from the file)."""
    refuse(tmp_path, raw.file_bytes((raw.key("k", element_type, bytes(64)),)), "'k'", f"value type {element_type}")
    nested = raw.key("k", raw.ARRAY, struct.pack("<IQ", element_type, 1) + bytes(64))
    refuse(tmp_path, raw.file_bytes((nested,)), "'k'", f"value type {element_type}")


def test_arrays_nested_too_deep(tmp_path: Path) -> None:
    """Recursion without limit: the kind of CVE-2026-2069, in metadata."""
    value = raw.array(raw.U8, b"", 0)
    for _ in range(3000):
        value = raw.array(raw.ARRAY, value, 1)
    refuse(tmp_path, raw.file_bytes((raw.key("deep", raw.ARRAY, value),)), "'deep' nests arrays more than 4 deep")


def test_caps_on_what_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-65315, CVE-2024-39721: work without limit. The caps hold over all arrays of a file together."""
    monkeypatch.setattr(cursor_module, "MAX_STRINGS", 5)
    monkeypatch.setattr(cursor_module, "MAX_NESTED_ARRAYS", 5)
    strings = tuple(raw.key(name, raw.ARRAY, raw.array(raw.STRING, bytes(24), 3)) for name in ("a", "b"))
    refuse(tmp_path, raw.file_bytes(strings), "'b' brings the strings in arrays to 6")
    child = raw.array(raw.U8, b"", 0)
    nested = tuple(raw.key(name, raw.ARRAY, raw.array(raw.ARRAY, child * 3, 3)) for name in ("a", "b"))
    refuse(tmp_path, raw.file_bytes(nested), "'b' brings the arrays within arrays to 6")
    monkeypatch.setattr(cursor_module, "MAX_HEADER_BYTES", 64)
    long_text = raw.key("text", raw.STRING, raw.string("x" * 100))
    refuse(
        tmp_path, raw.file_bytes((long_text,)), "'text'", "offset 64, the most that metadata and tensor list may take"
    )


# --- keys ---


def test_keys_that_stand_twice_or_have_no_name(tmp_path: Path) -> None:
    twice = raw.key("general.name", raw.U8, b"\0")
    refuse(tmp_path, raw.file_bytes((twice, twice)), "metadata key 'general.name' stands twice")
    refuse(tmp_path, raw.file_bytes((raw.key("", raw.U8, b"\0"),)), "has no name")


def test_keys_that_are_too_long_or_not_utf8(tmp_path: Path) -> None:
    refuse(tmp_path, raw.file_bytes((raw.key("k" * 65536, raw.U8, b"\0"),)), "is 65536 bytes long", "65535")
    refuse(tmp_path, raw.file_bytes((raw.key(b"ab\xff", raw.U8, b"\0"),)), "key number 0 is not valid UTF-8")


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    sentence = refuse(tmp_path, raw.file_bytes((raw.key("\x1b[2J\n" + "ü" * 5000, 99, b""),)), r"'\x1b[2J\n")
    assert "\x1b" not in sentence


@pytest.mark.parametrize("value", [2, 255])
def test_truth_values_other_than_0_and_1(tmp_path: Path, value: int) -> None:
    refuse(tmp_path, raw.file_bytes((raw.key("flag", raw.BOOL, bytes([value])),)), "'flag'", f"truth value {value}")
    flags = raw.key("flags", raw.ARRAY, raw.array(raw.BOOL, bytes([0, 1, value]), 3))
    refuse(tmp_path, raw.file_bytes((flags,)), "'flags'", f"truth value {value}")


@pytest.mark.parametrize("alignment", [0, 1, 4, 12, 33, 2**17, 2**31, 2**32 - 1])
def test_hostile_alignment(tmp_path: Path, alignment: int) -> None:
    """CVE-2025-0317 and CVE-2024-8063 (division by an alignment of zero), llama.cpp issues 24759, 26318 and 24997
    (GGML_PAD wraps, alignment without limit)."""
    stored = raw.file_bytes((raw.key("general.alignment", raw.U32, struct.pack("<I", alignment)),), (raw.tensor("t"),))
    refuse(tmp_path, stored, f"'general.alignment' is {alignment}, but has to be a power of two")


@pytest.mark.parametrize(
    ("value_type", "value", "name"),
    [
        (raw.U64, struct.pack("<Q", 32), "uint64"),
        (raw.F32, struct.pack("<f", 32), "float32"),
        (raw.STRING, raw.string("32"), "string"),
        (raw.STRING, raw.string(b"\xff"), "string"),
        (raw.ARRAY, raw.array(raw.U32, bytes(4), 1), "array of uint32"),
        (raw.BOOL, b"\x01", "bool"),
    ],
)
def test_alignment_of_another_type(tmp_path: Path, value_type: int, value: bytes, name: str) -> None:
    refuse(tmp_path, raw.file_bytes((raw.key("general.alignment", value_type, value),)), f"is stored as {name} instead")


# --- tensors ---


def test_tensors_that_stand_twice_or_have_no_name(tmp_path: Path) -> None:
    stored = raw.file_bytes(tensors=(raw.tensor("a"), raw.tensor("a", offset=128)), data=bytes(256))
    refuse(tmp_path, stored, "tensor 'a' stands twice")
    refuse(tmp_path, raw.file_bytes(tensors=(raw.tensor(""),), data=bytes(128)), "has no name")
    refuse(tmp_path, raw.file_bytes(tensors=(raw.tensor(b"\xff"),), data=bytes(128)), "tensor number 0 is not valid")
    refuse(tmp_path, raw.file_bytes(tensors=(raw.tensor("t" * 1025),), data=bytes(128)), "1025 bytes long")


@pytest.mark.parametrize("num_dimensions", [5, 6, 2**16, 2**31, 2**32 - 1])
def test_too_many_dimensions(tmp_path: Path, num_dimensions: int) -> None:
    """CVE-2024-21802 (info->ne: the number of dimensions indexes a fixed array)."""
    entry = raw.string("t") + struct.pack("<I", num_dimensions) + bytes(8 * 8)
    refuse(tmp_path, raw.file_bytes(tensors=(entry,)), "tensor 't'", f"{num_dimensions} dimensions")


@pytest.mark.parametrize(
    "shape",
    [
        (2**63,),
        (raw.HUGE,),
        (2**32, 2**32),
        (2**31, 2**31, 2, 2),
        (2**16, 2**16, 2**16, 2**16),
        (32, 2**59),
        (32, 2**59 + 1),
        (2**62, 1, 1, 1),
        (1, 1, 1, raw.HUGE),
    ],
)
@pytest.mark.parametrize("tensor_type", [GGMLType.F32, GGMLType.Q8_0, GGMLType.I8])
def test_shapes_whose_size_overflows(tmp_path: Path, shape: tuple[int, ...], tensor_type: GGMLType) -> None:
    """CVE-2026-33298 (ggml_nbytes wraps), CVE-2024-21802 (sizes not checked)."""
    refuse(tmp_path, raw.file_bytes(tensors=(raw.tensor("t", shape, tensor_type),), data=bytes(512)), "tensor 't'")


@pytest.mark.parametrize("shape", [(0,), (32, 0), (0, 0, 0, 0), (32, 1, 0, 1)])
def test_sizes_of_zero(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """CVE-2024-8063 (division by a size of zero)."""
    refuse(tmp_path, raw.file_bytes(tensors=(raw.tensor("t", shape),), data=bytes(64)), "no size may be 0")


def test_sum_of_sizes_overflows(tmp_path: Path) -> None:
    """CVE-2025-53630 (sum of padded sizes wraps) and CVE-2026-27940 (the same sum again, past its first repair)."""
    big = 2**63 // 4
    tensors = (raw.tensor("a", (big,)), raw.tensor("b", (big,), offset=2**63), raw.tensor("c", (8,), offset=0))
    refuse(tmp_path, raw.file_bytes(tensors=tensors, data=bytes(512)), "tensor 'a' ends at byte 9223372036854775")
    tensors = (raw.tensor("a"), raw.tensor("b", (2**62 - 8,), offset=128), raw.tensor("c", (8,), offset=96))
    refuse(tmp_path, raw.file_bytes(tensors=tensors, data=bytes(512)), "tensor 'b' ends at byte 18446744073709551")


@pytest.mark.parametrize("offset", [0, 64, 96, 160, 2**20, 2**63, raw.HUGE - 31])
def test_offsets_that_leave_the_file_or_overlap(tmp_path: Path, offset: int) -> None:
    """CVE-2026-7482 and CVE-2026-5757 (offset and size not checked against the file: other memory is read)."""
    stored = raw.file_bytes(tensors=(raw.tensor("a"), raw.tensor("b", offset=offset)), data=bytes(256))
    refuse(tmp_path, stored, "tensor 'b' starts at offset", "has to start at 128 behind the 128 bytes of 'a'")


def test_offsets_that_are_not_aligned_or_do_not_start_at_zero(tmp_path: Path) -> None:
    stored = raw.file_bytes(tensors=(raw.tensor("a", offset=4),), data=bytes(256))
    refuse(tmp_path, stored, "offset 4, which is not a multiple of the alignment 32")
    stored = raw.file_bytes(tensors=(raw.tensor("a", offset=32),), data=bytes(256))
    refuse(tmp_path, stored, "has to start at 0 because it is the first one")


def test_size_behind_the_end_of_the_file(tmp_path: Path) -> None:
    """CVE-2026-7482 and CVE-2026-5757 once more: the last tensor claims more bytes than the file has."""
    stored = raw.file_bytes(tensors=(raw.tensor("a", (32, 1000)),), data=bytes(256))
    refuse(tmp_path, stored, "tensor 'a' ends at byte")


@pytest.mark.parametrize("tensor_type", [kind for kind in GGMLType if kind.block_size > 1])
def test_rows_that_are_not_whole_blocks(tmp_path: Path, tensor_type: GGMLType) -> None:
    """CVE-2026-53923 (rows that are no whole blocks reach the kernels)."""
    columns = tensor_type.block_size + 1
    stored = raw.file_bytes(tensors=(raw.tensor("t", (columns, 2), tensor_type),), data=bytes(4096))
    refuse(tmp_path, stored, f"rows of {columns} values, but {tensor_type.name} stores blocks of")


@pytest.mark.parametrize(
    ("type_id", "needle"),
    [
        (4, "Q4_2 (id 4), which was removed"),
        (33, "Q4_0_8_8 (id 33), which was removed"),
        (36, "IQ4_NL_4_4 (id 36), which was removed"),
        (9, "Q8_1 (id 9), which is only for intermediate results"),
        (15, "Q8_K (id 15), which is only for intermediate results"),
        (142, "PQ2_0 (id 142), which only Prism ML's fork"),
        (144, "IQ4_KS (id 144), which only ik_llama.cpp reads"),
        (158, "IQ1_KT (id 158), which only ik_llama.cpp reads"),
        (212, "row-interleaved Q4_K (id 212), which only ik_llama.cpp reads"),
        (337, "row-interleaved IQ2_K (id 337), which only ik_llama.cpp reads"),
        (43, "type id 43, which quipu does not know"),
        (2**32 - 1, "type id 4294967295, which quipu does not know"),
    ],
)
def test_tensor_types_of_others_are_refused_by_name(tmp_path: Path, type_id: int, needle: str) -> None:
    stored = raw.file_bytes(tensors=(raw.tensor("blk.0.w", (256,), type_id),), data=bytes(4096))
    refuse(tmp_path, stored, "'blk.0.w'", needle, kind=UnsupportedModelError)


def test_every_id_that_is_no_tensor_type_has_a_description() -> None:
    known = {kind.value for kind in GGMLType}
    for type_id in set(range(500)) - known:
        assert re.search(rf"\bid {type_id}\b", describe_foreign_type(type_id))


def test_blocks_of_a_fork_under_a_known_id(tmp_path: Path) -> None:
    """Prism ML's fork stores blocks of 128 values under the id of Q2_0, whose blocks have 64."""
    tensors = (raw.tensor("a", (4096,), GGMLType.Q2_0), raw.tensor("b", offset=1088))
    refuse(tmp_path, raw.file_bytes(tensors=tensors, data=bytes(2048)), "'b'", "Q2_0 (forks of llama.cpp store")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    """CVE-2024-39721 (endless wait on a file that is no file)."""
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (str(pipe), os.devnull, "/dev/zero"):
        with pytest.raises(ModelFileError, match="not a regular file"):
            GGUFReader(path)
