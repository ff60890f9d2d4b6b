"""Reading a cold file ahead: only where it helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quipu.bench.machine import describe_machine
from quipu.cli import paging


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read through; files of 1 MB are worth it."""
    seen: list[Path] = []
    monkeypatch.setattr(paging, "_WORTH_SHOWING_BYTES", 1 << 20)
    monkeypatch.setattr(paging, "_read_through", lambda path, advance: seen.append(path))
    return seen


def make_file(folder: Path, num_bytes: int) -> Path:
    path = folder / "weights.gguf"
    path.write_bytes(bytes(num_bytes))
    return path


def test_a_file_just_written_is_in_memory(tmp_path: Path) -> None:
    assert paging.share_in_memory(make_file(tmp_path, 3 << 20)) > 0.9
    assert paging.share_in_memory(make_file(tmp_path, 0)) == 0.0


def test_a_warm_file_is_not_read(tmp_path: Path, reads: list[Path]) -> None:
    paging.page_in([make_file(tmp_path, 2 << 20)])
    assert reads == []


def test_a_cold_file_is_read(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_file(tmp_path, 2 << 20)
    monkeypatch.setattr(paging, "share_in_memory", lambda path: 0.5)
    paging.page_in([path])
    assert reads == [path]


def test_small_files_and_full_memories_are_left_alone(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "share_in_memory", lambda path: 0.0)
    paging.page_in([make_file(tmp_path, 1 << 19)])
    full = dataclasses.replace(describe_machine(), memory_available_bytes=1 << 20)
    monkeypatch.setattr(paging, "describe_machine", lambda: full)
    paging.page_in([make_file(tmp_path, 2 << 20)])
    assert reads == []


def test_every_byte_is_passed(tmp_path: Path) -> None:
    counts: list[int] = []
    paging._read_through(make_file(tmp_path, (9 << 20) + 1), counts.append)
    assert sum(counts) == (9 << 20) + 1
