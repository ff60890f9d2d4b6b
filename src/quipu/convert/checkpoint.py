"""The folder of a published model: its configuration, and tensors in one or several safetensors files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quipu.convert.safetensors import SafetensorsFile, StoredTensor
from quipu.convert.settings import Settings, read_json
from quipu.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from quipu.gguf.metadata import shorten

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Checkpoint:
    """An open folder.

    Attributes:
        folder: where it lies.
        config: the object in config.json.
        tensors: every tensor, by name.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """
        Raises:
            ModelNotFoundError: the folder, its configuration or a file of weights is missing.
            ModelFileError: a file is damaged, or they contradict each other.
            UnsupportedModelError: there are weights, but not as safetensors.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ModelNotFoundError(f"there is no folder {self.folder}; give the folder of a downloaded model")
        config = self.settings("config.json")
        if config is None:
            raise ModelNotFoundError(f"{self.folder} has no config.json; give the folder of a downloaded model")
        self.config = config
        self._files = self._open_files()
        self.tensors: Mapping[str, StoredTensor] = {name: file.tensors[name] for name, file in self._files.items()}

    def settings(self, *path: str) -> Settings | None:
        """The object in a JSON file of the folder, or None where there is none; raises ModelFileError if damaged."""
        file = self.folder.joinpath(*path)
        value = read_json(file)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ModelFileError(f"{file} holds no JSON object; fetch it again")
        return Settings(file, value)

    def list_settings(self, name: str) -> list[Settings]:
        """The objects of the list in a JSON file of the folder; none where there is no file. Raises as `settings`."""
        file = self.folder / name
        value = read_json(file)
        return Settings(file, {"list": value}).sections("list")

    def pieces(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The values of a tensor, see `SafetensorsFile.pieces`."""
        return self._files[name].pieces(name)

    def child(self, name: str) -> Path | None:
        """The folder `name` in this one; None if the name leads elsewhere or there is none."""
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            return None
        path = self.folder / name
        return path if path.is_dir() else None

    def _open_files(self) -> dict[str, SafetensorsFile]:
        """The file of each tensor."""
        if (self.folder / _SINGLE).is_file():
            file = SafetensorsFile(self.folder / _SINGLE)
            return dict.fromkeys(file.tensors, file)
        index = self.settings(_INDEX)
        if index is None:
            if any((self.folder / name).is_file() for name in _PICKLED):
                raise UnsupportedModelError(
                    f"{self.folder} has its weights as pickle, which can run any code when it is read; use a copy with "
                    "safetensors"
                )
            raise ModelNotFoundError(f"{self.folder} has neither {_SINGLE} nor {_INDEX}; fetch the weights")
        return self._open_shards(index)

    def _open_shards(self, index: Settings) -> dict[str, SafetensorsFile]:
        opened: dict[str, SafetensorsFile] = {}
        files: dict[str, SafetensorsFile] = {}
        for name, file_name in index.section("weight_map").values.items():
            if not isinstance(file_name, str) or Path(file_name).name != file_name or file_name in ("", ".", ".."):
                raise ModelFileError(
                    f"{index.path}: tensor {shorten(name)} is in no file of this folder; fetch it again"
                )
            if file_name not in opened:
                opened[file_name] = SafetensorsFile(self.folder / file_name)
            if name not in opened[file_name].tensors:
                raise ModelFileError(f"{index.path}: {file_name} has no tensor {shorten(name)}; fetch the model again")
            files[name] = opened[file_name]
        for file in opened.values():
            for name in file.tensors:
                if files.get(name) is not file:
                    raise ModelFileError(f"{file.path}: the index does not name tensor {shorten(name)}; fetch it again")
        return files
