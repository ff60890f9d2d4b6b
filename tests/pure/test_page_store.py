"""The disk tier and saved states: whatever happens to the files, nothing but what was written is ever used."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu.engine.page_store import PageStore, StoredPage
from quipu.engine.prefix_cache import page_key, root_key, token_bytes
from quipu.engine.saved_state import SavedState, read_state, write_state
from quipu.engine.sealed_file import OVERHEAD_BYTES, SealError, read_sealed, write_sealed
from quipu.errors import StateFileError

PAGE_BYTES = 1000
FINGERPRINT = bytes(range(32))


def a_page(number: int) -> tuple[StoredPage, NDArray[np.uint8]]:
    tokens = token_bytes(np.arange(number, number + 8, dtype=np.int32))
    parent = root_key("")
    data = np.random.default_rng(number).integers(0, 256, PAGE_BYTES, dtype=np.uint8)
    return StoredPage(page_key(parent, tokens), parent, tokens), data


def open_store(folder: Path, *, max_bytes: int = 1 << 20, fingerprint: bytes = FINGERPRINT) -> PageStore:
    return PageStore(folder, fingerprint, PAGE_BYTES, max_bytes)


def fill(folder: Path, count: int) -> list[StoredPage]:
    store = open_store(folder)
    pages = [a_page(number) for number in range(count)]
    for page, data in pages:
        assert store.wants(page)
        store.put(page, data)
    store.flush()
    assert store.num_stored == count
    store.close()
    return [page for page, _ in pages]


def page_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.page"))


def test_pages_survive_a_restart(tmp_path: Path) -> None:
    pages = fill(tmp_path, 5)
    store = open_store(tmp_path)
    assert all(store.has(page.key) and not store.wants(page) for page in pages)
    loaded = store.load(pages).result()
    assert [page.key for page in loaded] == [page.key for page in pages]
    for number, page in enumerate(loaded):
        assert np.array_equal(page.data, a_page(number)[1])
    assert store.take_warnings() == ()
    store.close()


def test_files_are_private(tmp_path: Path) -> None:
    fill(tmp_path / "new" / "folder", 1)
    (file,) = page_files(tmp_path / "new" / "folder")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0


def test_another_model_sees_nothing(tmp_path: Path) -> None:
    pages = fill(tmp_path, 2)
    other = open_store(tmp_path, fingerprint=bytes(32))
    assert not other.has(pages[0].key)
    # Not even a file that somebody has moved.
    page_files(tmp_path)[0].rename(tmp_path / bytes(32).hex() / f"{pages[0].key.hex()}.page")
    assert other.load(pages[:1]).result() == []
    assert "another model" in other.take_warnings()[0]
    other.close()


def damage(kind: str, file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if kind == "truncate":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif kind == "grow":
        file.write_bytes(content + bytes(rng.randrange(1, 50)))
    elif kind == "overwrite":
        begin = rng.randrange(len(content))
        size = rng.randrange(1, 300)
        old = bytes(content)
        content[begin : begin + size] = rng.randbytes(len(content[begin : begin + size]))
        if old == bytes(content):
            content[begin] ^= 1
        file.write_bytes(content)
    elif kind == "random":
        file.write_bytes(rng.randbytes(rng.randrange(3000)))
    else:
        file.unlink()
        file.mkdir() if kind == "folder" else os.mkfifo(file)


@pytest.mark.parametrize("kind", ["truncate", "flip", "grow", "overwrite", "random", "folder", "pipe"])
def test_damaged_pages_are_dropped_with_a_warning(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    pages = fill(tmp_path, 3)
    file = tmp_path / FINGERPRINT.hex() / f"{pages[1].key.hex()}.page"
    original = file.read_bytes()
    for _ in range(60 if kind in ("truncate", "flip", "overwrite", "random", "grow") else 1):
        file.unlink(missing_ok=True)
        file.write_bytes(original)
        damage(kind, file, rng)
        store = open_store(tmp_path)
        assert [page.key for page in store.load(pages).result()] == [pages[0].key]
        (warning,) = store.take_warnings()
        assert str(file) in warning
        assert store.num_dropped == 1
        if kind != "folder":
            assert not file.exists()
        store.close()
        if file.is_dir():
            file.rmdir()


def test_a_page_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    first, second = fill(tmp_path, 2)
    folder = tmp_path / FINGERPRINT.hex()
    (folder / f"{first.key.hex()}.page").replace(folder / f"{second.key.hex()}.page")
    store = open_store(tmp_path)
    assert store.load([second]).result() == []
    assert "another page" in store.take_warnings()[0]
    store.close()


def test_the_folder_is_bounded_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    pages = fill(tmp_path, 10)
    size = page_files(tmp_path)[0].stat().st_size
    now = time.time()
    for number, page in enumerate(pages):
        file = tmp_path / FINGERPRINT.hex() / f"{page.key.hex()}.page"
        os.utime(file, (now - 1000 + number, now - 1000 + number))
    strangers = [tmp_path / "notes.txt", tmp_path / "more" / "x.page"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_bytes(bytes(5000))
    store = open_store(tmp_path, max_bytes=8 * size)
    store.load(pages[3:4]).result()  # used just now
    page, data = a_page(100)
    for _ in range(2):
        store.put(page, data)
        page, data = a_page(101)
    store.flush()
    left = {file.stem for file in page_files(tmp_path) if file.parent.name == FINGERPRINT.hex()}
    assert len(left) * size <= 8 * size
    assert {page.key.hex() for page in (pages[3], pages[9])} <= left
    assert pages[0].key.hex() not in left
    assert all(stranger.exists() for stranger in strangers)
    store.close()


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    one, two = open_store(tmp_path), open_store(tmp_path)
    for number in range(20):
        page, data = a_page(number)
        (one if number % 2 else two).put(page, data)
        one.put(page, data)
    one.flush()
    two.flush()
    pages = [a_page(number)[0] for number in range(20)]
    for store in (one, two):
        assert len(store.load(pages).result()) == 20
        assert store.take_warnings() == ()
        store.close()
    assert not list(tmp_path.glob("*/.*.tmp"))


def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    page, data = a_page(1)
    store._own_folder.rmdir()
    store.put(page, data)
    store.flush()
    (warning,) = store.take_warnings()
    assert "can no longer be written" in warning
    assert not store.wants(a_page(2)[0])
    store.close()


def test_left_over_pieces_are_cleaned_up(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    folder = tmp_path / FINGERPRINT.hex()
    old, new = folder / ".a.1.2.tmp", folder / ".b.1.2.tmp"
    for piece in (old, new):
        piece.write_bytes(b"x")
    os.utime(old, (1, 1))
    open_store(tmp_path).close()
    assert not old.exists()
    assert new.exists()


def a_state(num_tokens: int = 20, page_size: int = 8) -> SavedState:
    rng = np.random.default_rng(num_tokens)
    pages = [rng.integers(0, 256, PAGE_BYTES, dtype=np.uint8) for _ in range(-(-num_tokens // page_size))]
    return SavedState(rng.integers(0, 50, num_tokens, dtype=np.int32), pages)


def read_back(path: Path, **changes: object) -> SavedState:
    known = {"page_bytes": PAGE_BYTES, "page_size": 8, "max_tokens": 100, "vocab_size": 50}
    return read_state(path, changes.pop("fingerprint", FINGERPRINT), **{**known, **changes})  # type: ignore[arg-type]


def test_a_state_comes_back(tmp_path: Path) -> None:
    for num_tokens in (1, 8, 20):
        state = a_state(num_tokens)
        write_state(tmp_path / "state", state, FINGERPRINT)
        again = read_back(tmp_path / "state")
        assert np.array_equal(again.token_ids, state.token_ids)
        assert all(np.array_equal(got, put) for got, put in zip(again.pages, state.pages, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("kind", ["truncate", "flip", "grow", "overwrite", "random", "folder", "pipe"])
def test_damaged_states_are_refused(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    path = tmp_path / "state"
    write_state(path, a_state(), FINGERPRINT)
    original = path.read_bytes()
    for _ in range(150 if kind not in ("folder", "pipe") else 1):
        path.write_bytes(original)
        damage(kind, path, rng)
        with pytest.raises(StateFileError, match="state"):
            read_back(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": bytes(32)}, "another model"),
        ({"page_bytes": PAGE_BYTES - 1}, "contradict"),
        ({"page_size": 16}, "contradict"),
        ({"max_tokens": 10}, "at most"),
        ({"vocab_size": 10}, "token ids that the model does not have"),
    ],
)
def test_states_of_something_else_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_state(tmp_path / "state", a_state(), FINGERPRINT)
    with pytest.raises(StateFileError, match=message):
        read_back(tmp_path / "state", **changes)


def test_forged_numbers_are_refused(tmp_path: Path) -> None:
    """With a checksum that is right: sizes are believed only where they agree with each other and the file."""
    path = tmp_path / "state"
    rng = random.Random(5)
    numbers = [0, 1, 7, 20, 2**31, 2**61 - 1, 2**64 - 1]
    for _ in range(100):
        head = b"".join(rng.choice(numbers).to_bytes(8, "little") for _ in range(3))
        write_sealed(path, b"quipuST\x01", FINGERPRINT, (head, bytes(rng.randrange(4000))))
        with pytest.raises(StateFileError):
            read_back(path)


def test_a_missing_state_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="No such file"):
        read_back(tmp_path / "none")
    with pytest.raises(StateFileError, match="cannot be written"):
        write_state(tmp_path / "none" / "state", a_state(), FINGERPRINT)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_state(path, a_state(8), FINGERPRINT)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateFileError, match="No space left"):
        write_state(path, a_state(20), FINGERPRINT)
    assert len(read_back(path).token_ids) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_body_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, b"12345678", FINGERPRINT, (bytes(100),))
    assert path.stat().st_size == 100 + OVERHEAD_BYTES
    assert len(read_sealed(path, b"12345678", FINGERPRINT, most_bytes=100)) == 100
    with pytest.raises(SealError, match="at most 99"):
        read_sealed(path, b"12345678", FINGERPRINT, most_bytes=99)
