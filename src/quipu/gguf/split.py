"""Models that are split over several files, named `NAME-00001-of-00003.gguf` and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quipu.errors import ModelFileError
from quipu.gguf.metadata import describe_value

COUNT_KEY = "split.count"
NUMBER_KEY = "split.no"
TENSOR_COUNT_KEY = "split.tensors.count"
MAX_SHARDS = 99_999  # five digits in the name

_SHARD_NAME = re.compile(r"(?P<base>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_MAX_NAMED = 3


def shard_paths(base: str | Path, count: int) -> tuple[Path, ...]:
    """The files of a model in `count` shards, the first one first; `base` is the path without `-00001-of-...`."""
    return tuple(Path(f"{base}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1))


def find_shards(path: Path, metadata: Mapping[str, Any]) -> tuple[Path, ...]:
    """All files of the model whose first file is `path`, which is all there is unless the metadata says otherwise.

    Raises:
        ModelFileError: `path` is a later shard, or misnamed, or a shard is missing; the sentence names the file.
    """
    count = read_split_number(path, metadata, COUNT_KEY, 1)
    if count <= 1:
        return (path,)
    if count > MAX_SHARDS:
        raise ModelFileError(
            f"{path}: {COUNT_KEY} is {count}, but a model has at most {MAX_SHARDS} shards; the file is damaged, "
            "fetch it again"
        )
    number = read_split_number(path, metadata, NUMBER_KEY, 0)
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count or int(match["number"]) != number + 1:
        raise ModelFileError(
            f"{path}: this is shard {number + 1} of {count}, so its name has to end in "
            f"-{number + 1:05d}-of-{count:05d}.gguf; rename it and put all shards into one folder"
        )
    paths = shard_paths(path.with_name(match["base"]), count)
    if number != 0:
        raise ModelFileError(f"{path}: this is shard {number + 1} of {count}; name the first one, {paths[0]}")
    missing = [shard.name for shard in paths if not shard.is_file()]
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise ModelFileError(
            f"{path}: {len(missing)} of its {count} shards are missing: {', '.join(missing[:_MAX_NAMED])}{more}; put "
            f"them into {path.parent}"
        )
    return paths


def check_shard(path: Path, metadata: Mapping[str, Any], number: int, count: int) -> None:
    """Check that the file at `path` is shard `number` (from 0) of `count`.

    Raises:
        ModelFileError: its metadata says something else.
    """
    found_number = read_split_number(path, metadata, NUMBER_KEY, -1)
    found_count = read_split_number(path, metadata, COUNT_KEY, -1)
    if (found_number, found_count) != (number, count):
        raise ModelFileError(
            f"{path}: {NUMBER_KEY} is {found_number} and {COUNT_KEY} is {found_count}, but the name says shard "
            f"{number + 1} of {count}, which is {number} and {count}; fetch this shard again"
        )


def check_tensor_count(path: Path, metadata: Mapping[str, Any], num_tensors: int) -> None:
    """Check the number of tensors in all shards against what the first shard says.

    Raises:
        ModelFileError: they differ.
    """
    expected = read_split_number(path, metadata, TENSOR_COUNT_KEY, num_tensors)
    if num_tensors != expected:
        raise ModelFileError(
            f"{path}: its shards hold {num_tensors} tensors, but {TENSOR_COUNT_KEY} is {expected}; they belong to "
            "different models or are damaged, fetch all of them again"
        )


def read_split_number(path: Path, metadata: Mapping[str, Any], key: str, default: int) -> int:
    """The whole number stored under `key`, or `default` where there is none.

    Raises:
        ModelFileError: the value is not a whole number from 0 on.
    """
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or (value < 0 and key in metadata):
        raise ModelFileError(
            f"{path}: {key} is {describe_value(value)} instead of a whole number; the file is damaged, fetch it again"
        )
    return value
