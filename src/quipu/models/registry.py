"""Which architectures exist: `general.architecture` -> the module that declares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from quipu.errors import UnsupportedModelError
from quipu.gguf import GGUFReader, ModelKeys
from quipu.models import bert, llama, qwen2, qwen2moe, qwen3, qwen3moe
from quipu.models.decoder import Model
from quipu.models.encoder import Encoder

ARCHITECTURES: Mapping[str, Callable[[ModelKeys, GGUFReader], Model | Encoder]] = MappingProxyType(
    {
        "bert": bert.load,
        "llama": llama.load,
        "qwen2": qwen2.load,
        "qwen2moe": qwen2moe.load,
        "qwen3": qwen3.load,
        "qwen3moe": qwen3moe.load,
    }
)


def load_model(reader: GGUFReader) -> Model | Encoder:
    """The model in an open file. Its weights stay views of the mapped file.

    Raises:
        ModelFileError: metadata or tensors are missing, damaged or contradict each other.
        UnsupportedModelError: the architecture, or a variant of it, is not known here.
    """
    keys = ModelKeys(reader.metadata, path=reader.path)
    load = ARCHITECTURES.get(keys.architecture)
    if load is None:
        raise UnsupportedModelError(
            f"{reader.path}: architecture {keys.architecture!r} is not supported; "
            f"{', '.join(sorted(ARCHITECTURES))} are"
        )
    return load(keys, reader)
