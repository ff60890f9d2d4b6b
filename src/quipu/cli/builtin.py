"""Model names on the command line: a path, or one of the small models that come with quipu."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from quipu.errors import ModelNotFoundError

_BUILTIN: Mapping[str, str] = MappingProxyType({"tiny": "tiny-chat-Q8_0.gguf", "tiny-draft": "tiny-draft-Q8_0.gguf"})


def resolve_model(name: str) -> Path:
    """The file that `name` means.

    A file of that name wins over a built-in model. For a sharded model, `name` is its first shard.

    Raises:
        ModelNotFoundError: there is neither; or the built-in model is not part of this installation.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise ModelNotFoundError(f"{name} is a folder; name the GGUF file in it (of several shards, the first)")
    if path.exists():
        return path  # the reader refuses what is not a regular file
    if name in _BUILTIN:
        packaged = Path(str(files("quipu") / "data" / _BUILTIN[name]))
        if packaged.is_file():
            return packaged
        raise ModelNotFoundError(f"this installation has no built-in model {name!r}; give the path of a GGUF file")
    names = ", ".join(_BUILTIN)
    raise ModelNotFoundError(f"there is no file {name!r}; give the path of a GGUF file, or a built-in name ({names})")
