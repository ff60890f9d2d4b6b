"""Models in several files: all shards taken together, and every way in which they do not belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quipu.errors import ModelFileError
from quipu.gguf import GGUFReader, write_gguf
from quipu.gguf.split import shard_paths


def write_shards(folder: Path, changes: Mapping[int, Mapping[str, Any]] | None = None) -> tuple[Path, ...]:
    """Three shards with two tensors each; `changes` replaces metadata of a shard, None removes a key."""
    paths = shard_paths(folder / "model", 3)
    for number, path in enumerate(paths):
        metadata: dict[str, Any] = {"general.name": "first"} if number == 0 else {}
        metadata |= {
            "split.no": np.uint16(number),
            "split.count": np.uint16(3),
            "split.tensors.count": np.int32(6),
            **(changes or {}).get(number, {}),
        }
        tensors = [(f"t.{number}.{index}", np.full(8, 10 * number + index, np.float32)) for index in range(2)]
        write_gguf(path, {key: value for key, value in metadata.items() if value is not None}, tensors)
    return paths


def test_tensors_of_all_shards(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, {1: {"general.alignment": 64}})
    assert paths[1].name == "model-00002-of-00003.gguf"
    with GGUFReader(paths[0]) as reader:
        assert reader.shards == paths
        assert reader.metadata["general.name"] == "first"
        assert list(reader.tensors) == [f"t.{number}.{index}" for number in range(3) for index in range(2)]
        for name, tensor in reader.tensors.items():
            number, index = map(int, name.split(".")[1:])
            assert tensor.shard == number
            assert reader.tensor_data(name).view(np.float32).tolist() == [[10.0 * number + index] * 8]
        assert reader.shard_bytes == tuple(path.stat().st_size for path in paths)
        assert reader.file_bytes == sum(reader.shard_bytes)


def test_shards_through_links_in_one_folder(tmp_path: Path) -> None:
    """As in the cache of the Hugging Face hub, where the files themselves lie elsewhere under other names."""
    paths = write_shards(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "links").mkdir()
    for number, path in enumerate(paths):
        path.rename(tmp_path / "blobs" / str(number))
        (tmp_path / "links" / path.name).symlink_to(tmp_path / "blobs" / str(number))
    with GGUFReader(tmp_path / "links" / paths[0].name) as reader:
        assert len(reader.tensors) == 6


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_shards(tmp_path)
    monkeypatch.chdir(tmp_path)
    with GGUFReader(paths[0].name) as reader:
        assert len(reader.tensors) == 6


def test_a_later_shard_names_the_first(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    with pytest.raises(ModelFileError, match=r"shard 2 of 3; name the first one, .*model-00001-of-00003\.gguf"):
        GGUFReader(paths[1])


def test_missing_shards_are_named(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    paths[2].unlink()
    with pytest.raises(ModelFileError, match=r"1 of its 3 shards are missing: model-00003-of-00003\.gguf; put"):
        GGUFReader(paths[0])
    paths[1].unlink()
    with pytest.raises(ModelFileError, match=r"2 of its 3 shards are missing: model-00002-of-00003\.gguf, model-00003"):
        GGUFReader(paths[0])


def test_thousands_of_missing_shards_make_one_short_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-65535.gguf"
    write_gguf(path, {"split.no": np.uint16(0), "split.count": np.uint16(65535)})
    with pytest.raises(ModelFileError, match="and 65531 more; put them into") as caught:
        GGUFReader(path)
    assert len(str(caught.value)) < 400 + 2 * len(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["model.gguf", "model-00001-of-00002.gguf", "model-00002-of-00003.gguf", "a-1-of-3.gguf"]
)
def test_a_renamed_shard(tmp_path: Path, name: str) -> None:
    paths = write_shards(tmp_path)
    paths[0].rename(tmp_path / name)
    with pytest.raises(ModelFileError, match=r"shard 1 of 3, so its name has to end in -00001-of-00003\.gguf; rename"):
        GGUFReader(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({1: {"split.no": np.uint16(2)}}, r"00002-of-00003\.gguf: split\.no is 2 and split\.count is 3, but"),
        ({2: {"split.count": np.uint16(4)}}, r"00003-of-00003\.gguf: split\.no is 2 and split\.count is 4, but"),
        ({2: {"split.no": None, "split.count": None}}, r"split\.no is -1"),
        ({0: {"split.tensors.count": np.int32(7)}}, r"hold 6 tensors, but split\.tensors\.count is 7"),
        ({0: {"split.tensors.count": np.int32(-1)}}, r"split\.tensors\.count is -1 instead of a whole number"),
        ({0: {"split.count": "3"}}, r"split\.count is '3' instead of a whole number"),
        ({0: {"split.count": True}}, r"split\.count is True instead"),
        ({0: {"split.count": [3] * 1000}}, r"split\.count is a list of 1000 values instead"),
        ({0: {"split.count": 100_000}}, "at most 99999 shards"),
        ({0: {"split.no": 2**40}}, r"this is shard 1099511627777 of 3, so its name"),
    ],
)
def test_shards_that_contradict_one_another(tmp_path: Path, changes: dict[int, dict[str, Any]], needle: str) -> None:
    paths = write_shards(tmp_path, changes)
    with pytest.raises(ModelFileError, match=needle):
        GGUFReader(paths[0])


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    metadata = {"split.no": np.uint16(1), "split.count": np.uint16(3)}
    write_gguf(paths[1], metadata, [("t.0.1", np.ones(8, np.float32))])
    with pytest.raises(ModelFileError, match=r"tensor 't\.0\.1' also stands in model-00001-of-00003\.gguf"):
        GGUFReader(paths[0])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"model-00003-of-00003\.gguf: tensor 't\.2\.1' ends at byte"):
        GGUFReader(paths[0])


@pytest.mark.parametrize("metadata", [{}, {"split.count": np.uint16(0)}, {"split.count": np.uint16(1)}])
def test_a_model_that_is_whole_may_have_any_name(tmp_path: Path, metadata: dict[str, Any]) -> None:
    path = tmp_path / "model-00002-of-00003.gguf"
    write_gguf(path, metadata)
    with GGUFReader(path) as reader:
        assert reader.shards == (path,)
